"""Addresses the server may listen on, given its certificate and tokens."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Any

_LOG = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Say whether every address of the host is this machine's own. Raises ValueError when the name is unknown."""
    return all(ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in _addresses(host))


def check_local(host: str) -> None:
    """Raise ValueError unless this machine can listen on every address of the host, whatever the port."""
    for family, kind, _, _, address in _addresses(host):
        try:
            with socket.socket(family, kind) as probe:
                probe.bind((address[0], 0, *address[2:]))
        except OSError as error:
            raise ValueError(
                f"host '{host}' is no address of this machine ({error.strerror}): choose another one with --host"
            ) from None


def _addresses(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ValueError(f"host '{host}' can't be resolved ({error}): choose another one with --host") from None


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
