"""Certificates for a lab: an authority, and what it issues to nodes and clients.

Keys are ECDSA on P-256, without passphrase, in files of mode 0600. In earnest an
authority's key does not lie beside the nodes: see the manual.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from txraft.errors import ConfigError
from txraft.transport.identity import is_ip_address

CA_NAME = "ca.pem"
CA_KEY_NAME = "ca.key"
CA_DAYS = 3650
NODE_DAYS = 365
_BACKDATED = timedelta(minutes=5)
_MAX_COMMON_NAME = 64


def init_authority(directory: Path, days: int = CA_DAYS) -> tuple[Path, Path]:
    """Make an authority in *directory*, which is created with mode 0700.

    Returns: the paths of its certificate and its key.
    Raises: ConfigError when there is one already.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("txraft cluster authority")
    builder = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    _write_key(directory / CA_KEY_NAME, key)
    _write(directory / CA_NAME, certificate.public_bytes(_PEM), 0o644)
    return directory / CA_NAME, directory / CA_KEY_NAME


def issue_certificate(
    directory: Path,
    names: Sequence[str],
    *,
    client_only: bool = False,
    days: int = NODE_DAYS,
) -> tuple[Path, Path]:
    """Issue a certificate for *names*, host names and IP addresses.

    The first one names the files. *client_only* makes one for a client of HTTP,
    which no peer accepts as a peer's.
    Returns: the paths of certificate and key.
    Raises: ConfigError without an authority in *directory*, or over other files.
    """
    if not names or any(not name or "/" in name for name in names):
        raise ConfigError(["a certificate needs names: host names or IP addresses"])
    authority, authority_key = _read_authority(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if not client_only:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(names[0]), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(_alternative_names(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.public_key()
            ),
            critical=False,
        )
    )
    certificate = builder.sign(authority_key, hashes.SHA256())
    stem = names[0].replace(":", "_")
    _write_key(directory / f"{stem}.key", key)
    _write(directory / f"{stem}.pem", certificate.public_bytes(_PEM), 0o644)
    return directory / f"{stem}.pem", directory / f"{stem}.key"


_PEM = serialization.Encoding.PEM


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    name = common[:_MAX_COMMON_NAME]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [
            x509.IPAddress(ip_address(name))
            if is_ip_address(name)
            else x509.DNSName(name)
            for name in names
        ]
    )


def _read_authority(
    directory: Path,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((directory / CA_NAME).read_bytes())
        key = serialization.load_pem_private_key(
            (directory / CA_KEY_NAME).read_bytes(), None
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"{directory}: no authority can be read there ({error}); make one first"]
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError([f"{directory / CA_KEY_NAME}: it is not an ECDSA key"])
    return certificate, key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoded = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, encoded, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise ConfigError(
            [f"{path}: it exists already; nothing is replaced"]
        ) from error
    with open(file, "wb") as opened:
        opened.write(data)
