"""The file log: opening, failures, limits and segments."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk
from tests.support.logs import PATH, contents, fixed_bytes, open_log
from txraft.core.entry import Entry, LogType
from txraft.errors import (
    FormatTooNew,
    StorageError,
    WrongDirectory,
    WrongNode,
)
from txraft.storage.filelog import FileLog
from txraft.storage.preamble import encode_preamble
from txraft.storage.segment import MAX_FRAME_BYTES, header_directory, segment_name
from txraft.testing.contracts.samples import command, commands, identity, membership
from txraft.wire.entries import encode_new

FIRST = PATH / segment_name(1)


class Opening(SynchronousTestCase):
    """What is known of a log as soon as it is open."""

    def test_fresh(self) -> None:
        """A log is fresh until something has been written, whatever is in it now."""
        disk = Disk()
        self.assertTrue(open_log(disk).fresh)
        log = open_log(disk)
        self.assertTrue(log.fresh)

        log.store_log(command(1))
        log.delete_range(1, 1)

        self.assertFalse(open_log(disk).fresh)
        self.assertEqual(open_log(disk).last_index(), 0)

    def test_reopened(self) -> None:
        """Entries, terms and special entries are those that were written."""
        disk = Disk()
        log = open_log(disk, segment_bytes=200)
        log.store_logs([membership(1), identity(2), command(3)])
        log.store_logs([*commands(4, 6, term=2), membership(7, 2)])
        log.delete_range(1, 1)
        entries = contents(log)

        again = open_log(disk, segment_bytes=200)

        self.assertEqual(contents(again), entries)
        self.assertEqual([e.encoded for e in contents(again)], [*map(raw, entries)])
        self.assertEqual(again.term_runs(), [(2, 1), (4, 2)])
        self.assertEqual(again.special_entries(), [identity(2), membership(7, 2)])
        self.assertEqual(again.warnings, [])

    def test_special_entries_that_were_replaced(self) -> None:
        """A membership that was truncated is not known after a restart either."""
        disk = Disk()
        log = open_log(disk)
        log.store_logs([membership(1), command(2), membership(3)])
        log.store_logs(commands(3, 4, term=2))

        self.assertEqual(open_log(disk).special_entries(), [membership(1)])

    def test_another_node(self) -> None:
        """The files of another node are refused, naming both."""
        disk = Disk()
        open_log(disk)

        error = self.assertRaises(WrongNode, FileLog, PATH, "n2", disk)

        self.assertIn(f"{FIRST}: the file belongs to node 'n1'", str(error))
        self.assertIn("this is node 'n2'", str(error))

    def test_newer_format(self) -> None:
        """A format to come is refused by its number, before anything is read."""
        disk = Disk()
        open_log(disk)
        preamble = encode_preamble(b"txraft-L", 3)
        disk.content(FIRST).data[: len(preamble)] = preamble

        error = self.assertRaises(FormatTooNew, open_log, disk)

        self.assertIn(f"{FIRST}: the file has format 3", str(error))

    def test_unfinished_segment(self) -> None:
        """A segment that was being made is removed; other files stay."""
        disk = Disk()
        open_log(disk)
        unfinished = PATH / (segment_name(2) + ".tmp")
        disk.create(unfinished)
        disk.create(PATH / "notes.tmp")

        open_log(disk).store_log(command(1))

        self.assertEqual(disk.list(PATH), [segment_name(1), "notes.tmp"])

    def test_memory(self) -> None:
        """The index costs little: no objects are kept for entries."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1 << 16)
        for first in range(1, 20_000, 1000):
            log.store_logs(commands(first, first + 999))

        tracemalloc.start()
        log = open_log(disk)
        kept, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        self.assertEqual(log.last_index(), 20_000)
        self.assertLess(kept, 20_000 * 20)


def raw(entry: Entry) -> bytes:
    return entry.encoded


