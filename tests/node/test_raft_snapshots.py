"""Snapshots on whole clusters: taken, sent, installed, and started from."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.core.leader import Leader
from txraft.core.progress import Mode
from txraft.errors import (
    LeadershipLost,
    NothingNewToSnapshot,
    RaftShutdown,
    SnapshotFailed,
)
from txraft.interfaces import SnapshotSink
from txraft.testing import Cluster, ListFSM, Node
from txraft.testing.cluster import ListSnapshot


def numbers(count: int) -> list[bytes]:
    return [b"%d" % i for i in range(count)]


def is_installing(node: Node) -> bool:
    shell = node.raft._shell
    return shell is not None and shell.snapshots.installing


class SnapshotCase(ClusterCase):
    def apply_all(self, cluster: Cluster, commands: list[bytes]) -> None:
        raft = cluster.leader.raft
        outcomes = [self.outcome(raft.apply(command)) for command in commands]
        cluster.wait_until(lambda: all(outcomes))


class Named(ListFSM):
    """A state machine of the application *application_name*."""

    def __init__(self, application_name: str) -> None:
        super().__init__()
        self.application_name = application_name


class OtherApplications(SnapshotCase):
    def test_snapshot_of_another_application_is_refused_by_name(self) -> None:
        """The follower's log, state and snapshots stay as they are; it goes on."""
        fsms = map(Named, ("mine", "mine", "other"))
        cluster = self.cluster(3, lambda: next(fsms), trailing_logs=0)
        foreign = cluster.nodes["c"]
        cluster.isolate("c")
        cluster.wait_for_leader("ab")
        self.apply_all(cluster, numbers(20))
        cluster.result(cluster.leader.raft.snapshot())
        last = foreign.store.last_index()

        cluster.heal()
        with capturedLogs() as events:
            cluster.advance(2)

        self.assertEqual(foreign.snapshots.list(), [])
        self.assertEqual(foreign.store.last_index(), last)
        self.assertEqual(commands_of(foreign), [])
        reasons = [str(event["reason"]) for event in events if "reason" in event]
        self.assertIn("application 'mine', and this server is of 'other'", reasons[0])


