"""Reading a file log, also beside writing it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk, SimulatedFile
from tests.support.logs import PATH, contents, open_log
from txraft.errors import DataCorrupted, LogNotFound
from txraft.storage import filelog
from txraft.storage.filelog import FileLog
from txraft.storage.segment import segment_name
from txraft.testing.contracts.samples import command, commands

FIRST = PATH / segment_name(1)


class Reading(SynchronousTestCase):
    """Reads run beside writes."""

    def test_get_logs_over_gaps_in_the_file(self) -> None:
        """Entries far apart in the file are read one by one."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1 << 20)
        filler = bytes(filelog.MAX_SKIPPED_BYTES + 1)
        log.store_logs([command(1), command(2, data=filler)])
        log.store_logs(commands(2, 3, term=2))

        self.assertEqual(contents(log), [command(1), *commands(2, 3, term=2)])

    def test_get_logs_in_bounded_reads(self) -> None:
        """A range larger than one read is read in pieces."""
        log = open_log(Disk(), segment_bytes=1 << 30)
        half = bytes(filelog.MAX_READ_BYTES // 2)
        entries = [command(index, data=half) for index in range(1, 6)]
        log.store_logs(entries)

        self.assertEqual(contents(log), entries)

    def test_get_log_of_a_damaged_file(self) -> None:
        """A length or an entry that changed under a running node is refused."""
        disk = Disk()
        log = open_log(disk)
        log.store_logs(commands(1, 2))
        data = disk.content(FIRST).data
        at = bytes(data).index(command(1).encoded)

        data[at - 1] ^= 1
        error = self.assertRaises(DataCorrupted, log.get_log, 1)
        self.assertIn(f"{FIRST}: damaged at byte {at - 4}: entry 1", str(error))

        data[at - 1] ^= 1
        data[at] = 0xC1
        self.assertRaises(DataCorrupted, log.get_log, 1)
        del data[at + 3 :]
        self.assertRaises(DataCorrupted, log.get_log, 1)

    def test_read_while_the_segment_goes(self) -> None:
        """A reader that comes too late for a file is told that the entry is gone."""
        disk = RacingDisk()
        log = open_log(disk, segment_bytes=1)
        log.store_logs(commands(1, 3))
        log.store_logs(commands(4, 6))
        disk.before_open = lambda: log.delete_range(1, 3)

        self.assertRaises(LogNotFound, log.get_log, 2)
        self.assertEqual(contents(log), commands(4, 6))

    def test_lost_segment_is_not_taken_for_a_deletion(self) -> None:
        """A file that somebody removed under the node is an error."""
        disk = Disk()
        log = open_log(disk)
        log.store_log(command(1))
        disk.unlink(FIRST)

        self.assertRaises(FileNotFoundError, log.get_log, 1)

    def test_threads(self) -> None:
        """A reader sees only whole entries while a writer appends and deletes."""
        log = FileLog(Path(self.mktemp()), "n1", segment_bytes=4000)
        log.store_logs(commands(1, 50))
        errors: list[BaseException] = []
        read = []
        finished = threading.Event()

        def reader() -> None:
            try:
                while not finished.is_set() or not read:
                    last = log.last_index()
                    try:
                        entries = log.get_logs(last - 20, last + 20, 1 << 20)
                    except LogNotFound:
                        continue
                    assert entries[0] == command(last - 20, entries[0].term)
                    read.append(len(entries))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=reader)
        thread.start()
        for index in range(51, 351, 3):
            log.store_logs(commands(index, index + 4))
            log.store_logs(commands(index + 3, index + 3, term=2))
            log.delete_range(log.first_index(), index - 40)
        finished.set()
        thread.join()

        self.assertEqual(errors, [])
        self.assertTrue(read)


class RacingDisk(Disk):
    """A disk on which something comes between a reader and the next opening."""

    before_open: Callable[[], None] | None = None

    def open(self, path: Path, *, writable: bool = False) -> SimulatedFile:
        before, self.before_open = self.before_open, None
        if before is not None:
            before()
        return super().open(path, writable=writable)