class Failures(SynchronousTestCase):
    """A failed write or sync is final."""

    def check(self, operation: str, number: int, segment_bytes: int = 1 << 20) -> None:
        disk = Disk()
        log = open_log(disk, segment_bytes)
        log.store_logs(commands(1, 3))
        disk.failures[operation] = number

        first = self.assertRaises(OSError, log.store_log, command(4))
        operations = len(disk.operations)

        self.assertEqual(first.errno, number)
        self.assertIs(self.assertRaises(OSError, log.store_log, command(4)), first)
        self.assertIs(self.assertRaises(OSError, log.delete_range, 1, 2), first)
        self.assertEqual(len(disk.operations), operations)
        self.assertEqual(contents(log), commands(1, 3))
        log.close()
        self.assertEqual(contents(open_log(disk))[:3], commands(1, 3))

    def test_write_without_space(self) -> None:
        """ENOSPC in the middle of a write; the half that was written is cut off."""
        self.check("write_at", errno.ENOSPC)

    def test_write_error(self) -> None:
        """EIO on a write."""
        self.check("write_at", errno.EIO)

    def test_sync_error(self) -> None:
        """EIO on a sync, which is never tried again."""
        self.check("sync_data", errno.EIO)

    def test_new_segment_without_space(self) -> None:
        """Errors while a segment is made count as well."""
        for operation in ("create", "write_at", "sync", "rename", "sync_directory"):
            self.check(operation, errno.ENOSPC, segment_bytes=1)

    def test_removal_error(self) -> None:
        """EIO on the removal of a segment is final; the deletion is durable."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1)
        log.store_logs(commands(1, 3))
        log.store_logs(commands(4, 6))
        disk.failures["unlink"] = errno.EIO

        self.assertRaises(OSError, log.delete_range, 1, 5)

        self.assertRaises(OSError, log.store_log, command(7))
        after = disk.after_power_cut("lost")
        self.assertEqual(contents(open_log(after)), [command(6)])
        self.assertNotIn(segment_name(1), after.list(PATH))

    def test_cut_error_at_open(self) -> None:
        """A torn write that cannot be cut off refuses the start."""
        disk = Disk()
        log = open_log(disk)
        log.store_log(command(1))
        del disk.content(FIRST).data[-1:]
        disk.failures["sync"] = errno.EIO

        error = self.assertRaises(OSError, open_log, disk)

        self.assertEqual(error.errno, errno.EIO)

    def test_close(self) -> None:
        """A closed log can be read and not written."""
        log = open_log(Disk())
        log.store_logs(commands(1, 3))

        log.close()
        log.close()

        self.assertRaises(StorageError, log.store_log, command(4))
        self.assertEqual(contents(log), commands(1, 3))


class Limits(SynchronousTestCase):
    """What a log refuses, and where it splits."""

    def test_entry_without_encoding(self) -> None:
        """An entry that nobody has encoded is refused, and nothing is written."""
        log = open_log(Disk())

        entries = [command(1), Entry(2, 1, LogType.NOOP)]
        self.assertRaises(ValueError, log.store_logs, entries)

        log.store_log(command(1))
        self.assertEqual(log.last_index(), 1)

    def test_segment_bytes(self) -> None:
        """Offsets must fit the index."""
        for size in (0, 1 << 31):
            self.assertRaises(ValueError, open_log, Disk(), size)

    def test_node_name(self) -> None:
        """A node's name fits the header."""
        self.assertRaises(ValueError, FileLog, PATH, "n" * 1025, Disk())

    def test_large_batch_is_split(self) -> None:
        """A call beyond the frame limit is several writes, each synced."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1 << 30)
        third = bytes(MAX_FRAME_BYTES // 3)
        entries = [command(index, data=third) for index in range(1, 6)]
        disk.operations.clear()

        log.store_logs(entries)

        self.assertEqual(disk.operations, ["write_at", "sync_data"] * 3)
        self.assertEqual(contents(open_log(disk)), entries)

    def test_entry_larger_than_a_frame(self) -> None:
        """One entry may exceed the frame limit; it has a frame for itself."""
        disk = Disk()
        log = open_log(disk)
        large = command(2, data=bytes(MAX_FRAME_BYTES + 1))

        log.store_logs([command(1), large, command(3)])

        self.assertEqual(contents(open_log(disk)), [command(1), large, command(3)])

    def test_one_write_and_one_sync(self) -> None:
        """A batch of any number of entries is one write and one sync."""
        disk = Disk()
        log = open_log(disk)
        disk.operations.clear()

        log.store_logs(commands(1, 500))
        log.delete_range(400, 500)

        self.assertEqual(disk.operations, ["write_at", "sync_data"] * 2)


class Segments(SynchronousTestCase):
    """The log is cut into files, and old ones go."""

    def test_rotation(self) -> None:
        """A new file begins once the newest has its size."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1000)
        for index in range(1, 41):
            log.store_log(command(index))

        names = disk.list(PATH)

        self.assertEqual(names, [segment_name(n + 1) for n in range(len(names))])
        self.assertGreater(len(names), 3)
        self.assertEqual(contents(log), commands(1, 40))
        self.assertEqual(contents(open_log(disk, 1000)), commands(1, 40))

    def test_compaction_keeps_what_lives(self) -> None:
        """A file goes when no entry in it is left."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1000)
        for index in range(1, 41):
            log.store_log(command(index))
        before = disk.list(PATH)

        log.delete_range(1, 25)

        self.assertLess(len(disk.list(PATH)), len(before))
        self.assertEqual(contents(log), commands(26, 40))
        self.assertEqual(contents(open_log(disk, 1000)), commands(26, 40))

    def test_interrupted_removal_is_finished(self) -> None:
        """Old files that a crash left are removed at the next start."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1)
        for index in range(1, 6):
            log.store_log(command(index))
        disk.failures["unlink"] = errno.EIO
        self.assertRaises(OSError, log.delete_range, 1, 4)
        self.assertIn(segment_name(1), disk.list(PATH))

        open_log(disk)

        self.assertEqual(disk.list(PATH), [segment_name(6), segment_name(7)])

    def test_replaced_log_in_a_later_segment(self) -> None:
        """A log replaced from its first entry on needs none of the old files."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1)
        log.store_logs(commands(5, 9))
        log.store_logs(commands(5, 6, term=2))

        log = open_log(disk, segment_bytes=1)

        self.assertEqual(disk.list(PATH), [segment_name(3)])
        self.assertEqual(contents(open_log(disk)), commands(5, 6, term=2))


class OnDisk(SynchronousTestCase):
    """The log on the operating system's files."""

    def test_modes(self) -> None:
        """Files are for their owner alone."""
        path = Path(self.mktemp())

        FileLog(path, "n1").store_log(command(1))

        self.assertEqual(path.stat().st_mode & 0o777, 0o700)
        for name in os.listdir(path):
            self.assertEqual((path / name).stat().st_mode & 0o777, 0o600)

    def test_symbolic_link(self) -> None:
        """A segment that is a link is refused."""
        path = Path(self.mktemp())
        FileLog(path, "n1").close()
        (path / segment_name(1)).rename(path / "elsewhere")
        (path / segment_name(1)).symlink_to("elsewhere")

        error = self.assertRaises(OSError, FileLog, path, "n1")

        self.assertEqual(error.errno, errno.ELOOP)

    def test_bytes_of_a_file(self) -> None:
        """A log file has the bytes of docs/reference/log-format.rst."""
        path = Path(self.mktemp())
        log = FileLog(path, "n1", random_bytes=fixed_bytes, identity=HERE)
        entry = Entry(7, 2, LogType.COMMAND, b"x")
        encode_new(entry)

        log.store_log(entry)
        log.delete_range(7, 7)
        log.close()

        self.assertEqual((path / segment_name(1)).read_bytes().hex(), GOLDEN)

    def test_older_format(self) -> None:
        """A file of format 1 is read; what follows says where it was written."""
        path = Path(self.mktemp())
        path.mkdir()
        (path / segment_name(1)).write_bytes(bytes.fromhex(FORMAT_1))

        log = FileLog(path, "n1", identity=HERE)
        log.store_log(command(8, 2))

        for again in (FileLog(path, "n1", identity=HERE), FileLog(path, "n1")):
            self.assertEqual((again.first_index(), again.last_index()), (7, 8))
        self.assertRaises(WrongDirectory, FileLog, path, "n1", identity=HERE[::-1])
        head = (path / segment_name(2)).read_bytes()
        self.assertEqual(header_directory(head, path), HERE)

    def test_identity_goes_on(self) -> None:
        """Whoever opens a log without saying where it is does not lose that."""
        path = Path(self.mktemp())
        FileLog(path, "n1", identity=HERE, segment_bytes=1).store_log(command(1))

        FileLog(path, "n1", segment_bytes=1).store_log(command(2))

        head = (path / segment_name(2)).read_bytes()
        self.assertEqual(header_directory(head, path), HERE)


