"""Commands and reads on a member that does not lead: each has one honest outcome."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.support.forwarders import ForwardingCase
from tests.support.raft_cluster import commands_of
from txraft.core.entry import Entry
from txraft.core.messages import ForwardRequest, ForwardResponse, Header
from txraft.errors import (
    ApplicationError,
    EntryTooLarge,
    LeadershipLost,
    NotLeader,
    OutcomeUnknown,
    QueueFull,
    RaftShutdown,
    ReadTimedOut,
    RemoteError,
    ShutdownWhileCommitting,
)
from txraft.node.forwarding import LEAST_PASSED, MOST_QUESTIONS
from txraft.node.pending import ApplyResult
from txraft.testing import ListFSM
from txraft.testing.cluster import FAST


class RefusingFSM(ListFSM):
    """Refuses commands that begin with "no"."""

    def apply(self, log: Entry) -> object:
        if (log.data or b"").startswith(b"no"):
            raise ApplicationError("no is refused")
        return super().apply(log)


class StampedFSM(ListFSM):
    """Has the term in its commands."""

    def stamp(self, data: bytes, term: int) -> bytes:
        assert data.endswith(b"?"), "a command is stamped once"
        return data[:-1] + b"%d" % term


class GatedFSM(ListFSM):
    """Answers a command when a test says so, while `gates` is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Deferred[object]] | None = None

    def apply(self, log: Entry) -> object:
        result = super().apply(log)
        if self.gates is None:
            return result
        self.gates.append(Deferred())
        return self.gates[-1]


