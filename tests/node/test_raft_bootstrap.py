"""A node without a past is told who founds its cluster; one with a past is not."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.support.raft_cluster import ClusterCase, FaultyStore
from txraft.core.messages import RequestVoteRequest
from txraft.errors import (
    ConfigurationRefused,
    NodeFailed,
    NodeIsLeader,
    RaftShutdown,
)
from txraft.interfaces import IncomingRPC
from txraft.node.events import RaftState
from txraft.testing import Cluster
from txraft.testing.cluster import _NodeStores


class SettingPeers(ClusterCase):
    def waiting(self, size: int, **options: object) -> Cluster:
        """Start nodes that know no peers."""
        cluster = self.unstarted(size, **options)
        for address in "abcde"[:size]:
            cluster.start_node(address)
        return cluster

    def refused(self, cluster: Cluster, address: str, peers: Sequence[str]) -> str:
        outcome = self.outcome(cluster.nodes[address].raft.set_peers(peers))
        return str(self.assertFailedWith(outcome, ConfigurationRefused))

    def test_set_peers_founds_a_cluster(self) -> None:
        """Nodes that wait found one cluster, at every protocol version."""
        for version in (0, 1, 2, 3):
            cluster = self.waiting(3, protocol_version=version)
            cluster.advance(1)
            self.assertEqual(cluster.leaders(), [])

            outcomes = [
                self.outcome(node.raft.set_peers(["c", "a", "b"]))
                for node in cluster.nodes.values()
            ]
            cluster.wait_for_leader()
            cluster.apply(b"one")

            for outcome in outcomes:
                self.assertSucceeded(outcome)
            self.assertSameState(cluster, [b"one"])
            for node in cluster.nodes.values():
                self.assertEqual(node.raft.peers(), ["a", "b", "c"])

    def test_set_peers_one_after_the_other(self) -> None:
        """Who comes late is drawn in by the others, and needs no list any more."""
        cluster = self.waiting(3)
        for address in "ab":
            self.outcome(cluster.nodes[address].raft.set_peers("abc"))
        cluster.wait_for_leader(among="ab")
        cluster.apply(b"one")
        cluster.wait_for_all()

        self.assertIn("membership", self.refused(cluster, "c", "abc"))
        self.assertEqual(cluster.nodes["c"].raft.peers(), ["a", "b", "c"])

    def test_set_peers_outlives_a_crash(self) -> None:
        """What was acknowledged is on disk, at version 0 in the peer store."""
        for version in (0, 1):
            cluster = self.waiting(1, protocol_version=version)
            cluster.result(cluster.nodes["a"].raft.set_peers(["a"]))
            cluster.restart("a")
            cluster.wait_for_leader()
            self.assertEqual(cluster.leader.raft.peers(), ["a"])

    def test_set_peers_of_a_cluster_is_refused(self) -> None:
        """Membership is what the log says, until its leader changes it."""
        cluster = self.cluster(3)
        leader, follower = cluster.leader, cluster.followers[0]

        outcome = self.outcome(leader.raft.set_peers(["a"]))
        self.assertFailedWith(outcome, NodeIsLeader)
        self.refused(cluster, follower.address, [follower.address])

        cluster.apply(b"on")
        self.assertEqual(follower.raft.peers(), ["a", "b", "c"])

    def test_set_peers_without_this_node_is_refused(self) -> None:
        """A list that leaves this node out, or names nobody, is a mistake in it."""
        cluster = self.waiting(1)

        self.assertIn("not among", self.refused(cluster, "a", ["b", "c"]))
        self.assertIn("at least", self.refused(cluster, "a", []))

        cluster.result(cluster.nodes["a"].raft.set_peers(["a"]))

    def test_set_peers_after_a_vote_is_refused(self) -> None:
        """The first term comes before every vote; a vote cannot be taken back."""
        cluster = self.waiting(2)
        b = cluster.nodes["b"].transport
        asked = RequestVoteRequest(5, "b", 3, 4)
        vote = cluster.result(b.request_vote("a", asked))
        self.assertTrue(vote.granted)

        self.assertIn("election", self.refused(cluster, "a", "ab"))

        self.assertEqual(cluster.nodes["a"].raft.term, 5)

    def test_set_peers_twice_at_once(self) -> None:
        """The second is refused while the first is under way."""
        cluster = self.waiting(1, disk_seconds=0.02)
        cluster.advance(0.2)
        first = self.outcome(cluster.nodes["a"].raft.set_peers(["a"]))

        self.assertIn("already", self.refused(cluster, "a", ["a"]))
        cluster.wait_for_leader()

        self.assertSucceeded(first)

    def test_requests_that_wait_are_refused(self) -> None:
        """A request that no turn has seen is answered, so that others get theirs."""
        cluster = self.waiting(2)
        a, b = cluster.nodes["a"], cluster.nodes["b"]
        shell = a.raft._shell
        assert shell is not None
        arrived = shell.rpc_received

        def arrive(rpc: IncomingRPC) -> None:
            arrived(rpc)
            self.outcome(a.raft.set_peers(["a"]))

        self.patch(shell, "rpc_received", arrive)
        request = RequestVoteRequest(1, "b", 0, 0)
        outcome = self.outcome(b.transport.request_vote("a", request))

        cluster.advance(0.1)

        [failure] = outcome
        assert isinstance(failure, Failure)
        self.assertIn("shutdown", failure.getErrorMessage())

    def test_shutdown_while_bootstrapping(self) -> None:
        """It is told so, and nothing is left running."""
        cluster = self.waiting(1, disk_seconds=0.02)
        cluster.advance(0.2)
        raft = cluster.nodes["a"].raft
        outcome = self.outcome(raft.set_peers(["a"]))

        self.outcome(raft.shutdown())
        cluster.advance(0.2)

        self.assertFailedWith(outcome, RaftShutdown)
        refused = self.outcome(raft.set_peers(["a"]))
        self.assertFailedWith(refused, RaftShutdown)

    def test_disk_that_fails_while_bootstrapping_stops_the_node(self) -> None:
        """As every failed write does."""
        cluster = self.unstarted(1)
        store = FaultyStore()
        store.error = OSError("disk full")
        cluster._stores["a"] = _NodeStores(store=store)
        raft = cluster.start_node("a").raft
        cluster.advance(0.1)
        stopped = self.outcome(raft.when_stopped())

        outcome = self.outcome(raft.set_peers(["a"]))
        cluster.advance(0.1)

        self.assertFailedWith(outcome, OSError)
        self.assertIsInstance(stopped[0], NodeFailed)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_old_shell_that_does_not_stop(self) -> None:
        """The node stops, and is not bootstrapping for ever."""
        cluster = self.waiting(1)
        cluster.advance(0.2)
        raft = cluster.nodes["a"].raft
        stopped = self.outcome(raft.when_stopped())

        def flush() -> Deferred[None]:
            patched.restore()
            raise OSError("no thread")

        patched = self.patch(raft._running().writer, "flush", flush)

        outcome = self.outcome(raft.set_peers(["a"]))
        cluster.advance(0.1)

        self.assertFailedWith(outcome, OSError)
        self.assertIsInstance(stopped[0], NodeFailed)
        self.assertFalse(raft._bootstrap._is_running)
        self.flushLoggedErrors(OSError)

    def test_cancel_only_stops_the_wait(self) -> None:
        """The cluster is bootstrapped all the same."""
        cluster = self.waiting(1, disk_seconds=0.02)
        cluster.advance(0.2)
        deferred = cluster.nodes["a"].raft.set_peers(["a"])
        outcome = self.outcome(deferred)

        deferred.cancel()
        cluster.wait_for_leader()

        self.assertFailedWith(outcome, CancelledError)


class LeaderChannel(ClusterCase):
    def test_current_value_at_once_and_every_edge(self) -> None:
        """A listener knows at any time, and none of the changes is lost."""
        cluster = self.cluster(2)
        leader, [follower] = cluster.leader, cluster.followers
        of_leader: list[bool] = []
        of_follower: list[bool] = []
        leader.raft.leader_ch(of_leader.append)
        follower.raft.leader_ch(of_follower.append)
        self.assertEqual((of_leader, of_follower), ([True], [False]))

        cluster.result(leader.raft.transfer_leadership(follower.address))
        cluster.wait_until(lambda: follower.raft.state is RaftState.LEADER)
        follower.raft.shutdown()

        self.assertEqual(of_leader, [True, False])
        self.assertEqual(of_follower, [False, True, False])

    def test_slow_listener_gets_every_edge(self) -> None:
        """Changes wait for a listener whose Deferred has not fired."""
        cluster = self.cluster(1)
        told: list[bool] = []
        under_way: list[Deferred[None]] = []

        def listen(leads: bool) -> Deferred[None]:
            told.append(leads)
            under_way.append(Deferred())
            return under_way[-1]

        cluster.leader.raft.leader_ch(listen)
        cluster.nodes["a"].raft.shutdown()
        self.assertEqual(told, [True])

        under_way[0].callback(None)

        self.assertEqual(told, [True, False])

    def test_end(self) -> None:
        """After the returned function was called, nothing is told."""
        cluster = self.cluster(1)
        told: list[bool] = []
        end = cluster.leader.raft.leader_ch(told.append)

        end()
        end()
        cluster.nodes["a"].raft.shutdown()

        self.assertEqual(told, [True])

    def test_all_listeners_hear_the_same_order(self) -> None:
        """Also when one of them shuts the node down on what it hears."""
        cluster = self.unstarted(1)
        raft = cluster.start_node("a", ["a"]).raft
        first: list[bool] = []
        second: list[bool] = []

        def listen(leads: bool) -> None:
            first.append(leads)
            if leads:
                raft.shutdown()

        raft.leader_ch(listen)
        raft.leader_ch(second.append)
        cluster.advance(1)

        self.assertEqual(first, [False, True, False])
        self.assertEqual(second, [False, True, False])
