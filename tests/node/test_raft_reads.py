"""Leadership verified, and reads that never go back."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.support.raft_cluster import ClusterCase
from txraft.core.entry import Entry
from txraft.errors import NotLeader, RaftShutdown
from txraft.node.events import RaftState
from txraft.testing import ListFSM


class SlowFSM(ListFSM):
    """Answers each command when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Deferred[object]] = []

    def apply(self, log: Entry) -> object:
        self.commands.append(log.data or b"")
        self.gates.append(Deferred())
        return self.gates[-1]


class VerifyLeader(ClusterCase):
    def test_verify_leader_in_clusters_of_one_and_three(self) -> None:
        """R25, R26: a quorum confirms."""
        for size in (1, 3):
            cluster = self.cluster(size)
            self.assertIsNone(cluster.result(cluster.leader.raft.verify_leader()))

    def test_verify_leader_needs_only_a_quorum(self) -> None:
        """R28: one of two followers is cut off."""
        cluster = self.cluster(3)
        cluster.isolate(cluster.followers[0].address)

        self.assertIsNone(cluster.result(cluster.leader.raft.verify_leader()))

    def test_verify_leader_fails_without_a_quorum(self) -> None:
        """R27: the leader learns that it leads no more, and so does the caller."""
        cluster = self.cluster(3)
        old = cluster.leader
        cluster.isolate(old.address)

        outcome = self.outcome(old.raft.verify_leader())
        cluster.advance(0.5)

        self.assertFailedWith(outcome, NotLeader)
        self.assertIsNone(old.raft.leader)

    def test_verify_leader_counts_no_answer_to_an_earlier_heartbeat(self) -> None:
        """An answer that is on its way when the call is made proves nothing."""
        cluster = self.cluster(3, latency=0.01)
        leader = cluster.leader
        cluster.advance(0.1)

        outcome = self.outcome(leader.raft.verify_leader())
        cluster.advance(0.015)
        self.assertEqual(outcome, [])
        cluster.advance(0.2)

        self.assertSucceeded(outcome)

    def test_verify_leader_on_a_follower(self) -> None:
        """Only a leader can be verified."""
        cluster = self.cluster(3)
        outcome = self.outcome(cluster.followers[0].raft.verify_leader())
        self.assertFailedWith(outcome, NotLeader)

    def test_lease_expires_without_a_quorum(self) -> None:
        """R23: two nodes, cut: within two leases both know of no leader."""
        told: list[bool] = []
        cluster = self.cluster(2, notify=told.append)
        leader, [follower] = cluster.leader, cluster.followers
        cluster.isolate(leader.address)

        cluster.advance(2 * cluster.config.leader_lease_timeout + 0.05)

        self.assertEqual(told, [True, False])
        self.assertNotEqual(leader.raft.state, RaftState.LEADER)
        self.assertIsNone(leader.raft.leader)
        contact = follower.raft.last_contact
        self.assertIsNotNone(contact)
        cluster.advance(0.5)
        self.assertEqual(follower.raft.last_contact, contact)
        self.assertIsNone(follower.raft.leader)


class Linearizable(ClusterCase):
    def test_linearizable_waits_until_it_is_applied(self) -> None:
        """What was committed before the call is seen by the read behind it."""
        cluster = self.cluster(1, make_fsm=SlowFSM)
        fsm = cluster.leader.fsm
        assert isinstance(fsm, SlowFSM)
        self.outcome(cluster.leader.raft.apply(b"one"))
        cluster.advance(0.1)

        outcome = self.outcome(cluster.leader.raft.linearizable())
        cluster.advance(0.1)
        self.assertEqual(outcome, [])
        fsm.gates[0].callback(None)

        self.assertEqual(outcome, [cluster.leader.raft.applied_index])

    def test_linearizable_fails_on_a_leader_that_is_cut_off(self) -> None:
        """A newer leader may have committed what this one does not know."""
        cluster = self.cluster(3)
        old = cluster.leader
        cluster.isolate(old.address)

        outcome = self.outcome(old.raft.linearizable())
        cluster.advance(0.5)

        self.assertFailedWith(outcome, NotLeader)

    def test_linearizable_sees_what_the_leader_before_committed(self) -> None:
        """Not before an entry of the new leader's own term is committed (§6.4)."""
        cluster = self.cluster(3, disk_seconds=0.01)
        cluster.apply(b"one")
        cluster.crash(cluster.leader.address)
        cluster.wait_until(lambda: bool(cluster.leaders()))
        leader = cluster.leader

        cluster.result(leader.raft.linearizable())

        assert isinstance(leader.fsm, ListFSM)
        self.assertEqual(leader.fsm.commands, [b"one"])

    def test_cancel_at_any_moment_hurts_nobody(self) -> None:
        """Before the round, during it, and while the index is being applied."""
        cluster = self.cluster(3, make_fsm=SlowFSM)
        leader = cluster.leader
        assert isinstance(leader.fsm, SlowFSM)
        self.outcome(leader.raft.apply(b"one"))
        cluster.advance(0.1)
        for wait in (None, 0.0, 0.1):
            deferred = leader.raft.linearizable()
            outcome = self.outcome(deferred)
            if wait is not None:
                cluster.advance(wait)
            deferred.cancel()
            self.assertFailedWith(outcome, CancelledError)

        leader.fsm.gates[0].callback(None)
        cluster.advance(0.1)

        self.assertEqual(leader.raft.state, RaftState.LEADER)
        cluster.result(leader.raft.linearizable())

    def test_shutdown_fails_a_read_that_waits_to_be_applied(self) -> None:
        """A verified read has its outcome too."""
        cluster = self.cluster(1, make_fsm=SlowFSM)
        raft = cluster.leader.raft
        self.outcome(raft.apply(b"one"))
        cluster.advance(0.1)
        outcome = self.outcome(raft.linearizable())
        cluster.advance(0.1)

        raft.shutdown()

        self.assertFailedWith(outcome, RaftShutdown)
