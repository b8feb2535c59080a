"""Certificates of an authority of our own, made for one test."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = ("127.0.0.1", "::1")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass
class Issued:
    """PEM files of one certificate."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates for 127.0.0.1; its own is `cert`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(exist_ok=True)
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(self._sign(self._key, name, authority=True, days=(-1, 30)))

    def issue(self, name: str, days: tuple[int, int] = (-1, 30)) -> Issued:
        """Make a certificate that is valid from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = Issued(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        issued.cert.write_bytes(self._sign(key, name, authority=False, days=days))
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        issued.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return issued

    def _sign(self, key: ec.EllipticCurvePrivateKey, name: str, authority: bool, days: tuple[int, int]) -> bytes:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ip)) for ip in LOOPBACK]), False
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
