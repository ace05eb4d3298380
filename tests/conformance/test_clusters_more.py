"""R17 to R32: snapshots, leases, reads and the rest of hashicorp/raft's suite."""

from __future__ import annotations

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft import (
    ConfigurationRefused,
    LeadershipLost,
    NothingNewToSnapshot,
    NotLeader,
    RaftState,
)
from txraft.core.messages import AppendEntriesRequest, RequestVoteRequest

HUNDRED = [b"%d" % i for i in range(100)]


class Snapshots(ClusterCase):
    """R17 to R20 count hashicorp/raft's first entry, so they run at version 0."""

    def test_restore(self) -> None:
        """R17: after a hundred commands and a snapshot, with ten entries trailing,
        the log begins at 92, and a restart has applied 101 at once.
        """
        cluster = self.cluster(1, protocol_version=0, trailing_logs=10)
        node = cluster.leader
        for command in HUNDRED:
            cluster.apply(command)

        cluster.result(node.raft.snapshot())
        cluster.advance(0.1)

        self.assertEqual(len(node.snapshots.list()), 1)
        self.assertEqual(node.store.first_index(), 92)
        again = cluster.restart("a")
        cluster.wait_until(lambda: again.started.called)
        self.assertEqual(again.raft.applied_index, 101)
        self.assertEqual(commands_of(again), HUNDRED)

    def test_restore_with_other_peers(self) -> None:
        """R18: the list of peers does not replace the membership that is on disk.

        hashicorp/raft recovers a cluster by editing peers.json before a start. Here
        log and snapshot hold the truth, and set_peers is refused; the opening entry
        of the next leader is 102 as there.
        """
        cluster = self.cluster(3, protocol_version=0, trailing_logs=10)
        for command in HUNDRED:
            cluster.apply(command)
        cluster.wait_for_all()
        for node in list(cluster.nodes.values()):
            cluster.result(node.raft.snapshot())
        for address in "abc":
            node = cluster.nodes[address]
            cluster.crash(address)
            node.peer_store.set_peers([address, "x", "y"])

        for address in "abc":
            cluster.start_node(address)
        cluster.wait_for_leader()
        cluster.wait_for_all()

        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), ["a", "b", "c"])
            self.assertEqual(node.raft.applied_index, 102)
        refused = cluster.followers[0].raft.set_peers(["a", "x", "y"])
        self.assertFailedWith(self.outcome(refused), ConfigurationRefused)

    def test_automatic(self) -> None:
        """R19: past the threshold, a snapshot appears."""
        cluster = self.cluster(
            1,
            protocol_version=0,
            snapshot_threshold=50,
            snapshot_interval=0.2,
            trailing_logs=10,
        )
        for command in HUNDRED:
            cluster.apply(command)

        cluster.advance(0.5)

        self.assertEqual(len(cluster.leader.snapshots.list()), 1)

    def test_manual(self) -> None:
        """R20: nothing new before any command, although the leader's first entry is
        committed; fine after ten; and, other than in hashicorp/raft, nothing new again.
        """
        cluster = self.cluster(1, protocol_version=0)
        raft = cluster.leader.raft
        cluster.wait_until(lambda: raft.applied_index == 1)
        early = self.outcome(raft.snapshot())
        self.assertFailedWith(early, NothingNewToSnapshot)
        for command in HUNDRED[:10]:
            cluster.apply(command)

        meta = cluster.result(raft.snapshot())

        self.assertEqual(meta.index, 11)
        again = self.outcome(raft.snapshot())
        self.assertFailedWith(again, NothingNewToSnapshot)

    def test_sent_to_a_follower(self) -> None:
        """R21: a follower whose entries are gone from the log gets a snapshot."""
        cluster = self.cluster(3, trailing_logs=10)
        behind = cluster.followers[0]
        cluster.isolate(behind.address)
        for command in HUNDRED:
            cluster.apply(command)
        for node in cluster.nodes.values():
            outcome = self.outcome(node.raft.snapshot())
            cluster.advance(0.1)
            if node is behind:
                self.assertFailedWith(outcome, NothingNewToSnapshot)
            else:
                self.assertSucceeded(outcome)

        cluster.heal()
        cluster.advance(0.5)

        self.assertSameState(cluster, HUNDRED)
        self.assertEqual(len(behind.snapshots.list()), 1)


