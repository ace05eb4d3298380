"""A file log that is written in one step and synced in another."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import UNSYNCED, Disk
from tests.support.logs import PATH, contents, open_log
from txraft.core.entry import Entry, LogType
from txraft.errors import LogNotFound, StorageError
from txraft.interfaces import Syncable, TwoStepLogStore
from txraft.storage import filelog
from txraft.storage.filelog import FileLog
from txraft.storage.segment import FRAME_HEADER_BYTES, LENGTH_BYTES, segment_name
from txraft.testing.contracts.samples import command, commands, identity, membership

FIRST = PATH / segment_name(1)
ROOM = 4096


def open_with_room(disk: Disk, segment_bytes: int = 2 * ROOM) -> FileLog:
    return open_log(disk, segment_bytes, ROOM)


class TwoStepCase(SynchronousTestCase):
    """A log of three entries, with room behind them, whose operations are counted."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.log = open_with_room(self.disk)
        self.log.store_logs(commands(1, 3))
        self.disk.operations.clear()

    def write(self, entries: Sequence[Entry]) -> Syncable:
        file = self.log.write_logs(entries)
        assert file is not None, "there is room for them"
        return file

    def store(self, entries: Sequence[Entry]) -> None:
        self.write(entries).sync_data()
        self.log.logs_synced()


class Writing(TwoStepCase):
    """What a write is before its sync, and after."""

    def test_entries_are_read_once_they_are_synced(self) -> None:
        """Not when they are written, and not before the log has learnt of the sync."""
        file = self.write(commands(4, 5))
        self.assertEqual(self.disk.operations, ["write_at"])
        for _ in range(2):
            self.assertEqual(self.log.last_index(), 3)
            self.assertRaises(LogNotFound, self.log.get_log, 4)
            self.assertEqual(self.log.get_logs(3, 5, 1 << 20), [command(3)])
            file.sync_data()

        self.log.logs_synced()

        self.assertEqual(contents(self.log), commands(1, 5))
        self.assertEqual(contents(open_with_room(self.disk)), commands(1, 5))

    def test_terms_and_special_entries(self) -> None:
        """They are known with the entries, not before."""
        new = [command(4), membership(5, 2), identity(6, 3)]
        file = self.write(new)
        self.assertEqual(self.log.term_runs(), [(1, 1)])
        self.assertEqual(self.log.special_entries(), [])
        file.sync_data()

        self.log.logs_synced()

        self.assertEqual(self.log.term_runs(), [(1, 1), (5, 2), (6, 3)])
        self.assertEqual(self.log.special_entries(), new[1:])

    def test_one_write_after_another(self) -> None:
        """However each was made, it follows the one before."""
        self.store(commands(4, 4))
        self.store(commands(5, 6, term=2))
        self.log.store_logs(commands(6, 7, term=3))
        self.store(commands(8, 8, term=3))
        self.log.delete_range(8, 8)
        self.store(commands(8, 9, term=4))

        expected = [
            *commands(1, 4),
            *commands(5, 5, term=2),
            *commands(6, 7, term=3),
            *commands(8, 9, term=4),
        ]
        self.assertEqual(contents(self.log), expected)
        self.assertEqual(contents(open_with_room(self.disk)), expected)

    def test_log_that_has_become_empty(self) -> None:
        """It may begin anywhere."""
        self.log.delete_range(1, 3)

        self.store(commands(40, 41, term=5))

        self.assertEqual(contents(self.log), commands(40, 41, term=5))
        self.assertEqual(self.log.first_index(), 40)

    def test_figures(self) -> None:
        """Both ways of writing count alike."""
        other = open_with_room(Disk())
        other.store_logs(commands(1, 3))
        other.store_logs(commands(4, 6))

        self.store(commands(4, 6))

        figures, expected = self.log.metrics(), other.metrics()
        for name in ("log_appends", "log_bytes_written", "segments"):
            self.assertEqual(figures[name], expected[name], name)

    def test_on_disk(self) -> None:
        """What is to be synced has a descriptor: a kernel may be asked to do it."""
        path = Path(self.mktemp())
        log = FileLog(path, "n1")
        self.addCleanup(log.close)
        log.store_logs(commands(1, 3))

        file = log.write_logs(commands(4, 5))

        descriptor = file.fileno()  # type: ignore[union-attr]
        segment = (path / segment_name(1)).stat()
        self.assertTrue(os.path.samestat(os.fstat(descriptor), segment))
        os.fsync(descriptor)
        log.logs_synced()
        self.assertEqual(contents(log), commands(1, 5))
        self.assertIsInstance(log, TwoStepLogStore)