class Commands(ForwardingCase):
    def test_apply_on_every_member(self) -> None:
        """The outcome is that of the state machine here, leader or not."""
        self.start()

        results = [
            self.c.result(self.apply(b"%d" % number, at=forwarder))
            for number, forwarder in enumerate(self.all.values())
        ]

        self.assertEqual([r.response for r in results], [1, 2, 3])
        self.assertSameState(self.c, [b"0", b"1", b"2"])

    def test_apply_tells_the_place(self) -> None:
        self.start()

        result = self.c.result(self.apply(b"one"))

        last = self.leader.raft.last_index
        self.assertEqual(result, ApplyResult(last, self.leader.raft.term, 1))

    def test_apply_waits_for_no_message_to_followers(self) -> None:
        """The answer moves the commit index here; the leader tells it seconds later."""
        self.start(commit_timeout=0.19)
        before = self.c.clock.seconds()

        self.c.result(self.apply(b"one"))

        self.assertLess(self.c.clock.seconds() - before, 0.01)

    def test_apply_that_the_state_machine_refuses(self) -> None:
        """Its exception has the class that it was raised with: it is this node's."""
        self.start(make_fsm=RefusingFSM)

        outcome = self.outcome(self.apply(b"no"))
        self.c.advance(0.1)

        self.assertFailedWith(outcome, ApplicationError)

    def test_apply_is_stamped_by_the_leader(self) -> None:
        """It is appended there, so the time in it is the leader's, and once."""
        self.start(make_fsm=StampedFSM)

        self.c.result(self.apply(b"t?"))

        term = self.leader.raft.term
        self.assertSameState(self.c, [b"t%d" % term])

    def test_apply_of_one_turn_is_one_message(self) -> None:
        self.start()
        self.c.result(self.apply(b"first"))
        tap = self.tap()

        pending = [self.apply(b"%d" % number) for number in range(50)]

        self.assertEqual([self.c.result(d).response for d in pending][-1], 51)
        self.assertEqual([len(r.commands) for r in tap.forwarded], [50])

    def test_apply_fits_into_the_bytes_of_a_message(self) -> None:
        """A message has as many commands as fit, and at least one."""
        self.start(max_append_bytes=100)
        self.c.result(self.apply(b"first"))
        tap = self.tap()

        pending = [self.apply(bytes(size)) for size in (40, 60, 1, 500, 99)]
        for deferred in pending:
            self.c.result(deferred)

        sizes = [[len(data) for data in r.commands] for r in tap.forwarded]
        self.assertEqual(sizes, [[40, 60], [1], [500], [99]])

    def test_apply_whose_entry_is_applied_before_the_answer(self) -> None:
        """The response was here before the place was known: it is kept meanwhile."""
        self.start()
        tap = self.tap()
        tap.holds_answers = True
        outcome = self.outcome(self.apply(b"one"))
        self.c.advance(0.1)
        self.assertEqual(commands_of(self.follower), [b"one"])
        self.c.apply(b"two")

        tap.let_go()
        self.c.advance(0.1)

        [result] = outcome
        assert isinstance(result, ApplyResult)
        self.assertEqual(result.response, 1)

    def test_apply_waits_for_a_leader(self) -> None:
        """What is asked without a leader is sent when one is known."""
        self.start()
        self.c.crash(self.leader.address)
        self.c.wait_until(lambda: self.follower.raft.leader is None)

        result = self.c.result(self.apply(b"one"))

        self.assertEqual(result.response, 1)

    def test_apply_before_the_start(self) -> None:
        """It waits for the node, too."""
        cluster = self.unstarted(1)
        node = cluster.start_node("a", ["a"])
        [forwarder] = self.forwarders(cluster).values()
        deferred = forwarder.apply(b"one", 5.0)

        self.assertEqual(cluster.result(deferred).response, 1)
        self.assertEqual(node.raft.leader, "a")

    def test_apply_without_a_leader_in_time(self) -> None:
        """It certainly was not appended."""
        self.start()
        self.c.isolate(self.follower.address)
        self.c.wait_until(lambda: self.follower.raft.leader is None)

        outcome = self.outcome(self.apply(b"one", 0.5))
        self.c.advance(0.4)
        self.assertEqual(outcome, [])
        self.c.advance(0.2)

        error = self.assertFailedWith(outcome, NotLeader)
        self.assertEqual(getattr(error, "outcome", ""), "not-applied")
        self.c.heal()
        self.c.advance(2.0)
        self.assertEqual(commands_of(self.follower), [])

    def test_apply_whose_answer_does_not_come(self) -> None:
        """The connection ends with it on its way: unknown, and it is not sent again."""
        self.start()
        self.c.result(self.apply(b"first"))
        tap = self.tap()
        tap.holds_answers = True
        outcome = self.outcome(self.apply(b"one"))
        self.c.advance(0.05)

        self.follower.transport.disconnect(self.leader.address)
        self.follower.transport.connect(self.leader.address, self.leader.transport)
        self.c.advance(3.0)

        error = self.assertFailedWith(outcome, OutcomeUnknown)
        self.assertEqual(getattr(error, "outcome", ""), "unknown")
        self.assertEqual(len(tap.forwarded), 1)
        self.assertSameState(self.c, [b"first", b"one"])
        tap.held.clear()

    def test_apply_after_a_connection_was_lost(self) -> None:
        """What is asked after that goes on a new one."""
        self.start()
        self.c.result(self.apply(b"one"))
        self.follower.transport.disconnect(self.leader.address)
        self.follower.transport.connect(self.leader.address, self.leader.transport)

        self.assertEqual(self.c.result(self.apply(b"two")).response, 2)

    def test_apply_without_an_outcome_in_time(self) -> None:
        """A command that has left may commit later."""
        self.start()
        tap = self.tap()
        tap.takes = False

        outcome = self.outcome(self.apply(b"one", 0.2))
        self.c.advance(0.3)

        self.assertFailedWith(outcome, OutcomeUnknown)

    def test_apply_each_by_its_deadline(self) -> None:
        """Whatever the order in which they came."""
        self.start()
        self.c.isolate(self.follower.address)
        self.c.wait_until(lambda: self.follower.raft.leader is None)
        seconds = (0.6, 0.2, 0.9, 0.4)
        outcomes = [self.outcome(self.apply(b"one", each)) for each in seconds]

        for passed in (1, 2, 3, 4):
            self.c.advance(0.2 if passed < 4 else 0.35)
            late = [bool(outcome) for outcome in outcomes]
            now = (0.2, 0.4, 0.6, 0.95)[passed - 1] + 0.01
            self.assertEqual(late, [each < now for each in seconds])

    def test_apply_at_a_leader_that_is_deposed(self) -> None:
        """Its own log has the command: it may commit, and is not passed on."""
        self.start()
        self.c.isolate(self.leader.address)

        outcome = self.outcome(self.apply(b"one", at=self.all[self.leader.address]))
        self.c.advance(1.0)
        self.c.heal()
        self.c.advance(1.0)

        self.assertFailedWith(outcome, LeadershipLost)
        self.assertSameState(self.c, [])

    def test_apply_where_too_much_waits_at_the_leader(self) -> None:
        """It was not appended, so it is tried again, and takes its turn."""
        self.start(max_pending_entries=4, latency=0.01)
        others = [self.all[node.address] for node in self.c.followers]
        outcomes = [
            self.outcome(self.apply(b"x", at=each)) for _ in range(3) for each in others
        ]

        self.c.advance(1.0)

        for outcome in outcomes:
            self.assertSucceeded(outcome)
        self.c.wait_for_all()
        self.assertEqual(len(commands_of(self.follower)), 6)

    def test_apply_at_a_leader_without_a_quorum(self) -> None:
        """It is appended, and the leader gives up: it may commit, or not."""
        self.start(5)
        a, b = self.leader.address, self.follower.address
        self.c.result(self.apply(b"first"))
        self.c.isolate(a, b)

        outcome = self.outcome(self.apply(b"one"))
        self.c.advance(1.0)

        error = self.assertFailedWith(outcome, OutcomeUnknown)
        self.assertIn("stopped to lead", str(error))

    def test_apply_during_a_transfer(self) -> None:
        """What a leader does not append now is tried again, at its successor."""
        self.start(latency=0.01)
        self.c.result(self.apply(b"first"))
        transferred = self.outcome(
            self.leader.raft.transfer_leadership(self.follower.address)
        )

        pending = []
        for number in range(20):
            pending.append(self.outcome(self.apply(b"%d" % number)))
            self.c.advance(0.005)
        self.c.advance(1.0)

        self.assertSucceeded(transferred)
        for outcome in pending:
            self.assertSucceeded(outcome)
        self.c.wait_for_all()
        self.assertEqual(len(commands_of(self.follower)), 21)

    def test_apply_refused_with_a_text(self) -> None:
        """A text is given instead of an append; it is tried again until it is late."""
        self.start(shutdown_on_remove=False)
        self.c.result(self.leader.raft.remove_peer(self.follower.address))
        self.c.advance(0.1)
        if self.follower.raft.leader is None:
            return

        outcome = self.outcome(self.apply(b"one", 0.3))
        self.c.advance(0.5)

        self.assertFailedWith(outcome, RemoteError, NotLeader)

    def test_apply_that_is_too_large(self) -> None:
        self.start(max_entry_bytes=100)
        outcome = self.outcome(self.apply(bytes(101)))
        self.assertFailedWith(outcome, EntryTooLarge)

    def test_apply_that_is_too_much(self) -> None:
        """What waits is bounded in number and in bytes."""
        self.start(max_pending_entries=3, max_pending_bytes=1000, max_entry_bytes=1000)
        few = [self.outcome(self.apply(b"x")) for _ in range(4)]
        self.assertFailedWith(few[3], QueueFull)
        self.c.advance(0.1)

        large = [self.outcome(self.apply(bytes(600))) for _ in range(2)]
        self.assertFailedWith(large[1], QueueFull)

        self.c.advance(0.1)
        for outcome in (*few[:3], large[0]):
            self.assertSucceeded(outcome)
        self.c.result(self.apply(bytes(600)))

    def test_apply_of_no_bytes(self) -> None:
        self.start()
        self.assertRaises(TypeError, self.apply, "text")

    def test_cancelled_before_it_leaves(self) -> None:
        """It is withdrawn."""
        self.start()
        deferred = self.apply(b"one")
        outcome = self.outcome(deferred)

        deferred.cancel()

        self.assertFailedWith(outcome, CancelledError)
        self.c.result(self.apply(b"two"))
        self.assertSameState(self.c, [b"two"])

    def test_cancelled_after_it_left(self) -> None:
        """It may commit all the same."""
        self.start(latency=0.01)
        self.c.result(self.apply(b"first"))
        deferred = self.apply(b"one")
        outcome = self.outcome(deferred)
        self.c.advance(0.005)

        deferred.cancel()
        self.c.advance(0.2)

        self.assertFailedWith(outcome, CancelledError)
        self.assertSameState(self.c, [b"first", b"one"])

    def test_cancelled_ones_leave_nothing_behind(self) -> None:
        """Who comes and goes while there is no leader fills no memory."""
        self.start()
        self.c.isolate(self.follower.address)
        self.c.wait_until(lambda: self.follower.raft.leader is None)
        for _ in range(5 * LEAST_PASSED):
            for deferred in (self.apply(b"one"), self.read()):
                deferred.addErrback(lambda _: None)
                deferred.cancel()

        most = 2 * LEAST_PASSED + 2
        self.assertLess(len(self.forwarder._queued), most)
        self.assertLess(len(self.forwarder._deadlines), most)

    def test_shutdown(self) -> None:
        """What has not left was not appended; of the rest nobody knows."""
        self.start()
        tap = self.tap()
        tap.holds_answers = True
        sent = self.outcome(self.apply(b"one"))
        asked = self.outcome(self.read())
        self.c.advance(0.05)
        queued = self.outcome(self.apply(b"two"))
        unasked = self.outcome(self.read())

        self.follower.raft.shutdown()

        self.assertFailedWith(sent, ShutdownWhileCommitting)
        for outcome in (asked, queued, unasked):
            self.assertFailedWith(outcome, RaftShutdown)
        for late in (self.apply(b"three"), self.read()):
            self.assertFailedWith(self.outcome(late), RaftShutdown)
        tap.held.clear()

    def test_shutdown_of_the_leader(self) -> None:
        """What it had appended is unknown, and the next goes to its successor."""
        self.start(disk_seconds=0.02)
        outcome = self.outcome(self.apply(b"one"))
        self.c.advance(0.01)

        self.leader.raft.shutdown()
        self.c.advance(0.1)

        self.assertFailedWith(outcome, OutcomeUnknown)
        self.c.nodes.pop(self.leader.address)
        self.assertEqual(self.c.result(self.apply(b"two")).index > 0, True)


