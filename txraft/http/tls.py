"""HTTPS: the server's side, and what a node shows and trusts when it forwards."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from txraft.errors import ConfigError
from txraft.transport.contexts import MAX_PEM_BYTES, Contexts, TLSFiles


@implementer(IOpenSSLServerConnectionCreator, IPolicyForHTTPS)
class HTTPTLS:
    """The certificates of HTTPS in force; `reload` replaces them.

    With *required* every client must show a certificate of the authority in *files*.
    Raises: ConfigError
    """

    def __init__(self, files: TLSFiles, required: bool) -> None:
        self._files = files
        self._required = required
        self._contexts = Contexts(files, required=required)
        self._identity = _identity(files)

    @property
    def warnings(self) -> list[str]:
        """What is not as it should be about the files."""
        return self._contexts.warnings

    def reload(self) -> None:
        """Read the files anew. Raises: ConfigError, and nothing has changed."""
        contexts = Contexts(self._files, required=self._required)
        identity = _identity(self._files)
        if contexts.not_valid_now is not None:
            raise ConfigError([contexts.not_valid_now])
        self._contexts, self._identity = contexts, identity

    def wrap(self, site: IProtocolFactory, clock: IReactorTime) -> IProtocolFactory:
        """Make a factory that puts TLS before the connections of *site*."""
        return _TLSFactory(self, False, site, clock)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Any:
        """Make the state of one connection."""
        connection = SSL.Connection(self._contexts.server, None)
        connection.set_app_data(protocol)
        return connection

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """Say how to reach another node at *hostname*."""
        own, authorities = self._identity
        trust = trustRootFromCertificates(authorities) if authorities else None
        return optionsForClientTLS(
            hostname.decode("ascii"), trustRoot=trust, clientCertificate=own
        )


class _TLSFactory(TLSMemoryBIOFactory):
    """Makes no TLS for a connection that the factory behind it does not want."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocols of a connection, if it is wanted."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def _identity(files: TLSFiles) -> tuple[PrivateCertificate, list[Certificate]]:
    with open(files.certificate, "rb") as file:
        certificate = Certificate.loadPEM(file.read(MAX_PEM_BYTES))
    with open(files.private_key, "rb") as file:
        key = KeyPair.load(file.read(MAX_PEM_BYTES), crypto.FILETYPE_PEM)
    own = PrivateCertificate.fromCertificateAndKeyPair(certificate, key)
    authorities = []
    if files.ca is not None:
        with open(files.ca, "rb") as file:
            found = x509.load_pem_x509_certificates(file.read(MAX_PEM_BYTES))
        authorities = [Certificate(crypto.X509.from_cryptography(ca)) for ca in found]
    return own, authorities