class LeavingIt(TwoStepCase):
    """What takes longer than a write in place is left to `store_logs`, untouched."""

    def check_left(self, log: FileLog, disk: Disk, entries: Sequence[Entry]) -> None:
        """Check that *log* does not write *entries* here, and does so as ever."""
        operations, figures = list(disk.operations), log.metrics()
        before = contents(log)

        self.assertIsNone(log.write_logs(entries))

        self.assertEqual(disk.operations, operations)
        self.assertEqual(log.metrics(), figures)
        self.assertEqual(contents(log), before)
        log.store_logs(entries)
        self.assertEqual(contents(log)[-len(entries) :], list(entries))

    def test_no_entries(self) -> None:
        """There is nothing to sync."""
        self.assertIsNone(self.log.write_logs([]))
        self.assertEqual(self.disk.operations, [])

    def test_fresh_log(self) -> None:
        """Room is made with the first write, also of a log that is opened again."""
        disk = Disk()
        self.check_left(open_with_room(disk), disk, commands(1, 2))

        self.check_left(open_with_room(disk), disk, commands(3, 4))

    def test_log_that_makes_no_room(self) -> None:
        """Each write makes its file longer."""
        disk = Disk()
        log = open_log(disk, allocated_bytes=0)
        log.store_logs(commands(1, 3))

        self.check_left(log, disk, commands(4, 4))
        self.check_left(log, disk, commands(5, 5))

    def test_room_to_the_last_byte(self) -> None:
        """A frame that fits is written; one that is a byte longer is not."""
        for excess in (0, 1):
            disk = Disk()
            log = open_with_room(disk)
            header = len(disk.content(FIRST).data)
            log.store_logs(commands(1, 3))
            left = ROOM - header - int(log.metrics()["log_bytes_written"])
            around = len(command(4, data=bytes(1000)).encoded) - 1000
            size = left - FRAME_HEADER_BYTES - LENGTH_BYTES - around
            entry = command(4, data=bytes(size + excess))

            if excess:
                self.check_left(log, disk, [entry])
            else:
                self.assertIsNotNone(log.write_logs([entry]))
                self.assertEqual(len(disk.content(FIRST).data), ROOM)

    def test_full_segment(self) -> None:
        """What comes next belongs in another, though this one has room."""
        self.log.store_log(command(4, data=bytes(9000)))
        self.assertGreater(len(self.disk.content(FIRST).data), 9500)

        self.check_left(self.log, self.disk, [command(5)])

        self.assertEqual(len(self.disk.list(PATH)), 2)

    def test_entries_that_replace_others(self) -> None:
        """What they replace must not be read while they are not durable."""
        for first in (3, 2, 1):
            self.check_left(self.log, self.disk, commands(first, 4, term=5 - first))

    def test_large_frame(self) -> None:
        """It would keep the reactor too long, although there is room for it."""
        entries = commands(4, 6)
        size = sum(LENGTH_BYTES + len(entry.encoded) for entry in entries)
        self.patch(filelog, "LARGE_FRAME_BYTES", size - 1)

        self.check_left(self.log, self.disk, entries)

        self.assertEqual(self.disk.operations, ["write_at", "sync_data"])
        self.patch(filelog, "LARGE_FRAME_BYTES", size)
        self.store(commands(7, 9))

    def test_full_disk(self) -> None:
        """A write where no zeros are may have to look for blocks."""
        disk = Disk()
        disk.failures["allocate"] = errno.ENOSPC
        log = open_with_room(disk)
        log.store_logs(commands(1, 3))

        self.check_left(log, disk, commands(4, 4))


