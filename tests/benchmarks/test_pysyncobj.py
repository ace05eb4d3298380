"""PySyncObj is measured with the snapshots that it makes for its users."""

from importlib.util import find_spec
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase


class Snapshots(SynchronousTestCase):
    """What it compacts, if it is installed."""

    def setUp(self) -> None:
        if find_spec("pysyncobj") is None:
            raise SkipTest("pip install .[benchmarks]")

    def test_snapshot_holds_the_values(self) -> None:
        """Without them compaction costs nothing, and who gets a snapshot gets none."""
        from benchmarks.members.pysyncobj import Map

        full, empty = Map(), Map()
        full.values["key"] = b"value"

        empty._deserialize(full._serialize())

        self.assertEqual(empty.values, {"key": b"value"})
