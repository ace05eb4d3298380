"""The status of a node: its statistics, its metrics and its observers."""

from __future__ import annotations

from tests.support.raft_cluster import ClusterCase, lone
from txraft.core.entry import LogType
from txraft.core.messages import RequestVoteRequest
from txraft.errors import ConfigError, ConfigurationRefused, RaftShutdown
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState
from txraft.testing import Cluster


def watch(cluster: Cluster, address: str) -> list[object]:
    """Keep the states and leaders that the node at *address* tells of."""
    seen: list[object] = []
    observer = Observer(
        lambda observation: seen.append(observation.data),
        lambda observation: not isinstance(observation.data, RequestVoteRequest),
    )
    cluster.nodes[address].raft.register_observer(observer)
    return seen


class Stats(ClusterCase):
    """What an operator needs to tell clusters apart, and who is missing."""

    def test_cluster_and_membership(self) -> None:
        """All members name one cluster, and the entry that made them members."""
        cluster = self.unstarted(3)
        cluster.start()
        cluster.apply(b"one")
        cluster.wait_for_all()

        told = [node.raft.stats() for node in cluster.nodes.values()]

        self.assertEqual(len({stats["cluster"] for stats in told}), 1)
        self.assertEqual(len(told[0]["cluster"]), 32)
        self.assertEqual({stats["configuration_index"] for stats in told}, {"1"})
        self.assertNotIn("silent_peers", cluster.leader.raft.stats())

    def test_member_that_never_answers(self) -> None:
        """The leader names it, and for how long it has not heard it."""
        cluster = self.unstarted(3)
        cluster.start()
        leader = cluster.leader.raft
        cluster.result(leader.add_peer("gone"))

        cluster.advance(5.0)

        told = leader.stats()["silent_peers"]
        address, _, seconds = told.partition("=")
        self.assertEqual(address, "gone")
        self.assertGreaterEqual(float(seconds.removesuffix("s")), 4.5)
        for follower in cluster.followers:
            self.assertNotIn("silent_peers", follower.raft.stats())


class Observing(ClusterCase):
    def test_order_of_observations(self) -> None:
        """The old leader goes, then the state changes, then the new leader comes."""
        cluster = self.unstarted(1)
        node = cluster.start_node("a", ["a"])
        seen = watch(cluster, "a")
        cluster.wait_for_leader()

        node.raft.shutdown()

        self.assertEqual(
            seen,
            [
                RaftState.CANDIDATE,
                RaftState.LEADER,
                LeaderObservation("a"),
                LeaderObservation(None),
                RaftState.SHUTDOWN,
            ],
        )

    def test_vote_requests_are_observed(self) -> None:
        """Each one that arrives, whatever becomes of it."""
        cluster = self.unstarted(3)
        for address in "abc":
            cluster.start_node(address, "abc")
        asked: list[object] = []
        for node in cluster.nodes.values():
            node.raft.register_observer(
                Observer(
                    lambda observation: asked.append(observation.data),
                    lambda observation: isinstance(
                        observation.data, RequestVoteRequest
                    ),
                )
            )

        cluster.wait_for_leader()

        self.assertGreaterEqual(len(asked), 2)

    def test_observer_that_raises_hurts_nobody(self) -> None:
        """It is logged and counted; others are told, and the node lives on."""

        def raises(observation: Observation) -> None:
            raise ZeroDivisionError

        cluster = self.unstarted(1)
        node = cluster.start_node("a", ["a"])
        bad = Observer(raises)
        node.raft.register_observer(bad)
        seen = watch(cluster, "a")

        cluster.wait_for_leader()

        self.assertEqual(bad.num_dropped, len(seen))
        self.assertEqual(bad.num_observed, 0)
        node.raft.deregister_observer(bad)
        node.raft.deregister_observer(bad)
        cluster.apply(b"on")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), len(seen))

    def test_notify(self) -> None:
        """R31: True on gaining leadership, False on losing it; raising hurts not."""
        told: list[bool] = []

        def notify(gained: bool) -> None:
            told.append(gained)
            raise ZeroDivisionError

        cluster = self.cluster(1, notify=notify)
        cluster.apply(b"on")
        cluster.leader.raft.shutdown()

        self.assertEqual(told, [True, False])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_when_leader(self) -> None:
        """At once if one is known, later if not, RaftShutdown if never."""
        cluster = self.unstarted(1)
        node = cluster.start_node("a", ["a"])
        waiting = self.outcome(node.raft.when_leader())
        self.assertEqual(waiting, [])
        cluster.wait_for_leader()
        self.assertEqual(waiting, ["a"])
        self.assertEqual(self.outcome(node.raft.when_leader()), ["a"])

        joining = cluster.start_node("d")
        never = self.outcome(joining.raft.when_leader())
        joining.raft.shutdown()
        self.assertFailedWith(never, RaftShutdown)