class Refusing(TwoStepCase):
    """What is an error, and what follows it."""

    def test_entries_that_are_not_right(self) -> None:
        """As `store_logs`: a ValueError, and nothing is done."""
        self.patch(filelog, "MAX_ENTRY_BYTES", 1000)
        for entries in (
            [command(5)],
            [command(0)],
            [command(4), command(6)],
            [command(4), Entry(5, 1, LogType.NOOP)],
            [command(4, data=bytes(1000))],
        ):
            self.assertRaises(ValueError, self.log.store_logs, entries)
            self.assertRaises(ValueError, self.log.write_logs, entries)

        self.assertEqual(self.disk.operations, [])
        self.store(commands(4, 4))
        self.assertEqual(contents(self.log), commands(1, 4))

    def check_final(self, error: BaseException) -> None:
        """Check that *error* ends all writing, and that a restart finds a whole log."""
        self.disk.operations.clear()
        for write in (self.log.write_logs, self.log.store_logs):
            raised = self.assertRaises(type(error), write, commands(4, 4))
            self.assertIs(raised, error)
        raised = self.assertRaises(type(error), self.log.delete_range, 1, 2)
        self.assertIs(raised, error)
        self.assertEqual(self.disk.operations, [])
        self.assertEqual(contents(self.log), commands(1, 3))
        self.log.close()
        self.assertIn(
            contents(open_with_room(self.disk)), [commands(1, 3), commands(1, 5)]
        )

    def test_failed_sync(self) -> None:
        """What it left behind is unknown: the entries are not read, and nothing is
        written behind them."""
        file = self.write(commands(4, 5))
        self.disk.failures["sync_data"] = errno.EIO
        error = self.assertRaises(OSError, file.sync_data)

        self.log.logs_synced(error)

        self.assertRaises(LogNotFound, self.log.get_log, 4)
        self.check_final(error)

    def test_failed_write(self) -> None:
        """It is final as well, and nothing is to be synced."""
        self.disk.failures["write_at"] = errno.EIO

        error = self.assertRaises(OSError, self.log.write_logs, commands(4, 5))

        self.assertRaises(AssertionError, self.log.logs_synced)
        self.check_final(error)

    def test_another_write_meanwhile(self) -> None:
        """It is refused, whatever it is, and the first goes on."""
        file = self.write(commands(4, 5))
        self.disk.operations.clear()
        for write in (self.log.write_logs, self.log.store_logs):
            self.assertRaises(AssertionError, write, commands(4, 4))
        self.assertRaises(AssertionError, self.log.delete_range, 1, 2)
        self.assertEqual(self.disk.operations, [])

        file.sync_data()
        self.log.logs_synced()

        self.store(commands(6, 6))
        self.assertEqual(contents(self.log), commands(1, 6))

    def test_synced_without_a_write(self) -> None:
        """It is told once for each."""
        self.assertRaises(AssertionError, self.log.logs_synced)
        self.store(commands(4, 4))
        self.assertRaises(AssertionError, self.log.logs_synced)

    def test_closed(self) -> None:
        """A closed log writes nothing."""
        self.log.close()

        self.assertRaises(StorageError, self.log.write_logs, commands(4, 4))


class BetweenTheSteps(TwoStepCase):
    """The process, or the machine, dies when a write is not synced."""

    def check_whole(self, disk: Disk) -> None:
        """Check that the log on *disk* has its entries, and may go on."""
        log = open_with_room(disk)
        found = contents(log)
        self.assertIn(found, [commands(1, 3), commands(1, 5)])
        log.store_log(command(len(found) + 1))
        self.assertEqual(open_with_room(disk).last_index(), len(found) + 1)

    def test_close(self) -> None:
        """The room is given back as ever, and nothing is damaged."""
        file = self.write(commands(4, 5))

        self.log.close()

        error = self.assertRaises(OSError, file.sync_data)
        self.log.logs_synced(error)
        self.assertRaises(LogNotFound, self.log.get_log, 4)
        log = open_with_room(self.disk)
        self.assertEqual((contents(log), log.warnings), (commands(1, 5), []))

    def test_power_fails_after_close(self) -> None:
        """Entries that nobody was told of may be there."""
        for unsynced in UNSYNCED:
            self.setUp()
            self.write(commands(4, 5))
            self.log.close()

            self.check_whole(self.disk.after_power_cut(unsynced))

    def test_killed(self) -> None:
        """What the next process finds and builds on is durable."""
        self.write(commands(4, 5))

        log = open_with_room(self.disk)

        self.assertEqual(contents(log), commands(1, 5))
        after = self.disk.after_power_cut("lost")
        self.assertEqual(contents(open_with_room(after)), commands(1, 5))

    def test_power_fails_before_the_sync(self) -> None:
        """The entries are there or not, and those before them are."""
        for unsynced in UNSYNCED:
            self.setUp()
            self.write(commands(4, 5))

            self.check_whole(self.disk.after_power_cut(unsynced))

    def test_power_fails_after_the_sync(self) -> None:
        """The entries are there, though the log has not been told."""
        file = self.write(commands(4, 5))
        file.sync_data()

        for unsynced in UNSYNCED:
            after = open_with_room(self.disk.after_power_cut(unsynced))
            self.assertEqual(contents(after), commands(1, 5))
