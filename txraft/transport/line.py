"""One connection within a process: passes objects in order, on a clock."""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txraft.core.messages import AnyRequest, AnyResponse
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    RemoteError,
    TransportError,
)
from txraft.interfaces import IncomingRPC, SnapshotBody, SnapshotSource
from txraft.transport.body import IncomingBody
from txraft.transport.connection_limits import PIECE_BYTES
from txraft.transport.patience import Patience


class LineEnds(typing.Protocol):
    """The part of the transports at both ends that a line calls."""

    latency: float

    def line_delivers(self, rpc: IncomingRPC) -> bool:
        """Deliver a request at the callee; False while there is no handler."""

    def line_closed(self, line: Line) -> None:
        """Forget *line*, which has closed; called at both ends."""


class LineRequest:
    """One request on a line: an `IncomingRPC`, and the caller's Deferred."""

    __slots__ = (
        "_line",
        "body",
        "command",
        "connection",
        "response",
        "result",
        "timer",
    )

    def __init__(
        self, command: AnyRequest, body: SnapshotBody | None, line: Line, timeout: float
    ) -> None:
        self.command = command
        self.body = body
        self.connection: object = line
        self.response: AnyResponse | RemoteError | None = None
        self.result = Deferred[AnyResponse]()
        self.timer: IDelayedCall = line.clock.callLater(timeout, line.expire)
        self._line = line

    def respond(self, response: AnyResponse) -> None:
        """Respond with *response*, after all earlier requests have their responses."""
        self._settle(response)

    def fail(self, error: str) -> None:
        """Respond with an error text."""
        self._settle(RemoteError(error))

    def _settle(self, response: AnyResponse | RemoteError) -> None:
        assert self.response is None, "a request is answered once"
        self.response = response
        if self.body is not None:
            self.body.drain()
        self._line.response_ready()


class Line:
    """A connection from *caller* to *callee*, whose address is *target* at the caller.

    It is its own token for `RPCHandler.connection_closed`.
    """

    def __init__(
        self, clock: IReactorTime, caller: LineEnds, callee: LineEnds, target: str
    ) -> None:
        self.clock = clock
        self.target = target
        self.closed = False
        self._caller = caller
        self._callee = callee
        # Each request passes through these queues in order: pending at the caller until
        # its response is back, and on the way, arrived, unanswered, on the way back.
        self._calls: deque[LineRequest] = deque()
        self._on_the_way: deque[LineRequest] = deque()
        self._arrived: deque[LineRequest] = deque()
        self._unanswered: deque[LineRequest] = deque()
        self._responses: deque[LineRequest] = deque()
        self._body: IncomingBody | None = None
        self._pump: BodyPump | None = None

    @property
    def idle(self) -> bool:
        """Whether it is open and no response is awaited."""
        return not self._calls and not self.closed

    def send(self, command: AnyRequest, timeout: float) -> Deferred[AnyResponse]:
        """Send *command*; its response is due within *timeout* seconds."""
        return self._send(LineRequest(command, None, self, timeout))

    def send_snapshot(
        self, command: AnyRequest, size: int, source: SnapshotSource, patience: Patience
    ) -> Deferred[AnyResponse]:
        """Send *command* and *size* bytes of *source* behind it."""
        pump = BodyPump(self, size, source, patience)
        self._body = pump.body
        self._pump = pump
        request = LineRequest(command, pump.body, self, patience.left(not size))
        response = self._send(request)
        pump.run()
        return response

    def hop(self, arrive: Callable[[], object]) -> None:
        """Call *arrive* after the latency of one way, unless the line has closed."""
        latency = max(self._caller.latency, self._callee.latency)
        self.clock.callLater(latency, lambda: None if self.closed else arrive())

    def deliver(self) -> None:
        """Deliver the requests that have arrived to the callee."""
        while self._arrived and not self.closed:
            # Unanswered before it is delivered: the handler may answer at once.
            request = self._arrived.popleft()
            self._unanswered.append(request)
            if not self._callee.line_delivers(request):
                self._arrived.appendleft(self._unanswered.pop())
                return

    def response_ready(self) -> None:
        """Send the responses that are next in the order of the requests."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].response is not None:
            self._responses.append(unanswered.popleft())
            self.hop(self._response_arrives)

    def expire(self) -> None:
        """Close because a response is late, unless a snapshot still makes progress."""
        wait = 0.0 if self._pump is None else self._pump.patience_left()
        if wait > 0 and self._calls:
            self._calls[0].timer = self.clock.callLater(wait, self.expire)
            return
        self.close(CallTimedOut(f"{self.target} did not answer in time"))

    def close(self, error: Exception) -> None:
        """End the connection at both ends; calls fail with *error*."""
        if self.closed:
            return
        self.closed = True
        self._caller.line_closed(self)
        calls, self._calls = self._calls, deque()
        for call in calls:
            if call.timer.active():
                call.timer.cancel()
            call.result.errback(error)
        self.clock.callLater(self._callee.latency, self._end_at_callee)

    def _send(self, request: LineRequest) -> Deferred[AnyResponse]:
        if self.closed:
            request.timer.cancel()
            request.result.errback(
                ConnectionClosedByPeer(f"{self.target} is disconnected")
            )
            return request.result
        self._calls.append(request)
        self._on_the_way.append(request)
        self.hop(self._arrive)
        return request.result

    def _arrive(self) -> None:
        self._arrived.append(self._on_the_way.popleft())
        self.deliver()

    def _response_arrives(self) -> None:
        request = self._responses.popleft()
        first = self._calls.popleft()
        assert first is request, "answers leave in the order of the requests"
        request.timer.cancel()
        response = request.response
        assert response is not None, "it was answered"
        if isinstance(response, RemoteError):
            request.result.errback(response)
        else:
            request.result.callback(response)

    def _end_at_callee(self) -> None:
        if self._body is not None:
            self._body.connection_lost()
        self._callee.line_closed(self)


class BodyPump:
    """Moves a snapshot from its source to the callee's body, one piece at a time."""

    def __init__(
        self, line: Line, size: int, source: SnapshotSource, patience: Patience
    ) -> None:
        self._patience = patience
        self.body = IncomingBody(size, self._changed)
        self._line = line
        self._source = source
        self._left = size
        self._busy = False

    def run(self) -> None:
        """Read the next piece if the body wants one and none is under way."""
        if self._busy or not self._left or not self.body.wanted or self._line.closed:
            return
        self._busy = True
        piece = maybeDeferred(self._source.read, min(PIECE_BYTES, self._left))
        piece.addCallbacks(self._send, self._failed)

    def patience_left(self) -> float:
        """Return how many seconds to wait on; 0 means give up."""
        return self._patience.left(is_sent=not self._left)

    def _changed(self) -> None:
        self._patience.moved()
        if not self.body.complete:
            self.run()

    def _send(self, piece: bytes) -> None:
        if not piece:
            self._line.close(TransportError("the snapshot ended before its size"))
            return
        piece = piece[: self._left]
        self._left -= len(piece)
        self._line.hop(lambda: self._arrive(piece))

    def _arrive(self, piece: bytes) -> None:
        self._busy = False
        self.body.push(piece)
        self._changed()

    def _failed(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._line.close(TransportError(f"the snapshot cannot be read: {reason}"))
