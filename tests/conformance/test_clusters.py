"""R01 to R16: whole clusters, as hashicorp/raft's own suite exercises them."""

from __future__ import annotations

from tests.support.raft_cluster import ClusterCase, commands_of, lone
from txraft import (
    Config,
    EnqueueTimeout,
    KnownPeer,
    LeadershipLost,
    NotLeader,
    RaftShutdown,
    RaftState,
    UnknownPeer,
)
from txraft.testing import Cluster

HUNDRED = [b"%d" % i for i in range(100)]


class Single(ClusterCase):
    def test_start_and_stop(self) -> None:
        """R01: one node starts and closes without an error."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft

        stopped = self.outcome(raft.shutdown())
        cluster.advance(0.1)

        self.assertSucceeded(stopped)
        self.assertIsNone(cluster.result(raft.when_stopped()))

    def test_after_shutdown(self) -> None:
        """R02: every call fails with RaftShutdown; a second shutdown succeeds."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        raft.shutdown()

        for outcome in [
            self.outcome(raft.apply(b"x")),
            self.outcome(raft.barrier()),
            self.outcome(raft.add_peer("b")),
            self.outcome(raft.remove_peer("a")),
            self.outcome(raft.set_peers(["a"])),
            self.outcome(raft.snapshot()),
            self.outcome(raft.verify_leader()),
            self.outcome(raft.linearizable()),
            self.outcome(raft.transfer_leadership()),
        ]:
            self.assertFailedWith(outcome, RaftShutdown)
        again = self.outcome(raft.shutdown())
        cluster.advance(0.1)
        self.assertSucceeded(again)
        self.assertIs(raft.state, RaftState.SHUTDOWN)

    def test_single_node(self) -> None:
        """R03: a lone node with enable_single_node leads within three heartbeats."""
        told: list[bool] = []
        cluster = self.unstarted(1)
        node = cluster.start_node("a", [], lone(notify=told.append))

        cluster.advance(3 * cluster.config.heartbeat_timeout)
        result = cluster.result(node.raft.apply(b"test"))

        self.assertEqual(told, [True])
        self.assertIs(node.raft.state, RaftState.LEADER)
        self.assertEqual(result.response, 1)
        self.assertGreater(result.index, 0)
        self.assertEqual(commands_of(node), [b"test"])


class Several(ClusterCase):
    def test_triple_node(self) -> None:
        """R04: one leader, all agree on it, and a command reaches three FSMs."""
        cluster = self.cluster(3)

        cluster.apply(b"test")

        self.assertEqual(len(cluster.leaders()), 1)
        leaders = {node.raft.leader for node in cluster.nodes.values()}
        self.assertEqual(leaders, {cluster.leader.address})
        self.assertSameState(cluster, [b"test"])

    def test_leader_fails(self) -> None:
        """R05: a new leader has a higher term; the old one's command is not lost
        silently; in the end all FSMs are identical.
        """
        cluster = self.cluster(3)
        cluster.apply(b"test")
        old, term = cluster.leader, cluster.leader.raft.term
        cluster.isolate(old.address)

        lost = self.outcome(old.raft.apply(b"fail"))
        others = {node.address for node in cluster.followers}
        new = cluster.wait_for_leader(among=others)
        cluster.result(new.raft.apply(b"apply"))

        self.assertGreater(new.raft.term, term)
        cluster.wait_until(lambda: bool(lost))
        self.assertFailedWith(lost, NotLeader, LeadershipLost)
        cluster.heal()
        cluster.advance(0.5)
        self.assertSameState(cluster, [b"test", b"apply"])

    def test_behind_follower(self) -> None:
        """R06: a follower that missed a hundred commands catches up."""
        cluster = self.cluster(3)
        behind = cluster.followers[0]
        cluster.isolate(behind.address)

        for outcome in [self.outcome(cluster.leader.raft.apply(c)) for c in HUNDRED]:
            self.assertEqual(outcome, [])
        cluster.advance(0.2)

        self.assertIsNotNone(behind.raft.last_contact)
        cluster.heal()
        cluster.wait_for_leader()
        self.assertSameState(cluster, HUNDRED)

    def test_apply_elsewhere(self) -> None:
        """R07: a follower answers NotLeader, asked twice the same."""
        cluster = self.cluster(3)
        follower = cluster.followers[0].raft

        for _ in range(2):
            outcome = self.outcome(follower.apply(b"test"))
            self.assertFailedWith(outcome, NotLeader)

    def test_apply_concurrently(self) -> None:
        """R08: of a hundred at once none fails, and the FSMs are identical."""
        cluster = self.cluster(3)

        outcomes = [self.outcome(cluster.leader.raft.apply(c)) for c in HUNDRED]
        cluster.advance(0.3)

        for outcome in outcomes:
            self.assertSucceeded(outcome)
        self.assertSameState(cluster, HUNDRED)

    def test_apply_concurrently_with_a_timeout(self) -> None:
        """R09: with a microsecond to be accepted in, EnqueueTimeout.

        hashicorp/raft needs a flood for that. Here the wait is one turn of the
        reactor, so that a turn which comes later than a microsecond fails them all.
        """
        cluster = self.cluster(1)

        outcomes = [self.outcome(cluster.leader.raft.apply(c, 1e-6)) for c in HUNDRED]
        cluster.clock.advance(1e-5)
        cluster.advance(0.1)

        for outcome in outcomes:
            self.assertFailedWith(outcome, EnqueueTimeout)
        self.assertSameState(cluster, [])