class NodeMetrics(ClusterCase):
    def test_stats(self) -> None:
        """hashicorp/raft's keys, as text; the node itself is no peer of its own."""
        cluster = self.cluster(3)
        cluster.apply(b"one")
        cluster.wait_for_all()
        leader, follower = cluster.leader.raft, cluster.followers[0].raft

        stats = leader.stats()

        self.assertEqual(
            set(stats),
            {
                "state",
                "term",
                "last_log_index",
                "last_log_term",
                "commit_index",
                "applied_index",
                "fsm_pending",
                "last_snapshot_index",
                "last_snapshot_term",
                "num_peers",
                "last_contact",
                "level",
                "active_level",
                "configuration_index",
                "cluster",
            },
        )
        self.assertEqual(stats["state"], "Leader")
        self.assertEqual(stats["num_peers"], "2")
        self.assertEqual(stats["last_log_index"], str(leader.last_index))
        self.assertEqual(stats["fsm_pending"], "0")
        self.assertEqual(stats["last_contact"], "0")
        self.assertRegex(follower.stats()["last_contact"], r"^\d+\.\d+s$")
        self.assertEqual(repr(leader), f"Node at {leader.address} [Leader]")

    def test_figures_before_the_start(self) -> None:
        """Nothing is known, and nothing raises."""
        cluster = self.unstarted(1, disk_seconds=0.05)
        raft = cluster.start_node("a", ["a"]).raft

        self.assertEqual(raft.stats(), {"state": "Follower"})
        self.assertEqual(
            (raft.term, raft.last_index, raft.commit_index, raft.applied_index),
            (0, 0, 0, 0),
        )
        told = (raft.leader, raft.last_contact, raft.peers())
        self.assertEqual(told, (None, None, []))
        cluster.advance(0.2)


class Beginning(ClusterCase):
    def test_version_0_begins_without_an_election_in_term_1(self) -> None:
        """Its first entry lists the members, and peers may be of the same kind."""
        cluster = self.cluster(3, protocol_version=0)

        first = cluster.leader.store.get_log(1)

        self.assertEqual(first.type, LogType.ADD_PEER)
        self.assertGreaterEqual(first.term, 2)
        self.assertEqual(cluster.leader.raft.peers(), ["a", "b", "c"])

    def test_enable_single_node(self) -> None:
        """R03: a node that knows no peers elects itself, if it is allowed to."""
        cluster = self.unstarted(1)
        cluster.start_node("a", [], config=lone())
        cluster.wait_for_leader()
        cluster.apply(b"one")
        waiting = cluster.start_node("b", [])
        cluster.advance(2)

        self.assertEqual(cluster.nodes["a"].raft.peers(), ["a"])
        self.assertEqual(waiting.raft.state, RaftState.FOLLOWER)

    def test_start_as_leader_still_takes_a_new_term(self) -> None:
        """R30: at once, but nobody leads one term twice."""
        cluster = self.unstarted(1, start_as_leader=True)
        cluster.start_node("a", ["a"])
        cluster.advance(0.05)

        self.assertEqual(cluster.leader.raft.term, 2)

    def test_start_outside_the_own_peers_is_refused(self) -> None:
        """A list that leaves this node out is a mistake in it."""
        cluster = self.unstarted(1)
        node = cluster.start_node("a", ["b", "c"])
        outcome = self.outcome(node.started)
        cluster.advance(0.1)

        error = self.assertFailedWith(outcome, ConfigurationRefused)
        self.assertIn("a is not among its peers", str(error))

    def test_bad_configuration_is_refused_before_anything_is_done(self) -> None:
        """Every fault at once."""
        cluster = self.unstarted(1, heartbeat_timeout=0.0)
        self.assertRaises(ConfigError, cluster.start_node, "a", ["a"])