class Taking(SnapshotCase):
    def test_snapshot_and_restart(self) -> None:
        """R17: the log is cut to what is kept, and the node starts from both."""
        cluster = self.cluster(1, trailing_logs=10)
        self.apply_all(cluster, numbers(100))
        raft = cluster.leader.raft
        last = raft.last_index

        meta = cluster.result(raft.snapshot())
        cluster.advance(0.1)

        self.assertEqual((meta.index, meta.term), (last, raft.term))
        self.assertEqual(cluster.nodes["a"].store.first_index(), last - 9)
        node = cluster.restart("a")
        self.assertEqual(node.raft.applied_index, last)
        cluster.wait_for_leader()
        self.assertSameState(cluster, numbers(100))

    def test_automatic_snapshot_at_the_threshold(self) -> None:
        """R19: not below it."""
        cluster = self.cluster(1, snapshot_threshold=50, snapshot_interval=0.1)
        store = cluster.nodes["a"].snapshots
        self.apply_all(cluster, numbers(40))
        cluster.advance(0.5)
        self.assertEqual(store.list(), [])

        self.apply_all(cluster, numbers(20))
        cluster.advance(0.5)

        self.assertEqual(len(store.list()), 1)

    def test_nothing_new(self) -> None:
        """R20: only commands and barriers count, also after a restart."""
        cluster = self.cluster(1)

        def refused() -> None:
            outcome = self.outcome(cluster.leader.raft.snapshot())
            cluster.advance(0.1)
            self.assertFailedWith(outcome, NothingNewToSnapshot)

        refused()
        self.apply_all(cluster, numbers(10))
        again: list[Deferred[object]] = []
        raft = cluster.leader.raft
        cluster.result(
            raft.snapshot().addCallback(lambda _: again.append(raft.snapshot()))
        )
        self.assertFailedWith(self.outcome(again[0]), NothingNewToSnapshot)
        refused()
        cluster.restart("a")
        cluster.wait_for_leader()
        cluster.advance(0.1)
        refused()
        cluster.result(cluster.leader.raft.barrier())
        cluster.result(cluster.leader.raft.snapshot())

    def test_state_machine_that_cannot_capture_or_persist(self) -> None:
        """The node goes on without a snapshot, and releases what it captured."""
        captures: list[FailingSnapshot] = []

        class FailingSnapshot(ListSnapshot):
            def persist(self, sink: SnapshotSink) -> None:
                sink.write(b"half")
                raise OSError(28, "no space")

        class FailingFSM(ListFSM):
            def snapshot(self) -> ListSnapshot:
                if self.commands[-1] == b"worse":
                    raise ValueError("cannot capture")
                captures.append(FailingSnapshot([]))
                return captures[-1]

        cluster = self.cluster(1, make_fsm=FailingFSM)
        cluster.apply(b"bad")
        outcome = self.outcome(cluster.leader.raft.snapshot())
        cluster.advance(0.1)
        self.assertFailedWith(outcome, SnapshotFailed)
        self.assertTrue(captures[0].released)

        cluster.apply(b"worse")
        outcome = self.outcome(cluster.leader.raft.snapshot())
        self.assertFailedWith(outcome, SnapshotFailed)

        cluster.apply(b"on")
        self.assertEqual(cluster.leader.snapshots.list(), [])
        self.assertEqual(len(self.flushLoggedErrors(OSError, ValueError)), 2)

    def test_snapshot_waits_for_the_log_to_be_durable(self) -> None:
        """One covers only what is synced here, or a restart would find a gap.

        A follower applies what a quorum has, be it on its own disk or not.
        """
        cluster = self.cluster(3)
        cluster.apply(b"one")
        cluster.wait_for_all()
        slow = cluster.followers[0]
        cluster.slow_disk(slow.address, 1.0)
        for command in numbers(3):
            cluster.apply(command)
        last = cluster.leader.raft.last_index
        cluster.wait_until(lambda: slow.raft.applied_index == last)
        self.assertLess(slow.store.last_index(), last - 1)

        outcome = self.outcome(slow.raft.snapshot())

        for _ in range(300):
            cluster.advance(0.02)
            for meta in slow.snapshots.list():
                self.assertLessEqual(meta.index, slow.store.last_index())
        self.assertSucceeded(outcome)

    def test_term_of_a_snapshot(self) -> None:
        """It is that of the last entry in it, not that in which it is taken."""
        cluster = self.cluster(3, pre_vote=False)
        self.apply_all(cluster, numbers(3))
        cluster.wait_for_all()
        alone, term = cluster.followers[0], cluster.leader.raft.term
        cluster.isolate(alone.address)
        cluster.wait_until(lambda: alone.raft.term > term)

        meta = cluster.result(alone.raft.snapshot())

        self.assertEqual((meta.index, meta.term), (alone.raft.applied_index, term))

    def test_membership_of_a_snapshot(self) -> None:
        """It is the one in force at its index, not one that may yet be rolled back."""
        cluster = self.cluster(3)
        self.apply_all(cluster, numbers(3))
        raft = cluster.leader.raft
        cluster.isolate(raft.address)
        self.outcome(raft.add_peer("d"))
        cluster.advance(0.02)
        self.assertIn("d", raft.peers())

        meta = cluster.result(raft.snapshot())

        self.assertEqual(meta.configuration.addresses, ("a", "b", "c"))
        self.assertLess(meta.configuration_index, meta.index)

    def test_only_one_at_a_time(self) -> None:
        """The second is refused while the first is being written."""
        cluster = self.cluster(1, disk_seconds=0.05)
        self.apply_all(cluster, numbers(3))
        raft = cluster.leader.raft

        first = self.outcome(raft.snapshot())
        second = self.outcome(raft.snapshot())
        cluster.advance(0.5)

        self.assertSucceeded(first)
        self.assertFailedWith(second, SnapshotFailed)

    def test_shutdown_abandons_what_is_being_written(self) -> None:
        """However much is still to come: the sink takes no more."""
        pieces: list[int] = []
        to_stop: list[Cluster] = []

        class Endless(ListSnapshot):
            def persist(self, sink: SnapshotSink) -> None:
                while len(pieces) < 1000:
                    pieces.append(sink.write(b"piece"))
                    if len(pieces) == 3:
                        to_stop[0].nodes["a"].raft.shutdown()

        class EndlessFSM(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return Endless([])

        cluster = self.cluster(1, make_fsm=EndlessFSM)
        to_stop.append(cluster)
        cluster.apply(b"one")

        outcome = self.outcome(cluster.leader.raft.snapshot())
        cluster.advance(0.1)

        self.assertFailedWith(outcome, SnapshotFailed, RaftShutdown)
        self.assertEqual(len(pieces), 3)
        self.assertEqual(cluster.nodes["a"].snapshots.list(), [])


class Sending(SnapshotCase):
    def lag(self, cluster: Cluster, count: int) -> str:
        """Crash a follower, apply and cut the log; return its address."""
        laggard = cluster.followers[0].address
        cluster.crash(laggard)
        self.apply_all(cluster, numbers(count))
        cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.1)
        return laggard

    def test_snapshots_name_their_cluster(self) -> None:
        """Both those that are taken and those that a leader has sent."""
        cluster = self.cluster(3, trailing_logs=5)
        laggard = self.lag(cluster, 100)

        cluster.restart(laggard)
        cluster.wait_until(lambda: bool(cluster.nodes[laggard].snapshots.list()))

        nodes = (cluster.leader, cluster.nodes[laggard])
        taken, sent = (node.snapshots.list()[0].cluster for node in nodes)
        self.assertEqual(taken, cluster.leader.store.get(b"Cluster"))
        self.assertEqual(sent, taken)
        self.assertEqual(len(taken), 16)

    def test_laggard_gets_a_snapshot(self) -> None:
        """R21: what it lacks is in no log any more."""
        cluster = self.cluster(3, trailing_logs=5)
        laggard = self.lag(cluster, 100)

        node = cluster.start_node(laggard)

        self.assertSameState(cluster, numbers(100))
        self.assertEqual(len(node.snapshots.list()), 1)

    def test_laggard_gets_a_snapshot_and_the_log_behind_it(self) -> None:
        """B12: then it restarts from both."""
        cluster = self.cluster(3, trailing_logs=5)
        laggard = self.lag(cluster, 100)
        more = [b"more %d" % i for i in range(100)]
        self.apply_all(cluster, more)

        cluster.start_node(laggard)
        self.assertSameState(cluster, numbers(100) + more)
        cluster.restart(laggard)

        self.assertSameState(cluster, numbers(100) + more)

    def test_laggard_gets_a_snapshot_while_the_leader_writes_one(self) -> None:
        """Reading the one there is does not wait until the next one is written."""
        cluster = self.cluster(3, trailing_logs=0)
        laggard = self.lag(cluster, 10)
        self.apply_all(cluster, [b"more"])
        cluster.slow_snapshots(cluster.leader.address, 60.0)
        own = self.outcome(cluster.leader.raft.snapshot())

        cluster.start_node(laggard)
        cluster.advance(2.0)

        self.assertEqual(commands_of(cluster.nodes[laggard]), [*numbers(10), b"more"])
        self.assertEqual(own, [])
        cluster.advance(60.0)
        self.assertSucceeded(own)

    def test_snapshot_that_takes_long_to_restore_is_sent_once(self) -> None:
        """Its receiver answers heartbeats, so it is waited for."""
        cluster = self.cluster(3, trailing_logs=0)
        laggard = self.lag(cluster, 10)
        cluster.slow_snapshots(laggard, 4.0)
        node = cluster.start_node(laggard)
        cluster.wait_until(partial(is_installing, node))
        leading = cluster.leader.raft._shell
        assert leading is not None
        assert isinstance(leading.consensus.role, Leader)
        known = leading.consensus.role.followers[laggard]

        for _ in range(110):
            cluster.advance(0.1)
            self.assertIs(known.mode, Mode.SNAPSHOT)
        cluster.slow_snapshots(laggard, 0.0)
        cluster.advance(5.0)

        self.assertEqual(commands_of(node), numbers(10))

    def test_snapshot_from_a_new_leader_waits_until_the_first_is_restored(self) -> None:
        """Who says that it installs one is not sent another."""
        cluster = self.cluster(4, trailing_logs=0)
        laggard = self.lag(cluster, 10)
        for node in cluster.followers:
            cluster.result(node.raft.snapshot())
        cluster.slow_snapshots(laggard, 4.0)
        node = cluster.start_node(laggard)
        cluster.wait_until(partial(is_installing, node))
        cluster.advance(9.0)
        cluster.isolate(cluster.leader.address)
        others = set(cluster.nodes) - {cluster.leader.address, laggard}
        new = cluster.wait_for_leader(among=others)
        leading = new.raft._shell
        assert leading is not None
        assert isinstance(leading.consensus.role, Leader)
        known = leading.consensus.role.followers[laggard]

        cluster.advance(1.0)
        while is_installing(node):
            self.assertIsNot(known.mode, Mode.SNAPSHOT)
            cluster.advance(0.1)
        cluster.slow_snapshots(laggard, 0.0)
        cluster.advance(5.0)

        self.assertEqual(commands_of(node), numbers(10))
        self.assertIs(known.mode, Mode.REPLICATE)
        self.assertEqual(len(node.snapshots.list()), 1)

    def test_nothing_new_after_an_install(self) -> None:
        """A leader's snapshot counts as one of this node's own."""
        cluster = self.cluster(3, trailing_logs=0)
        laggard = self.lag(cluster, 10)
        node = cluster.start_node(laggard)
        cluster.wait_for_all()

        outcome = self.outcome(node.raft.snapshot())

        self.assertFailedWith(outcome, NothingNewToSnapshot)

    def test_no_snapshot_between_restore_and_the_turn_that_knows_of_it(self) -> None:
        """The FSM is ahead of the applied index then: a snapshot would lie."""
        cluster = self.cluster(3, trailing_logs=0)
        laggard = self.lag(cluster, 10)
        outcomes = []

        class Curious(ListFSM):
            def restore(self, source: BinaryIO) -> None:
                super().restore(source)
                cluster.clock.callLater(0, ask)

        def ask() -> None:
            if commands_of(cluster.nodes[laggard]):
                raft = cluster.nodes[laggard].raft
                shell = raft._shell
                assert shell is not None
                if shell.applier.applied_index < 10:
                    outcomes.append(self.outcome(shell.snapshots.take()))

        cluster._make_fsm = Curious
        cluster.start_node(laggard)
        cluster.wait_for_all()

        for outcome in outcomes:
            self.assertFailedWith(outcome, SnapshotFailed)
        self.assertSameState(cluster, numbers(10))

    def test_shutdown_while_a_snapshot_is_sent(self) -> None:
        """The file is closed and nothing goes unhandled, at either end."""
        for who in ("sender", "receiver"):
            cluster = self.cluster(3, trailing_logs=0, latency=0.004)
            laggard = self.lag(cluster, 10)
            leader = cluster.leader
            node = cluster.start_node(laggard)
            cluster.wait_until(partial(is_installing, node))

            stopping = leader if who == "sender" else node
            cluster.result(stopping.raft.shutdown())
            cluster.advance(0.5)

            self.assertEqual(self.flushLoggedErrors(), [])
            del cluster.nodes[stopping.address]

    def test_snapshot_overtakes_commands_that_wait_to_be_applied(self) -> None:
        """Their callers learn that nobody will tell them; nobody waits for ever."""
        gates: list[Deferred[object]] = []

        class Gated(ListFSM):
            def apply(self, log: Entry) -> object:
                if log.data == b"gate":
                    super().apply(log)
                    gates.append(Deferred())
                    return gates[-1]
                return super().apply(log)

        cluster = self.cluster(3, make_fsm=Gated, trailing_logs=0)
        leader = cluster.leader
        waiting = [
            self.outcome(leader.raft.apply(data)) for data in (b"gate", b"behind")
        ]
        cluster.advance(0.1)
        cluster.isolate(leader.address)
        others = set(cluster.nodes) - {leader.address}
        new = cluster.wait_for_leader(among=others)
        for gate in gates[1:]:
            gate.callback(None)
        cluster.result(new.raft.apply(b"more"))
        cluster.result(new.raft.snapshot())
        cluster.advance(0.2)
        cluster.heal()
        cluster.advance(1.0)
        gates[0].callback("late")
        cluster.advance(1.0)

        self.assertFailedWith(waiting[1], LeadershipLost)
        self.assertEqual(len(waiting[0]), 1)
        self.assertSameState(cluster, [b"gate", b"behind", b"more"])


