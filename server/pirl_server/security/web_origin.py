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
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name != "localhost"
    return False