class Peers(ForwardingCase):
    def test_leader_that_announces_nothing(self) -> None:
        """One of protocol version 0 never gets a request that it does not know."""
        cluster = self.unstarted(3)
        for address in "abc":
            version = 0 if address == "a" else 1
            config = replace(FAST, protocol_version=version)
            cluster.start_node(address, "abc", config)
        cluster.wait_until(lambda: bool(cluster.leaders()))
        cluster.advance(0.5)
        if cluster.leader.address != "a":
            cluster.result(cluster.leader.raft.transfer_leadership("a"))
        cluster.wait_for_leader()
        self.c, self.leader = cluster, cluster.nodes["a"]
        tap = self.tap()
        self.forwarder = self.forwarders(cluster)["b"]

        for deferred in (self.apply(b"one"), self.read()):
            outcome = self.outcome(deferred)
            cluster.advance(0.1)
            error = self.assertFailedWith(outcome, NotLeader)
            assert isinstance(error, NotLeader)
            self.assertEqual(error.leader, "a")
        self.assertEqual(tap.forwarded, [])

    def test_follower_of_version_0(self) -> None:
        """It has no header that says who asks."""
        cluster = self.unstarted(3)
        for address in "abc":
            version = 0 if address == "a" else 1
            config = replace(FAST, protocol_version=version)
            cluster.start_node(address, "abc", config)
        cluster.wait_until(lambda: bool(cluster.leaders()))
        cluster.advance(0.5)
        if cluster.leader.address == "a":
            cluster.result(cluster.leader.raft.transfer_leadership("b"))
        cluster.wait_for_leader()
        self.c = cluster
        self.forwarder = self.forwarders(cluster)["a"]

        outcome = self.outcome(self.apply(b"one"))
        cluster.advance(0.1)

        self.assertFailedWith(outcome, NotLeader)


