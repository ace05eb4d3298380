"""Certificates of every kind that a peer must not have, and those that it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


class Forge:
    """Makes certificates in *directory*, by default signed by the cluster's *ca*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self._made = 0

    def issue(
        self,
        *names: str,
        ca: trustme.CA | None = None,
        uses: Sequence[x509.ObjectIdentifier] | None = BOTH,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        common_name: str = "nobody",
        is_ca: bool = False,
        self_signed: bool = False,
    ) -> Pair:
        """Issue a certificate for *names*; without any it has a common name alone."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        signer, issuer = key, subject
        if not self_signed:
            signer, issuer = _signer(ca or self.ca)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if names:
            san = x509.SubjectAlternativeName([_general(name) for name in names])
            builder = builder.add_extension(san, critical=False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if not self_signed:  # Python 3.13 refuses a certificate without it
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
                signer.public_key()
            )
            builder = builder.add_extension(identifier, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        return self._write(certificate.public_bytes(PEM), key)

    def cross_signed(self, by: trustme.CA, ends: timedelta) -> bytes:
        """Return the PEM of a certificate with which *by* vouches for *ca*."""
        key, subject = _signer(self.ca)
        signer, issuer = _signer(by)
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 9 * DAY)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(signer, hashes.SHA256())
        )
        return certificate.public_bytes(PEM)

    def _write(self, pem: bytes, key: ec.EllipticCurvePrivateKey) -> Pair:
        self._made += 1
        pair = Pair(
            self.directory / f"{self._made}.pem", self.directory / f"{self._made}.key"
        )
        pair.certificate.write_bytes(pem)
        pair.key.touch(0o600)
        pair.key.write_bytes(
            key.private_bytes(
                PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair


def _signer(ca: trustme.CA) -> tuple[ec.EllipticCurvePrivateKey, x509.Name]:
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key, x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject


def _general(name: str) -> x509.GeneralName:
    if name.startswith("raft://"):
        return x509.UniformResourceIdentifier(name)
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
