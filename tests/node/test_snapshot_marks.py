"""A snapshot tells the membership and the term where it ends."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txraft.testing import Cluster
from txraft.testing.cluster import FAST


class Marks(SynchronousTestCase):
    """Snapshots of nodes that know of more than is committed."""

    def test_snapshot_has_the_membership_at_its_end(self) -> None:
        """A change that is appended behind the snapshot, and may go, is not in it.

        Source: Raft dissertation §5.1.
        """
        cluster = Cluster(3)
        cluster.start()
        cluster.apply(b"one")
        leader = cluster.leader
        cluster.isolate(leader.address)
        leader.raft.add_peer("d").addErrback(lambda _: None)
        cluster.advance(0.02)
        self.assertGreater(leader.raft.last_index, leader.raft.applied_index)

        cluster.result(leader.raft.snapshot())

        [meta] = leader.snapshots.list()
        self.assertEqual(sorted(meta.configuration.addresses), ["a", "b", "c"])

    def test_snapshot_has_the_term_of_its_last_entry(self) -> None:
        """A node whose term has risen since files what it applied under the old one."""
        cluster = Cluster(3, replace(FAST, pre_vote=False))
        cluster.start()
        cluster.apply(b"one")
        cluster.wait_for_all()
        follower = cluster.followers[0]
        term = follower.raft.term
        cluster.isolate(follower.address)
        cluster.advance(2.0)
        self.assertGreater(follower.raft.term, term)

        cluster.result(follower.raft.snapshot())

        [meta] = follower.snapshots.list()
        self.assertEqual(meta.term, term)