class Members(ClusterCase):
    def test_join_node(self) -> None:
        """R10: a third server joins two; all have the same peers and state.

        hashicorp/raft draws in a node that leads a cluster of its own and lets it
        forget what that had committed. Ours joins empty; a node with data of its own
        refuses (see TwoClusters in tests/node/test_raft_membership.py).
        """
        cluster = self.cluster(2)
        cluster.apply(b"test")
        cluster.start_node("c")

        cluster.result(cluster.leader.raft.add_peer("c"))
        cluster.wait_for_leader()

        self.assertEqual(len(cluster.followers), 2)
        self.assertSameState(cluster, [b"test"])
        self.assertPeers(cluster, ["a", "b", "c"])

    def test_remove_follower(self) -> None:
        """R11: both that stay list two peers."""
        cluster = self.cluster(3, shutdown_on_remove=False)
        removed, kept = cluster.followers

        cluster.result(cluster.leader.raft.remove_peer(removed.address))
        cluster.advance(0.2)

        members = sorted({cluster.leader.address, kept.address})
        self.assertEqual(cluster.leader.raft.peers(), members)
        self.assertEqual(kept.raft.peers(), members)
        self.assertIsNot(removed.raft.state, RaftState.LEADER)

    def test_remove_leader(self) -> None:
        """R12: a new leader, two peers, and the old one is shut down.

        hashicorp/raft's peer list of the one that left is only itself; ours is the
        membership that removed it.
        """
        cluster = self.cluster(3)
        old = cluster.leader
        rest = {node.address for node in cluster.followers}

        removed = self.outcome(old.raft.remove_peer(old.address))
        cluster.wait_for_leader(among=rest)
        cluster.wait_until(lambda: old.raft.state is RaftState.SHUTDOWN)

        self.assertSucceeded(removed)
        for address in rest:
            self.assertEqual(cluster.nodes[address].raft.peers(), sorted(rest))
        self.assertEqual(old.raft.peers(), sorted(rest))

    def test_remove_leader_without_shutdown(self) -> None:
        """R13: removed at command 80 of 100, the leader lives on as a follower.

        hashicorp/raft refuses the twenty behind its removal. Here the commands of one
        turn are appended before its membership change, so these commit as well; what
        comes once the removal is committed is refused.
        """
        cluster = self.cluster(3, shutdown_on_remove=False)
        old = cluster.leader
        rest = {node.address for node in cluster.followers}

        outcomes = [self.outcome(old.raft.apply(c)) for c in HUNDRED[:80]]
        removed = self.outcome(old.raft.remove_peer(old.address))
        outcomes += [self.outcome(old.raft.apply(c)) for c in HUNDRED[80:]]
        cluster.wait_until(lambda: old.raft.state is RaftState.FOLLOWER)
        late = self.outcome(old.raft.apply(b"late"))
        cluster.wait_for_leader(among=rest)
        cluster.advance(0.3)

        for outcome in (*outcomes, removed):
            self.assertSucceeded(outcome)
        self.assertFailedWith(late, NotLeader)
        for address in rest:
            self.assertEqual(cluster.nodes[address].raft.peers(), sorted(rest))
        for node in cluster.nodes.values():
            self.assertEqual(commands_of(node), HUNDRED)
        self.assertNotIn(old.address, old.raft.peers())

    def test_remove_leader_never_splits_the_cluster(self) -> None:
        """R14: hashicorp/raft ends with two leaders; ours never does, whatever
        disable_bootstrap_after_elect says.

        What was removed holds the log of a cluster that goes on without it: to found
        another with that is an explicit act of an operator on an empty node.
        """
        for disable in (False, True):
            cluster = self.cluster(
                3,
                enable_single_node=True,
                shutdown_on_remove=False,
                disable_bootstrap_after_elect=disable,
            )
            old = cluster.leader
            rest = {node.address for node in cluster.followers}

            cluster.result(old.raft.remove_peer(old.address))
            new = cluster.wait_for_leader(among=rest)
            cluster.advance(5)

            self.assertEqual([n.address for n in cluster.leaders()], [new.address])
            self.assertIs(old.raft.state, RaftState.FOLLOWER)
            self.assertNotIn(old.address, old.raft.peers())

    def test_add_known_peer(self) -> None:
        """R15: KnownPeer, be it a follower or the leader itself."""
        cluster = self.cluster(3)

        for node in cluster.nodes.values():
            known = self.outcome(cluster.leader.raft.add_peer(node.address))
            cluster.advance(0.1)
            self.assertFailedWith(known, KnownPeer)

    def test_remove_unknown_peer(self) -> None:
        """R16: UnknownPeer, and nothing has changed."""
        cluster = self.cluster(3)

        unknown = self.outcome(cluster.leader.raft.remove_peer("nobody"))
        cluster.advance(0.1)

        self.assertFailedWith(unknown, UnknownPeer)
        self.assertPeers(cluster, ["a", "b", "c"])

    def assertPeers(self, cluster: Cluster, peers: list[str]) -> None:
        """Assert that every node lists *peers*, in memory and in its peer store."""
        cluster.advance(0.2)
        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), peers)
            self.assertEqual(sorted(node.peer_store.peers()), peers)


class Defaults(ClusterCase):
    def test_defaults_are_the_originals(self) -> None:
        """A2: every field of hashicorp/raft has its default."""
        config = Config()

        values = {
            "heartbeat_timeout": 1.0,
            "election_timeout": 1.0,
            "commit_timeout": 0.05,
            "max_append_entries": 64,
            "shutdown_on_remove": True,
            "disable_bootstrap_after_elect": True,
            "trailing_logs": 10240,
            "snapshot_interval": 120.0,
            "snapshot_threshold": 8192,
            "enable_single_node": False,
            "leader_lease_timeout": 0.5,
            "start_as_leader": False,
            "notify": None,
        }
        self.assertEqual({name: getattr(config, name) for name in values}, values)
