"""Certificates, read and checked when the server starts, and again at the first handshake after a file has changed.

A changed file that can't be used is logged, and the certificate of before serves on: the two files of a renewal are not
replaced in one step.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LOG = logging.getLogger(__name__)
Made = TypeVar("Made")


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

    def expiries(self) -> Callable[[], dict[str, float]]:
        """Make a function that returns when the certificates in use run out, `server` and `client_ca`: Unix time.

        Of each file the certificate counts that does so first. Raises ValueError as `check` does.
        """
        current = _Current(self, self._expiries)

        def now() -> dict[str, float]:
            current.renewed()
            return current.made

        return now

    def for_grpc(self) -> grpc.ServerCredentials:
        """Make what `server.add_secure_port` takes. Raises ValueError as `check` does."""
        current = _Current(self, self._grpc_configuration)
        return grpc.dynamic_ssl_server_credentials(current.made, current.renewed, self.client_ca is not None)

    def context(self) -> ssl.SSLContext:
        """Make what asyncio's servers take. Raises ValueError as `check` does."""
        current = _Current(self, self._context)

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            current.renewed()
            connection.context = current.made

        made = self._context()  # called for each handshake, whether the client names a server or not
        made.sni_callback = choose
        return made

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when a file does."""
        return tuple(_stamp(path) for path in (self.cert, self.key, self.client_ca) if path is not None)

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        self.check()
        ca = _bytes(self.client_ca) if self.client_ca else None
        return grpc.ssl_server_certificate_configuration([(_bytes(self.key), _bytes(self.cert))], ca)

    def _expiries(self) -> dict[str, float]:
        self.check()
        files = {"server": self.cert} | ({"client_ca": self.client_ca} if self.client_ca else {})
        return {
            name: min(certificate.not_valid_after_utc.timestamp() for certificate in _certificates(path))
            for name, path in files.items()
        }

    def _context(self) -> ssl.SSLContext:
        self.check()
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        made.load_cert_chain(self.cert, self.key)
        made.verify_mode = ssl.CERT_REQUIRED if self.client_ca else ssl.CERT_NONE
        return made


class _Current(Generic[Made]):
    """What was made of the files as they are now, or were when they could last be used."""

    def __init__(self, files: TlsFiles, make: Callable[[], Made]) -> None:
        self._files, self._make, self._lock = files, make, threading.Lock()
        self._stamp = files.stamp()
        self.made = make()

    def renewed(self) -> Made | None:
        """Return what was made of changed files, None where nothing has changed or can be used."""
        with self._lock:
            if (stamp := self._files.stamp()) == self._stamp:
                return None
            self._stamp = stamp
            try:
                self.made = self._make()
            except (ValueError, OSError) as error:
                _LOG.error("the certificate of before serves on: %s", error)
                return None
            _LOG.warning("certificate %s was read again", self._files.cert)
            return self.made


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


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
