"""Consensus takes the snapshot with the highest index for the newest."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import log_of, server
from txraft.core.configuration import Configuration
from txraft.core.ready import SnapshotMark

MEMBERS = Configuration.of_voters("abc")


class Marks(SynchronousTestCase):
    """Snapshots that are reported durable out of order."""

    def test_snapshotted_of_an_older_one_changes_nothing(self) -> None:
        """What a follower may be sent still covers all that was compacted."""
        consensus = server(log=log_of(1, 1, 1, 1))
        consensus.commit(4)
        newest = SnapshotMark(3, 1, MEMBERS)
        consensus.snapshotted(newest)
        consensus.compacted(3)

        consensus.snapshotted(SnapshotMark(2, 1, MEMBERS))

        self.assertEqual(consensus.snapshot, newest)
