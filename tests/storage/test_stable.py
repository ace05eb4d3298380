"""Stable stores, in memory and in a file."""

from __future__ import annotations

import contextlib
import errno
import struct
import zlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.test_segment import crc64
from tests.support.failing_disk import UNSYNCED, Disk, PowerFailed
from txraft.errors import DataCorrupted, FormatTooNew, WrongNode
from txraft.interfaces import StableStore
from txraft.storage.lmdbstore import LMDBStore
from txraft.storage.memory import InmemStore
from txraft.storage.preamble import encode_preamble
from txraft.storage.stable import MAX_STATE_BYTES, FileStableStore
from txraft.testing.contracts import (
    HintingStableStoreContract,
    HintingStore,
    StableStoreContract,
)

PATH = Path("/state")


class InMemory(StableStoreContract, SynchronousTestCase):
    """The contract, in memory."""

    def make_store(self) -> StableStore:
        return InmemStore()


class InAFile(StableStoreContract, SynchronousTestCase):
    """The contract, in a file."""

    def make_store(self) -> StableStore:
        return FileStableStore(PATH, "n1", Disk())


class HintsInAFile(HintingStableStoreContract, SynchronousTestCase):
    """The contract of hints, in a file."""

    def setUp(self) -> None:
        self.disk = Disk()

    def make_store(self) -> HintingStore:
        return FileStableStore(PATH, "n1", self.disk)

    def reopen(self, store: HintingStore) -> HintingStore:
        return FileStableStore(PATH, "n1", self.disk)


class InLMDB(StableStoreContract, SynchronousTestCase):
    """The contract, in LMDB."""

    def make_store(self) -> StableStore:
        store = LMDBStore(self.mktemp(), "n1")
        self.addCleanup(store.close)
        return store


class Files(SynchronousTestCase):
    """The state file."""

    def setUp(self) -> None:
        self.disk = Disk()

    def open(self, disk: Disk | None = None) -> FileStableStore:
        return FileStableStore(PATH, "n1", disk or self.disk)

    def test_exists(self) -> None:
        """A missing file is known from an empty one."""
        store = self.open()
        self.assertFalse(store.exists)

        store.set(b"k", b"v")

        self.assertTrue(store.exists)
        self.assertTrue(self.open().exists)

    def test_reopened(self) -> None:
        """What was set is there after a restart."""
        self.open().set_many({b"term": b"5", b"vote": b""})
        self.open().set(b"vote", b"a:1")

        store = self.open()

        self.assertEqual((store.get(b"term"), store.get(b"vote")), (b"5", b"a:1"))

    def test_bytes(self) -> None:
        """The file is laid out as docs/reference/log-format.rst says."""
        self.open().set_many({b"k": b"value"})

        expected = b"txraft-S" + struct.pack(">I", 1)
        expected += struct.pack(">I", zlib.crc32(expected))
        expected += struct.pack(">I2sI", 2, b"n1", 1)
        expected += struct.pack(">IcI5s", 1, b"k", 5, b"value")
        expected += struct.pack(">Q", crc64(expected))
        self.assertEqual(self.disk.content(PATH).data, expected)

    def test_any_byte_flipped(self) -> None:
        """Damage is refused, naming file and offset."""
        self.open().set_many({b"term": b"12345678", b"vote": b"127.0.0.1:8300"})
        data = self.disk.content(PATH).data

        for offset in range(len(data)):
            data[offset] ^= 1 << offset % 8
            error = self.assertRaises(DataCorrupted, self.open)
            self.assertIn(f"{PATH}: damaged at byte ", str(error))
            data[offset] ^= 1 << offset % 8
        self.assertEqual(self.open().get(b"term"), b"12345678")

    def test_cut_anywhere(self) -> None:
        """A file that ends early is damage: it was never written in place."""
        self.open().set_many({b"term": b"12345678", b"vote": b"127.0.0.1:8300"})
        whole = bytes(self.disk.content(PATH).data)

        for size in range(len(whole)):
            self.disk.content(PATH).data[:] = whole[:size]
            self.assertRaises(DataCorrupted, self.open)

    def test_valid_checksum_over_nonsense(self) -> None:
        """Lengths that lead out of the file are refused."""
        for body in (b"", struct.pack(">I", 99), struct.pack(">III", 0, 1, 99)):
            data = encode_preamble(b"txraft-S", 1) + body
            self.disk = Disk()
            self.disk.create(PATH).write_at(data + struct.pack(">Q", crc64(data)), 0)

            self.assertRaises(DataCorrupted, self.open)

    def test_another_node(self) -> None:
        """The state of another node is refused, naming both."""
        self.open().set(b"k", b"v")

        error = self.assertRaises(WrongNode, FileStableStore, PATH, "n2", self.disk)

        self.assertIn("belongs to node 'n1' and this is node 'n2'", str(error))

    def test_newer_format(self) -> None:
        """A format to come is refused by its number."""
        self.open().set(b"k", b"v")
        preamble = encode_preamble(b"txraft-S", 9)
        self.disk.content(PATH).data[: len(preamble)] = preamble

        self.assertIn("format 9", str(self.assertRaises(FormatTooNew, self.open)))

    def test_power_cuts(self) -> None:
        """After any cut there is the old state or the new one, never less than was
        acknowledged."""
        self.open().set_many({b"term": b"1", b"vote": b"a"})
        self.open().set_many({b"term": b"2", b"vote": b"b"})
        for cut in range(1, len(self.disk.operations) + 1):
            for unsynced in UNSYNCED:
                disk = Disk()
                disk.cut_after = cut
                done = 0
                with contextlib.suppress(PowerFailed):
                    store = self.open(disk)
                    for number, name in enumerate((b"a", b"b"), 1):
                        store.set_many({b"term": b"%d" % number, b"vote": name})
                        done = number

                store = self.open(disk.after_power_cut(unsynced))

                found = [(b"", b""), (b"1", b"a"), (b"2", b"b")]
                state = (store.get(b"term"), store.get(b"vote"))
                self.assertIn(state, found[done : done + 2])

    def test_state_that_is_seen_is_durable(self) -> None:
        """A renaming whose sync a crash prevented is synced before it is used."""
        store = self.open()
        store.set(b"k", b"old")
        self.disk.failures["sync_directory"] = errno.EIO
        self.assertRaises(OSError, store.set, b"k", b"new")
        before = self.disk.after_power_cut("lost")

        self.assertEqual(self.open().get(b"k"), b"new")

        self.assertEqual(self.open(before).get(b"k"), b"old")
        after = self.disk.after_power_cut("lost")
        self.assertEqual(self.open(after).get(b"k"), b"new")

    def test_failures_are_final(self) -> None:
        """After an error on a write or sync nothing is stored any more."""
        for operation in ("create", "write_at", "sync", "rename", "sync_directory"):
            disk = Disk()
            store = self.open(disk)
            store.set(b"k", b"old")
            disk.failures[operation] = errno.EIO

            first = self.assertRaises(OSError, store.set, b"k", b"new")

            again = self.assertRaises(OSError, store.set_uint64, b"k", 1)
            self.assertIs(again, first)
            self.assertEqual(store.get(b"k"), b"old")

    def test_limit(self) -> None:
        """A state that is no small one is refused, and nothing changes."""
        store = self.open()
        store.set(b"k", b"v")

        self.assertRaises(ValueError, store.set, b"k", bytes(MAX_STATE_BYTES))

        store.set(b"l", b"w")
        self.assertEqual(self.open().get(b"k"), b"v")


