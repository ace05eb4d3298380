"""HTTPS of a client: the authorities it trusts, and the certificate it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from txraft.errors import ConfigError

MAX_PEM_BYTES = 1 << 20


@implementer(IPolicyForHTTPS)
@dataclass(frozen=True)
class ClientTLS:
    """The PEM files of a client, read once.

    A node must show a certificate for its host name, issued by an authority in *ca*, or
    without *ca* by one that the system trusts. *certificate*, with its *private_key*,
    is shown to nodes.

    Raises: ConfigError when a file cannot be used.
    """

    ca: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    _authorities: list[Certificate] = field(init=False, repr=False)
    _own: Mapping[str, object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError(["a certificate and its private key come together"])
        try:
            object.__setattr__(self, "_authorities", self._read_authorities())
            object.__setattr__(self, "_own", self._read_own())
        except (OSError, TypeError, ValueError, crypto.Error) as error:
            raise ConfigError([f"a file for TLS cannot be used: {error}"]) from error

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """Make the TLS options for a connection to *hostname*."""
        authorities = self._authorities
        trust = trustRootFromCertificates(authorities) if authorities else None
        return optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=trust,
            extraCertificateOptions=dict(self._own),
        )

    def _read_authorities(self) -> list[Certificate]:
        if self.ca is None:
            return []
        found = x509.load_pem_x509_certificates(_read(self.ca))
        return [Certificate(crypto.X509.from_cryptography(each)) for each in found]

    def _read_own(self) -> Mapping[str, object]:
        """Read the certificate and key that are shown to nodes."""
        # They go to pyOpenSSL as objects of `cryptography`: Twisted's
        # `clientCertificate` passes pyOpenSSL's own, which are deprecated.
        if self.certificate is None or self.private_key is None:
            return {}
        return {
            "certificate": x509.load_pem_x509_certificate(_read(self.certificate)),
            "privateKey": load_pem_private_key(_read(self.private_key), None),
        }


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_PEM_BYTES)
