"""HTTPS: the certificates of the server, and of this node when it forwards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from txraft.client.tls import ClientTLS
from txraft.errors import ConfigError
from txraft.transport.contexts import Contexts, TLSFiles


@implementer(IOpenSSLServerConnectionCreator, IPolicyForHTTPS)
class HTTPTLS:
    """The HTTPS certificates in force; `reload` replaces them.

    With *required* every client must show a certificate of the authority in *files*.
    Raises: ConfigError
    """

    def __init__(self, files: TLSFiles, required: bool) -> None:
        self._files = files
        self._required = required
        self._contexts = Contexts(files, required=required)
        self._as_client = client_of(files)

    @property
    def warnings(self) -> list[str]:
        """Problems of the files that do not prevent their use."""
        return self._contexts.warnings

    @property
    def ends(self) -> Mapping[str, datetime]:
        """The times when the certificates expire, as `ends_of` returns them."""
        return self._contexts.ends

    def reload(self) -> None:
        """Read the files again.

        Raises: ConfigError; the former certificates then stay in force
        """
        # Both are made before either is replaced: they must fit each other.
        contexts = Contexts(self._files, required=self._required)
        as_client = client_of(self._files)
        if contexts.not_valid_now is not None:
            raise ConfigError([contexts.not_valid_now])
        self._contexts, self._as_client = contexts, as_client

    def wrap(self, site: IProtocolFactory, clock: IReactorTime) -> IProtocolFactory:
        """Make a factory that puts TLS in front of the connections of *site*."""
        return _TLSFactory(self, False, site, clock)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Any:
        """Make the TLS state of one connection."""
        connection = SSL.Connection(self._contexts.server, None)
        connection.set_app_data(protocol)
        return connection

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """Make the TLS client for another node at *hostname*."""
        return self._as_client.creatorForNetloc(hostname, port)


class _TLSFactory(TLSMemoryBIOFactory):
    """Refuses a connection before TLS if the factory behind it refuses it."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocols of a connection, or None to refuse it."""
        # Twisted's own would wrap None as if it were a protocol.
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def client_of(files: TLSFiles) -> ClientTLS:
    """Read the certificates for forwarding to another node."""
    return ClientTLS(files.ca, files.certificate, files.private_key)
