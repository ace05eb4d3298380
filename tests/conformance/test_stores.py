"""F, L, P and Z: stores, as hashicorp/raft's own suite exercises them.

The contracts that all stores pass are in tests/storage.
"""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SynchronousTestCase

from txraft import (
    Configuration,
    DiscardSnapshotSink,
    DiscardSnapshotStore,
    FileSnapshotSink,
    FileSnapshotStore,
    InmemStore,
    JSONPeers,
    LogCache,
    LogNotFound,
    SnapshotSink,
    SnapshotStore,
    StaticPeers,
    StorageError,
)
from txraft.testing.contracts.samples import command, commands

PEERS = Configuration.of_voters(["a:1", "b:1", "c:1"])


class FileSnapshots(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = FileSnapshotStore(self.path, 3)

    def take(self, index: int, term: int) -> FileSnapshotSink:
        sink = self.store.create(index, term, PEERS, 2)
        sink.write(b"first\n")
        sink.write(b"second\n")
        return sink

    def test_implementations(self) -> None:
        """F01, F02: store and sink fit their plug points."""
        store: SnapshotStore = self.store
        sink: SnapshotSink = store.create(10, 3, PEERS, 2)

        self.assertIsInstance(store, FileSnapshotStore)
        self.assertIsInstance(sink, FileSnapshotSink)
        sink.cancel()

    def test_create_after_the_base_was_removed(self) -> None:
        """F03: it is made again, and the snapshot in it."""
        rmtree(self.path)

        sink = self.take(10, 3)
        sink.close()

        self.assertEqual([meta.id for meta in self.store.list()], [sink.id])

    def test_create(self) -> None:
        """F04: an unfinished snapshot is not listed; a finished one is, with index,
        term, peers and size, and opens.
        """
        sink = self.take(10, 3)
        self.assertEqual(self.store.list(), [])

        sink.close()

        [meta] = self.store.list()
        self.assertEqual((meta.index, meta.term, meta.size), (10, 3, 13))
        self.assertEqual(meta.configuration, PEERS)
        self.assertEqual(meta.id, sink.id)
        opened, source = self.store.open(sink.id)
        with source:
            self.assertEqual(source.read(), b"first\nsecond\n")
        self.assertEqual(opened, meta)

    def test_bad_permissions(self) -> None:
        """F05: a base that cannot be written to fails the constructor."""
        if not os.getuid():
            self.skipTest("nothing is forbidden to root")
        base = Path(self.mktemp())
        base.mkdir(mode=0o000)
        self.addCleanup(base.chmod, 0o700)

        self.assertRaises(OSError, FileSnapshotStore, base, 3)

    def test_cancel(self) -> None:
        """F06: what was cancelled is not listed."""
        self.take(10, 3).cancel()

        self.assertEqual(self.store.list(), [])

    def test_retention(self) -> None:
        """F07: of five snapshots, two are kept."""
        self.store = FileSnapshotStore(self.path, 2)
        for index in range(10, 15):
            self.take(index, 3).close()

        self.assertEqual([meta.index for meta in self.store.list()], [14, 13])
        self.store.reap()
        self.assertEqual(len(os.listdir(self.path / "snapshots")), 2)
        self.assertRaises(ValueError, FileSnapshotStore, self.path, 0)

    def test_missing_parent(self) -> None:
        """F08: a base that is missing is made."""
        base = self.path / "deeper" / "still"

        FileSnapshotStore(base, 3).create(10, 3, PEERS, 2).close()

        self.assertTrue((base / "snapshots").is_dir())

    def test_ordering(self) -> None:
        """F09: a higher term is newer, whatever the digits of the index."""
        self.take(130350, 5).close()
        self.take(204917, 36).close()

        self.assertEqual([meta.term for meta in self.store.list()], [36, 5])


class Caches(SynchronousTestCase):
    def test_cache(self) -> None:
        """L01: a miss falls through; writes go through; a hit survives what the store
        has lost; a deletion purges.
        """
        store = InmemStore()
        store.store_logs(commands(1, 5))
        cache = LogCache(16, store)
        self.assertEqual((cache.first_index(), cache.last_index()), (1, 5))
        self.assertEqual(cache.get_log(1), command(1))

        cache.store_logs(commands(6, 7))
        self.assertEqual(store.get_log(7), command(7))
        store.delete_range(6, 7)
        self.assertEqual(cache.get_log(6), command(6))

        cache.delete_range(1, 5)
        for index in (1, 6):
            self.assertRaises(LogNotFound, cache.get_log, index)

    def test_capacity(self) -> None:
        """A5: a capacity that is not positive is an error."""
        self.assertRaises(ValueError, LogCache, 0, InmemStore())


class Peers(SynchronousTestCase):
    def test_json_peers(self) -> None:
        """P01: a missing file is no peers; what is written is read."""
        path = Path(self.mktemp())
        path.mkdir()
        store = JSONPeers(path)
        self.assertEqual(store.peers(), [])

        store.set_peers(["a:1", "b:1", "c:1"])

        self.assertEqual(JSONPeers(path).peers(), ["a:1", "b:1", "c:1"])

    def test_static_peers(self) -> None:
        """A7: a list in memory, usable from the start."""
        store = StaticPeers()
        self.assertEqual(store.peers(), [])
        store.set_peers(["a:1"])
        self.assertEqual(store.peers(), ["a:1"])


class Discarding(SynchronousTestCase):
    def test_implementations(self) -> None:
        """Z01, Z02: store and sink fit their plug points, and keep nothing."""
        store: SnapshotStore = DiscardSnapshotStore()
        sink: SnapshotSink = store.create(10, 3, PEERS, 2)

        self.assertIsInstance(sink, DiscardSnapshotSink)
        self.assertEqual((sink.id, sink.write(b"data")), ("discard", 4))
        sink.close()
        sink.cancel()
        self.assertEqual(store.list(), [])
        self.assertRaises(StorageError, store.open, "discard")