HERE = bytes(range(16, 32))

GOLDEN = (
    # magic, format, CRC-32
    "7478726166742d4c"
    "00000002"
    "67409098"
    # salt, sequence, chain, first, last
    "000102030405060708090a0b0c0d0e0f"
    "0000000000000001"
    "0000000000000000"
    "0000000000000000"
    "0000000000000000"
    # data directory, node name, CRC-64
    "101112131415161718191a1b1c1d1e1f"
    "0002"
    "6e31"
    "8df17505dc534ead"
    # frame magic, kind, three zeros, count, payload length, first, previous
    "54585266"
    "01"
    "000000"
    "00000001"
    "0000002b"
    "0000000000000007"
    "0000000000000000"
    # header checksum, checksum
    "6901ed36045e695b"
    "62cfa68e3d072d1a"
    # length of the entry, the entry
    "00000027"
    "85a444617461a178aa457874656e73696f6e73c0a5496e64657807a45465726d02a45479706500"
    # a new first index
    "54585266"
    "03"
    "000000"
    "00000000"
    "00000000"
    "0000000000000008"
    "62cfa68e3d072d1a"
    "11cdd682374927fa"
    "11cdd682374927fa"
)

FORMAT_1 = (
    # as in format 2, without a data directory; one entry
    "7478726166742d4c00000001fe49c122000102030405060708090a0b0c0d0e0f"
    "0000000000000001000000000000000000000000000000000000000000000000"
    "00026e317ac307baae82da40"
    "5458526601000000000000010000002b00000000000000070000000000000000"
    "0bb7534ce734015e857b0d73f7a75f6500000027"
    "85a444617461a178aa457874656e73696f6e73c0a5496e64657807a45465726d02a45479706500"
)
