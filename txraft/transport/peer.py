"""The serving end of connections: requests from peers, responses in the same order.

Responses may be ready in any order, but they leave a connection in the order of its
requests, because nothing on the wire says which request a response is for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    InstallSnapshotRequest,
)
from txraft.errors import ProtocolError
from txraft.interfaces import IncomingRPC, RPCHandler, SnapshotBody
from txraft.transport.body import IncomingBody
from txraft.transport.connection import Connection
from txraft.transport.connection_limits import (
    DEFAULT_TIMEOUT,
    DEFAULT_TIMEOUT_SCALE,
    PIECE_BYTES,
    ConnectionLimits,
)
from txraft.transport.identity import Identity
from txraft.transport.identity_check import IdentityCheck, claimed_sender, shown
from txraft.transport.refusals import Refusals, tls_problem
from txraft.transport.unauthenticated import (
    PendingConnection,
    UnauthenticatedConnections,
    host_of,
)
from txraft.wire.responses import encode_error, encode_response
from txraft.wire.stream import MessageLimits, RequestReader


class PeerRequest:
    """One request of a connection: an `IncomingRPC`."""

    __slots__ = (
        "_incoming",
        "_peer",
        "body",
        "command",
        "connection",
        "response",
        "size",
    )

    def __init__(
        self,
        command: AnyRequest,
        body: IncomingBody | None,
        peer: PeerProtocol,
        size: int,
    ) -> None:
        self.command = command
        self.body: SnapshotBody | None = body
        self.connection: object = peer
        self.size = size
        self.response: bytes | None = None
        self._incoming = body
        self._peer = peer

    def respond(self, response: AnyResponse) -> None:
        """Respond with *response*, after all earlier requests have their responses."""
        self._settle(encode_response(response))

    def fail(self, error: str) -> None:
        """Respond with an error text and no response."""
        self._settle(encode_error(error))

    @property
    def ready(self) -> bool:
        """Whether the response may be sent.

        The response to a snapshot does not wait until its body is read: a sender that
        is refused can stop sending. The order stays, because the next request is read
        only after the body.
        """
        return self.response is not None

    def _settle(self, response: bytes) -> None:
        assert self.response is None, "a request is answered once"
        self.response = response
        if self._incoming is not None:
            self._incoming.drain()
        self._peer.response_ready()


class PeerProtocol(Connection):
    """One connection from a peer.

    It is not read while too many requests are unanswered, while the peer does not read
    its responses, or while the consumer of a snapshot is busy. All requests are of one
    *sender*; *identity* is what its certificate proved, None without TLS.
    """

    def __init__(self, factory: PeerFactory) -> None:
        self._factory = factory
        self._pending: PendingConnection | None = None
        self.buffered_bytes = 0
        self.sender: str | None = None
        self.identity: Identity | None = None
        self._unanswered: deque[PeerRequest] = deque()
        self._unanswered_bytes = 0
        self._body: IncomingBody | None = None
        self._reading = False
        self._paused = False
        # Progress of the message at hand: bytes and requests so far, and whether
        # reading was paused since the timer was set. A pause is our doing, not the
        # peer's.
        self._was_paused = False
        self._fed = 0
        self._requests = 0
        self._watch: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Join the other connections, or close if there are too many."""
        super().connectionMade()
        self._reader = RequestReader(self._factory.limits)
        if self._factory.connection_made(self):
            self.await_first_request()
            self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release everything that belongs to this connection."""
        problem = tls_problem(reason)
        if problem is not None and not self.lost:
            self._factory.warn(
                self.channel.getPeer(), f"its TLS failed: {problem}", self.identity
            )
        super().connectionLost(reason)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._first_request_came()
        # Off the common account, or the room it took would be lost for ever.
        self._factory.buffered_bytes -= self.buffered_bytes
        self.buffered_bytes = 0
        self._reader.release()
        self._unanswered.clear()
        body, self._body = self._body, None
        if body is not None:
            body.connection_lost()
        self._factory.connection_lost(self)

    def dataReceived(self, data: bytes) -> None:
        """Deliver each request that is complete now."""
        if self.lost:
            return
        self._fed += len(data)
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            self.refuse(str(error))
            return
        self._read()
        held = 0 if self.lost else self._reader.pending_bytes
        if held or self._reader.body_left:
            self._watch_progress()
        if held != self.buffered_bytes:
            self._count_buffered(held)

    def _count_buffered(self, held: int) -> None:
        self._factory.buffered_bytes += held - self.buffered_bytes
        self.buffered_bytes = held
        limit = self._factory.connection_limits.max_buffered_bytes
        if self._factory.buffered_bytes > limit:
            self._factory.make_room()

    def refuse(self, reason: str) -> None:
        """Close the connection and log the reason, once."""
        if not self.lost:
            self._factory.warn(self.channel.getPeer(), reason, self.identity)
            self.abort()

    def refuse_soon(self, reason: str) -> None:
        """Close the connection in the next turn of the reactor."""
        self._factory.clock.callLater(0, self.refuse, reason)

    def response_ready(self) -> None:
        """Send the responses that are next in the order of the requests."""
        unanswered = self._unanswered
        responses = []
        while unanswered and unanswered[0].ready:
            request = unanswered.popleft()
            self._unanswered_bytes -= request.size
            assert request.response is not None, "it is ready"
            responses.append(request.response)
        # One write for all of them: each write is a call of the kernel.
        if responses:
            self.write(b"".join(responses))
        if self._paused:
            self.flow_changed()

    def flow_changed(self) -> None:
        """Pause reading, or resume it, beginning with bytes that are already here."""
        if not self._reading and not self.lost:
            self._read()

    def _read(self) -> None:
        """Read requests until one must wait; a nested call does nothing."""
        # A handler may respond at once, and `response_ready` calls this again: to read
        # the next request inside the delivery of this one would break the order.
        if self._reading:
            return
        self._reading = True
        try:
            while not self._must_wait() and self._read_one():
                pass
        except ProtocolError as error:
            self.refuse(str(error))
        finally:
            self._reading = False
        self._pause_or_resume()

    def _read_one(self) -> bool:
        """Read one request or one piece of a body; return whether there may be more."""
        if self._body is not None:
            return self._read_body(self._body)
        before = self._reader.pending_bytes
        request = self._reader.read()
        if request is None:
            return False
        self._requests += 1
        # Before anything is kept of the request, or delivered.
        self._check_sender(request)
        left = self._reader.pending_bytes
        size = before - left
        if type(request) is InstallSnapshotRequest:
            self._body = IncomingBody(request.size, self.flow_changed)
        rpc = PeerRequest(request, self._body, self, size)
        # Unanswered before it is delivered: the handler may respond at once.
        self._unanswered.append(rpc)
        self._unanswered_bytes += size
        self._factory.deliver(rpc)
        return left > 0 or self._body is not None

    def _check_sender(self, request: AnyRequest) -> None:
        """Check that *request* is of this connection's one sender, who may send now.

        Raises: ProtocolError
        """
        factory, known = self._factory, self.sender
        sender = claimed_sender(request) or known
        if sender is None and factory.identity_check is not None:
            sender = factory.identity_check.sender_named(self.identity)
        if sender != known and known is not None:
            raise ProtocolError(
                f"a message of {shown(sender or '')} came on the connection of "
                f"{shown(known)}"
            )
        # For each request, not once: a member may have been removed meanwhile.
        if sender is not None and factory.identity_check is not None:
            factory.identity_check.check(sender, self.identity)
        if known is None:
            self.sender = sender
            self._first_request_came()
            factory.sender_known(self)

    def _first_request_came(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._factory.unauthenticated.leave(pending)

    def await_first_request(self) -> None:
        """Count as unauthenticated until a request comes; close if none comes soon."""
        host = host_of(self.channel.getPeer())
        self._pending = self._factory.unauthenticated.enter(
            host, self._turned_away, "it sent no request"
        )

    def _turned_away(self, reason: str) -> None:
        self._pending = None
        # Without a handler requests are not read, so the peer may have sent one.
        if self._factory.handler is None and not self.lost:
            self.await_first_request()
        else:
            self.refuse(reason)

    def _read_body(self, body: IncomingBody) -> bool:
        piece = self._reader.read_body(PIECE_BYTES)
        if piece:
            body.push(piece)
        if body.complete:
            self._body = None
            self.response_ready()
            return True
        return bool(piece)

    def _must_wait(self) -> bool:
        limits = self._factory.connection_limits
        return (
            self.lost
            or self.blocked
            or self._factory.handler is None
            or len(self._unanswered) >= limits.max_unanswered_requests
            or self._unanswered_bytes >= limits.max_unanswered_bytes
            or (
                self._body is not None
                and not self._body.wanted
                and not self._body.complete
            )
        )

    def _pause_or_resume(self) -> None:
        wait = self._must_wait()
        if wait == self._paused or self.lost:
            return
        self._paused = wait
        if wait:
            self._was_paused = True
            self.channel.pauseProducing()
        else:
            self.channel.resumeProducing()

    def _watch_progress(self) -> None:
        """Require progress within `timeout` seconds of a message that has begun."""
        if self._watch is None and not self.lost and self._is_within_message():
            self._was_paused = self._paused
            self._watch = self._factory.clock.callLater(
                self._factory.timeout, self._check_progress, self._requests, self._fed
            )

    def _check_progress(self, requests: int, fed: int) -> None:
        self._watch = None
        stalled = (
            self._is_within_message()
            and requests == self._requests
            and self._fed - fed < self._factory.timeout_scale
            # While reading was paused the peer could not make progress.
            and not self._was_paused
        )
        if stalled:
            self.refuse(f"a message did not end within {self._factory.timeout} s")
        else:
            self._watch_progress()

    def _is_within_message(self) -> bool:
        return self._reader.pending_bytes > 0 or self._reader.body_left > 0


@dataclass(eq=False)
class PeerFactory(Factory):
    """All connections from peers, and the one handler that they deliver to.

    A message that has begun must end, or advance by *timeout_scale* bytes in *timeout*
    seconds. Between messages a connection may rest for ever.
    """

    clock: IReactorTime
    timeout: float = DEFAULT_TIMEOUT
    timeout_scale: int = DEFAULT_TIMEOUT_SCALE
    limits: MessageLimits = field(default_factory=MessageLimits)
    connection_limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    handler: RPCHandler | None = None
    heartbeat_handler: Callable[[IncomingRPC], object] | None = None

    noisy = False

    def __post_init__(self) -> None:
        self.identity_check: IdentityCheck | None = None
        self.buffered_bytes = 0
        self.unauthenticated = UnauthenticatedConnections(
            self.clock, self.connection_limits
        )
        # Of the last committed membership: who was in it and no longer is, was removed.
        self._members: frozenset[str] = frozenset()
        self._connections: dict[PeerProtocol, None] = {}
        self._closing: list[Deferred[None]] = []
        self._closed = False
        self._refusals = Refusals(self.clock, self.connection_limits)

    def buildProtocol(self, addr: IAddress | None) -> PeerProtocol | None:
        """Make a protocol for a connection; None once closed, or in a flood."""
        if self._closed:
            return None
        reason = self.unauthenticated.refusal_of(host_of(addr))
        if reason is not None:
            self.warn(addr, reason)
            return None
        return PeerProtocol(self)

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver to *handler*, beginning with the requests that have waited for it."""
        self.handler = handler
        for connection in list(self._connections):
            connection.flow_changed()

    def deliver(self, rpc: IncomingRPC) -> None:
        """Pass *rpc* to the handler for its kind."""
        assert self.handler is not None, "nothing is read without a handler"
        # A heartbeat passes requests that wait, or a busy disk would cost an election.
        command = rpc.command
        if (
            self.heartbeat_handler is not None
            and type(command) is AppendEntriesRequest
            and command.is_heartbeat
        ):
            self.heartbeat_handler(rpc)
        else:
            self.handler.rpc_received(rpc)

    def close(self) -> Deferred[None]:
        """Close every connection.

        Returns: a Deferred that fires when all of them have ended.
        """
        self._closed = True
        ends = [Deferred[None]() for _ in self._connections]
        self._closing += ends
        for connection in list(self._connections):
            connection.abort()
        if not ends:
            return succeed(None)
        return DeferredList(ends).addCallback(lambda _: None)

    def connection_made(self, connection: PeerProtocol) -> bool:
        """Admit *connection*; close it if there are too many."""
        limit = self.connection_limits.max_inbound_connections
        if len(self._connections) >= limit:
            connection.refuse(f"more than {limit} connections")
            return False
        self._connections[connection] = None
        return True

    def sender_known(self, connection: PeerProtocol) -> None:
        """Close the oldest connection of the same sender, if it has too many."""
        limit = self.connection_limits.max_connections_per_peer
        # The oldest goes: a peer that was cut off dials again and again, and its old
        # connections are dead.
        same = [c for c in self._connections if c.sender == connection.sender]
        if connection.sender is not None and len(same) > limit:
            same[0].refuse(f"more than {limit} connections of {same[0].sender}")

    def members_committed(self, addresses: Iterable[str]) -> None:
        """Close the connections of servers that are no longer members."""
        members = frozenset(addresses)
        removed, self._members = self._members - members, members
        for connection in list(self._connections):
            sender = connection.sender
            if sender is None or sender in members:
                continue
            if sender in removed or self._is_stranger(connection, sender):
                connection.refuse(
                    f"it speaks as {shown(sender)}, which is no member any more"
                )

    def make_room(self) -> None:
        """Close the connection that holds most bytes of unfinished messages."""
        limit = self.connection_limits.max_buffered_bytes
        largest = max(self._connections, key=lambda c: c.buffered_bytes, default=None)
        if largest is not None:
            largest.refuse(
                f"it holds most of the {limit} bytes that unfinished messages may take"
            )

    def _is_stranger(self, connection: PeerProtocol, sender: str) -> bool:
        if self.identity_check is None:
            return False
        try:
            self.identity_check.check(sender, connection.identity)
        except ProtocolError:
            return True
        return False

    def connection_lost(self, connection: PeerProtocol) -> None:
        """Forget *connection*, and call the handler's `connection_closed`."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if self.handler is not None:
            self.handler.connection_closed(connection)
        if self._closing:
            self._closing.pop().callback(None)

    def warn(
        self, address: object, reason: str, identity: Identity | None = None
    ) -> None:
        """Log that a connection was refused, at a bounded rate."""
        self._refusals.tell(address, reason, str(identity) if identity else None)
