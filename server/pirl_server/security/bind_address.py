"""Addresses the server may listen on, given its certificate and tokens."""

from __future__ import annotations

import ipaddress
import logging
import socket

_LOG = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Say whether every address of the host is this machine's own. Raises ValueError when the name is unknown."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host '{host}' can't be resolved ({error}): choose another one with --host") from None
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)


def check_bind(host: str, *, tls: bool, tokens: bool, allow_insecure: bool) -> None:
    """Reject an address that other machines reach unless it is encrypted and authenticated.

    Raises ValueError with what is missing. `allow_insecure` lets it pass with a warning, for development.
    """
    missing = [] if tls else ["a certificate (--tls-cert, --tls-key)"]
    missing += [] if tokens else ["tokens (pirl token create)"]
    if not missing or is_loopback(host):
        return
    if not allow_insecure:
        raise ValueError(
            f"host {host} is reachable from other machines, which requires {' and '.join(missing)};"
            " for development on an isolated network use --allow-insecure"
        )
    _LOG.warning("host %s is reachable from other machines without %s", host, " or ".join(missing))
