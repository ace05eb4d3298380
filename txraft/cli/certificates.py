"""Make an authority for a test cluster, and issue certificates to nodes and clients.

Keys are ECDSA on P-256, without passphrase, in files of mode 0600. In production the
authority's key does not lie beside the nodes: see the manual. Certificates pass the
strict checks of Python, OpenSSL and Go.

Source: RFC 5280, §4.2.1
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from txraft.cli.files import create_file
from txraft.errors import ConfigError
from txraft.transport.identity import is_ip_address

CA_NAME = "ca.pem"
CA_KEY_NAME = "ca.key"
CA_DAYS = 3650
NODE_DAYS = 365
MAX_DAYS = 36_500
"""More than any key should be trusted, and dates far behind it cannot be written."""

_BACKDATED = timedelta(minutes=5)
_MAX_COMMON_NAME = 64


def init_authority(directory: Path, days: int = CA_DAYS) -> tuple[Path, Path]:
    """Make an authority in *directory*, which is created with mode 0700.

    Returns: the paths of its certificate and its key.
    Raises: ConfigError when there is one already, or a part of one; OSError when it
        cannot be written, and then nothing of it is left.
    """
    certificate_path, key_path = directory / CA_NAME, directory / CA_KEY_NAME
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("txraft cluster authority")
    builder = (
        _builder(subject, subject, key.public_key(), _validity(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
    )
    certificate = builder.sign(key, hashes.SHA256())
    _write_pair(certificate_path, certificate, key_path, key)
    return certificate_path, key_path


def issue_certificate(
    directory: Path,
    names: Sequence[str],
    *,
    client_only: bool = False,
    days: int = NODE_DAYS,
) -> tuple[Path, Path]:
    """Issue a certificate for *names*, host names and IP addresses.

    The first name is also that of the files. With *client_only* it is for a client of
    HTTP, and no peer accepts it as a peer's.
    Returns: the paths of certificate and key.
    Raises: ConfigError if *directory* has no authority, or if one of the files exists;
        OSError when they cannot be written, and then neither is left.
    """
    _check_names(names)
    authority = _Authority.read(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if not client_only:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    certificate = authority.sign(
        key.public_key(),
        _name(names[0]),
        _alternative_names(names),
        x509.ExtendedKeyUsage(uses),
        days,
    )
    certificate_path, key_path = _paths(directory, names[0])
    _write_pair(certificate_path, certificate, key_path, key)
    return certificate_path, key_path


def renew_certificate(
    directory: Path, names: Sequence[str], *, days: int = NODE_DAYS
) -> tuple[Path, datetime]:
    """Renew the certificate that was issued for *names*; the first name is enough.

    Names, uses and key stay as they are. Because the key is the same, only one file is
    replaced, and certificate and key match at every moment.
    Returns: the path of the certificate, and when the new one expires.
    Raises: ConfigError, and nothing is replaced, if *directory* has no authority, if
        another authority issued the certificate, or if the key is not its key;
        OSError when the new one cannot be written.
    Durable: the new certificate, in the place of the old one.
    """
    _check_names(names)
    authority = _Authority.read(directory)
    path, key_path = _paths(directory, names[0])
    old = _read_issued(path)
    found = _names_in(old)
    if len(names) > 1 and set(map(_comparable, names)) != set(map(_comparable, found)):
        raise ConfigError(
            [
                f"{path}: it is for {', '.join(found)}, and --renew changes no names; "
                "leave them out, or move it and its key away and issue a new one"
            ]
        )
    authority.check_issued(old, path)
    if _read_key(key_path).public_key() != old.public_key():
        raise ConfigError(
            [
                f"{key_path}: it is not the key of {path.name}; bring the right one "
                "back, or move both away and issue a new certificate"
            ]
        )
    new = authority.sign(
        old.public_key(),
        old.subject,
        old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
        old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value,
        days,
    )
    _replace(path, new.public_bytes(_PEM))
    return path, new.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class _Authority:
    """The certificate of an authority, and the key that it signs with."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, directory: Path) -> _Authority:
        """Read the authority in *directory*. Raises: ConfigError"""
        path = directory / CA_NAME
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            key = _read_key(directory / CA_KEY_NAME)
        except (OSError, ValueError) as error:
            why = f"no authority can be read there ({error}); make one first"
            raise ConfigError([f"{directory}: {why}"]) from error
        return cls(path, certificate, key)

    def sign(
        self,
        key: CertificatePublicKeyTypes,
        subject: x509.Name,
        names: x509.SubjectAlternativeName,
        uses: x509.ExtendedKeyUsage,
        days: int,
    ) -> x509.Certificate:
        """Issue a certificate that does not outlive this authority.

        Raises: ConfigError when the authority has expired.
        """
        end = self.certificate.not_valid_after_utc
        begin_and_end = _validity(days, end)
        if end <= datetime.now(UTC):
            raise ConfigError(
                [
                    f"{self.path}: the authority has expired on {end:%Y-%m-%d}; make "
                    "another one with `txraft tls init` in a directory of its own"
                ]
            )
        builder = (
            _builder(subject, self.certificate.subject, key, begin_and_end)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(uses, critical=False)
            .add_extension(names, critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def check_issued(self, certificate: x509.Certificate, path: Path) -> None:
        """Refuse a *certificate* of another authority. Raises: ConfigError"""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(
                [
                    f"{path}: it is not from the authority {self.path}; have that one "
                    "renew it which has issued it"
                ]
            ) from error

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        """Return the identifier of our key as our own certificate has it."""
        try:
            own = self.certificate.extensions.get_extension_for_class(
                x509.SubjectKeyIdentifier
            ).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(
                self.key.public_key()
            )
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


_PEM = serialization.Encoding.PEM


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(identifier, critical=False)
    )


def _validity(days: int, most: datetime | None = None) -> tuple[datetime, datetime]:
    """Return begin and end: from a little before now, to *most* at the latest."""
    # Backdated for clocks that are behind. It must not outlive its authority: verifiers
    # check the whole chain, so it would end earlier than its own date says, and a
    # warning that goes by that date would come too late.
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return now - _BACKDATED, end if most is None else min(end, most)


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    stem = name.replace(":", "_")
    return directory / f"{stem}.pem", directory / f"{stem}.key"


def _check_names(names: Sequence[str]) -> None:
    if not names or any(not name or "/" in name for name in names):
        raise ConfigError(["a certificate needs names: host names or IP addresses"])
    problems = [
        f"{name!r} is not in ASCII, as names in certificates are; write it as DNS has "
        "it, with xn--"
        for name in names
        if not name.isascii()
    ]
    if problems:
        raise ConfigError(problems)


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


def _comparable(name: str) -> str:
    """Return the same text for every way to write *name*."""
    return str(ip_address(name)) if is_ip_address(name) else name.lower()


def _names_in(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    return [str(name.value) for name in names]


def _read_issued(path: Path) -> x509.Certificate:
    """Read a certificate made by `issue_certificate`. Raises: ConfigError"""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage):
            certificate.extensions.get_extension_for_class(kind)
    except OSError as error:
        why = f"it cannot be read ({error.strerror}); issue one without --renew"
        raise ConfigError([f"{path}: {why}"]) from error
    except (ValueError, x509.ExtensionNotFound) as error:
        why = "it is no certificate that was issued here; move it away and issue one"
        raise ConfigError([f"{path}: {why}"]) from error
    return certificate


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError([f"{path}: the key cannot be read: {error}"]) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError([f"{path}: it is not an ECDSA key"])
    return key


def _write_pair(
    certificate_path: Path,
    certificate: x509.Certificate,
    key_path: Path,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    """Write both files or none. Raises: ConfigError if one exists; OSError"""
    # Both before the first is written: a new key beside an old certificate would look
    # like a pair, and be none.
    for path in (key_path, certificate_path):
        if os.path.lexists(path):
            raise _exists(path)
    encoded = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_path, encoded, 0o600)
    try:
        _write(certificate_path, certificate.public_bytes(_PEM), 0o644)
    except BaseException:
        key_path.unlink(missing_ok=True)  # it would be in the way of the next attempt
        raise


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        file = create_file(path, mode)
    except FileExistsError as error:
        raise _exists(path) from error
    try:
        with file:
            file.write(data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _exists(path: Path) -> ConfigError:
    return ConfigError([f"{path}: it exists already; nothing is replaced"])


def _replace(path: Path, data: bytes) -> None:
    """Replace the contents of the file *path* in one step; its mode stays."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)  # of a renewal that was cut short
    mode = path.stat().st_mode & 0o777
    with create_file(unfinished, mode) as file:
        os.fchmod(file.fileno(), mode)  # the umask took bits from it
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    # A node that rereads its files sees the old certificate or the new one, never a
    # part; so does one that starts after a power failure, as the data was synced
    # before.
    unfinished.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
