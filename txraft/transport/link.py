"""The calling end of one connection, and the pool of idle ones.

Nothing on the wire says which request a response is for: only the order does. So a call
that gives up must close its connection, or later calls would get its response.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from txraft.core.messages import AnyResponse
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ConnectionFailed,
    ProtocolError,
    RemoteError,
    TransportError,
)
from txraft.reasons import reason_of
from txraft.transport.connection import Connection
from txraft.wire.stream import MessageLimits, ResponseReader


@dataclass(slots=True, eq=False)
class _AwaitedResponse:
    kind: int
    deadline: float | None
    result: Deferred[AnyResponse]


class Link(Connection):
    """A connection to *target*: requests leave at once, responses come in order."""

    def __init__(
        self,
        clock: IReactorTime,
        target: str,
        limits: MessageLimits,
        ended: Callable[[Link], None],
    ) -> None:
        self.target = target
        self.unblocked: Callable[[], None] | None = None
        self._clock = clock
        self._reader = ResponseReader(limits)
        self._calls: deque[_AwaitedResponse] = deque()
        self._timer: IDelayedCall | None = None
        self._ended = ended
        # Whether any byte has come, which with TLS 1.3 is the proof of being accepted.
        self._heard = False

    @property
    def idle(self) -> bool:
        """Whether it is open and no response is awaited."""
        return not self._calls and not self.lost

    def send(
        self, request: bytes, kind: int, deadline: float | None
    ) -> Deferred[AnyResponse]:
        """Send an encoded *request* of type byte *kind*.

        *deadline* is a time of the clock, never earlier than that of a pending call;
        None if the caller bounds the wait.
        Returns: a Deferred of the response. It fails with RemoteError, and the
            connection stays open; or with CallTimedOut, ConnectionClosedByPeer or
            ProtocolError, and then all other calls fail too.
        """
        result = Deferred[AnyResponse]()
        if self.lost:
            result.errback(ConnectionClosedByPeer(f"{self.target} is disconnected"))
            return result
        self._calls.append(_AwaitedResponse(kind, deadline, result))
        # One timer for all calls, as deadlines are in order: a timer for each request
        # of a pipeline would cost more than the request.
        if self._timer is None and deadline is not None:
            self._watch(deadline)
        self.write(request)
        return result

    def close(self, error: Exception) -> None:
        """Close at once and fail every call with *error*."""
        self.abort()
        self._fail_all(error)

    def dataReceived(self, data: bytes) -> None:
        """Finish the calls whose responses are complete now."""
        if self.lost:
            return
        self._heard = True
        try:
            self._reader.feed(data)
            self._read()
        except ProtocolError as error:
            self.close(ProtocolError(f"{self.target}: {error}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail every call that has no response."""
        super().connectionLost(reason)
        self._ended(self)
        self._fail_all(self._why_ended(reason))

    def _why_ended(self, reason: Failure) -> TransportError:
        """Distinguish a peer that closed the connection from one that never took it.

        With TLS 1.3 the dialling side has finished its part of the handshake, and has
        sent a request, before the other side refuses its certificate. This must not
        look like a peer that closed because of the request: a round of pre-votes takes
        that for an old peer without pre-votes. A peer that accepted the connection ends
        TLS in good order.
        """
        why = f"{self.target} closed the connection: {reason_of(reason.value)}"
        is_tls = isinstance(self.transport, TLSMemoryBIOProtocol)
        if is_tls and not self._heard and not reason.check(ConnectionDone):
            return ConnectionFailed(why)
        return ConnectionClosedByPeer(why)

    def flow_changed(self) -> None:
        """Let the sender of a snapshot go on."""
        if not self.blocked and self.unblocked is not None:
            self.unblocked()

    def _read(self) -> None:
        # Bytes without a call are a response that nobody asked for: see below.
        calls = self._calls
        while calls and self._reader.pending_bytes:
            found = self._reader.read(calls[0].kind)
            if found is None:
                return
            error, response = found
            result = calls.popleft().result
            if response is None or error:
                result.errback(RemoteError(error))
            else:
                result.callback(response)
            if self.lost:  # a callback has closed it
                return
        if self._reader.pending_bytes:
            raise ProtocolError("bytes arrived that answer no request")

    def _watch(self, deadline: float) -> None:
        delay = max(0.0, deadline - self._clock.seconds())
        self._timer = self._clock.callLater(delay, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        deadline = self._calls[0].deadline if self._calls else None
        if deadline is None:
            return
        if deadline <= self._clock.seconds():
            self.close(CallTimedOut(f"{self.target} did not answer in time"))
        else:
            self._watch(deadline)

    def _fail_all(self, error: Exception) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Taken off first: an errback may send again, or close once more.
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.result.errback(error)


class LinkPool:
    """Idle links by target, most recently used first, at most *max_pool* for each."""

    def __init__(self, max_pool: int, max_idle: int) -> None:
        self._max_pool = max_pool
        self._max_idle = max_idle
        self._idle: dict[str, list[Link]] = {}
        self._count = 0

    def take(self, target: str) -> Link | None:
        """Return the idle link to *target* that was used last, if there is one."""
        links = self._idle.get(target)
        if not links:
            return None
        link = links[-1]
        self.discard(link)
        return link

    def put(self, link: Link) -> None:
        """Keep *link* for later, or close it when there are enough."""
        links = self._idle.get(link.target, [])
        if len(links) >= self._max_pool or self._count >= self._max_idle:
            link.finish()
            return
        self._idle[link.target] = [*links, link]
        self._count += 1

    def discard(self, link: Link) -> None:
        """Forget *link*, which has ended or is in use."""
        links = self._idle.get(link.target, [])
        if link in links:
            links.remove(link)
            self._count -= 1
            if not links:
                del self._idle[link.target]
