"""Which store a data directory is opened with."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import StorageError
from txraft.storage.directory import DataDirectory
from txraft.stores import STORE_KINDS, Stores, open_stores
from txraft.testing.contracts.samples import commands


class Kinds(SynchronousTestCase):
    """A data directory keeps the kind of store that it began with."""

    def open(self, kind: str, path: str) -> Stores:
        directory = DataDirectory(path, "n1")
        try:
            stores = open_stores(kind, directory, "n1")
        except Exception:
            directory.close()
            raise
        self.addCleanup(directory.close)
        self.addCleanup(stores.close)
        return stores

    def test_stores_are_empty_and_keep_what_they_get(self) -> None:
        """Every kind holds a log and a state."""
        for kind in STORE_KINDS:
            stores = self.open(kind, self.mktemp())

            stores.log.store_logs(commands(1, 3))
            stores.stable.set(b"k", b"v")

            self.assertEqual(stores.log.last_index(), 3)
            self.assertEqual(stores.stable.get(b"k"), b"v")

    def test_another_kind_is_refused(self) -> None:
        """An empty store of another kind would have forgotten every vote."""
        for held, asked in (STORE_KINDS, reversed(STORE_KINDS)):
            path = self.mktemp()
            directory = DataDirectory(path, "n1")
            stores = open_stores(held, directory, "n1")
            stores.stable.set(b"k", b"v")
            stores.close()
            directory.close()

            error = self.assertRaises(StorageError, self.open, asked, path)

            self.assertIn(f"holds a store of kind {held}", str(error))
            self.assertEqual(self.open(held, path).stable.get(b"k"), b"v")
