"""A transport inside one process, on a clock: hashicorp/raft's `InmemTransport`.

Messages are passed as objects. Each way takes `latency` seconds of the clock, also 0,
so nothing is delivered while its sender is still on the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random, SystemRandom
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.core.entry import Entry
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
)
from txraft.errors import (
    ConnectionClosedByPeer,
    ConnectionFailed,
    PipelineShutdown,
    TransportShutdown,
)
from txraft.interfaces import (
    AppendPipeline,
    ForwardPipeline,
    IncomingRPC,
    RPCHandler,
    SnapshotSource,
    Transport,
)
from txraft.transport.connection_limits import (
    DEFAULT_MAX_POOL,
    DEFAULT_TIMEOUT_SCALE,
    checked_timeout,
    snapshot_timeout,
)
from txraft.transport.line import Line
from txraft.transport.patience import Patience
from txraft.transport.unary_calls import UnaryCalls

INMEM_TIMEOUT = 0.5
"""Seconds for one call."""

SNAPSHOT_TIMEOUT_FACTOR = 10
"""How many times longer a snapshot may take than another call, as in hashicorp/raft."""


def new_inmem_addr(random: Random) -> str:
    """Make an address that no other transport has, in the form of a UUID."""
    digits = f"{random.getrandbits(128):032x}"
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)


class InmemTransport(UnaryCalls):
    """A `LoopbackTransport` whose routes are made with `connect`.

    *latency* is the seconds that one way takes; of two transports the larger one
    counts. It may change at any time, and messages of one connection keep their order.
    *timeout* is in seconds and covers one call.
    """

    def __init__(
        self,
        clock: IReactorTime,
        addr: str | None = None,
        *,
        timeout: float = INMEM_TIMEOUT,
        latency: float = 0.0,
        random: Random | None = None,
    ) -> None:
        self.latency = latency
        self._clock = clock
        self._address = addr or new_inmem_addr(random or SystemRandom())
        self._timeout = checked_timeout(timeout)
        self._handler: RPCHandler | None = None
        self._lost_handler: Callable[[str], object] | None = None
        self._routes: dict[str, InmemTransport] = {}
        self._idle: dict[str, list[Line]] = {}
        self._outbound: dict[Line, None] = {}
        self._inbound: dict[Line, None] = {}
        self._closed = False

    @property
    def is_shutdown(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def connect(self, peer: str, transport: Transport) -> None:
        """Route *peer* to *transport*, which must be another of this class."""
        assert isinstance(transport, InmemTransport), "both are in this process"
        self._routes[peer] = transport

    def disconnect(self, peer: str) -> None:
        """Drop the route to *peer*; pending calls fail as if it had closed."""
        self._routes.pop(peer, None)
        # A list, here and below: each line that closes takes itself out of the dict.
        for line in [line for line in self._outbound if line.target == peer]:
            line.close(ConnectionClosedByPeer(f"{peer} was disconnected"))

    def disconnect_all(self) -> None:
        """Drop every route and every connection, also those from peers."""
        self._routes.clear()
        for line in [*self._outbound, *self._inbound]:
            line.close(ConnectionClosedByPeer(f"{line.target} was disconnected"))

    def close(self) -> Deferred[None]:
        """Drop every route and connection; calls fail with TransportShutdown."""
        # First the calls from here, which fail with the reason; `disconnect_all` would
        # have them fail as if the peer had closed.
        self._closed = True
        for line in list(self._outbound):
            line.close(TransportShutdown())
        self.disconnect_all()
        return succeed(None)

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver requests to *handler*, beginning with those that have waited."""
        self._handler = handler
        for line in list(self._inbound):
            line.deliver()

    def set_heartbeat_handler(
        self, handler: Callable[[IncomingRPC], object] | None
    ) -> None:
        """Do nothing, as hashicorp/raft does: no request waits that it could pass."""

    def set_lost_handler(self, handler: Callable[[str], object]) -> None:
        """Call *handler* with the target of each outgoing connection that has ended."""
        self._lost_handler = handler

    def local_addr(self) -> str:
        """Return this transport's address."""
        return self._address

    def append_entries_pipeline(self, target: str) -> Deferred[AppendPipeline]:
        """Open a pipeline to *target*."""
        try:
            line = self._line(target)
        except (ConnectionFailed, TransportShutdown) as error:
            return fail(error)
        return succeed(InmemPipeline(line, self._timeout))

    def forward_pipeline(self, target: str) -> Deferred[ForwardPipeline]:
        """Open a pipeline to *target*."""
        try:
            line = self._line(target)
        except (ConnectionFailed, TransportShutdown) as error:
            return fail(error)
        return succeed(InmemForwardPipeline(line, self._timeout))

    def install_snapshot(
        self, target: str, request: InstallSnapshotRequest, data: SnapshotSource
    ) -> Deferred[InstallSnapshotResponse]:
        """Send a snapshot on a connection that is closed after it."""
        try:
            line = self._line(target)
        except (ConnectionFailed, TransportShutdown) as error:
            return fail(error)
        timeout = self._timeout * SNAPSHOT_TIMEOUT_FACTOR
        granted = snapshot_timeout(timeout, request.size, DEFAULT_TIMEOUT_SCALE)
        patience = Patience(self._clock, timeout, granted, data)
        response = line.send_snapshot(request, request.size, data, patience)
        response.addBoth(_closing, line)
        return cast("Deferred[InstallSnapshotResponse]", response)

    def line_delivers(self, rpc: IncomingRPC) -> bool:
        """Take a request from a line; False while there is no handler."""
        if self._handler is None:
            return False
        self._handler.rpc_received(rpc)
        return True

    def line_closed(self, line: Line) -> None:
        """Forget *line*; call the handler if it came from a peer."""
        is_outbound = self._outbound.pop(line, line) is None
        if line in self._idle.get(line.target, ()):
            self._idle[line.target].remove(line)
        if line in self._inbound:
            del self._inbound[line]
            if self._handler is not None:
                self._handler.connection_closed(line)
        if is_outbound and self._lost_handler is not None and not self._closed:
            self._lost_handler(line.target)

    def _call(self, target: str, request: AnyRequest) -> Deferred[AnyResponse]:
        try:
            line = self._line(target)
        except (ConnectionFailed, TransportShutdown) as error:
            return fail(error)
        if isinstance(request, AppendEntriesRequest):
            request = _copied(request)
        return line.send(request, self._timeout).addBoth(self._release, line)

    def _release(
        self, response: AnyResponse | Failure, line: Line
    ) -> AnyResponse | Failure:
        idle = self._idle.setdefault(line.target, [])
        # A line on which a response is still awaited is never used again: responses
        # have no number, only their order.
        if line.idle and len(idle) < DEFAULT_MAX_POOL:
            idle.append(line)
            return response
        return _closing(response, line)

    def _line(self, target: str) -> Line:
        """Take an idle line to *target*, or make one."""
        if self._closed:
            raise TransportShutdown
        idle = self._idle.get(target)
        if idle:
            return idle.pop()
        callee = self._routes.get(target)
        # A peer that has shut down is like one that is not there; its route may still
        # be.
        if callee is None or callee.is_shutdown:
            raise ConnectionFailed(f"failed to connect to peer: {target}")
        line = Line(self._clock, self, callee, target)
        self._outbound[line] = None
        callee._inbound[line] = None
        return line


