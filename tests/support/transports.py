"""A network in memory: stream transports on a clock, with back-pressure.

It stands in for Twisted's reactor, not for anything of ours: writes of one turn
arrive together in the next, a reader may pause, a writer is told when too much
waits, and either end may close or abort.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

HIGH_WATER = 1 << 16


class MemoryTransport:
    """One end of a connection."""

    def __init__(self, clock: Clock, protocol: Protocol, port: int) -> None:
        self.other: MemoryTransport
        self.protocol = protocol
        self.reading = True
        self.closed = False
        self.held = False
        self.largest_wait = 0
        self._clock = clock
        self._port = port
        self._buffer = bytearray()
        self._closing: Exception | None = None
        self._producer: object = None
        self._producer_paused = False
        self._scheduled = False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", self._port)

    getHost = getPeer

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.closed or self._closing:
            return
        self._buffer += data
        self.largest_wait = max(self.largest_wait, len(self._buffer))
        if self._producer and len(self._buffer) > HIGH_WATER:
            self._producer_paused = True
            self._producer.pauseProducing()  # type: ignore[attr-defined]
        self._schedule()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True
        self.other._schedule()

    def loseConnection(self) -> None:
        self._closing = self._closing or ConnectionDone()
        self._schedule()

    def abortConnection(self) -> None:
        self._buffer.clear()
        self._closing = ConnectionAborted()
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self.closed:
            self._scheduled = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        if self._buffer and self.other.reading and not self.other.closed:
            data = bytes(self._buffer)
            self._buffer.clear()
            self.other.protocol.dataReceived(data)
            if self._producer_paused:
                self._producer_paused = False
                if self._producer:
                    self._producer.resumeProducing()  # type: ignore[attr-defined]
        if self._closing and not self._buffer and not self.closed:
            is_reset = isinstance(self._closing, ConnectionAborted)
            told = ConnectionLost() if is_reset else ConnectionDone()
            self.end(self._closing)
            self._clock.callLater(0, self.other.end, told)

    def end(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason))


class MemoryNetwork:
    """Addresses and who listens there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.listening: dict[str, Factory] = {}
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self.silent: set[str] = set()
        self.dials = 0
        self.given_up = 0

    def layer(self, address: str) -> MemoryLayer:
        """Make the stream layer of the host at *address*."""
        return MemoryLayer(self, address)

    def connect(self, address: str, client: Factory) -> Deferred[Protocol]:
        """Connect a protocol of *client* to whoever listens at *address*."""
        self.dials += 1
        if address in self.silent:
            return Deferred(self._give_up)
        if address not in self.listening:
            return fail(ConnectionRefusedError())
        server_protocol = self.listening[address].buildProtocol(None)
        client_protocol = client.buildProtocol(None)
        if server_protocol is None or client_protocol is None:
            return fail(ConnectionRefusedError())
        port = 40000 + len(self.connections)
        near = MemoryTransport(self.clock, client_protocol, port)
        far = MemoryTransport(self.clock, server_protocol, port)
        near.other, far.other = far, near
        self.connections.append((near, far))
        server_protocol.makeConnection(far)  # type: ignore[arg-type]
        client_protocol.makeConnection(near)  # type: ignore[arg-type]
        return succeed(client_protocol)

    def _give_up(self, _: object) -> None:
        self.given_up += 1

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(not near.closed for near, _ in self.connections)


@implementer(IListeningPort)
class MemoryPort:
    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop

    def startListening(self) -> None:
        pass

    def stopListening(self) -> Deferred[None]:
        self._stop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1)


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self._address = address

    def connect(self, protocolFactory: Factory) -> Deferred[Protocol]:
        return self._network.connect(self._address, protocolFactory)


class MemoryLayer:
    """A `StreamLayer` of the network in memory."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self._address = address

    def listen(self, factory: Factory) -> Deferred[MemoryPort]:
        self._network.listening[self._address] = factory
        return succeed(MemoryPort(lambda: self._network.listening.pop(self._address)))

    def dial(self, address: str) -> MemoryEndpoint:
        if ":" not in address:
            raise ValueError(f"{address!r} is not host:port")
        return MemoryEndpoint(self._network, address)

    def addr(self) -> str:
        return self._address


class RawPeer(Protocol):
    """A peer that sends and records bytes as a test tells it to."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:  # type: ignore[override]
        self.lost = True
