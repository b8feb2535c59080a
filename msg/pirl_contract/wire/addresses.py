"""Addresses and tokens as people write them, checked before a library sees them: its own errors name neither."""

from __future__ import annotations

import ipaddress
import os
import re

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""variables that gRPC would obey; our client connects straight to its server"""
MAX_PORT = 65535
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "xds:")
"""names of gRPC itself, whose rest is its own affair"""
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9_.-]+")


def target(address: str) -> str:
    """Return a server's address as gRPC takes it: host:port, [::1]:port for IPv6.

    Raises ValueError that shows the address and says how to write it.
    """
    text = address.strip()
    if text.startswith(_SCHEMES):
        return text
    host, port = _split(text, address)
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= MAX_PORT:
        raise _wrong(address, f"port '{port}' must be 1 to {MAX_PORT}")
    return f"[{host}]:{int(port)}" if ":" in host else f"{host}:{int(port)}"


def bind_host(host: str) -> str:
    """Return a host to listen on as sockets take it: ::1 for [::1]. Raises ValueError that shows the host."""
    text = host.strip()
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if inner == "" or _is_ipv6(inner) or (_HOST.fullmatch(inner) and inner == text):
        return inner
    raise ValueError(
        f"host {host!r} must be a name or an address alone, such as 0.0.0.0 or ::1: no port, no slash, no http://"
    )


def bearer_token(token: str) -> str:
    """Return the token without the line end of the file it was read from. Raises ValueError, never with the token."""
    text = token.strip()
    if not text:
        raise ValueError("the token is empty: give the one that `pirl token create` printed, or none at all")
    if text.lower().startswith(("bearer ", "api-key ")):
        raise ValueError("the token begins with a scheme: give it without 'Bearer' in front")
    if wrong := next((index for index, each in enumerate(text) if not "!" <= each <= "~"), None):
        kind = "space or line end" if text[wrong].isspace() else "character that is not ASCII"
        raise ValueError(f"the token has a {kind} at place {wrong + 1} of {len(text)}: copy it again, in one piece")
    return text


def proxy_note() -> str:
    """What to add to an error of a lost connection; '' when no proxy is set up."""
    found = [name for name in PROXIES if os.environ.get(name)]
    return f" ({', '.join(found)} is set and not used here: clients connect straight to the server)" if found else ""


def _split(text: str, address: str) -> tuple[str, str]:
    if _URL.match(text) or "/" in text:
        raise _wrong(address, "it is no URL: leave out 'http://' and every slash")
    if any(each.isspace() for each in text):
        raise _wrong(address, "it contains a space")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not _is_ipv6(host) or not port.startswith(":"):
            raise _wrong(address, "brackets hold an IPv6 address, and :port follows them")
        return host, port[1:]
    if text.count(":") > 1:
        hint = (
            "IPv6 needs brackets and a port" if _is_ipv6(text) or _is_ipv6(text.rpartition(":")[0]) else "too many ':'"
        )
        raise _wrong(address, hint)
    host, colon, port = text.partition(":")
    if not colon:
        raise _wrong(address, "the port is missing")
    if not _HOST.fullmatch(host):
        raise _wrong(address, "the host must be a name or an address")
    return host, port


def _wrong(address: str, why: str) -> ValueError:
    return ValueError(f"address {address[:200]!r}: {why}; write host:port as in 10.0.0.5:50051, or [::1]:50051")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
