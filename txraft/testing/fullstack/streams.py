"""Connections between simulated nodes: byte streams that are slow or come in pieces.

As with TCP, bytes arrive in order. What a cut or loss holds back is sent again until
one end gives up. An end whose process died answers with a reset; one whose machine is
off does not answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.testing.schedule import Schedule
from txraft.testing.simulation.network import Network

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

RESEND = 200_000
"""Microseconds after which lost bytes are sent again."""

MAX_RESENDS = 40
"""Times that bytes are sent again before their connection ends."""

HIGH_WATER_BYTES = 1 << 16
"""Bytes under way that make a producer pause."""

HOST = "192.0.2.1"

Act = Callable[..., object]
"""A function that calls another one as a part of a node, if the node still runs."""


class SimulatedHost:
    """One node in the network: its listener, and its ends of connections.

    It is the `StreamLayer` of that node. *act* runs what arrives.
    """

    def __init__(self, streams: Streams, address: str, act: Act) -> None:
        self.address = address
        self.act = act
        self.factory: IProtocolFactory | None = None
        self.is_on = True
        self.is_dead = False
        self.ends: dict[int, End] = {}
        self._streams = streams
        streams.hosts[address] = self

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections for *factory*."""
        self.factory = factory
        return succeed(_Port(self))

    def dial(self, address: str) -> _StreamEndpoint:
        """Return an endpoint that connects to *address*."""
        if not address:
            raise ValueError("an address is not empty")
        return _StreamEndpoint(self._streams, self, address)

    def addr(self) -> str:
        """Return this node's address as peers know it."""
        return self.address

    def die(self, power_off: bool) -> None:
        """End all connections at once, without a word to the protocols here.

        After a kill the kernel tells the other ends. After a power failure they learn
        it when their bytes arrive at the next node of this machine.
        """
        self.is_on = not power_off
        self.is_dead = True
        self.factory = None
        for end in list(self.ends.values()):
            end.closed = True
            if not power_off:
                end.tell_other(ConnectionLost())
        self.ends.clear()


