"""The cluster for tests: it does what its users rely on."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from txraft.node.events import RaftState
from txraft.testing import Cluster, ListFSM, Node


def commands(node: Node) -> list[bytes]:
    assert isinstance(node.fsm, ListFSM)
    return node.fsm.commands


class ClusterHarness(SynchronousTestCase):
    def cluster(
        self, size: int = 3, seed: int = 0, disk_seconds: float = 0.0
    ) -> Cluster:
        cluster = Cluster(size, seed=seed, disk_seconds=disk_seconds)
        self.addCleanup(cluster.shutdown)
        cluster.start()
        return cluster

    def test_start_waits_for_a_leader(self) -> None:
        """Whom all agree on."""
        cluster = self.cluster()

        self.assertEqual(sorted(cluster.nodes), ["a", "b", "c"])
        self.assertEqual(len(cluster.leaders()), 1)
        self.assertEqual(len(cluster.followers), 2)

    def test_nothing_happens_unless_the_clock_moves(self) -> None:
        """Neither an election nor the outcome of a command."""
        cluster = self.cluster()
        outcome: list[object] = []
        cluster.leader.raft.apply(b"one").addBoth(outcome.append)
        self.assertEqual(outcome, [])

        cluster.advance(0.1)

        self.assertEqual(len(outcome), 1)

    def test_same_seed_same_story(self) -> None:
        """Every random choice comes from it."""

        def story(seed: int) -> list[object]:
            cluster = self.cluster(seed=seed)
            first = cluster.leader.address
            cluster.crash(first)
            cluster.wait_until(lambda: bool(cluster.leaders()))
            clock = cluster.clock.seconds()
            return [first, cluster.leader.address, cluster.leader.raft.term, clock]

        self.assertEqual([story(s) for s in range(5)], [story(s) for s in range(5)])
        self.assertGreater(len({str(story(s)) for s in range(5)}), 1)

    def test_crash_loses_writes_that_wait_and_keeps_the_others(self) -> None:
        """What a node was told is durable is there when it comes back."""
        cluster = self.cluster(1, disk_seconds=0.05)
        cluster.apply(b"kept")
        cluster.leader.raft.apply(b"lost").addErrback(lambda _: None)
        cluster.advance(0.01)

        cluster.crash("a")
        self.assertEqual(cluster.nodes, {})
        self.assertEqual(cluster.addresses, ["a"])
        cluster.restart("a")
        cluster.wait_for_leader()
        cluster.wait_for_all()

        self.assertEqual(commands(cluster.nodes["a"]), [b"kept"])

    def test_isolate_and_heal(self) -> None:
        """Those cut off reach each other, and nobody else."""
        cluster = self.cluster(5)
        pair = [node.address for node in cluster.followers[:2]]
        cluster.isolate(*pair)
        cluster.apply(b"without them")
        cluster.advance(1)
        for address in pair:
            self.assertEqual(commands(cluster.nodes[address]), [])

        cluster.heal()
        cluster.wait_for_leader()
        cluster.wait_for_all()

        for node in cluster.nodes.values():
            self.assertEqual(commands(node), [b"without them"])

    def test_node_started_in_a_cut_stays_cut(self) -> None:
        """A restart mends no link."""
        cluster = self.cluster()
        cut = cluster.followers[0].address
        cluster.isolate(cut)
        cluster.restart(cut)
        cluster.apply(b"one")
        cluster.advance(1)

        self.assertEqual(commands(cluster.nodes[cut]), [])
        self.assertIsNone(cluster.nodes[cut].raft.leader)

    def test_result_returns_raises_or_gives_up(self) -> None:
        """After the seconds that it is given."""
        cluster = self.cluster(1)
        self.assertEqual(cluster.result(succeed(3)), 3)
        failing: Deferred[int] = fail(ZeroDivisionError())
        self.assertRaises(ZeroDivisionError, cluster.result, failing)
        before = cluster.clock.seconds()
        never: Deferred[int] = Deferred()
        self.assertRaises(AssertionError, cluster.result, never, 0.5)
        self.assertAlmostEqual(cluster.clock.seconds() - before, 0.5)

    def test_shutdown_leaves_nothing_on_the_clock(self) -> None:
        """A test that ends with it may look for timers left over."""
        cluster = self.cluster()

        cluster.shutdown()

        self.assertEqual(cluster.clock.getDelayedCalls(), [])
        for node in cluster.nodes.values():
            self.assertEqual(node.raft.state, RaftState.SHUTDOWN)
