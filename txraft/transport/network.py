"""The transport over any stream layer: a listener, a pool of links, pipelines."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import cast

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTime,
)
from twisted.python.failure import Failure

from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
)
from txraft.errors import ConnectionFailed, TransportShutdown
from txraft.interfaces import (
    AppendPipeline,
    ForwardPipeline,
    IncomingRPC,
    RPCHandler,
    SnapshotSource,
    StreamLayer,
)
from txraft.transport.connection_limits import (
    DEFAULT_MAX_POOL,
    DEFAULT_TIMEOUT,
    DEFAULT_TIMEOUT_SCALE,
    ConnectionLimits,
    checked_timeout,
    snapshot_timeout,
)
from txraft.transport.dial import Dial
from txraft.transport.identity_check import IdentityCheck
from txraft.transport.link import Link, LinkPool
from txraft.transport.patience import Patience
from txraft.transport.peer import PeerFactory
from txraft.transport.pipeline import (
    Encoder,
    NetworkForwardPipeline,
    NetworkPipeline,
)
from txraft.transport.snapshot_stream import SnapshotStream
from txraft.transport.unary_calls import UnaryCalls
from txraft.wire.requests import encode_request, request_kind
from txraft.wire.stream import MessageLimits


class NetworkTransport(UnaryCalls):
    """A `Transport` that speaks the wire protocol over a stream layer.

    *timeout* is in seconds and covers one call, dialling included. A snapshot may take
    longer while the peer takes some of it within each timeout. Its source decides how
    long to wait for the response, or it is one timeout for every *timeout_scale* bytes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        layer: StreamLayer,
        *,
        max_pool: int = DEFAULT_MAX_POOL,
        timeout: float = DEFAULT_TIMEOUT,
        timeout_scale: int = DEFAULT_TIMEOUT_SCALE,
        limits: MessageLimits | None = None,
        connection_limits: ConnectionLimits | None = None,
    ) -> None:
        self._clock = clock
        self._layer = layer
        self._timeout = checked_timeout(timeout)
        self._limits = limits or MessageLimits()
        self._connection_limits = connection_limits or ConnectionLimits()
        self._factory = PeerFactory(
            clock, timeout, timeout_scale, self._limits, self._connection_limits
        )
        self._pool = LinkPool(max_pool, self._connection_limits.max_idle_connections)
        self._encoder = Encoder()
        self._links: dict[Link, Deferred[None]] = {}
        self._dials: dict[Dial, None] = {}
        self._port: IListeningPort | None = None
        self._lost_handler: Callable[[str], object] | None = None
        self._closed: Deferred[None] | None = None

    @property
    def timeout_scale(self) -> int:
        """Bytes of a snapshot that one timeout is granted for; may be changed."""
        return self._factory.timeout_scale

    @timeout_scale.setter
    def timeout_scale(self, scale: int) -> None:
        self._factory.timeout_scale = scale

    @property
    def limits(self) -> dict[str, float]:
        """All limits of this transport, by name."""
        return {**asdict(self._limits), **asdict(self._connection_limits)}

    @property
    def is_shutdown(self) -> bool:
        """Whether `close` was called."""
        return self._closed is not None

    def listen(self) -> Deferred[None]:
        """Begin to accept connections.

        Returns: a Deferred that fires once connections are accepted. It fails as the
            stream layer does, and with TransportShutdown when closed meanwhile.
        """
        return self._layer.listen(self._factory).addCallback(self._listening)

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver requests to *handler*; without a handler none are read."""
        self._factory.set_handler(handler)

    def set_heartbeat_handler(
        self, handler: Callable[[IncomingRPC], object] | None
    ) -> None:
        """Deliver heartbeats to *handler* instead, as soon as they are read."""
        self._factory.heartbeat_handler = handler

    def set_lost_handler(self, handler: Callable[[str], object]) -> None:
        """Call *handler* with the target of each outgoing connection that has ended."""
        self._lost_handler = handler

    def local_addr(self) -> str:
        """Return this node's address as peers know it."""
        return self._layer.addr()

    def append_entries_pipeline(self, target: str) -> Deferred[AppendPipeline]:
        """Open a pipeline to *target* on a connection of its own."""
        return self._connect(target).addCallback(self._pipeline)

    def forward_pipeline(self, target: str) -> Deferred[ForwardPipeline]:
        """Open a connection of its own to *target*."""
        return self._connect(target).addCallback(
            lambda link: NetworkForwardPipeline(self._clock, link, self._timeout)
        )

    def install_snapshot(
        self, target: str, request: InstallSnapshotRequest, data: SnapshotSource
    ) -> Deferred[InstallSnapshotResponse]:
        """Send a snapshot; its connection is closed afterwards.

        It fails when the peer takes nothing for a timeout. `Patience` bounds the wait
        for the response.
        """
        granted = snapshot_timeout(self._timeout, request.size, self.timeout_scale)
        encoded = encode_request(request)

        def send(link: Link) -> Deferred[AnyResponse]:
            patience = Patience(self._clock, self._timeout, granted, data)
            stream = SnapshotStream(
                self._clock, link, encoded, request.size, data, patience
            )
            return stream.send()

        response = self._connect(target).addCallback(send)
        return cast("Deferred[InstallSnapshotResponse]", response)

    def set_identity_check(self, check: IdentityCheck) -> None:
        """Let *check* decide which sender may use a connection; without it, all."""
        self._factory.identity_check = check

    def members_committed(self, addresses: Collection[str]) -> None:
        """Close the connections with servers that are no longer members."""
        self._factory.members_committed(addresses)
        for link in list(self._links):
            # One with a call under way ends by itself: `_release` or its pipeline.
            if link.idle and link.target not in addresses:
                link.finish()

    def close(self) -> Deferred[None]:
        """Stop listening and end every connection; calls fail with TransportShutdown.

        Returns: a Deferred that fires when nothing is open any more.
        """
        if self._closed is None:
            self._closed = Deferred()
            # Collected before anything closes: links leave `_links` as they end.
            ends = [self._factory.close(), *self._links.values()]
            if self._port is not None:
                ends.append(_stop(self._port))
            for dial in list(self._dials):
                dial.stop(TransportShutdown())
            for link in list(self._links):
                link.close(TransportShutdown())
            DeferredList(ends).addCallback(self._ended)
        return _when(self._closed)

    def _listening(self, port: IListeningPort) -> Deferred[None] | None:
        if self._closed is None:
            self._port = port
            return None
        # Closed while the stream layer was still binding: nobody else stops this port.
        return _stop(port).addCallback(lambda _: fail(TransportShutdown()))

    def _call(self, target: str, request: AnyRequest) -> Deferred[AnyResponse]:
        deadline = self._clock.seconds() + self._timeout
        encoded, kind = encode_request(request), request_kind(request)
        return self._connect(target).addCallback(
            lambda link: link.send(encoded, kind, deadline).addBoth(self._release, link)
        )

    def _release(
        self, response: AnyResponse | Failure, link: Link
    ) -> AnyResponse | Failure:
        """Keep the connection, unless a cancelled call may still get a response.

        The next call would take that response for its own.
        """
        if link.idle:
            self._pool.put(link)
        else:
            link.abort()
        return response

    def _pipeline(self, link: Link) -> AppendPipeline:
        limit = self._connection_limits.max_unsent_bytes
        return NetworkPipeline(self._clock, link, self._timeout, limit, self._encoder)

    def _connect(self, target: str) -> Deferred[Link]:
        """Take an idle link to *target* or dial for one."""
        if self._closed is not None:
            return fail(TransportShutdown())
        link = self._pool.take(target)
        return self._dial(target) if link is None else succeed(link)

    def _dial(self, target: str) -> Deferred[Link]:
        # Dials count too: many to a dead host wait for their timeouts at once.
        limit = self._connection_limits.max_outbound_connections
        if len(self._links) + len(self._dials) >= limit:
            return fail(ConnectionFailed(f"more than {limit} connections to peers"))
        try:
            endpoint = self._layer.dial(target)
        except ValueError as error:
            return fail(ConnectionFailed(str(error)))
        dial = Dial(
            self._clock, Link(self._clock, target, self._limits, self._link_ended)
        )
        self._dials[dial] = None
        dial.result.addBoth(self._dialled, dial)
        dial.start(endpoint, self._timeout)
        return dial.result

    def _dialled(self, result: Link | Failure, dial: Dial) -> Link | Failure:
        del self._dials[dial]
        if isinstance(result, Link):
            self._links[result] = Deferred()
        return result

    def _link_ended(self, link: Link) -> None:
        self._pool.discard(link)
        ended = self._links.pop(link, None)
        # None for a link whose dial was given up: nobody was told of it.
        if ended is not None:
            ended.callback(None)
            if self._lost_handler is not None and self._closed is None:
                self._lost_handler(link.target)

    def _ended(self, _: object) -> None:
        assert self._closed is not None, "it is being closed"
        self._closed.callback(None)


def _stop(port: IListeningPort) -> Deferred[None]:
    stopped = port.stopListening()
    return stopped if isinstance(stopped, Deferred) else succeed(None)


def _when(event: Deferred[None]) -> Deferred[None]:
    """Make a separate Deferred for each caller that waits for *event*."""
    waiter = Deferred[None]()
    event.addCallback(waiter.callback)
    return waiter