class Hints(SynchronousTestCase):
    """The value that may be lost, in a file of its own."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = FileStableStore(PATH, "n1", self.disk)

    def test_hint_is_kept_without_a_sync(self) -> None:
        """A process that is killed leaves it; a power failure may not."""
        self.assertEqual(self.store.hinted(), b"")
        self.store.hint(b"first")
        self.store.hint(b"other")

        self.assertNotIn("sync", " ".join(self.disk.operations))
        self.assertEqual(self.disk.open_files, 0)
        again = FileStableStore(PATH, "n1", self.disk)
        self.assertEqual(again.hinted(), b"other")
        for unsynced in UNSYNCED:
            left = FileStableStore(PATH, "n1", self.disk.after_power_cut(unsynced))
            self.assertIn(left.hinted(), (b"", b"first", b"other"))

    def test_hint_that_is_damaged(self) -> None:
        """It is none."""
        self.store.hint(b"value")
        for at in range(13):
            data = self.disk.content(Path("/state.hint")).data
            data[at] ^= 1
            self.assertEqual(self.store.hinted(), b"")
            data[at] ^= 1
        self.assertEqual(self.store.hinted(), b"value")

    def test_hint_of_another_directory(self) -> None:
        """A state file that was begun anew has none."""
        self.store.set(b"Incarnation", b"A" * 16)
        self.store.hint(b"value")
        self.assertEqual(self.store.hinted(), b"value")

        self.store.set(b"Incarnation", b"B" * 16)

        self.assertEqual(self.store.hinted(), b"")

    def test_hint_that_cannot_be_written(self) -> None:
        """Nothing relies on it: term and vote can be stored all the same."""
        for operation in ("create", "write_at"):
            self.setUp()
            self.disk.failures[operation] = errno.ENOSPC

            self.store.hint(b"value")

            self.assertEqual(self.store.hinted(), b"")
            self.store.set(b"k", b"v")

    def test_no_hint_after_a_failed_write(self) -> None:
        """What it would count beside is not known."""
        self.disk.failures["sync"] = errno.EIO
        self.assertRaises(OSError, self.store.set, b"k", b"v")

        self.store.hint(b"value")

        self.assertEqual(self.store.hinted(), b"")
