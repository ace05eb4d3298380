"""The outbox: each request that leaves comes back exactly once."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.core.ready import Heartbeat, OutgoingRequest, Replicate
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ConnectionFailed,
    ContractBroken,
    LogNotFound,
    PipelineReplicationNotSupported,
    PipelineShutdown,
    RemoteError,
)
from txraft.node.outbox import Outbox

PATIENCE = 10
HEARTBEAT = Heartbeat(term=3, round=1, sent=0, stream=1)
VOTE = RequestVoteRequest(3, "a", 5, 2)
PRE_VOTE = RequestPreVoteRequest(3, "a", 5, 2)
ANSWER = AppendEntriesResponse(3, 7, True)


def replicate(prev: int = 4, last: int = 6, commit: int = 4) -> Replicate:
    return Replicate(3, prev, 2, last, commit, sent=0, stream=1)


class HeldPipeline:
    """A pipeline whose answers a test gives."""

    def __init__(self) -> None:
        self.sent: list[AppendEntriesRequest] = []
        self.answers: list[Deferred[AppendEntriesResponse]] = []
        self.closed = False

    def append_entries(
        self, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        self.sent.append(request)
        self.answers.append(Deferred())
        return self.answers[-1]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for answer in self.answers:
                if not answer.called:
                    answer.errback(PipelineShutdown())


class HeldTransport:
    """A transport that sends nothing: a test settles every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Deferred[Any]]] = []
        self.openings: list[Deferred[Any]] = []

    def _call(self, target: str, request: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.calls.append((target, request, result))
        return result

    append_entries = request_vote = request_pre_vote = timeout_now = _call

    def append_entries_pipeline(self, target: str) -> Deferred[Any]:
        self.openings.append(Deferred())
        return self.openings[-1]


class OutboxCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = HeldTransport()
        self.leading = True
        self.fates: list[tuple[str, OutgoingRequest]] = []
        self.answers: list[object] = []
        self.log = [Entry(i, 3, LogType.COMMAND, b"") for i in range(1, 11)]
        self.outbox = Outbox(
            "a",
            self.transport,  # type: ignore[arg-type]
            inbox=self,
            fetch=self.fetch,
            send_snapshot=lambda peer, request: self.fates.append(
                ("snapshot", request)
            ),
            patience_ticks=PATIENCE,
            header=Header(1),
            own_id=lambda: "id-of-a",
        )

    def fetch(self, first: int, last: int) -> list[Entry] | Deferred[list[Entry]]:
        return self.log[first - 1 : last]

    def answered(self, peer: str, request: OutgoingRequest, answer: object) -> None:
        self.fates.append(("answered", request))
        self.answers.append(answer)

    def lost(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        self.fates.append(("closed" if closed else "lost", request))

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        self.fates.append(("unsupported", request))

    def leads(self, term: int) -> bool:
        return self.leading

    def stop_because(self, reason: str, failure: Failure) -> None:
        self.fates.append(("stopped", HEARTBEAT))

    def pipeline(self) -> HeldPipeline:
        """Open the pipeline that was asked for last."""
        pipeline = HeldPipeline()
        self.transport.openings[-1].callback(pipeline)
        return pipeline


class StrangeTransports(OutboxCase):
    def test_call_that_raises_or_gives_nothing_to_wait_for(self) -> None:
        """The request is lost and the error told once; the node goes on."""

        def raising(target: str, request: Any) -> Deferred[Any]:
            raise KeyError(target)

        for call, error in ((raising, KeyError), (lambda *_: None, ContractBroken)):
            self.setUp()
            for _ in range(2):
                self.transport.request_vote = call  # type: ignore[method-assign]
                self.outbox.send("b", VOTE)

            self.assertEqual(self.fates, [("lost", VOTE)] * 2)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_coroutine(self) -> None:
        """An `async def` of a transport is awaited."""

        async def answering(target: str, request: Any) -> object:
            return ANSWER

        self.transport.request_vote = answering  # type: ignore[method-assign,assignment]
        self.outbox.send("b", VOTE)

        self.assertEqual(self.fates, [("answered", VOTE)])

    def test_what_is_no_exception(self) -> None:
        """It stops the node, but for a future of asyncio that was cancelled."""
        for error, fates in (
            (SystemExit(1), ["stopped", "lost"]),
            (asyncio.CancelledError(), ["lost"]),
        ):
            self.setUp()
            self.outbox.send("b", VOTE)
            self.transport.calls[0][2].errback(Failure(error))
            self.assertEqual([fate for fate, _ in self.fates], fates)
        self.flushLoggedErrors()


class Calls(OutboxCase):
    def test_each_fate_is_reported_once(self) -> None:
        """An answer, no connection, a peer that hung up, one that does not know it."""
        fates = [
            (ANSWER, "answered"),
            (ConnectionFailed("no"), "lost"),
            (CallTimedOut("late"), "lost"),
            (ConnectionClosedByPeer("bye"), "closed"),
            (RemoteError("unexpected command"), "unsupported"),
            (RemoteError("something else"), "lost"),
        ]
        for outcome, fate in fates:
            for request in (HEARTBEAT, VOTE, PRE_VOTE, TimeoutNowRequest()):
                self.setUp()
                self.outbox.send("b", request)
                [(target, _, deferred)] = self.transport.calls
                if isinstance(outcome, Exception):
                    deferred.errback(outcome)
                else:
                    deferred.callback(outcome)
                self.outbox.tick(PATIENCE + 1)
                self.outbox.stop()

                self.assertEqual(target, "b")
                self.assertEqual(self.fates, [(fate, request)])

    def test_entries_that_take_too_long_count_as_hung_up_on(self) -> None:
        """What is too large for the way there is not to be sent again unchanged."""
        self.outbox.send("b", replicate())
        pipeline = self.pipeline()

        pipeline.answers[0].errback(CallTimedOut("late"))

        self.assertEqual([fate for fate, _ in self.fates], ["closed"])

    def test_wire_form(self) -> None:
        """A heartbeat has the shape that peers know; a pre-vote names its sender."""
        self.outbox.send("b", HEARTBEAT)
        self.outbox.send("b", PRE_VOTE)
        self.outbox.send("b", VOTE)

        heartbeat, pre_vote, vote = [request for _, request, _ in self.transport.calls]
        self.assertTrue(heartbeat.is_heartbeat)
        self.assertEqual(heartbeat.header, Header(1))
        self.assertEqual(pre_vote.header, Header(1, id="id-of-a", address="a"))
        self.assertEqual(vote.header, Header(1))
        self.assertEqual(vote.candidate, "a")

    def test_unanswered_call_is_cancelled_in_time(self) -> None:
        """Not before; and its answer, should it still come, counts no more."""
        self.outbox.send("b", VOTE)
        self.outbox.tick(PATIENCE - 1)
        self.assertEqual(self.fates, [])

        self.outbox.tick(1)

        self.assertEqual(self.fates, [("lost", VOTE)])
        self.transport.calls[0][2].callback(ANSWER)
        self.assertEqual(len(self.fates), 1)

    def test_unanswered_heartbeat_drops_the_pipeline_too(self) -> None:
        """A peer that is silent on one connection is not heard on the other."""
        self.outbox.send("b", replicate())
        pipeline = self.pipeline()
        self.outbox.send("b", HEARTBEAT)

        self.outbox.tick(PATIENCE)

        self.assertTrue(pipeline.closed)
        self.assertEqual(
            sorted(fate for fate, _ in self.fates), ["lost", "lost"], self.fates
        )
        self.outbox.send("b", replicate())
        self.assertEqual(len(self.transport.openings), 2)

    def test_stop_reports_nothing(self) -> None:
        """Whatever is under way is cancelled in silence."""
        self.outbox.send("b", VOTE)
        self.outbox.send("b", replicate())
        pipeline = self.pipeline()
        self.outbox.send("c", replicate())

        self.outbox.stop()

        self.assertTrue(pipeline.closed)
        self.assertEqual(self.fates, [])


class Pipelines(OutboxCase):
    def test_requests_wait_for_the_pipeline_and_go_in_order(self) -> None:
        """One pipeline for each peer, opened when it is first needed."""
        first, second = replicate(4, 6), replicate(6, 8)
        self.outbox.send("b", first)
        self.outbox.send("b", second)
        self.assertEqual(len(self.transport.openings), 1)
        pipeline = self.pipeline()

        self.assertEqual([r.prev_log_index for r in pipeline.sent], [4, 6])
        self.assertEqual([e.index for e in pipeline.sent[0].entries], [5, 6])
        pipeline.answers[0].callback(ANSWER)
        self.assertEqual(self.fates, [("answered", first)])
        third = replicate(8, 8)
        self.outbox.send("b", third)
        self.assertEqual(len(pipeline.sent), 3)
        self.assertEqual(list(pipeline.sent[2].entries), [])

    def test_failure_of_one_request_is_the_end_of_the_pipeline(self) -> None:
        """All behind it are lost with it; the next one opens another."""
        self.outbox.send("b", replicate(4, 6))
        self.outbox.send("b", replicate(6, 8))
        pipeline = self.pipeline()

        pipeline.answers[0].errback(ConnectionClosedByPeer("bye"))

        self.assertTrue(pipeline.closed)
        self.assertEqual([fate for fate, _ in self.fates].count("closed"), 1)
        self.assertEqual(len(self.fates), 2)
        self.outbox.send("b", replicate(4, 6))
        self.assertEqual(len(self.transport.openings), 2)

    def test_opening_that_fails(self) -> None:
        """At once or late: what waits for it is lost, and the next one tries again."""
        self.outbox.send("b", replicate())
        self.transport.openings[0].errback(ConnectionFailed("no"))
        self.assertEqual(self.fates, [("lost", replicate())])

        failing = ConnectionFailed("at once")
        opening: Deferred[Any] = Deferred()
        opening.errback(failing)
        self.transport.append_entries_pipeline = (  # type: ignore[method-assign]
            lambda target: opening
        )
        self.outbox.send("b", replicate())
        self.assertEqual(len(self.fates), 2)

    def test_pipelines_not_supported(self) -> None:
        """Single calls take their place, for what waits and for what comes."""
        self.outbox.send("b", replicate(4, 6))
        self.transport.openings[0].errback(PipelineReplicationNotSupported())
        self.outbox.send("b", replicate(6, 8))

        self.assertEqual(
            [request.prev_log_index for _, request, _ in self.transport.calls], [4, 6]
        )
        self.transport.calls[1][2].callback(ANSWER)
        self.assertEqual(self.fates, [("answered", replicate(6, 8))])

    def test_pipeline_that_opens_too_late_is_closed(self) -> None:
        """A cancelled opening leaves nothing open."""
        self.outbox.send("b", replicate())
        opening = self.transport.openings[0]
        self.outbox.send("b", HEARTBEAT)
        self.outbox.tick(PATIENCE)

        self.assertTrue(opening.called)
        self.assertEqual(len(self.fates), 2)


class OneForAll(OutboxCase):
    def sent(self, *messages: Replicate) -> list[AppendEntriesRequest]:
        """Send each message to a peer of its own; return what their pipelines got."""
        requests = []
        for peer, message in zip("bcd", messages, strict=False):
            self.outbox.send(peer, message)
            requests += self.pipeline().sent
        return requests

    def test_peers_that_get_the_same(self) -> None:
        """The request is made once, so it is encoded once."""
        first, second = self.sent(replicate(), replicate())

        self.assertIs(first, second)

    def test_peers_that_get_more_or_less(self) -> None:
        """Each gets what was meant for it."""
        messages = [replicate(4, 6), replicate(4, 7), replicate(5, 7)]

        requests = self.sent(*messages)

        self.assertEqual(
            [[entry.index for entry in request.entries] for request in requests],
            [[5, 6], [5, 6, 7], [6, 7]],
        )

    def test_peers_told_of_another_commit(self) -> None:
        """The one that was told less has not acknowledged more."""
        first, second = self.sent(replicate(commit=4), replicate(commit=5))

        self.assertEqual([first.leader_commit, second.leader_commit], [4, 5])

    def test_another_term(self) -> None:
        """What stands at an index in one term may be another entry in the next."""
        [first] = self.sent(replicate())
        self.log = [Entry(i, 5, LogType.COMMAND, b"") for i in range(1, 11)]

        self.outbox.send("c", Replicate(5, 4, 2, 6, 4, sent=0, stream=1))
        [second] = self.pipeline().sent

        self.assertEqual([first.entries[0].term, second.entries[0].term], [3, 5])

    def test_another_header(self) -> None:
        """A cluster that has just got its identity says so."""
        [first] = self.sent(replicate())
        self.outbox.header = Header(1, cluster=b"c" * 16)

        self.outbox.send("c", replicate())
        [second] = self.pipeline().sent

        self.assertEqual(
            [first.header.cluster, second.header.cluster], [None, b"c" * 16]
        )


class Fetching(OutboxCase):
    def test_entries_that_must_be_read_first(self) -> None:
        """The request leaves when they are there, and says what it really holds."""
        read: Deferred[list[Entry]] = Deferred()
        self.fetch = lambda first, last: read  # type: ignore[method-assign]
        self.outbox._fetch = self.fetch
        self.outbox.send("b", replicate(4, 9, commit=9))
        read.callback(self.log[4:7])
        pipeline = self.pipeline()
        pipeline.answers[0].callback(ANSWER)

        [(fate, request)] = self.fates
        assert isinstance(request, Replicate)
        self.assertEqual((fate, request.last, request.commit), ("answered", 7, 7))
        self.assertEqual(pipeline.sent[0].leader_commit, 7)

    def test_entries_read_after_leadership_ended(self) -> None:
        """They may be another leader's, with another entry before them: not sent."""
        read: Deferred[list[Entry]] = Deferred()
        self.outbox._fetch = lambda first, last: read
        self.outbox.send("b", replicate())

        self.leading = False
        read.callback(self.log[4:7])

        self.assertEqual(self.transport.openings, [])
        self.assertEqual(self.fates, [])

    def test_entries_in_memory_wait_for_those_that_are_read(self) -> None:
        """Requests leave in the order in which they were made, news without too."""
        reads: list[Deferred[list[Entry]]] = [Deferred(), Deferred()]
        waiting = iter(reads)
        self.outbox._fetch = lambda first, last: (
            next(waiting) if first < 7 else self.fetch(first, last)
        )
        for prev, last in ((2, 4), (4, 6), (6, 8), (8, 8)):
            self.outbox.send("b", replicate(prev, last))

        reads[1].callback(self.log[4:6])
        reads[0].callback(self.log[2:4])

        sent = self.pipeline().sent
        self.assertEqual([s.prev_log_index for s in sent], [2, 4, 6, 8])
        self.assertEqual([len(s.entries) for s in sent], [2, 2, 2, 0])

    def test_entries_for_another_peer_do_not_wait(self) -> None:
        """Only one follower is behind."""
        reads: list[Deferred[list[Entry]]] = [Deferred()]
        waiting = iter(reads)
        self.outbox._fetch = lambda first, last: next(waiting, self.log[4:6])
        self.outbox.send("b", replicate())
        self.outbox.send("c", replicate())

        self.assertEqual(len(self.pipeline().sent), 1)

    def send_behind_a_read(self) -> Deferred[list[Entry]]:
        """Send entries that are read and some in memory; return what is read."""
        read: Deferred[list[Entry]] = Deferred()
        self.outbox._fetch = lambda first, last: (
            read if first == 5 else self.fetch(first, last)
        )
        self.outbox.send("b", replicate(4, 6))
        self.outbox.send("b", replicate(6, 8))
        return read

    def test_entries_behind_a_read_after_leadership_ended(self) -> None:
        """What waits is not sent either: the log may be another leader's."""
        read = self.send_behind_a_read()

        self.leading = False
        read.callback(self.log[4:6])

        self.assertEqual(self.transport.openings, [])

    def test_entries_behind_a_read_that_fails(self) -> None:
        """They leave, and are refused by who lacks what is before them."""
        read = self.send_behind_a_read()

        read.errback(LogNotFound(5))

        self.assertEqual(self.fates, [("lost", replicate(4, 6))])
        self.assertEqual([s.prev_log_index for s in self.pipeline().sent], [6])

    def test_entries_that_are_gone(self) -> None:
        """Compacted meanwhile: the request is lost, and a snapshot will follow."""
        read: Deferred[list[Entry]] = Deferred()
        self.outbox._fetch = lambda first, last: read
        self.outbox.send("b", replicate())

        read.errback(LogNotFound(5))

        self.assertEqual(self.fates, [("lost", replicate())])
