"""HTTPS of a client: the authorities it trusts, and the certificate it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
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
    is shown to nodes, together with the issuers that follow it in its file.

    Raises: ConfigError when a file cannot be used.
    """

    ca: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    _authorities: list[Certificate] = field(init=False, repr=False)
    _own: Mapping[str, Any] = field(init=False, repr=False)

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
        return optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=self._trust(),
            extraCertificateOptions=dict(self._own),
        )

    def context(self) -> SSL.Context:
        """Make the context that connections have, which compares no host name."""
        return CertificateOptions(
            trustRoot=self._trust() or platformTrust(), **self._own
        ).getContext()

    def _trust(self) -> Any:  # Twisted has no public type for it
        authorities = self._authorities
        return trustRootFromCertificates(authorities) if authorities else None

    def _read_authorities(self) -> list[Certificate]:
        if self.ca is None:
            return []
        found = x509.load_pem_x509_certificates(_read(self.ca))
        return [Certificate(crypto.X509.from_cryptography(each)) for each in found]

    def _read_own(self) -> Mapping[str, Any]:
        """Read the key, and the certificates that are shown to nodes."""
        # They go to pyOpenSSL as objects of `cryptography`: Twisted's
        # `clientCertificate` passes pyOpenSSL's own, which are deprecated.
        if self.certificate is None or self.private_key is None:
            return {}
        # A node that trusts the root alone needs every certificate in between.
        own, *issuers = x509.load_pem_x509_certificates(_read(self.certificate))
        return {
            "certificate": own,
            "extraCertChain": issuers,
            "privateKey": load_pem_private_key(_read(self.private_key), None),
        }


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_PEM_BYTES)
