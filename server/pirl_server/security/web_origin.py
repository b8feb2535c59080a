"""Rejects cross-origin browser calls while the server requires no token: they could drive robots."""

from __future__ import annotations

import ipaddress


def is_from_a_page(host: str, origin: str | None, fetch: str | None = None) -> bool:
    """Say whether a browser sends this for a page of another site, or of a site that renamed itself to this address.

    `host` and `origin` are the headers; None: there is none. `fetch` is Sec-Fetch-Site, which also names the site of
    calls without an origin, such as those for an image.
    """
    if fetch in ("cross-site", "same-site"):  # the latter: another port of this machine
        return True
    if origin is not None and origin.partition("://")[2] != host:
        return True
    try:
        ipaddress.ip_address(host_name(host).strip("[]"))
    except ValueError:
        return host_name(host) != "localhost"
    return False


def is_neighbour(host: str, origin: str, port: int) -> bool:
    """Say whether the page comes from another port of the host that it calls: from `port`."""
    return origin.partition("://")[2] == f"{host_name(host)}:{port}"


def host_name(host: str) -> str:
    """Return a Host header without its port: 127.0.0.1, [::1], robot-server."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host