class Asked(ForwardingCase):
    """What a leader answers to requests that are made by hand."""

    def ask(self, request: ForwardRequest) -> ForwardResponse | Failure:
        opened = self.follower.transport.forward_pipeline(self.leader.address)
        answered = self.c.result(opened).forward(request)
        outcome = self.outcome(answered)
        self.c.advance(0.2)
        [response] = outcome
        return response

    def header(self, address: str | None = None, **changes: bytes) -> Header:
        shell = self.follower.raft._shell
        assert shell is not None, "it runs"
        header = shell.responder.forward_header(shell.consensus.cluster)
        assert header is not None, "its version has one"
        return replace(header, address=address or header.address, **changes)

    def refused(self, header: Header) -> str:
        answer = self.ask(ForwardRequest((b"one",), header))
        assert isinstance(answer, Failure)
        answer.trap(RemoteError)
        self.assertSameState(self.c, [])
        return answer.getErrorMessage()

    def test_member_is_served(self) -> None:
        self.start()
        answer = self.ask(ForwardRequest((b"one", b"two"), self.header()))
        assert isinstance(answer, ForwardResponse)
        term, last = self.leader.raft.term, self.leader.raft.last_index
        self.assertEqual(answer.places, ((last - 1, term), (last, term)))

    def test_stranger(self) -> None:
        """Only members may ask."""
        self.start()
        self.assertIn("no member", self.refused(self.header("z")))

    def test_nobody(self) -> None:
        self.start()
        self.assertIn("no member", self.refused(Header(1)))

    def test_another_cluster(self) -> None:
        self.start()
        self.assertIn("another cluster", self.refused(self.header(cluster=b"other")))

    def test_another_incarnation(self) -> None:
        """A member whose data directory was lost is refused, as in every request."""
        self.start()
        text = self.refused(self.header(incarnation=b"another"))
        self.assertIn("data directory", text)

    def test_another_version(self) -> None:
        self.start()
        text = self.refused(replace(self.header(), protocol_version=9))
        self.assertIn("protocol version", text)

    def test_who_does_not_lead(self) -> None:
        """It says whom it follows, and appends nothing."""
        self.start()
        other = self.c.followers[1]
        self.leader, leader = other, self.leader

        for commands in ((b"one", b"two"), ()):
            answer = self.ask(ForwardRequest(commands, self.header()))
            assert isinstance(answer, ForwardResponse)
            self.assertEqual(answer.places, ((0, 0),) * (len(commands) or 1))
            self.assertEqual(answer.leader, leader.address)

    def test_command_that_is_too_large(self) -> None:
        """It has a fate of its own; those beside it commit."""
        self.start(max_entry_bytes=100)
        commands = (bytes(10), bytes(101), bytes(11))
        answer = self.ask(ForwardRequest(commands, self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertEqual(answer.places[1], (0, 3))
        self.assertEqual(answer.places[2][0], answer.places[0][0] + 1)

    def test_only_commands_that_are_too_large(self) -> None:
        self.start(max_entry_bytes=100)
        answer = self.ask(ForwardRequest((bytes(101),), self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertEqual(answer.places, ((0, 3),))

    def test_too_much(self) -> None:
        """The limits on what waits at the leader hold for what others ask, too."""
        self.start(max_pending_entries=3)
        answer = self.ask(ForwardRequest((b"x",) * 4, self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertEqual(answer.places, ((0, 2),) * 4)
        self.ask(ForwardRequest((b"x",) * 3, self.header()))
        answer = self.ask(ForwardRequest((b"x",) * 3, self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertNotIn((0, 2), answer.places)

    def test_not_committed(self) -> None:
        """There is no place before it is committed."""
        self.start(5)
        self.c.isolate(self.leader.address, self.follower.address)
        answer = self.ask(ForwardRequest((b"one",), self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertEqual(answer.places, ((0, 1),))

    def test_read_index(self) -> None:
        """The index of what is committed, and the term of the entry there."""
        self.start()
        self.c.apply(b"one")
        answer = self.ask(ForwardRequest((), self.header()))
        assert isinstance(answer, ForwardResponse)
        raft = self.leader.raft
        self.assertEqual(answer.places, ((raft.last_index, raft.term),))

    def test_read_index_without_a_quorum(self) -> None:
        """A leader that cannot confirm itself says that it has no answer."""
        self.start(5)
        self.c.isolate(self.leader.address, self.follower.address)
        answer = self.ask(ForwardRequest((), self.header()))
        assert isinstance(answer, ForwardResponse)
        self.assertEqual(answer.places, ((0, 0),))


class Reads(ForwardingCase):
    def test_linearizable_on_a_follower(self) -> None:
        """It sees what was committed before, although no message has told that."""
        self.start(commit_timeout=0.19)
        for number in range(3):
            index = self.c.apply(b"%d" % number).index
            self.assertGreaterEqual(self.c.result(self.read()), index)
            self.assertEqual(len(commands_of(self.follower)), number + 1)

    def test_linearizable_of_one_turn_is_one_question(self) -> None:
        self.start()
        self.c.result(self.read())
        tap = self.tap()

        reads = [self.read() for _ in range(50)]
        for read in reads:
            self.c.result(read)

        self.assertEqual([r.commands for r in tap.forwarded], [()])

    def test_linearizable_shares_no_older_question(self) -> None:
        """The answer to what was asked before a read began is none for it."""
        self.start(latency=0.01)
        self.c.result(self.read())
        tap = self.tap()
        tap.holds_answers = True
        first = self.outcome(self.read())
        self.c.advance(0.1)
        index = self.c.apply(b"one").index
        second = self.outcome(self.read())

        held, tap.held = tap.held, []
        tap.holds_answers = True
        held[0]()
        self.c.advance(0.1)
        self.assertEqual(len(first), 1)
        self.assertEqual(second, [])
        tap.let_go()
        self.c.advance(0.1)

        self.assertEqual(len(tap.forwarded), 2)
        [seen] = second
        assert isinstance(seen, int)
        self.assertGreaterEqual(seen, index)

    def test_linearizable_has_few_questions_under_way(self) -> None:
        """All that come meanwhile share the next one."""
        self.start()
        self.c.result(self.read())
        tap = self.tap()
        tap.holds_answers = True
        reads = []
        for _ in range(10):
            reads.append(self.outcome(self.read()))
            self.c.advance(0.01)
        self.assertEqual(len(tap.forwarded), MOST_QUESTIONS)

        tap.let_go()
        self.c.advance(0.1)

        for read in reads:
            self.assertSucceeded(read)
        self.assertEqual(len(tap.forwarded), MOST_QUESTIONS + 1)

    def test_linearizable_does_not_wait_for_commits(self) -> None:
        """Reads have a connection of their own."""
        self.start(5)
        self.c.result(self.apply(b"first"))
        self.c.result(self.read())
        tap = self.tap()
        tap.holds_answers = True
        command = self.outcome(self.apply(b"one"))
        self.c.advance(0.1)
        held, tap.held = tap.held, []
        tap.holds_answers = False

        self.c.result(self.read())

        self.assertEqual(command, [])
        for answer in held:
            answer()
        self.c.advance(0.1)

    def test_linearizable_when_another_leads(self) -> None:
        """A read may be asked again, and is: at the new leader, at once."""
        self.start()
        self.c.result(self.read())
        tap = self.tap()
        tap.takes = False
        read = self.outcome(self.read())
        self.c.advance(0.05)

        self.leader.raft.transfer_leadership(self.c.followers[1].address)
        self.c.advance(0.3)

        self.assertSucceeded(read)

    def test_linearizable_when_the_leader_is_cut_off(self) -> None:
        """It waits for the next one."""
        self.start()
        self.c.result(self.read())
        tap = self.tap()
        tap.takes = False
        read = self.outcome(self.read())
        self.c.advance(0.05)

        self.c.isolate(self.leader.address)
        self.c.advance(2.0)

        self.assertSucceeded(read)

    def test_linearizable_without_an_answer_in_time(self) -> None:
        self.start()
        tap = self.tap()
        tap.takes = False

        read = self.outcome(self.read(0.3))
        self.c.advance(0.4)

        self.assertFailedWith(read, NotLeader)

    def test_linearizable_that_is_not_applied_in_time(self) -> None:
        """It was confirmed, but the state here does not get there."""
        self.start(make_fsm=GatedFSM)
        fsm = self.follower.fsm
        assert isinstance(fsm, GatedFSM)
        fsm.gates = []
        self.c.apply(b"one")

        read = self.outcome(self.read(0.3))
        self.c.advance(0.4)

        self.assertFailedWith(read, ReadTimedOut)
        for gate in fsm.gates:
            gate.callback(None)

    def test_linearizable_too_many(self) -> None:
        self.start(max_pending_entries=3)
        reads = [self.outcome(self.read()) for _ in range(4)]
        self.assertFailedWith(reads[3], QueueFull)
        self.c.advance(0.1)
        for read in reads[:3]:
            self.assertSucceeded(read)

    def test_linearizable_cancelled(self) -> None:
        """One is withdrawn, those that share its question are not."""
        self.start(latency=0.01)
        reads = [self.read() for _ in range(3)]
        outcomes = [self.outcome(read) for read in reads]
        self.c.advance(0.015)

        reads[1].cancel()
        self.c.advance(0.2)

        self.assertFailedWith(outcomes[1], CancelledError)
        self.assertSucceeded(outcomes[0])
        self.assertSucceeded(outcomes[2])

    def test_max_stale_counts_from_what_is_covered(self) -> None:
        """Contact proves nothing: a follower may hear its leader and be far behind."""
        self.start(make_fsm=GatedFSM)
        self.c.result(self.read())
        fsm = self.follower.fsm
        assert isinstance(fsm, GatedFSM)
        fsm.gates = []
        self.c.apply(b"one")
        self.c.advance(1.0)

        fresh = self.outcome(self.read(0.5, max_stale=2.0))
        stale = self.outcome(self.read(0.5, max_stale=0.5))

        self.assertSucceeded(fresh)
        self.assertEqual(stale, [])
        # By now a question was answered, whose index is not applied.
        self.c.advance(0.1)
        again = self.outcome(self.read(0.3, max_stale=0.5))
        self.assertEqual(again, [])
        self.c.advance(0.6)
        for late in (stale, again):
            self.assertFailedWith(late, ReadTimedOut)
        for gate in fsm.gates:
            gate.callback(None)

    def test_max_stale_on_the_leader(self) -> None:
        """There a read covers the moment at which it was asked for."""
        self.start()
        self.forwarder = self.all[self.leader.address]
        self.c.result(self.read())
        self.c.isolate(self.leader.address)

        self.assertSucceeded(self.outcome(self.read(0.1, max_stale=1.0)))
