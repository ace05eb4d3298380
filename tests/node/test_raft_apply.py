"""Commands: each caller gets its outcome, and that is the truth."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.entry import Entry, LogType
from txraft.errors import (
    ApplicationError,
    ContractBroken,
    EnqueueTimeout,
    EntryTooLarge,
    LeadershipLost,
    NodeFailed,
    NotLeader,
    QueueFull,
    RaftShutdown,
    ShutdownWhileCommitting,
)
from txraft.node.events import RaftState
from txraft.node.pending import ApplyResult
from txraft.testing import Cluster, ListFSM


class Applying(ClusterCase):
    def test_apply_reaches_every_state_machine(self) -> None:
        """R04: one leader, all agree on it, and a command is applied on all."""
        cluster = self.cluster(3)

        result = cluster.apply(b"one")

        self.assertEqual(result.response, 1)
        self.assertEqual(result.term, cluster.leader.raft.term)
        self.assertSameState(cluster, [b"one"])
        self.assertEqual(
            {n.raft.leader for n in cluster.nodes.values()}, {cluster.leader.address}
        )

    def test_apply_in_clusters_of_one_to_five(self) -> None:
        """R03 and beyond: every size elects one leader and commits."""
        for size in (1, 2, 4, 5):
            cluster = self.cluster(size)
            cluster.apply(b"one")
            self.assertSameState(cluster, [b"one"])
            self.assertEqual(len(cluster.leaders()), 1)

    def test_apply_concurrently_keeps_the_order_of_the_calls(self) -> None:
        """R08: a hundred at once; none fails, and the order is that of the calls."""
        cluster = self.cluster(3)
        commands = [b"%d" % i for i in range(100)]

        outcomes = [self.outcome(cluster.leader.raft.apply(c)) for c in commands]
        cluster.advance(0.5)

        self.assertEqual(
            [o[0].response for o in outcomes],  # type: ignore[union-attr]
            list(range(1, 101)),
        )
        self.assertSameState(cluster, commands)

    def test_is_awaited_while_the_entry_is_applied(self) -> None:
        """Where nobody waits, a state machine need not make an answer."""
        cluster = self.cluster(3)
        found: dict[str, list[bool]] = {}
        for name, node in cluster.nodes.items():
            apply = node.fsm.apply

            def asking(log: Entry, name=name, node=node, apply=apply) -> object:  # type: ignore[no-untyped-def]
                found.setdefault(name, []).append(node.raft.is_awaited(log.index))
                return apply(log)

            self.patch(node.fsm, "apply", asking)
        leader = cluster.leader

        index = cluster.apply(b"one").index

        cluster.advance(0.5)
        self.assertEqual(
            found, {name: [node is leader] for name, node in cluster.nodes.items()}
        )
        self.assertFalse(leader.raft.is_awaited(index))

    def test_apply_from_inside_a_callback(self) -> None:
        """Consensus is never entered twice: the call only queues."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        chain: list[int] = []

        def again(result: ApplyResult) -> Deferred[ApplyResult] | None:
            chain.append(result.index)
            if len(chain) == 20:
                return None
            return raft.apply(b"%d" % len(chain)).addCallback(again)

        outcome = self.outcome(raft.apply(b"0").addCallback(again))
        cluster.advance(1)

        self.assertSucceeded(outcome)
        self.assertEqual(chain, sorted(set(chain)))
        self.assertSameState(cluster, [b"%d" % i for i in range(20)])

    def test_apply_on_a_follower_names_the_leader(self) -> None:
        """R07: NotLeader, asked twice the same answer."""
        cluster = self.cluster(3)
        for _ in range(2):
            outcome = self.outcome(cluster.followers[0].raft.apply(b"x"))
            error = self.assertFailedWith(outcome, NotLeader)
            assert isinstance(error, NotLeader)
            self.assertEqual(error.leader, cluster.leader.address)

    def test_apply_something_else_than_bytes_is_refused(self) -> None:
        """A mistake in a program raises at once and hurts no node."""
        cluster = self.cluster(1)

        with self.assertRaises(TypeError):
            cluster.leader.raft.apply("text")  # type: ignore[arg-type]

        cluster.apply(b"bytes")

    def test_barrier_follows_all_commands_before_it(self) -> None:
        """R24: when it fires, a hundred unawaited applies have been applied."""
        cluster = self.cluster(3)
        leader = cluster.leader
        for i in range(100):
            self.outcome(leader.raft.apply(b"%d" % i))

        index = cluster.result(leader.raft.barrier())

        self.assertEqual(len(commands_of(leader)), 100)
        self.assertEqual(index, leader.raft.last_index)

    def test_entry_too_large_is_refused_before_it_is_queued(self) -> None:
        """The limit itself is allowed."""
        cluster = self.cluster(1, max_entry_bytes=10)

        self.assertFailedWith(
            self.outcome(cluster.leader.raft.apply(b"x" * 11)), EntryTooLarge
        )
        cluster.apply(b"x" * 10)

    def test_queue_full_is_refused_and_has_room_again(self) -> None:
        """What waits for an outcome is bounded by number."""
        cluster = self.cluster(1, max_pending_entries=5)
        raft = cluster.leader.raft
        accepted = [self.outcome(raft.apply(b"x")) for _ in range(5)]

        self.assertFailedWith(self.outcome(raft.apply(b"x")), QueueFull)
        cluster.advance(0.1)

        for outcome in accepted:
            self.assertSucceeded(outcome)
        cluster.apply(b"room")

    def test_refusal_by_the_state_machine_reaches_the_caller_only(self) -> None:
        """An ApplicationError is deterministic: no replica stops for it."""

        class Refusing(ListFSM):
            def apply(self, log: Entry) -> object:
                if log.data == b"no":
                    raise ApplicationError("refused")
                return super().apply(log)

        cluster = self.cluster(3, make_fsm=Refusing)

        outcome = self.outcome(cluster.leader.raft.apply(b"no"))
        cluster.apply(b"yes")

        self.assertFailedWith(outcome, ApplicationError)
        self.assertSameState(cluster, [b"yes"])

    def test_any_other_exception_stops_this_replica(self) -> None:
        """It may differ from its peers; `when_stopped` says why."""

        class Failing(ListFSM):
            def apply(self, log: Entry) -> object:
                if log.data == b"fatal":
                    raise ZeroDivisionError("here")
                return super().apply(log)

        cluster = self.cluster(1, make_fsm=Failing)
        raft = cluster.leader.raft
        stopped = self.outcome(raft.when_stopped())

        doomed = self.outcome(raft.apply(b"fatal"))
        behind = self.outcome(raft.apply(b"behind"))
        cluster.advance(0.1)

        self.assertFailedWith(doomed, ShutdownWhileCommitting)
        self.assertFailedWith(behind, ShutdownWhileCommitting)
        self.assertIsInstance(stopped[0], NodeFailed)
        self.assertIn("here", str(stopped[0]))
        self.assertFailedWith(self.outcome(raft.apply(b"x")), NodeFailed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Deadlines(ClusterCase):
    def test_enqueue_timeout_means_never_appended(self) -> None:
        """R09: the wait to be appended is bounded, by the clock that is injected."""
        cluster = self.cluster(3)
        leader = cluster.leader

        late = self.outcome(leader.raft.apply(b"late", timeout=0.001))
        in_time = self.outcome(leader.raft.apply(b"in time", timeout=1.0))
        cluster.clock.advance(0.005)
        cluster.advance(0.1)

        error = self.assertFailedWith(late, EnqueueTimeout)
        self.assertEqual(error.outcome, "not-applied")  # type: ignore[attr-defined]
        self.assertSucceeded(in_time)
        self.assertSameState(cluster, [b"in time"])

    def test_timeout_of_zero_is_none(self) -> None:
        """As in Go; the time that passes before the turn does not matter."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft

        outcomes = [
            self.outcome(wait)
            for timeout in (None, 0, 0.0)
            for wait in (raft.apply(b"x", timeout), raft.barrier(timeout))
        ]
        cluster.clock.advance(0.005)
        cluster.advance(0.1)

        for outcome in outcomes:
            self.assertSucceeded(outcome)

    def test_timeout_that_is_none_of_seconds(self) -> None:
        """It is refused at once, and nothing is proposed."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        for timeout in (-1, -0.001, float("nan")):
            self.assertRaises(ValueError, raft.apply, b"x", timeout)
            self.assertRaises(ValueError, raft.barrier, timeout)
        self.assertRaises(TypeError, raft.apply, b"x", "1")
        self.assertEqual(len(raft._shell.pending), 0)  # type: ignore[union-attr]

    def test_cancel_before_append_withdraws(self) -> None:
        """The command never enters a log."""
        cluster = self.cluster(3)
        deferred = cluster.leader.raft.apply(b"withdrawn")
        outcome = self.outcome(deferred)

        deferred.cancel()
        cluster.apply(b"next")

        self.assertFailedWith(outcome, CancelledError)
        self.assertSameState(cluster, [b"next"])

    def test_cancel_after_append_detaches(self) -> None:
        """The command commits, nobody is told, nothing breaks."""
        cluster = self.cluster(3, disk_seconds=0.01)
        deferred = cluster.leader.raft.apply(b"detached")
        outcome = self.outcome(deferred)
        cluster.clock.advance(0)

        deferred.cancel()
        cluster.apply(b"next")

        self.assertFailedWith(outcome, CancelledError)
        self.assertSameState(cluster, [b"detached", b"next"])

    def test_add_timeout_on_the_clock(self) -> None:
        """Twisted's own `addTimeout` bounds the wait for the outcome."""
        cluster = self.cluster(3)
        leader = cluster.leader
        cluster.isolate(leader.address)

        deferred = leader.raft.apply(b"x").addTimeout(0.02, cluster.clock)
        outcome = self.outcome(deferred)
        cluster.advance(0.05)

        [failure] = outcome
        assert isinstance(failure, Failure)


class LosingLeadership(ClusterCase):
    def test_appended_is_unknown_and_may_be_gone(self) -> None:
        """R05: the old leader's command is lost; all logs are equal in the end."""
        cluster = self.cluster(3)
        cluster.apply(b"test")
        old = cluster.leader
        term = old.raft.term
        cluster.isolate(old.address)

        lost = self.outcome(old.raft.apply(b"lost"))
        new = cluster.wait_for_leader(among=set(cluster.nodes) - {old.address})
        cluster.result(new.raft.apply(b"apply"))
        cluster.advance(0.2)

        error = self.assertFailedWith(lost, LeadershipLost)
        self.assertEqual(error.outcome, "unknown")  # type: ignore[attr-defined]
        self.assertGreater(new.raft.term, term)
        refused = self.outcome(old.raft.apply(b"refused"))
        error = self.assertFailedWith(refused, NotLeader)
        self.assertEqual(error.outcome, "not-applied")  # type: ignore[attr-defined]
        cluster.heal()
        cluster.advance(1)
        self.assertSameState(cluster, [b"test", b"apply"])

    def test_queued_but_not_appended_is_certain(self) -> None:
        """What the turn that ends leadership finds in the queue was never appended."""
        cluster = self.cluster(3)
        leader = cluster.leader
        shell = leader.raft._shell
        assert shell is not None
        outcome = self.outcome(leader.raft.apply(b"queued"))
        consensus = shell.consensus

        shell._input(consensus.become_follower, consensus.term, None)
        cluster.advance(0)

        self.assertFailedWith(outcome, NotLeader)

    def test_what_another_leader_put_in_its_place_is_no_success(self) -> None:
        """A leader that was paused learns in one turn that its time is over, and
        what the next leader has committed at the index of its own entry.
        """
        cluster = self.cluster(3, leader_lease_timeout=0.2)
        cluster.apply(b"before")
        old = cluster.leader
        pause(cluster, old.address)
        lost = self.outcome(old.raft.apply(b"ours"))
        cluster.clock.advance(0)
        shell = old.raft._shell
        assert shell is not None
        index = shell.consensus.log.last_index

        consensus, term = shell.consensus, shell.consensus.term + 1
        theirs = Entry(index, term, LogType.COMMAND, b"theirs")
        shell._input(consensus.become_follower, term, None)
        shell._input(take_and_commit, consensus, theirs)
        cluster.clock.advance(0)

        self.assertIn(b"theirs", commands_of(old))
        self.assertFailedWith(lost, LeadershipLost)

    def test_refused_because_this_leader_was_removed_names_nobody(self) -> None:
        """A caller that is sent to the leader must not be sent in a circle."""
        cluster = self.cluster(3)
        leader = cluster.leader

        removal = self.outcome(leader.raft.remove_peer(leader.address))
        behind = self.outcome(leader.raft.apply(b"x"))
        cluster.clock.advance(0)
        later = self.outcome(leader.raft.apply(b"y"))
        cluster.advance(0.5)

        self.assertSucceeded(removal)
        for outcome in (behind, later):
            if not isinstance(outcome[0], Failure):
                continue
            error = outcome[0].value
            if isinstance(error, NotLeader):
                self.assertNotEqual(error.leader, leader.address)
        self.assertIsInstance(later[0], Failure)


def pause(cluster: Cluster, address: str) -> None:
    """Let nothing reach the node at *address*, nor leave it, without a word."""
    for node in cluster.nodes.values():
        if node.address == address:
            node.transport.latency = 0.5


def take_and_commit(consensus: object, entry: Entry) -> None:
    """Take *entry* as from a leader that has committed it."""
    consensus.truncate_from(entry.index)  # type: ignore[attr-defined]
    consensus.append([entry])  # type: ignore[attr-defined]
    consensus.commit(entry.index)  # type: ignore[attr-defined]


class Shutdown(ClusterCase):
    def test_after_shutdown_everything_fails_at_once(self) -> None:
        """R02: and a second shutdown succeeds."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        cluster.result(raft.shutdown())

        for deferred in (
            raft.apply(b"x"),
            raft.barrier(),
            raft.verify_leader(),
            raft.linearizable(),
            raft.add_peer("z"),
            raft.remove_peer("a"),
            raft.transfer_leadership(),
            raft.snapshot(),
            raft.when_leader(),
        ):
            self.assertFailedWith(self.outcome(deferred), RaftShutdown)
        self.assertEqual(raft.state, RaftState.SHUTDOWN)
        self.assertIsNone(raft.leader)
        cluster.result(raft.shutdown())
        self.assertIsNone(cluster.result(raft.when_stopped()))

    def test_shutdown_fires_all_that_waits_once(self) -> None:
        """Every kind of call under way has an outcome, and none has two."""
        cluster = self.cluster(3, disk_seconds=0.01)
        leader = cluster.leader
        raft = leader.raft
        cluster.apply(b"one")
        cluster.isolate(leader.address)
        raft.apply(b"appended").addErrback(lambda _: None)
        appended = self.outcome(raft.apply(b"appended"))
        change = self.outcome(raft.add_peer("d"))
        second = self.outcome(raft.add_peer("e"))
        snapshot = self.outcome(raft.snapshot())
        cluster.clock.advance(0)
        others = [
            self.outcome(raft.apply(b"queued")),
            self.outcome(raft.barrier()),
            self.outcome(raft.verify_leader()),
            self.outcome(raft.linearizable()),
        ]

        stopped = self.outcome(raft.shutdown())
        cluster.advance(0.5)

        self.assertFailedWith(appended, ShutdownWhileCommitting)
        self.assertFailedWith(change, ShutdownWhileCommitting)
        self.assertFailedWith(second, RaftShutdown)
        for outcome in others:
            self.assertFailedWith(outcome, RaftShutdown)
        self.assertEqual(len(snapshot), 1)
        self.assertSucceeded(stopped)

    def test_shutdown_from_a_callback_of_the_same_turn(self) -> None:
        """Whoever is refused may shut the node down; all others hear of it."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        late = raft.apply(b"late", timeout=0.001)
        late.addErrback(lambda _: raft.shutdown() and None)
        same_turn = self.outcome(raft.apply(b"same turn"))

        cluster.clock.advance(0.005)
        cluster.advance(0.1)

        self.assertEqual(len(same_turn), 1)
        self.assertEqual(raft.state, RaftState.SHUTDOWN)

    def test_shutdown_from_an_observer_is_the_last_word(self) -> None:
        """No role or leader is told after the shutdown."""
        for what in (RaftState.CANDIDATE, RaftState.LEADER):
            told: list[bool] = []
            cluster = self.unstarted(1, notify=told.append)
            node = cluster.start_node("a", ["a"])
            seen = shut_down_at(node.raft, what)

            cluster.advance(2)

            self.assertEqual(seen[-1], RaftState.SHUTDOWN)
            self.assertIsNone(node.raft.leader)
            self.assertNotEqual(told[-1:], [True])

    def test_written_before_shutdown_is_durable_after_it(self) -> None:
        """`shutdown` fires when all that was written is on disk."""
        cluster = self.cluster(1, disk_seconds=0.05)
        raft = cluster.leader.raft
        outcome = self.outcome(raft.apply(b"one"))
        cluster.clock.advance(0)

        stopped = self.outcome(raft.shutdown())
        cluster.clock.advance(0)
        self.assertEqual(stopped, [])
        cluster.advance(0.2)

        self.assertFailedWith(outcome, ShutdownWhileCommitting)
        self.assertSucceeded(stopped)
        self.assertEqual(cluster.nodes["a"].store.last_index(), raft.last_index)
        cluster.restart("a")
        cluster.wait_for_leader()
        self.assertSameState(cluster, [b"one"])

    def test_shutdown_during_start(self) -> None:
        """`start` fails with RaftShutdown, `shutdown` fires, nothing ticks on."""
        cluster = self.unstarted(1, disk_seconds=0.05)
        node = cluster.start_node("a", ["a"])
        started = self.outcome(node.started)

        stopped = self.outcome(node.raft.shutdown())
        cluster.advance(0.5)

        self.assertFailedWith(started, RaftShutdown)
        self.assertSucceeded(stopped)
        self.assertEqual(node.raft.stats(), {"state": "Shutdown"})


def shut_down_at(raft: object, what: RaftState) -> list[object]:
    """Shut *raft* down when it reaches state *what*; return the states it tells."""
    from txraft.node.events import Observation, Observer

    seen: list[object] = []

    def observe(observation: Observation) -> None:
        if isinstance(observation.data, RaftState):
            seen.append(observation.data)
        if observation.data is what:
            observation.raft.shutdown()

    raft.register_observer(Observer(observe))  # type: ignore[attr-defined]
    return seen


class StampedFSM(ListFSM):
    """Wants the term in its commands; *stamped* is what it makes of them."""

    def stamp(self, data: bytes, term: int) -> bytes:
        """Put the term behind what the command begins with."""
        return data[:-1] + b"%d" % term


class Stamping(ClusterCase):
    """A leader has its state machine stamp what it appends."""

    def test_commands_are_stamped_once_by_their_leader(self) -> None:
        """All servers apply what the leader of its term made of it."""
        cluster = Cluster(3, make_fsm=StampedFSM)
        self.addCleanup(cluster.shutdown)
        cluster.start()
        term = cluster.leader.raft.term

        cluster.apply(b"one?")
        cluster.result(cluster.leader.raft.barrier())

        self.assertSameState(cluster, [b"one%d" % term])

    def test_command_that_is_refused_is_not_stamped(self) -> None:
        """Only a leader knows the time of its log."""
        cluster = Cluster(3, make_fsm=StampedFSM)
        self.addCleanup(cluster.shutdown)
        cluster.start()
        leader = cluster.leader
        stamped: list[bytes] = []
        leader.fsm.stamp = lambda data, term: stamped.append(data) or data  # type: ignore[attr-defined]
        outcome = self.outcome(leader.raft.apply(b"one?"))

        cluster.isolate(leader.address)
        leader.raft.apply(b"two?").addErrback(lambda _: None)
        cluster.advance(5.0)
        late = self.outcome(leader.raft.apply(b"three?"))
        cluster.advance(0.1)

        self.assertFailedWith(late, NotLeader)
        self.assertNotIn(b"three?", stamped)
        self.assertEqual(len(outcome), 1)

    def test_stamp_that_breaks_its_contract_stops_the_node(self) -> None:
        """The size was admitted already; the message names the method."""

        def fails(data: bytes, term: int) -> bytes:
            raise ValueError("no time")

        for stamp in (lambda data, term: data + b"!", lambda data, term: 7, fails):
            cluster = Cluster(1, make_fsm=StampedFSM)
            cluster.start()
            node = cluster.leader
            node.fsm.stamp = stamp  # type: ignore[attr-defined]
            outcome = self.outcome(node.raft.apply(b"one"))
            stopped = self.outcome(node.raft.when_stopped())

            cluster.advance(0.1)

            self.flushLoggedErrors(ContractBroken, ValueError)
            refused = self.assertFailedWith(outcome, NotLeader)
            self.assertEqual(refused.outcome, "not-applied")  # type: ignore[attr-defined]
            self.assertIsInstance(stopped[0], NodeFailed)
            if stamp is not fails:
                self.assertIn("StampedFSM.stamp returned", str(stopped[0]))
