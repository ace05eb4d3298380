"""OpenSSL contexts from files: certificates and keys, TLS versions, ciphers, checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from txraft.errors import ConfigError
from txraft.reasons import reason_of
from txraft.transport.peer import PeerProtocol
from txraft.transport.validity import ends_of, utc_now

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
DEFAULT_VERSION = "1.2"
MAX_PEM_BYTES = 1 << 20
# For TLS 1.2 only; those of 1.3 are all good. Forward secrecy and AEAD, nothing else.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_OTHERS_MAY_READ = 0o077
_ALERT_WRITTEN = 0x4008  # SSL_CB_WRITE_ALERT
_NO_RENEGOTIATION = 100  # the alert of RFC 5246, 7.2.2
_FLIGHTS = 4
"""More rounds than any handshake has."""

OPEN_TO_OTHERS = "other users may read the private key; chmod 600 it"

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)

_PROBLEMS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself",
    19: "its certificate is from an authority that is not the cluster's",
    20: "its certificate is from an authority that is not the cluster's",
    21: "its certificate is from an authority that is not the cluster's",
    24: "its certificate is from one that is no authority",
    26: "its certificate is not for this use",
    79: "its certificate is from one that is no authority",
}
"""The problem with a certificate in words, by OpenSSL's number of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """Paths of the certificate, private key and authorities, all in PEM."""

    certificate: str
    private_key: str
    ca: str | None
    minimum_version: str = DEFAULT_VERSION


class Contexts:
    """The client and server contexts made of *files*.

    With authorities, a certificate of the other side must be issued by one of them;
    with *required* it must show a certificate.
    *ends* maps settings to the time when their certificates expire, as `ends_of` does.
    *warnings* lists problems that do not prevent use, except certificates that expire.
    Raises: ConfigError, naming the file at fault.
    """

    def __init__(self, files: TLSFiles, *, required: bool = True) -> None:
        chain = load_certificates(files.certificate)
        self.certificate = chain[0]
        self.client = _context(files, required)
        self.server = _context(files, required)
        authorities = [] if files.ca is None else load_certificates(files.ca)
        self.ends = ends_of(chain, authorities)
        now = utc_now()
        self.not_valid_now = _not_valid_now(self.certificate, files.certificate, now)
        self.warnings = []
        if self.not_valid_now and now < self.certificate.not_valid_before_utc:
            self.warnings.append(self.not_valid_now)
        if is_open_to_others(files.private_key):
            self.warnings.append(f"{files.private_key}: {OPEN_TO_OTHERS}")


def load_certificates(path: str) -> list[x509.Certificate]:
    """Read the certificates in the PEM file *path*. Raises: ConfigError"""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise ConfigError(
            [
                f"{path}: it is not a certificate in PEM; name a file with "
                "-----BEGIN CERTIFICATE-----"
            ]
        ) from error


def load_key(path: str) -> PrivateKey:
    """Read the private key in the PEM file *path*.

    A key with a passphrase is refused: OpenSSL would ask for it on the terminal, and a
    daemon has none.
    Raises: ConfigError
    """
    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise ConfigError(
            [
                f"{path}: it has a passphrase, which a node cannot ask for; write it "
                "without, with mode 600 (openssl pkey -in FILE -out NEW)"
            ]
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            [
                f"{path}: it is not PEM of the right kind; name a file with "
                "-----BEGIN PRIVATE KEY-----"
            ]
        ) from error
    if not isinstance(key, PrivateKey):
        raise ConfigError([f"{path}: it is not a key for TLS"])
    return key


def is_open_to_others(path: str) -> bool:
    """Tell whether users other than the owner have any access to the file *path*."""
    return bool(os.stat(path).st_mode & _OTHERS_MAY_READ)


def refusal_between(server: SSL.Context, client: SSL.Context) -> str | None:
    """Try a handshake between *client* and *server* in memory.

    Returns: the reason why one refuses the other, None if they agree.
    """
    judged = Judged()
    one, other = SSL.Connection(client, None), SSL.Connection(server, None)
    one.set_connect_state()
    other.set_accept_state()
    for side in (one, other):
        side.set_app_data(SimpleNamespace(wrappedProtocol=judged))
        side.set_verify(side.get_verify_mode(), _verified)  # it tells *judged* why
    for side, opposite in _FLIGHTS * ((one, other), (other, one)):
        try:
            with suppress(SSL.WantReadError):
                side.do_handshake()
        except SSL.Error as error:
            return judged.problem or reason_of(error)
        with suppress(SSL.WantReadError):
            opposite.bio_write(side.bio_read(MAX_PEM_BYTES))
    return None


class Judged:
    """A protocol whose peer's certificates are being checked.

    *problem* is the first problem that was found.
    """

    problem: str | None = None


def _context(files: TLSFiles, required: bool) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(VERSIONS[files.minimum_version])
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION
    )
    # A resumed session would skip the check of the certificate, so a connection would
    # outlive a certificate that was replaced or has expired.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    context.set_info_callback(_told)
    # Loaded by us: OpenSSL would ask the terminal for a passphrase and hang a daemon.
    key = load_key(files.private_key)
    _with(files.certificate, context.use_certificate_chain_file)
    _with(files.private_key, lambda _: context.use_privatekey(key))
    if files.ca is not None:
        _with(files.ca, context.load_verify_locations)
        wanted = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0
        context.set_verify(SSL.VERIFY_PEER | wanted, _verified)
    return context


def _verified(
    connection: SSL.Connection,
    certificate: crypto.X509,
    number: int,
    depth: int,
    ok: int,
) -> bool:
    """Record the first problem with a chain, and return OpenSSL's own decision."""
    if not ok:
        handshake = connection.get_app_data().wrappedProtocol
        problem = _PROBLEMS.get(number, f"its certificate is refused (code {number})")
        if isinstance(handshake, Judged) and handshake.problem is None:
            handshake.problem = problem
    return bool(ok)


def _not_valid_now(
    certificate: x509.Certificate, path: str, now: datetime
) -> str | None:
    if certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return None
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"{path}: it is valid from {begin} to {end}, which is not now"


def _told(connection: SSL.Connection, where: int, value: int) -> None:
    """Close a connection whose request to renegotiate OpenSSL has just refused.

    It is closed in the next turn of the reactor, because OpenSSL is still at work on
    it.
    """
    if where == _ALERT_WRITTEN and value & 0xFF == _NO_RENEGOTIATION:
        protocol = connection.get_app_data().wrappedProtocol
        if isinstance(protocol, PeerProtocol):
            protocol.refuse_soon("it asked to renegotiate")


def _with(path: str, load: Callable[[str], None]) -> None:
    try:
        load(path)
    except (SSL.Error, OSError) as error:
        if not os.access(path, os.R_OK):
            what = "it cannot be read"
        elif "mismatch" in str(error):
            what = "it is not the key of the certificate"
        else:
            what = "it is not PEM of the right kind"
        raise ConfigError([f"{path}: {what}"]) from error


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise ConfigError(
            [
                f"{path}: it cannot be read: {error.strerror}; correct the path, or "
                "let the user of the node read it"
            ]
        ) from error