class Streams:
    """All connections; each is a channel of *network*, which keeps its order.

    *crumbs* is asked at each write whether its bytes arrive in small pieces.
    """

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        random: Random,
        crumbs: Callable[[], bool],
    ) -> None:
        self.schedule = schedule
        self.network = network
        self.random = random
        self.crumbs = crumbs
        self.hosts: dict[str, SimulatedHost] = {}
        self.made = 0
        self.bytes = 0

    def connect(
        self, source: SimulatedHost, target: str, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """Connect *source* to *target*.

        Returns: a Deferred that fires with the protocol, or fails with
        ConnectionRefusedError; it may be cancelled.
        """
        self.made += 1
        attempt = _ConnectionAttempt(self, source, target, factory, self.made)
        attempt.send()
        return attempt.result


class _ConnectionAttempt:
    """One attempt to connect: to the target, and back."""

    def __init__(
        self,
        streams: Streams,
        source: SimulatedHost,
        target: str,
        factory: IProtocolFactory,
        number: int,
    ) -> None:
        self._streams = streams
        self._source = source
        self._target = target
        self._factory = factory
        self._number = number
        self._over = False
        self._sent = 0
        self.result: Deferred[IProtocol] = Deferred(self._cancelled)

    def send(self) -> None:
        """Ask for a connection, again and again while the network loses it."""
        streams = self._streams
        if self._over or not self._source.is_on or self._sent > MAX_RESENDS:
            return
        self._sent += 1
        carried = self._target in streams.hosts and streams.network.carry(
            self._source.address, self._target, self._number, self._arrive
        )
        if not carried:
            streams.schedule.after(RESEND, self.send)

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        self._over = True

    def _arrive(self) -> None:
        host = self._streams.hosts[self._target]
        if self._over or not host.is_on:
            return
        # A machine that is on refuses; one that is off says nothing, so the caller
        # waits.
        if host.factory is None:
            self._return(self._refused)
        else:
            host.act(self._accept, host)

    def _accept(self, host: SimulatedHost) -> None:
        protocol = host.factory.buildProtocol(_ADDRESS) if host.factory else None
        if protocol is None:
            self._return(self._refused)
            return
        far = End(self._streams, host, self._number)
        near = End(self._streams, self._source, self._number)
        near.other, far.other = far, near
        if self._return(self._connected, near):
            far.start(protocol)
        else:
            self._streams.schedule.after(RESEND, self._arrive)

    def _return(self, function: Callable[..., object], *arguments: object) -> bool:
        return self._streams.network.carry(
            self._target,
            self._source.address,
            self._number,
            self._source.act,
            function,
            *arguments,
        )

    def _refused(self) -> None:
        if not self._over:
            self._over = True
            self.result.errback(ConnectionRefusedError())

    def _connected(self, near: End) -> None:
        if self._over:
            near.closed = True
            near.tell_other(ConnectionLost())
            return
        if near.closed:
            self._refused()
            return
        self._over = True
        protocol = self._factory.buildProtocol(_ADDRESS)
        assert protocol is not None, "who dials wants a connection"
        near.start(protocol)
        self.result.callback(protocol)


class End:
    """One end of a connection: the transport of the protocol there."""

    other: End

    def __init__(self, streams: Streams, host: SimulatedHost, number: int) -> None:
        self.host = host
        self.closed = False
        self.protocol: Any = None
        self._streams = streams
        self._number = number
        self._unsent: deque[bytes] = deque()
        self._on_the_way = 0
        self._arrived: deque[bytes] = deque()
        self._reading = True
        self._closing: Exception | None = None
        self._producer: Any = None
        self._paused_producer = False
        self._resends = 0
        self._waiting = False

    def start(self, protocol: Any) -> None:
        """Become the transport of *protocol*."""
        self.protocol = protocol
        self.host.ends[self._number] = self
        protocol.makeConnection(self)

    # What a protocol calls ------------------------------------------------------

    def getPeer(self) -> IAddress:
        """Return an address for a log."""
        return _ADDRESS

    getHost = getPeer

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self.closed or self._closing is not None or not data:
            return
        self._streams.bytes += len(data)
        self._unsent.extend(self._pieces(data))
        self._on_the_way += len(data)
        if self._producer is not None and self._on_the_way > HIGH_WATER_BYTES:
            self._paused_producer = True
            self._producer.pauseProducing()
        self._schedule_send()

    def writeSequence(self, pieces: list[bytes]) -> None:
        """Send all *pieces*."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Close when all bytes are sent."""
        if self._closing is None and not self.closed:
            self._closing = ConnectionDone()
            self._schedule_send()

    def abortConnection(self) -> None:
        """Close now; bytes that were not sent are dropped."""
        if not self.closed:
            self._unsent.clear()
            self.tell_other(ConnectionLost())
            self._later(self._end, ConnectionAborted())

    def pauseProducing(self) -> None:
        """Stop reading."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        self._reading = True
        self._later(self._read)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Pause *producer* while too many bytes are under way."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    # On the way -----------------------------------------------------------------

    def tell_other(self, reason: Exception) -> None:
        """Send word to the other end that this connection is over."""
        self._carry(self.other.host.act, self.other.over, reason)

    def over(self, reason: Exception) -> None:
        """End this end, as the other one has ended; read first what has arrived."""
        self._read()
        self._end(reason)

    def reset(self) -> None:
        """Break the connection; bytes under way are lost."""
        self._unsent.clear()
        self._arrived.clear()
        self.host.act(self._end, ConnectionLost())
        self.other.host.act(self.other._end, ConnectionLost())

    def _pieces(self, data: bytes) -> list[bytes]:
        if not self._streams.crumbs() or len(data) > HIGH_WATER_BYTES:
            return [data]
        random, pieces = self._streams.random, []
        while data:
            size = random.choice((1, 2, 5, 40, 1000))
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    def _later(self, function: Callable[..., object], *arguments: object) -> None:
        self._streams.schedule.after(0, self.host.act, function, *arguments)

    def _carry(self, function: Callable[..., object], *arguments: object) -> bool:
        return self._streams.network.carry(
            self.host.address,
            self.other.host.address,
            self._number,
            function,
            *arguments,
        )

    def _schedule_send(self, delay: int = 0) -> None:
        if not self._waiting:
            self._waiting = True
            self._streams.schedule.after(delay, self._send)

    def _send(self) -> None:
        self._waiting = False
        while self._unsent and not self.closed:
            if not self._carry(self.other._arrive, self._unsent[0]):
                self._resend()
                return
            self._resends = 0
            self._unsent.popleft()
        if self._closing is not None and not self.closed:
            self.tell_other(ConnectionDone())
            self.host.act(self._end, self._closing)

    def _resend(self) -> None:
        self._resends += 1
        if self._resends > MAX_RESENDS:
            self.host.act(self._end, ConnectionLost())
        else:
            self._schedule_send(RESEND)

    def _arrive(self, data: bytes) -> None:
        # The kernel of a machine that is on answers for a process that is gone.
        if self.closed or self.host.is_dead:
            if self._streams.hosts[self.host.address].is_on:
                self.tell_other(ConnectionLost())
            return
        self._arrived.append(data)
        self.host.act(self._read)

    def _read(self) -> None:
        while self._arrived and self._reading and not self.closed:
            data = self._arrived.popleft()
            self._streams.schedule.after(0, self.other._taken, len(data))
            self.protocol.dataReceived(data)

    def _taken(self, size: int) -> None:
        self._on_the_way -= size
        if self._paused_producer and not self._on_the_way:
            self._paused_producer = False
            if self._producer is not None and not self.closed:
                self.host.act(self._producer.resumeProducing)

    def _end(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.host.ends.pop(self._number, None)
            if self.protocol is not None:
                self.protocol.connectionLost(Failure(reason))


@implementer(IListeningPort)
class _Port:
    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def startListening(self) -> None:
        """Do nothing: it listens already."""

    def stopListening(self) -> Deferred[None]:
        """Accept no more connections."""
        self._host.factory = None
        return succeed(None)

    def getHost(self) -> IAddress:
        """Return an address for a log."""
        return _ADDRESS


@implementer(IStreamClientEndpoint)
class _StreamEndpoint:
    def __init__(self, streams: Streams, source: SimulatedHost, target: str) -> None:
        self._streams = streams
        self._source = source
        self._target = target

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol that *protocolFactory* builds."""
        return self._streams.connect(self._source, self._target, protocolFactory)


_ADDRESS = IPv4Address("TCP", HOST, 1)
