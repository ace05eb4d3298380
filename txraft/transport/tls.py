"""Peers over TLS: both sides show a certificate of the cluster, and both check it.

The protocol of the transport is made only after the handshake is complete and the
certificate names an identity. A connection that fails is closed, with one line in the
log that says why. `txraft.transport.identity_check` decides which member an identity
is, and what it may send.

It does not resume sessions (each connection has its certificate checked), renegotiate,
compress, trust the authorities of the system, or look for revocations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.errors import ConfigError, ConnectionFailed
from txraft.reasons import reason_of
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.contexts import Contexts, Judged, TLSFiles
from txraft.transport.identity import Identity, NoIdentity, PeerNames, is_ip_address
from txraft.transport.identity_check import shown
from txraft.transport.peer import PeerFactory, PeerProtocol
from txraft.transport.refusals import tls_problem
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.unauthenticated import (
    PendingConnection,
    UnauthenticatedConnections,
    host_of,
)
from txraft.transport.validity import Validity


class PeerTLS:
    """The certificates in force; `reload` replaces them for new connections.

    *own_name* is the identity that the certificate must have.
    Raises: ConfigError
    """

    def __init__(self, files: TLSFiles, names: PeerNames, own_name: str) -> None:
        self.names = names
        self._files = files
        self._own_name = own_name
        self._contexts = self._load()

    @property
    def warnings(self) -> list[str]:
        """Problems of the files that do not prevent their use."""
        return self._contexts.warnings

    @property
    def ends(self) -> Mapping[str, datetime]:
        """The times when `certificate` and `ca` expire."""
        return self._contexts.ends

    @property
    def validities(self) -> list[Validity]:
        """The end of validity of each certificate in use, with its setting."""
        return [
            Validity(f"tls.{name}", getattr(self._files, name.partition(".")[0]), end)
            for name, end in self.ends.items()
        ]

    def reload(self) -> None:
        """Read the files again.

        Raises: ConfigError, and the certificates in force stay in force.
        """
        contexts = self._load()
        # At a start this is only a warning. Here it would replace one that works.
        if contexts.not_valid_now is not None:
            raise ConfigError([contexts.not_valid_now])
        self._contexts = contexts

    def connection(self, client: bool, server_name: str | None = None) -> Any:
        """Make an `OpenSSL.SSL.Connection` with the certificates in force."""
        contexts = self._contexts
        context = contexts.client if client else contexts.server
        connection = SSL.Connection(context, None)
        if server_name is not None and not is_ip_address(server_name):
            connection.set_tlsext_host_name(server_name.encode("idna"))
        return connection

    def _load(self) -> Contexts:
        contexts = Contexts(self._files)
        path = self._files.certificate
        try:
            identity = Identity(contexts.certificate)
        except NoIdentity as error:
            raise ConfigError([f"{path}: no peer will accept it: {error}"]) from error
        if not identity.is_named(self._own_name):
            raise ConfigError(
                [
                    f"{path}: it is for {identity}, but this node's identity is "
                    f"{self._own_name}; issue one for it, or set tls.server_names"
                ]
            )
        return contexts


class TLSStreamLayer:
    """A `StreamLayer` of TLS over the TCP of *tcp*."""

    log = Logger()

    def __init__(
        self,
        tcp: TCPStreamLayer,
        tls: PeerTLS,
        clock: IReactorTime,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._tcp = tcp
        self._tls = tls
        self._clock = clock
        self._unauthenticated = UnauthenticatedConnections(
            clock, limits or ConnectionLimits()
        )
        self._told: dict[str, str] = {}

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections for *factory*, which is a `PeerFactory`."""
        assert isinstance(factory, PeerFactory), (
            "a connection needs the checks of a PeerFactory"
        )
        accepting = _Accepting(factory, self._unauthenticated)
        creator = _Creator(lambda: self._tls.connection(client=False))
        return self._tcp.listen(_Doorway(creator, False, accepting, self._clock))

    def dial(self, address: str) -> IStreamClientEndpoint:
        """Make an endpoint that connects to the member at *address* and to no other."""
        return _TLSEndpoint(self, self._tcp.dial(address), address)

    def addr(self) -> str:
        """Return the address that peers dial, once listening."""
        return self._tcp.addr()

    def connect(
        self, endpoint: IStreamClientEndpoint, address: str, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """Connect through *endpoint* to the member at *address*.

        Returns: a Deferred of the protocol that *factory* makes, once the other side
            has proved its identity; otherwise it fails with ConnectionFailed.
        """
        name = self._tls.names.name_of(address)
        attempt: Deferred[IProtocol] = Deferred()
        creator = _Creator(lambda: self._tls.connection(True, name))
        dialling = _Dialling(factory, name, attempt)
        # TCP connects first, which settles `connecting`; the handshake settles
        # `attempt`. The caller gets one Deferred for both, as cancelling it must end
        # either.
        connecting = endpoint.connect(
            TLSMemoryBIOFactory(creator, True, dialling, self._clock)
        )
        result: Deferred[IProtocol] = Deferred(lambda _: give_up())

        def give_up() -> None:
            connecting.cancel()
            dialling.give_up()

        def failed(failure: Failure) -> None:
            self._told.pop(address, None)
            if not result.called:
                result.errback(failure)

        connecting.addErrback(failed)
        attempt.addCallbacks(
            lambda protocol: self._reached(address, protocol, result),
            lambda failure: self._refused(address, failure, result),
        )
        return result

    def _reached(
        self, address: str, protocol: IProtocol, result: Deferred[IProtocol]
    ) -> None:
        self._told.pop(address, None)
        if not result.called:
            result.callback(protocol)

    def _refused(
        self, address: str, failure: Failure, result: Deferred[IProtocol]
    ) -> None:
        reason = reason_of(failure.value)
        if result.called:
            return
        # A leader dials again and again: one line for a new reason, not for each time.
        if self._told.get(address) != reason:
            self._told[address] = reason
            self.log.warn(
                "connection to {address} closed: {reason}",
                address=address,
                reason=reason,
            )
        result.errback(ConnectionFailed(reason))


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes OpenSSL connections that know their protocol, to check its certificate."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Any:
        connection = self._make()
        connection.set_app_data(protocol)
        return connection

    clientConnectionForTLS = serverConnectionForTLS


@implementer(IHandshakeListener)
class _Handshake(Judged, Protocol):
    """The protocol of a connection until its handshake is complete."""

    _done = False

    def handshakeCompleted(self) -> None:
        """Check the certificate, then let the real protocol take over, or close."""
        assert self.transport is not None, "it is connected"
        try:
            certificate = self.transport.getPeerCertificate()  # type: ignore[attr-defined]
            if certificate is None:
                raise NoIdentity("it shows no certificate")
            identity = Identity(_to_cryptography(certificate))
            protocol = self.accepted(identity)
        except NoIdentity as error:
            self.close(str(error))
            return
        self._done = True
        if protocol is None:
            self.transport.abortConnection()  # type: ignore[attr-defined]
            return
        tls: Any = self.transport
        # Replaced before `makeConnection`: bytes that the peer sent with the end of its
        # handshake are delivered next, and must reach the new protocol.
        tls.wrappedProtocol = protocol
        protocol.makeConnection(tls)
        self.completed(protocol)

    def close(self, reason: str) -> None:
        """Close now, for *reason*."""
        if not self._done:
            self._done = True
            self.refused(reason)
            self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report why the handshake failed."""
        # OpenSSL only says "certificate verify failed"; `problem` is what it found.
        if not self._done:
            self._done = True
            self.refused(self.problem or why_lost(reason))

    def accepted(self, identity: Identity) -> IProtocol | None:
        """Make the protocol for a peer with *identity*. Raises: NoIdentity"""
        raise NotImplementedError

    def completed(self, protocol: IProtocol) -> None:
        """Called after *protocol* has taken over."""

    def refused(self, reason: str) -> None:
        """Called when the handshake has failed, for *reason*."""
        raise NotImplementedError


class _Accepting(Factory):
    """Makes the handshakes of incoming connections."""

    noisy = False

    def __init__(
        self, peers: PeerFactory, unauthenticated: UnauthenticatedConnections
    ) -> None:
        self.peers = peers
        self.unauthenticated = unauthenticated

    def buildProtocol(self, addr: IAddress | None) -> _Caller:
        return _Caller(self, addr)


class _Doorway(TLSMemoryBIOFactory):
    """Refuses connections while too many are unauthenticated, before TLS begins."""

    wrappedFactory: _Accepting

    def buildProtocol(  # type: ignore[override]  # None is what factories may return
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        accepting = self.wrappedFactory
        reason = accepting.unauthenticated.refusal_of(host_of(addr))
        if reason is not None:
            accepting.peers.warn(addr, reason)
            return None
        return super().buildProtocol(addr)


class _Caller(_Handshake):
    def __init__(self, factory: _Accepting, address: IAddress | None) -> None:
        self._factory = factory
        self._address = address
        self._pending: PendingConnection | None = None

    def connectionMade(self) -> None:
        """Count the connection as unauthenticated, with a deadline."""
        self._pending = self._factory.unauthenticated.enter(
            host_of(self._address), self.close, "its TLS handshake did not end"
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop counting the connection."""
        self._leave()
        super().connectionLost(reason)

    def accepted(self, identity: Identity) -> PeerProtocol | None:
        """Make the protocol that reads requests of *identity*."""
        self._leave()
        protocol = self._factory.peers.buildProtocol(self._address)
        if protocol is not None:
            protocol.identity = identity
        return protocol

    def refused(self, reason: str) -> None:
        """Log the refusal."""
        self._leave()
        self._factory.peers.warn(self._address, reason)

    def _leave(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._factory.unauthenticated.leave(pending)


class _Dialling(Factory):
    """Makes the one handshake with *name* that settles *attempt*."""

    noisy = False

    def __init__(
        self, factory: IProtocolFactory, name: str, attempt: Deferred[IProtocol]
    ) -> None:
        self.factory = factory
        self.name = name
        self.attempt = attempt
        self._callee: _Callee | None = None

    def buildProtocol(self, addr: IAddress | None) -> _Callee:
        self._callee = _Callee(self, addr)
        return self._callee

    def give_up(self) -> None:
        """Close the handshake that was begun."""
        if self._callee is not None and self._callee.connected:
            self._callee.close("its TLS handshake did not end in time")


class _Callee(_Handshake):
    def __init__(self, factory: _Dialling, address: IAddress | None) -> None:
        self._factory = factory
        self._address = address

    def accepted(self, identity: Identity) -> IProtocol | None:
        """Make the protocol, if the identity is the one that was dialled."""
        name = self._factory.name
        if not identity.is_named(name):
            raise NoIdentity(
                f"its certificate is for {identity}, but {shown(name)} was dialled"
            )
        assert self._address is not None, "it is connected"
        return self._factory.factory.buildProtocol(self._address)

    def completed(self, protocol: IProtocol) -> None:
        """Give the protocol to the caller."""
        self._factory.attempt.callback(protocol)

    def refused(self, reason: str) -> None:
        """Report the failure to the caller."""
        self._factory.attempt.errback(ConnectionFailed(reason))


@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    def __init__(
        self, layer: TLSStreamLayer, endpoint: IStreamClientEndpoint, address: str
    ) -> None:
        self._layer = layer
        self._endpoint = endpoint
        self._address = address

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._layer.connect(self._endpoint, self._address, factory)


def why_lost(reason: Failure) -> str:
    """Return in words why a handshake ended."""
    problem = tls_problem(reason)
    if problem is not None:
        return f"its TLS handshake failed: {problem}"
    return "it closed the connection within the TLS handshake"


def _to_cryptography(certificate: crypto.X509) -> x509.Certificate:
    try:
        return certificate.to_cryptography()
    except ValueError as error:
        raise NoIdentity("its certificate is malformed") from error