class Membership(ClusterCase):
    def test_rejoin_follower(self) -> None:
        """R22: removed while it stays up, and added again: three peers everywhere."""
        cluster = self.cluster(3, shutdown_on_remove=False)
        follower = cluster.followers[0]
        cluster.result(cluster.leader.raft.remove_peer(follower.address))
        cluster.advance(1)

        cluster.result(cluster.leader.raft.add_peer(follower.address))
        cluster.wait_for_leader()
        cluster.wait_for_all()

        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), ["a", "b", "c"])
        self.assertIs(follower.raft.state, RaftState.FOLLOWER)

    def test_setting_peers(self) -> None:
        """R29: three nodes without peers; with set_peers on each, one leads."""
        cluster = self.unstarted(3)
        for address in "abc":
            cluster.start_node(address)
        cluster.advance(2)
        self.assertEqual(cluster.leaders(), [])

        for node in cluster.nodes.values():
            self.outcome(node.raft.set_peers(["a", "b", "c"]))
        cluster.wait_for_leader()

        self.assertEqual(len(cluster.leaders()), 1)


class Leases(ClusterCase):
    def test_lease_expires(self) -> None:
        """R23: of two that are cut apart, the leader says so within two leases, and
        nobody knows of a leader; the contact stands still.
        """
        told: list[bool] = []
        cluster = self.cluster(2, notify=told.append)
        leader, [follower] = cluster.leader, cluster.followers
        cluster.isolate(follower.address)

        cluster.advance(2 * cluster.config.leader_lease_timeout)
        self.assertEqual(told, [True, False])
        cluster.advance(0.5)

        contact = follower.raft.last_contact
        self.assertIsNotNone(contact)
        cluster.advance(0.5)
        self.assertEqual(follower.raft.last_contact, contact)
        self.assertEqual((leader.raft.leader, follower.raft.leader), (None, None))
        self.assertEqual(cluster.leaders(), [])

    def test_barrier(self) -> None:
        """R24: after it, the FSM has all hundred commands that nobody awaited."""
        cluster = self.cluster(3)
        for command in HUNDRED:
            self.outcome(cluster.leader.raft.apply(command))

        cluster.result(cluster.leader.raft.barrier())

        self.assertEqual(commands_of(cluster.leader), HUNDRED)
        self.assertSameState(cluster, HUNDRED)

    def test_verify_leader(self) -> None:
        """R25: three nodes confirm it."""
        cluster = self.cluster(3)
        cluster.result(cluster.leader.raft.verify_leader())

    def test_verify_leader_alone(self) -> None:
        """R26: one node confirms itself."""
        cluster = self.cluster(1)
        cluster.result(cluster.leader.raft.verify_leader())

    def test_verify_leader_fails(self) -> None:
        """R27: a follower of a newer term denies it, and it leads no more."""
        cluster = self.cluster(3)
        leader, follower = cluster.leader, cluster.followers[0]
        newer = AppendEntriesRequest(leader.raft.term + 5, "x")
        stranger = cluster.start_node("x").transport
        stranger.append_entries(follower.address, newer).addErrback(lambda _: None)
        cluster.wait_until(lambda: follower.raft.term > leader.raft.term)

        outcome = self.outcome(leader.raft.verify_leader())
        cluster.wait_until(lambda: bool(outcome))

        self.assertFailedWith(outcome, NotLeader, LeadershipLost)
        self.assertNotEqual(leader.raft.leader, leader.address)

    def test_verify_leader_with_one_follower_cut(self) -> None:
        """R28: the other one is enough."""
        cluster = self.cluster(3)
        cluster.isolate(cluster.followers[0].address)
        cluster.result(cluster.leader.raft.verify_leader())

    def test_start_as_leader(self) -> None:
        """R30: leads without waiting for a timeout, and applies.

        hashicorp/raft does it in the term that it finds; ours takes a new one, because
        nobody may lead a term twice.
        """
        cluster = self.unstarted(1, start_as_leader=True)
        node = cluster.start_node("a", ["a"])

        cluster.advance(cluster.config.heartbeat_timeout / 4)

        self.assertIs(node.raft.state, RaftState.LEADER)
        self.assertEqual(node.raft.term, 2)
        cluster.apply(b"test")
        again = cluster.restart("a")
        cluster.advance(cluster.config.heartbeat_timeout / 4)
        self.assertEqual(again.raft.term, 3)

    def test_notify(self) -> None:
        """R31: True on election, False on close."""
        told: list[bool] = []
        cluster = self.cluster(1, notify=told.append)
        self.assertEqual(told, [True])

        cluster.leader.raft.shutdown()

        self.assertEqual(told, [True, False])

    def test_voting(self) -> None:
        """R32: a follower grants its own leader a vote of a higher term, and refuses
        another candidate while it hears that leader.
        """
        cluster = self.cluster(3)
        leader = cluster.leader
        voter, other = cluster.followers
        cluster.apply(b"test")
        cluster.wait_for_all()
        last, term = leader.raft.last_index, leader.raft.term

        def ask(node: object, candidate: str) -> bool:
            request = RequestVoteRequest(term + 10, candidate, last, term)
            transport = node.transport  # type: ignore[attr-defined]
            return cluster.result(
                transport.request_vote(voter.address, request)
            ).granted

        self.assertFalse(ask(other, other.address))
        self.assertTrue(ask(leader, leader.address))
