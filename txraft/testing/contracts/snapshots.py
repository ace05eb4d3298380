"""The contract of a snapshot store: writing, listing, reading, abandoning."""

from __future__ import annotations

from txraft.errors import StorageError
from txraft.interfaces import SnapshotMeta, SnapshotStore, StagedSnapshotSink
from txraft.testing.contracts.case import Contract
from txraft.testing.contracts.samples import TRIO


class SnapshotStoreContract(Contract):
    """Tests of a `SnapshotStore`: a subclass makes an empty one."""

    def make_store(self) -> SnapshotStore:
        """Make an empty store."""
        raise NotImplementedError

    def test_list_of_nothing(self) -> None:
        """A new store has no snapshot, and opens none."""
        store = self.make_store()

        self.assertEqual(store.list(), [])
        for id in ("1-1-1", "../1-1-1", ""):
            self.assertRaises(StorageError, store.open, id)

    def test_create_and_open(self) -> None:
        """A finished snapshot is listed, and is read back whole or in pieces."""
        store = self.make_store()
        sink = store.create(10, 3, TRIO, 5)
        self.assertEqual(sink.write(b"first\n"), 6)
        self.assertEqual(sink.write(b"second\n"), 7)
        self.assertEqual(store.list(), [])

        sink.close()

        meta = SnapshotMeta(sink.id, 10, 3, TRIO, 5, 13)
        self.assertEqual(store.list(), [meta])
        opened, source = store.open(sink.id)
        with source:
            self.assertEqual(opened, meta)
            self.assertEqual(source.read(4), b"firs")
            self.assertEqual(source.read(), b"t\nsecond\n")
            self.assertEqual(source.read(1), b"")

    def test_newest_first(self) -> None:
        """Snapshots are listed by term and then index, the highest first."""
        store = self.make_store()
        write(store, 10, b"old")
        newest = write(store, 9, b"new", term=2)

        self.assertEqual(store.list()[0].id, newest)
        self.assertEqual(read(store, newest), b"new")

    def test_empty_snapshot(self) -> None:
        """A snapshot may have no bytes."""
        store = self.make_store()

        self.assertEqual(read(store, write(store, 1, b"")), b"")

    def test_cancel(self) -> None:
        """A cancelled snapshot is not listed and cannot be finished."""
        store = self.make_store()
        sink = store.create(10, 1, TRIO, 5)
        sink.write(b"x" * 100_000)

        sink.cancel()
        sink.cancel()
        sink.close()

        self.assertEqual(store.list(), [])
        self.assertRaises(ValueError, sink.write, b"x")

    def test_close_wins(self) -> None:
        """A closed snapshot cannot be cancelled or written to."""
        store = self.make_store()
        sink = store.create(10, 1, TRIO, 5)
        sink.close()

        sink.cancel()
        sink.close()

        self.assertEqual([meta.id for meta in store.list()], [sink.id])
        self.assertRaises(ValueError, sink.write, b"x")

    def test_staged_snapshot_is_not_there_yet(self) -> None:
        """A staged snapshot can be read, but is listed only after `close`.

        Sinks without `stage` are right too.
        """
        store = self.make_store()
        older = write(store, 9, b"older")
        sink = store.create(10, 3, TRIO, 5)
        if not isinstance(sink, StagedSnapshotSink):
            return
        sink.write(b"state")

        with sink.stage() as source:
            self.assertEqual(source.read(), b"state")
        self.assertRaises(ValueError, sink.write, b"more")
        self.assertEqual([meta.id for meta in store.list()], [older])
        self.assertRaises(StorageError, store.open, sink.id)
        sink.close()

        self.assertEqual(store.list()[0], SnapshotMeta(sink.id, 10, 3, TRIO, 5, 5))
        self.assertEqual(read(store, sink.id), b"state")

    def test_staged_snapshot_that_is_not_taken(self) -> None:
        """A staged snapshot that is cancelled or set aside is never listed."""
        for give_up in ("cancel", "set_aside"):
            store = self.make_store()
            older = write(store, 9, b"older")
            sink = store.create(10, 3, TRIO, 5)
            if not isinstance(sink, StagedSnapshotSink):
                return
            sink.write(b"state")
            sink.stage().close()

            getattr(sink, give_up)()
            sink.close()

            self.assertEqual([meta.id for meta in store.list()], [older])
            self.assertRaises(StorageError, store.open, sink.id)
            self.assertEqual(read(store, write(store, 11, b"newer")), b"newer")


def write(store: SnapshotStore, index: int, data: bytes, term: int = 1) -> str:
    """Write a whole snapshot; return its id."""
    sink = store.create(index, term, TRIO, 5)
    sink.write(data)
    sink.close()
    return sink.id


def read(store: SnapshotStore, id: str) -> bytes:
    """Read a whole snapshot."""
    _, source = store.open(id)
    with source:
        return source.read()
