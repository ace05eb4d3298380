"""Clusters under random faults, load and changes, with invariants after every event.

Each seed is one cluster of one to seven machines; a third of them run without
pre-vote or without a leader's lease, so that what those two protect from shows.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.cluster import Cluster

SEEDS = 150


class RandomClusters(SynchronousTestCase):
    """Storms, and what must follow them."""

    def test_run_is_safe_and_recovers(self) -> None:
        """Nothing is lost or contradicted, and after healing all agree."""
        reads = leaders = crashes = changes = committed = 0
        for seed in range(SEEDS):
            cluster = Cluster(seed)
            try:
                cluster.run()
            except AssertionError as error:
                self.fail(f"seed {seed}: {error}")
            reads += cluster.reads
            crashes += cluster.crashes
            changes += cluster.changes
            committed += cluster.history.max_committed
            leaders += cluster.history.leaderships

        self.assertGreater(committed, 10 * SEEDS)
        self.assertGreater(min(reads, leaders, crashes), SEEDS)
        self.assertGreater(changes, SEEDS)

    def test_run_twice_is_the_same(self) -> None:
        """A seed that failed can be looked at again."""
        for seed in (3, 17):
            first, second = Cluster(seed), Cluster(seed)
            first.run()
            second.run()

            self.assertEqual(first.digests, second.digests)
            self.assertEqual(first.events, second.events)
