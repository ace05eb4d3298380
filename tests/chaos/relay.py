"""A relay for the connections of one node; `python -m tests.chaos.relay SOCKET`.

The kernel redirects to it what the node connects to at its peers. It connects to where
they meant to go, and lets bytes through late, in crumbs, or not at all. TCP keeps order
within a connection, and so does it; connections overtake each other.

Each line on the Unix socket *SOCKET* is a JSON object with `Conditions`; the answer is
one with the `Tally` so far.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.chaos.net import RELAY_PORT

SO_ORIGINAL_DST = 80
CONNECT_SECONDS = 5.0
QUEUE_BYTES = 256 << 10
CRUMB_SECONDS = 0.05


@dataclass(slots=True)
class Conditions:
    """How the line is: all zero, it is as good as none.

    *delay* is for everything, up to *spread* more for each connection, up to *jitter*
    more for each piece, all in seconds; *rate* is in bytes per second and connection;
    *resets* is how likely a piece is cut in the middle and the connection with it.
    """

    delay: float = 0.0
    spread: float = 0.0
    jitter: float = 0.0
    rate: int = 0
    resets: float = 0.0


@dataclass(slots=True)
class Tally:
    """What really happened: pieces that were delayed, that came in crumbs, that
    another connection's to the same peer overtook, and connections that were reset."""

    delayed: int = 0
    crumbs: int = 0
    overtaken: int = 0
    resets: int = 0
    connections: int = 0


@dataclass(slots=True)
class Piece:
    """Bytes on their way: when they are due, and when they came among all others."""

    data: bytes
    due: float
    number: int


@dataclass(slots=True)
class Line:
    """Everything that passes through this relay."""

    reactor: Any
    random: random.Random = field(default_factory=random.Random)
    conditions: Conditions = field(default_factory=Conditions)
    tally: Tally = field(default_factory=Tally)
    taken: Counter[object] = field(default_factory=Counter)
    delivered: Counter[object] = field(default_factory=Counter)

    def take(self, route: object) -> int:
        """Number a piece among those on *route*, a peer and a direction."""
        self.taken[route] += 1
        return self.taken[route]

    def deliver(self, route: object, number: int) -> None:
        """Notice a piece that others have overtaken."""
        if number < self.delivered[route]:
            self.tally.overtaken += 1
        self.delivered[route] = max(self.delivered[route], number)


