"""Certificates, read and checked when the server starts, not when the first robot fails to connect."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With `client_ca` only clients with a certificate of that authority may connect (mutual TLS)."""

    cert: Path
    """the server's certificate first, then those that lead to its authority"""
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Raise ValueError for an unreadable file, a key of another certificate, a certificate out of its time."""
        chain = _certificates(self.cert)
        for certificate in chain:
            _check_time(self.cert, certificate)
        try:
            key = load_pem_private_key(_bytes(self.key), password=None)
        except TypeError:
            raise ValueError(f"key {self.key} is encrypted: store it without a passphrase, mode 600") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(f"key {self.key} is not a PEM private key") from None
        if key.public_key() != chain[0].public_key():
            raise ValueError(f"key {self.key} does not belong to the first certificate of {self.cert}")
        if self.client_ca is not None:
            for certificate in _certificates(self.client_ca):
                _check_time(self.client_ca, certificate)

    def for_grpc(self) -> grpc.ServerCredentials:
        """Make what `server.add_secure_port` takes. Raises ValueError as `check` does."""
        self.check()
        ca = _bytes(self.client_ca) if self.client_ca else None
        return grpc.ssl_server_credentials([(_bytes(self.key), _bytes(self.cert))], ca, ca is not None)

    def context(self) -> ssl.SSLContext:
        """Make what asyncio's servers take. Raises ValueError as `check` does."""
        self.check()
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        made.load_cert_chain(self.cert, self.key)
        made.verify_mode = ssl.CERT_REQUIRED if self.client_ca else ssl.CERT_NONE
        return made

    def for_uvicorn(self) -> dict[str, Any]:
        """Return the keywords of uvicorn.Config."""
        files: dict[str, Any] = {"ssl_certfile": str(self.cert), "ssl_keyfile": str(self.key)}
        return files | (
            {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED} if self.client_ca else {}
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} holds no PEM certificate ({error})") from None


def _check_time(path: Path, certificate: x509.Certificate) -> None:
    now, name = datetime.now(timezone.utc), certificate.subject.rfc4514_string()
    if now >= certificate.not_valid_after_utc:
        raise ValueError(f"{path}: the certificate of {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if now < certificate.not_valid_before_utc:
        raise ValueError(f"{path}: the certificate of {name} is not valid before {certificate.not_valid_before_utc}")
