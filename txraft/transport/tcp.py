"""Connections to peers over plain TCP, and the syntax of addresses."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from txraft.errors import NotAdvertisable
from txraft.transport.connection_limits import (
    DEFAULT_MAX_POOL,
    DEFAULT_TIMEOUT,
    DEFAULT_TIMEOUT_SCALE,
    ConnectionLimits,
)
from txraft.transport.network import NetworkTransport
from txraft.wire.stream import MessageLimits

_MAX_PORT = 65535


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises: ValueError, whose message names the problem with *address*.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not isIPv6Address(host):
            raise ValueError(f"{address!r} holds no IPv6 address in its brackets")
    elif ":" in host:
        raise ValueError(f"{address!r} needs brackets: [v6 address]:port")
    if not colon or not host:
        raise ValueError(f"{address!r} is not host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError(f"{address!r} has no port from 0 to {_MAX_PORT}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Join a host and a port as hashicorp/raft does."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_advertisable(address: str) -> None:
    """Refuse an address that others cannot dial.

    Raises: NotAdvertisable
    """
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise NotAdvertisable(f"{error}; peers cannot dial it") from error
    if port == 0 or _is_unspecified(host):
        raise NotAdvertisable(
            f"peers cannot dial {address}: advertise a host and port of this node"
        )


class TCPStreamLayer:
    """A `StreamLayer` of TCP: one endpoint to listen on, addresses to dial.

    *advertise* is the address that peers dial; by default where the socket is bound.
    """

    def __init__(
        self,
        reactor: object,
        endpoint: IStreamServerEndpoint,
        advertise: str | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._address = advertise or ""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, after a check that others can dial this node.

        Returns: a Deferred that fails with NotAdvertisable, and then nothing is
            open, or with CannotListenError.
        """
        if self._address:
            try:
                check_advertisable(self._address)
            except NotAdvertisable as error:
                return fail(error)
        return self._endpoint.listen(factory).addCallback(self._bound)

    def dial(self, address: str) -> IStreamClientEndpoint:
        """Make an endpoint for *address*; a name is resolved each time it connects."""
        host, port = split_address(address)
        # Addresses first: HostnameEndpoint would try to resolve them, in a thread.
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port)
        return HostnameEndpoint(self._reactor, host, port)

    def addr(self) -> str:
        """Return the address that peers dial, "" while it is not known."""
        return self._address

    def _bound(self, port: IListeningPort) -> Deferred[IListeningPort]:
        if self._address:
            return succeed(port)
        host = port.getHost()
        try:
            if not isinstance(host, IPv4Address | IPv6Address):
                raise NotAdvertisable(f"peers cannot dial {host}: advertise an address")
            address = join_address(host.host, host.port)
            check_advertisable(address)
        except NotAdvertisable as error:
            # It listens already, so it is closed first: a node that fails to start must
            # leave no port open.
            return _stop_and_fail(port, error)
        self._address = address
        return succeed(port)


def new_tcp_transport(
    reactor: object,
    listen: str | IStreamServerEndpoint,
    advertise: str | None = None,
    *,
    clock: IReactorTime | None = None,
    max_pool: int = DEFAULT_MAX_POOL,
    timeout: float = DEFAULT_TIMEOUT,
    timeout_scale: int = DEFAULT_TIMEOUT_SCALE,
    limits: MessageLimits | None = None,
    connection_limits: ConnectionLimits | None = None,
) -> Deferred[NetworkTransport]:
    """Listen for peers on TCP (hashicorp/raft's `NewTCPTransport`).

    *listen* is a Twisted server endpoint or its description. *clock* times calls;
    the reactor does when there is none.
    Returns: a Deferred of the transport, once it listens. It fails with
        NotAdvertisable or CannotListenError, and then nothing is left open.
    Raises: ValueError for a description that is no endpoint.
    """
    endpoint = serverFromString(reactor, listen) if isinstance(listen, str) else listen
    transport = NetworkTransport(
        IReactorTime(reactor) if clock is None else clock,
        TCPStreamLayer(reactor, endpoint, advertise),
        max_pool=max_pool,
        timeout=timeout,
        timeout_scale=timeout_scale,
        limits=limits,
        connection_limits=connection_limits,
    )
    return transport.listen().addCallback(lambda _: transport)


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _stop_and_fail(
    port: IListeningPort, error: NotAdvertisable
) -> Deferred[IListeningPort]:
    stopped = port.stopListening()
    if not isinstance(stopped, Deferred):
        return fail(error)
    return stopped.addCallback(lambda _: fail(error))
