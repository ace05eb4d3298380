"""A data directory is opened with the kind of store that it was made with."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import StorageError, WrongDirectory
from txraft.node.incarnations import read_incarnations
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.pairing import IDENTITY
from txraft.storage.stable import FileStableStore
from txraft.storage.stores import STORE_KINDS, Stores, open_stores
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


class Belonging(SynchronousTestCase):
    """A log is opened only beside the term and vote that it was written with."""

    def setUp(self) -> None:
        self.here, self.other = Path(self.mktemp()), Path(self.mktemp())

    def use(self, path: Path, term: int = 1) -> bytes:
        """Open the directory of node n1 at *path*, write to it, return its identity."""
        directory = DataDirectory(path, "n1")
        try:
            stores = open_stores("file", directory, "n1")
            stores.stable.set_uint64(b"CurrentTerm", term)
            last = stores.log.last_index()
            stores.log.store_logs(commands(last + 1, last + 1))
            stores.close()
            return stores.stable.get(IDENTITY)
        finally:
            directory.close()

    def refused(self) -> None:
        error = self.assertRaises(WrongDirectory, self.use, self.here)

        self.assertIn(f"{self.here / 'log'}", str(error))
        self.assertIn("another data directory than the file `state`", str(error))
        self.assertIn("add it again with join: true", str(error))

    def test_each_directory_has_an_identity(self) -> None:
        """It stays the same, and is the incarnation that other members know."""
        found = self.use(self.here)

        self.assertEqual(len(found), 16)
        self.assertEqual(self.use(self.here), found)
        self.assertNotEqual(self.use(self.other), found)
        stable = FileStableStore(self.here / "state", "n1")
        self.assertEqual(read_incarnations(stable, bytes), (found, {}))

    def test_log_of_another_directory(self) -> None:
        """The name of the node is the same, the directory is not."""
        for path in (self.here, self.other):
            self.use(path)
        (self.here / "log").rename(self.here / "away")
        (self.other / "log").rename(self.here / "log")

        self.refused()

        (self.here / "log").rename(self.other / "log")
        (self.here / "away").rename(self.here / "log")
        self.use(self.here)

    def test_state_of_another_directory(self) -> None:
        """Else a vote would be forgotten."""
        for path in (self.here, self.other):
            self.use(path)
        (self.other / "state").replace(self.here / "state")

        self.refused()

    def test_one_segment_of_another_directory(self) -> None:
        """Every file of a log says where it was made."""
        for path in (self.here, self.other):
            self.use(path)
        for segment in (self.other / "log").iterdir():
            segment.replace(self.here / "log" / segment.name)

        self.refused()

    def test_state_missing(self) -> None:
        """A log whose state is gone is not made to belong to a new one."""
        self.use(self.here)
        (self.here / "state").unlink()

        self.refused()
        self.assertFalse((self.here / "state").exists())

    def test_directory_older_than_identities(self) -> None:
        """It gets one, and its log says so with the next write."""
        directory = DataDirectory(self.here, "n1")
        log = FileLog(directory.log, "n1")
        log.store_logs(commands(1, 3))
        log.close()
        FileStableStore(directory.state, "n1").set_uint64(b"CurrentTerm", 1)
        directory.close()

        self.use(self.here)

        self.use(self.other)
        (self.other / "state").replace(self.here / "state")
        self.refused()

    def test_crash_before_the_log_was_made(self) -> None:
        """The identity is there first: a log never has one that no state has."""
        directory = DataDirectory(self.here, "n1")
        stable = FileStableStore(directory.state, "n1")
        stable.set(IDENTITY, bytes(range(16)))
        directory.close()

        self.assertEqual(self.use(self.here), bytes(range(16)))
