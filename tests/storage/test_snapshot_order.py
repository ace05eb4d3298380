"""Snapshots are in the order of their terms and indexes, as numbers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.storage.snapshots import FileSnapshotStore


class Order(SynchronousTestCase):
    """Snapshots whose names do not sort as they should."""

    def test_list_sorts_numbers_as_numbers(self) -> None:
        """Term 10 comes after term 9, and index 100 after index 99."""
        store = FileSnapshotStore(self.mktemp(), retain=4)
        for term, index in ((9, 99), (9, 100), (10, 101)):
            sink = store.create(index, term, Configuration.of_voters("a"), 1)
            sink.close()

        found = [(meta.term, meta.index) for meta in store.list()]

        self.assertEqual(found, [(10, 101), (9, 100), (9, 99)])