class Restarting(SnapshotCase):
    def test_restart_of_all_from_snapshots_and_logs(self) -> None:
        """Term, vote, membership and commands are all there again."""
        cluster = self.cluster(3, trailing_logs=3)
        self.apply_all(cluster, numbers(20))
        cluster.wait_for_all()
        for node in cluster.nodes.values():
            cluster.result(node.raft.snapshot())
        self.apply_all(cluster, [b"after"])
        term = cluster.leader.raft.term
        for address in list(cluster.nodes):
            cluster.crash(address)

        for address in cluster.addresses:
            cluster.start_node(address)
        cluster.wait_for_leader()
        cluster.advance(0.1)

        self.assertGreater(cluster.leader.raft.term, term)
        self.assertSameState(cluster, [*numbers(20), b"after"])
        self.assertEqual(cluster.leader.raft.peers(), ["a", "b", "c"])

    def test_snapshot_tells_the_membership_of_its_index(self) -> None:
        """Not of the list of peers, which may be of another time."""
        cluster = self.cluster(3, trailing_logs=0)
        cluster.start_node("d")
        cluster.result(cluster.leader.raft.add_peer("d"))
        cluster.apply(b"one")
        cluster.wait_for_all()
        meta = cluster.result(cluster.leader.raft.snapshot())
        leader = cluster.leader.address
        cluster.nodes[leader].peer_store.set_peers(["x", "y"])
        cluster.advance(0.1)

        node = cluster.restart(leader)

        self.assertEqual(meta.configuration, Configuration.of_voters("abcd"))
        self.assertEqual(node.raft.peers(), ["a", "b", "c", "d"])