class InmemPipeline:
    """An `AppendPipeline` on a line of its own."""

    def __init__(self, line: Line, timeout: float) -> None:
        self._line = line
        self._timeout = timeout
        self._closed = False

    def append_entries(
        self, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        """Send *request* without waiting for the responses to earlier ones."""
        if self._closed:
            return fail(PipelineShutdown())
        response = self._line.send(_copied(request), self._timeout)
        return cast("Deferred[AppendEntriesResponse]", response)

    def close(self) -> None:
        """End the connection; requests in flight fail with PipelineShutdown."""
        self._closed = True
        self._line.close(PipelineShutdown())


class InmemForwardPipeline:
    """A `ForwardPipeline` on a line of its own."""

    def __init__(self, line: Line, timeout: float) -> None:
        self._line = line
        self._timeout = timeout
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether a request would leave; with False nothing of it is ever sent."""
        return not (self._closed or self._line.closed)

    def forward(self, request: ForwardRequest) -> Deferred[ForwardResponse]:
        """Send *request* without waiting for the responses to earlier ones."""
        if self._closed:
            return fail(PipelineShutdown())
        response = self._line.send(request, self._timeout)
        return cast("Deferred[ForwardResponse]", response)

    def close(self) -> None:
        """End the connection; requests in flight fail with PipelineShutdown."""
        self._closed = True
        self._line.close(PipelineShutdown())


def _copied(request: AppendEntriesRequest) -> AppendEntriesRequest:
    """Copy *request* with its entries, so that no two nodes share an object.

    Otherwise a state machine that changes an entry would change it on every node, which
    no network does.
    """
    return replace(request, entries=tuple(map(_copied_entry, request.entries)))


def _copied_entry(entry: Entry) -> Entry:
    return Entry(
        index=entry.index,
        term=entry.term,
        type=entry.type,
        data=entry.data,
        extensions=entry.extensions,
        configuration=entry.configuration,
        cluster=entry.cluster,
        encoded=entry.encoded,
    )


def _closing(response: AnyResponse | Failure, line: Line) -> AnyResponse | Failure:
    line.close(ConnectionClosedByPeer(f"{line.target} is disconnected"))
    return response
