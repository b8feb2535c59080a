"""Access to the policy server: address, certificates, token and image encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pirl_contract.client import Tls
from pirl_ros.adapters.parameters import declare


def declare_access(node: Any) -> None:
    """Declare what `read_access` reads."""
    declare(node, "token_file", "", "file with the token printed by `pirl token create`; empty: no token is sent")
    declare(node, "tls_ca", "", "PEM file of the CA that signed the server's certificate; empty: no TLS")
    declare(node, "tls_cert", "", "PEM file of this robot's certificate, for a server that requires mTLS")
    declare(node, "tls_key", "", "PEM file of the private key of tls_cert")
    declare(node, "encoding", "auto", "image encoding: auto (shared memory on the same host), rgb8, jpeg or png")


def read_access(node: Any) -> dict[str, Any]:
    """Return keywords of `PolicyClient`. ValueError for a token file that cannot be read or is empty."""
    values = {name: node.get_parameter(name).value for name in ("token_file", "tls_ca", "tls_cert", "tls_key")}
    ca, cert, key = (Path(values[name]) if values[name] else None for name in ("tls_ca", "tls_cert", "tls_key"))
    if ca is None and (cert or key):
        raise ValueError("tls_cert and tls_key need tls_ca, the CA of the server's certificate")
    return {
        "token": _token(values["token_file"]),
        "tls": None if ca is None else Tls(roots=ca, certificate=cert, key=key),
        "encoding": node.get_parameter("encoding").value,
    }


def _token(path: str) -> str | None:
    if not path:
        return None
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"token_file '{path}' cannot be read: {error.strerror}") from None
    if not token:
        raise ValueError(f"token_file '{path}' is empty: write the token printed by `pirl token create` into it")
    return token
