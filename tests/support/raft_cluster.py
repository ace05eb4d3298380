"""A test case with a cluster in memory, which follows every Deferred it gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.config import Config
from txraft.core.entry import Entry
from txraft.interfaces import FSM
from txraft.storage.memory import InmemStore
from txraft.testing import Cluster, ListFSM, Node
from txraft.testing.cluster import FAST

T = TypeVar("T")


class Fates:
    """Counts how often each Deferred that was handed out has fired."""

    def __init__(self) -> None:
        self.handed_out = 0
        self.fired = 0

    def of(self, deferred: Deferred[T]) -> list[T | Failure]:
        """Return a list that gets the outcome of *deferred*."""
        self.handed_out += 1
        outcome: list[T | Failure] = []

        def fired(result: T | Failure) -> None:
            self.fired += 1
            outcome.append(result)

        deferred.addBoth(fired)
        return outcome


class ClusterCase(SynchronousTestCase):
    """A test on clusters in memory; at its end every tracked Deferred has fired."""

    def setUp(self) -> None:
        self.fates = Fates()
        self.clusters: list[Cluster] = []
        self.addCleanup(self.end)

    def cluster(
        self,
        size: int = 3,
        make_fsm: Callable[[], FSM] = ListFSM,
        seed: int = 0,
        disk_seconds: float = 0.0,
        latency: float = 0.0,
        **options: Any,
    ) -> Cluster:
        """Start a cluster whose configuration is FAST but for *options*."""
        cluster = self.unstarted(size, make_fsm, seed, disk_seconds, latency, **options)
        cluster.start()
        return cluster

    def unstarted(
        self,
        size: int = 3,
        make_fsm: Callable[[], FSM] = ListFSM,
        seed: int = 0,
        disk_seconds: float = 0.0,
        latency: float = 0.0,
        **options: Any,
    ) -> Cluster:
        config = replace(FAST, **options)
        cluster = Cluster(size, config, make_fsm, seed, disk_seconds, latency)
        self.clusters.append(cluster)
        return cluster

    def end(self) -> None:
        for cluster in self.clusters:
            cluster.shutdown()
        for cluster in self.clusters:
            cluster.advance(cluster.disk_seconds + 1.0)
            left = [str(call) for call in cluster.clock.getDelayedCalls()]
            self.assertEqual(left, [], "a stopped cluster leaves no timers")
        self.assertEqual(self.fates.fired, self.fates.handed_out)

    def outcome(self, deferred: Deferred[T]) -> list[T | Failure]:
        """Track *deferred*: it must have fired at the end."""
        return self.fates.of(deferred)

    def assertFailedWith(
        self, outcome: Sequence[object], *errors: type[Exception]
    ) -> Exception:
        """Assert that *outcome* is one failure of exactly one of *errors*."""
        [failure] = outcome
        assert isinstance(failure, Failure), f"{failure!r} is no failure"
        self.assertIn(type(failure.value), errors)
        assert isinstance(failure.value, Exception)
        return failure.value

    def assertSucceeded(self, outcome: Sequence[object]) -> None:
        """Assert that *outcome* is one result."""
        [result] = outcome
        assert not isinstance(result, Failure), f"it failed: {result!r}"

    def assertSameState(self, cluster: Cluster, commands: Sequence[bytes]) -> None:
        """Assert that every node of *cluster* has applied *commands*."""
        cluster.wait_for_all()
        for node in cluster.nodes.values():
            self.assertEqual(commands_of(node), list(commands), node.address)


def commands_of(node: Node) -> list[bytes]:
    """Return what the ListFSM of *node* holds."""
    assert isinstance(node.fsm, ListFSM)
    return node.fsm.commands


class FaultyStore(InmemStore):
    """A store whose disk fails when `error` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def store_logs(self, entries: Sequence[Entry]) -> None:
        if self.error is not None:
            raise self.error
        super().store_logs(entries)


def lone(config: Config = FAST, **options: Any) -> Config:
    """Make a configuration for a node that bootstraps a cluster of its own."""
    return replace(config, enable_single_node=True, **options)
