"""`SimulatedCluster` itself: replays, hanging nodes, batches, restored states."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry
from txraft.testing import ListFSM, NodeStopped, ReplicasDiffer, SimulatedCluster


class Batches(ListFSM):
    """A list that takes several commands at once."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        return [self.apply(log) for log in logs]


class Forgetful(ListFSM):
    """A list that loses its first command whenever it is restored."""

    def restore(self, source: object) -> None:
        super().restore(source)  # type: ignore[arg-type]
        del self.commands[:1]


def command(random: Random) -> bytes:
    """Make any command."""
    return b"%d" % random.randrange(1000)


class Storms(SynchronousTestCase):
    """What a storm does, and what it finds."""

    def summary(self, seed: int) -> tuple[object, ...]:
        cluster = SimulatedCluster(ListFSM, seed=seed)
        cluster.start()
        storm = cluster.storm(5.0, command)
        lists = [cluster.fsm(address).commands for address in cluster.addresses]
        return storm.commands, storm.crashes, storm.unknown, lists

    def test_storm_of_one_seed_is_one_storm(self) -> None:
        """The same seed makes the same run, another one another."""
        self.assertEqual(self.summary(4), self.summary(4))
        self.assertNotEqual(self.summary(4), self.summary(5))

    def test_storm_with_batches(self) -> None:
        """Replicas cut batches differently, and that is no difference."""
        cluster = SimulatedCluster(Batches, seed=1)
        cluster.start()

        storm = cluster.storm(10.0, command)

        self.assertGreater(storm.acknowledged, 20)

    def test_storm_finds_a_restore_that_loses_something(self) -> None:
        """A state that went through a snapshot is compared as well."""
        cluster = SimulatedCluster(Forgetful, seed=2)
        cluster.start()

        self.assertRaises(ReplicasDiffer, cluster.storm, 60.0, command)


class Unbearable(ListFSM):
    """A list that does not bear the number nine."""

    def apply(self, log: Entry) -> object:
        if log.data == b"9":
            raise KeyError("nine")
        return super().apply(log)


class Mistakes(SynchronousTestCase):
    """What a test gets wrong is said, not left to be guessed."""

    def test_storm_before_start(self) -> None:
        """There are no nodes to crash: what to call first is named."""
        cluster = SimulatedCluster(ListFSM)

        error = self.assertRaises(RuntimeError, cluster.storm, 1.0, command)

        self.assertIn("start()", str(error))

    def test_state_machine_that_raises(self) -> None:
        """Its node stops, and why is what the test gets to read."""
        cluster = SimulatedCluster(Unbearable)
        cluster.start()

        def few(random: Random) -> bytes:
            return b"%d" % random.randrange(10)

        error = self.assertRaises(NodeStopped, cluster.storm, 10.0, few)

        self.assertIn("nine", str(error))
        self.assertIn("KeyError", str(error))
        self.flushLoggedErrors(KeyError)

    def test_state_machine_that_raises_outside_a_storm(self) -> None:
        """Also who waits for one command is told, not that it took too long."""
        cluster = SimulatedCluster(Unbearable)
        cluster.start()

        error = self.assertRaises(NodeStopped, cluster.apply, b"9")

        self.assertIn("nine", str(error))
        self.flushLoggedErrors(KeyError)

    def test_shut_down_is_no_mistake(self) -> None:
        """Nodes that were shut down or crashed have not stopped by themselves."""
        cluster = SimulatedCluster(ListFSM)
        cluster.start()
        cluster.restart("a")
        cluster.wait_for_leader()

        cluster.shutdown()
        cluster.advance(1.0)

        cluster.check()


class Pauses(SynchronousTestCase):
    """Nodes that hang."""

    def test_pause_of_a_leader_makes_another_one(self) -> None:
        """A node that hangs says nothing; when it goes on it is no leader any more."""
        cluster = SimulatedCluster(ListFSM)
        cluster.start()
        old = cluster.leader

        cluster.pause(old.address)
        cluster.advance(2.0)
        others = [n for n in cluster.leaders() if n is not old]
        cluster.resume(old.address)
        cluster.advance(0.5)

        self.assertEqual(len(others), 1)
        self.assertEqual(cluster.leaders(), others)
