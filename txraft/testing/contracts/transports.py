"""The contract of a transport: one handler, and one answer or failure for each call."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from txraft.core.messages import (
    Header,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ConnectionFailed,
    PipelineShutdown,
    RemoteError,
    TransportError,
    TransportShutdown,
)
from txraft.testing.contracts.case import Contract
from txraft.testing.contracts.samples import (
    HEADER,
    BytesSource,
    HeldSource,
    Recorder,
    agree,
    append,
    snapshot,
    success,
)
from txraft.transport.connection_limits import PIECE_BYTES


class TransportContract(Contract):
    """Tests of a `Transport`: a subclass makes two that reach each other.

    `here` has the address a:1 and `there` b:1; both use `clock`. A call must fail after
    `timeout` seconds. Nothing listens at nobody:1.
    """

    timeout = 2.0
    clock: Clock
    here: Any
    there: Any
    peer: Any

    def make_pair(self) -> tuple[Any, Any]:
        """Make two transports on `self.clock`, at a:1 and b:1."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Connect two transports, one of which records."""
        self.clock = Clock()
        self.here, self.there = self.make_pair()
        self.peer = Recorder()
        self.there.set_handler(self.peer)
        self.here.set_handler(Recorder())

    def settle(self, seconds: float = 0) -> None:
        """Let *seconds* pass, and everything happen that is due."""
        self.clock.advance(seconds)
        self.clock.advance(0)

    def test_every_request_arrives_and_its_answer_returns(self) -> None:
        """A request reaches the handler as it was sent, and so does the answer."""
        self.there.set_handler(peer := Recorder(agree))
        calls: list[tuple[Any, Any]] = [
            (self.here.append_entries, append(3, previous=4, entries=2)),
            (self.here.append_entries, append(3)),
            (self.here.request_vote, RequestVoteRequest(3, "a:1", 6, 2, True, HEADER)),
            (
                self.here.request_pre_vote,
                RequestPreVoteRequest(4, "a:1", 6, 2, Header(1, "a:1", "a:1")),
            ),
            (self.here.timeout_now, TimeoutNowRequest(HEADER)),
        ]
        for call, request in calls:
            answer = call("b:1", request)
            self.settle()

            self.assertEqual(self.successResultOf(answer), success(request))
        self.assertEqual(
            [_comparable(command) for command in peer.commands],
            [_comparable(request) for _, request in calls],
        )

    def test_error_text_fails_the_call_and_keeps_the_connection(self) -> None:
        """An answered error is a RemoteError, and the next call goes through."""
        first = self.here.append_entries("b:1", append(3))
        self.settle()
        self.peer.rpcs[0].fail("no %d thanks")
        self.settle()
        second = self.here.append_entries("b:1", append(4))
        self.settle()

        failure = self.failureResultOf(first, RemoteError)
        self.assertEqual(str(failure.value), "no %d thanks")
        self.assertEqual(self.peer.rpcs[0].connection, self.peer.rpcs[1].connection)
        self.assertNoResult(second)

    def test_answer_that_is_late_fails_the_call_and_its_connection(self) -> None:
        """A call has one deadline; its connection cannot be used after it."""
        late = self.here.append_entries("b:1", append(3))
        self.settle()
        self.settle(self.timeout * 0.9)
        self.assertNoResult(late)

        self.settle(self.timeout * 0.2)

        self.failureResultOf(late, CallTimedOut)
        self.assertEqual(self.peer.closed, [self.peer.rpcs[0].connection])
        self.peer.rpcs[0].respond(success(append(3)))
        again = self.here.append_entries("b:1", append(4))
        self.settle()
        self.peer.rpcs[1].respond(success(append(4)))
        self.settle()
        self.assertEqual(self.successResultOf(again).term, 4)

    def test_answers_keep_their_requests_order(self) -> None:
        """On a pipeline answers leave in request order, whenever they are ready."""
        pipeline = self.pipeline()
        fired: list[int] = []
        for term in (1, 2, 3):
            answer = pipeline.append_entries(append(term))
            answer.addCallback(lambda response: fired.append(response.term))
        self.settle()

        for number in (2, 1):
            self.peer.rpcs[number].respond(success(self.peer.rpcs[number].command))
            self.settle()
        self.assertEqual(fired, [])
        self.peer.rpcs[0].respond(success(self.peer.rpcs[0].command))
        self.settle()

        self.assertEqual(fired, [1, 2, 3])

    def test_calls_wait_for_no_other_call(self) -> None:
        """A heartbeat passes a request that waits for its answer."""
        slow = self.here.append_entries("b:1", append(1))
        quick = self.here.append_entries("b:1", append(2))
        self.settle()

        for rpc in self.peer.rpcs:
            if rpc.command.term == 2:
                rpc.respond(success(rpc.command))
        self.settle()

        self.assertNoResult(slow)
        self.assertEqual(self.successResultOf(quick).term, 2)

    def test_idle_connection_is_used_again(self) -> None:
        """One call after another uses one connection."""
        self.there.set_handler(peer := Recorder(agree))
        for term in (1, 2, 3):
            self.here.append_entries("b:1", append(term))
            self.settle()
        self.assertEqual(len({id(rpc.connection) for rpc in peer.rpcs}), 1)

    def test_closed_pipeline_fails_what_is_in_flight(self) -> None:
        """Closing a pipeline fails its requests, those in flight and later ones."""
        pipeline = self.pipeline()
        flying = pipeline.append_entries(append(1))
        self.settle()

        pipeline.close()

        self.failureResultOf(flying, PipelineShutdown)
        self.failureResultOf(pipeline.append_entries(append(2)), PipelineShutdown)
        self.settle()
        self.assertEqual(self.peer.closed, [self.peer.rpcs[0].connection])

    def test_pipeline_fails_when_its_peer_goes(self) -> None:
        """Requests in flight and later ones fail with ConnectionClosedByPeer."""
        pipeline = self.pipeline()
        flying = [pipeline.append_entries(append(term)) for term in (1, 2)]
        self.settle()

        self.there.close()
        self.settle()

        for answer in flying:
            self.failureResultOf(answer, ConnectionClosedByPeer)
        later = pipeline.append_entries(append(3))
        self.settle()
        self.failureResultOf(later, ConnectionClosedByPeer)

    def test_pipeline_has_a_deadline_for_each_answer(self) -> None:
        """Each request has its own time; the first that is late ends the pipeline."""
        pipeline = self.pipeline()
        early = pipeline.append_entries(append(1))
        self.settle(self.timeout * 0.6)
        late = pipeline.append_entries(append(2))
        self.settle()
        self.peer.rpcs[0].respond(success(append(1)))
        self.settle(self.timeout * 0.6)
        self.successResultOf(early)
        self.assertNoResult(late)

        self.settle(self.timeout * 0.6)

        self.failureResultOf(late, CallTimedOut)

    def test_cancelled_call_does_not_shift_answers(self) -> None:
        """Cancelling a call drops its own answer and no other."""
        dropped = self.here.append_entries("b:1", append(1))
        self.settle()
        dropped.cancel()
        self.settle()
        kept = self.here.append_entries("b:1", append(2))
        self.settle()

        for rpc in self.peer.rpcs:
            rpc.respond(success(rpc.command))
        self.settle()

        self.failureResultOf(dropped)
        self.assertEqual(self.successResultOf(kept).term, 2)

    def test_unknown_peer_cannot_be_reached(self) -> None:
        """Calls, pipelines and snapshots to nobody fail with ConnectionFailed."""
        for result in (
            self.here.append_entries("nobody:1", append(1)),
            self.here.append_entries_pipeline("nobody:1"),
            self.here.install_snapshot("nobody:1", snapshot(3), BytesSource(b"abc")),
        ):
            self.settle()
            self.failureResultOf(result, ConnectionFailed)

    def test_requests_wait_for_a_handler(self) -> None:
        """Requests that arrive before there is a handler wait for the first one."""
        here, there = self.make_pair()
        answer = here.append_entries("b:1", append(7))
        self.settle()

        there.set_handler(Recorder(agree))
        self.settle()

        self.assertEqual(self.successResultOf(answer).term, 7)

    def test_close_fails_calls_and_is_idempotent(self) -> None:
        """`close` fails calls under way and later ones; it may be called twice."""
        flying = self.here.append_entries("b:1", append(1))
        self.settle()

        closed, again = self.here.close(), self.here.close()
        self.settle()

        self.successResultOf(closed)
        self.successResultOf(again)
        self.failureResultOf(flying, TransportShutdown)
        self.failureResultOf(
            self.here.append_entries("b:1", append(2)), TransportShutdown
        )
        self.failureResultOf(
            self.here.append_entries_pipeline("b:1"), TransportShutdown
        )
        self.assertTrue(self.here.is_shutdown)
        self.assertEqual(self.peer.closed, [self.peer.rpcs[0].connection])

    def test_response_to_a_closed_connection_is_dropped(self) -> None:
        """A response to a connection that is closed is dropped without an error."""
        self.here.append_entries("b:1", append(1)).addErrback(lambda _: None)
        self.settle()
        self.here.close()
        self.settle()
        self.peer.rpcs[0].respond(success(append(1)))
        self.settle()

    def test_snapshot_arrives_in_pieces(self) -> None:
        """The body reaches its consumer whole, and the connection is closed after."""
        data = bytes(range(256)) * 4096
        answer = self.here.install_snapshot(
            "b:1", snapshot(len(data)), BytesSource(data)
        )
        self.settle()
        rpc = self.peer.rpcs[0]
        pieces: list[bytes] = []

        done = rpc.body.deliver_to(pieces.append)
        self.settle()
        self.successResultOf(done)
        rpc.respond(success(rpc.command))
        self.settle()

        self.assertEqual(b"".join(pieces), data)
        self.assertLessEqual(max(map(len, pieces)), PIECE_BYTES)
        self.assertTrue(self.successResultOf(answer).success)
        self.assertEqual(self.peer.closed, [rpc.connection])

    def test_snapshot_waits_for_its_consumer(self) -> None:
        """A consumer that is busy holds the sender back."""
        data = bytes(8 * PIECE_BYTES)
        source = BytesSource(data)
        self.here.install_snapshot("b:1", snapshot(len(data)), source)
        self.settle()
        busy: list[Deferred[None]] = []

        def consume(piece: bytes) -> Deferred[None]:
            busy.append(Deferred())
            return busy[-1]

        done = self.peer.rpcs[0].body.deliver_to(consume)
        self.settle()
        self.assertEqual(len(busy), 1)
        self.assertLessEqual(source.taken, 3 * PIECE_BYTES)

        while len(busy) < 100 and not busy[-1].called:
            busy[-1].callback(None)
            self.settle()
        self.successResultOf(done)
        self.assertEqual(source.taken, len(data))

    def test_snapshot_without_a_consumer_is_drained(self) -> None:
        """Answering before the body is read drops it, and waits for no more of it."""
        data = bytes(3 * PIECE_BYTES)
        answer = self.here.install_snapshot(
            "b:1", snapshot(len(data)), BytesSource(data)
        )
        self.settle()

        self.peer.rpcs[0].respond(success(snapshot(1)))
        self.settle()

        self.successResultOf(answer)

    def test_consumer_that_fails_gets_its_failure_and_no_more(self) -> None:
        """The consumer's own failure comes back, and the rest is dropped."""
        data = bytes(3 * PIECE_BYTES)
        answer = self.here.install_snapshot(
            "b:1", snapshot(len(data)), BytesSource(data)
        )
        self.settle()
        pieces: list[bytes] = []

        def consume(piece: bytes) -> None:
            pieces.append(piece)
            raise OSError("disk full")

        done = self.peer.rpcs[0].body.deliver_to(consume)
        self.settle()
        self.failureResultOf(done, OSError)
        self.peer.rpcs[0].fail("disk full")
        self.settle()

        self.failureResultOf(answer, RemoteError)
        self.assertEqual(len(pieces), 1)

    def test_snapshot_cut_short_fails_at_both_ends(self) -> None:
        """A source that ends early fails the call, and the consumer learns of it."""
        source = HeldSource()
        answer = self.here.install_snapshot("b:1", snapshot(10), source)
        self.settle()
        done = self.peer.rpcs[0].body.deliver_to(lambda piece: None)
        self.settle()
        source.reads.pop(0).callback(b"12345")
        self.settle()
        self.assertNoResult(done)

        source.reads.pop(0).callback(b"")
        self.settle()

        self.failureResultOf(answer, TransportError)
        self.failureResultOf(done, ConnectionClosedByPeer)

    def test_empty_snapshot_is_complete_at_once(self) -> None:
        """A snapshot may have no bytes."""
        answer = self.here.install_snapshot("b:1", snapshot(0), BytesSource(b""))
        self.settle()
        self.successResultOf(self.peer.rpcs[0].body.deliver_to(lambda piece: None))
        self.peer.rpcs[0].respond(success(snapshot(0)))
        self.settle()
        self.successResultOf(answer)

    def test_addresses_turn_into_bytes_and_back(self) -> None:
        """`decode_peer` and `encode_peer` keep any bytes."""
        for raw in (b"127.0.0.1:8300", b"\xff\x00odd", "ü:1".encode()):
            self.assertEqual(self.here.encode_peer(self.here.decode_peer(raw)), raw)
        self.assertEqual(self.here.local_addr(), "a:1")

    def test_heartbeat_may_take_a_path_of_its_own(self) -> None:
        """The heartbeat handler, if there is one, gets heartbeats and nothing else."""
        fast: Any = Recorder(agree)
        self.there.set_heartbeat_handler(fast.rpc_received)
        beat = self.here.append_entries("b:1", append(3))
        entries = self.here.append_entries("b:1", append(3, entries=1))
        self.settle()
        for rpc in self.peer.rpcs:
            rpc.respond(success(rpc.command))
        self.settle()

        self.assertTrue(self.successResultOf(beat).success)
        self.assertTrue(self.successResultOf(entries).success)
        self.assertTrue(all(rpc.command.is_heartbeat for rpc in fast.rpcs))

    def pipeline(self) -> Any:
        """Open a pipeline from here to there."""
        opened = self.here.append_entries_pipeline("b:1")
        self.settle()
        return self.successResultOf(opened)


def _comparable(request: Any) -> Any:
    """Return the fields of a request, its entries as a list."""
    fields = {name: getattr(request, name) for name in request.__slots__}
    if "entries" in fields:
        fields["entries"] = list(fields["entries"])
    return type(request), fields