@implementer(IPushProducer)
class Pipe:
    """One direction of a connection: what comes at *source* leaves at *sink*."""

    def __init__(self, line: Line, route: object, source: Any, sink: Any) -> None:
        self._line = line
        self._route = route
        self._source = source
        self._sink = sink
        self._pieces: deque[Piece] = deque()
        self._queued = 0
        self._free_at = 0.0
        self._spread = line.random.random()
        self._held = self._ends = False
        self._call: IDelayedCall | None = None
        self._sink.registerProducer(self, True)

    def take(self, data: bytes) -> None:
        """Let *data* leave when it is due, or cut it, and the connection."""
        line = self._line
        if line.random.random() < line.conditions.resets:
            line.tally.resets += 1
            self._sink.write(data[: len(data) // 2])
            self._line.reactor.callLater(0, self.abort)
            return
        now = line.reactor.seconds()
        wait = self._wait()
        line.tally.delayed += wait > 0
        self._free_at = max(self._free_at, now + wait)
        for crumb in self._crumbs(data):
            self._pieces.append(Piece(crumb, self._free_at, line.take(self._route)))
            if len(crumb) < len(data):
                line.tally.crumbs += 1
                self._free_at += CRUMB_SECONDS
        self._queued += len(data)
        if self._queued > QUEUE_BYTES:
            self._source.pauseProducing()
        self._deliver()

    def _wait(self) -> float:
        conditions = self._line.conditions
        jitter = conditions.jitter * self._line.random.random()
        return conditions.delay + conditions.spread * self._spread + jitter

    def _crumbs(self, data: bytes) -> list[bytes]:
        size = len(data)
        if self._line.conditions.rate:
            size = max(1, int(self._line.conditions.rate * CRUMB_SECONDS))
        return [data[i : i + size] for i in range(0, len(data), size)]

    def _deliver(self) -> None:
        now = self._line.reactor.seconds()
        while self._pieces and not self._held and self._pieces[0].due <= now:
            piece = self._pieces.popleft()
            self._line.deliver(self._route, piece.number)
            self._queued -= len(piece.data)
            self._sink.write(piece.data)
        if self._queued <= QUEUE_BYTES // 2 and not self._ends:
            self._source.resumeProducing()
        if self._pieces and not self._held and self._call is None:
            wait = max(0.0, self._pieces[0].due - now)
            self._call = self._line.reactor.callLater(wait, self._due)
        elif self._ends and not self._pieces:
            self._sink.unregisterProducer()
            self._sink.loseConnection()

    def _due(self) -> None:
        self._call = None
        self._deliver()

    def finish(self) -> None:
        """Close the other end once everything has left."""
        self._ends = True
        self._deliver()

    def abort(self) -> None:
        """Break the connection off; what is on its way is lost."""
        self._pieces.clear()
        self._ends = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for transport in (self._source, self._sink):
            transport.abortConnection()

    def pauseProducing(self) -> None:
        """The other end takes no more for now."""
        self._held = True

    def resumeProducing(self) -> None:
        """The other end takes more."""
        self._held = False
        self._deliver()

    def stopProducing(self) -> None:
        """The other end is gone, and what was on its way there."""
        self._pieces.clear()


class End(Protocol):
    """One of the two ends of a relayed connection."""

    pipe: Pipe | None = None

    def dataReceived(self, data: bytes) -> None:
        """Let *data* go to the other end."""
        assert self.pipe is not None, "nothing is read before there are two ends"
        self.pipe.take(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other end as this one was closed."""
        if self.pipe is None:
            return
        if reason.check(ConnectionDone):
            self.pipe.finish()
        else:
            self.pipe.abort()


class Accepted(End):
    """The end at the node: connect to where it meant to go."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def connectionMade(self) -> None:
        """Read nothing before the other end is there."""
        transport: Any = self.transport
        transport.pauseProducing()
        handle = transport.getHandle()
        address = handle.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, packed = struct.unpack("!2xH4s8x", address)
        host = socket.inet_ntoa(packed)
        endpoint = endpoints.TCP4ClientEndpoint(
            self._line.reactor, host, port, timeout=CONNECT_SECONDS
        )
        connecting = endpoint.connect(Factory.forProtocol(End))
        connecting.addCallbacks(
            self._connected, lambda _: transport.abortConnection(), (host,)
        )

    def _connected(self, other: End, host: str) -> None:
        here: Any = self.transport
        there: Any = other.transport
        if not here.connected:
            there.abortConnection()
            return
        self._line.tally.connections += 1
        self.pipe = Pipe(self._line, (host, "to"), here, there)
        other.pipe = Pipe(self._line, (host, "from"), there, here)
        here.resumeProducing()


class Control(LineOnlyReceiver):
    """Takes new conditions, and answers with the tally."""

    delimiter = b"\n"

    def __init__(self, line: Line) -> None:
        self._line = line

    def lineReceived(self, line: bytes) -> None:
        """Take the conditions in *line*."""
        self._line.conditions = Conditions(**json.loads(line))
        self.sendLine(json.dumps(asdict(self._line.tally)).encode())


class Made(Factory):
    """Makes protocols of *kind* for *line*."""

    noisy = False

    def __init__(self, kind: type[Accepted] | type[Control], line: Line) -> None:
        self._kind = kind
        self._line = line

    def buildProtocol(self, address: object) -> Protocol:
        """Make one."""
        return self._kind(self._line)


def main(reactor: Any, path: str) -> Deferred[None]:
    """Relay until killed."""
    line = Line(reactor)
    reactor.listenTCP(RELAY_PORT, Made(Accepted, line))
    reactor.listenUNIX(path, Made(Control, line))
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
