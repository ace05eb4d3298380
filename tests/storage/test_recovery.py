"""Recovery of a log after cuts, flipped bits and power failures."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import UNSYNCED, Disk, PowerFailed
from tests.support.logs import PATH, contents, open_log
from txraft.core.entry import Entry
from txraft.errors import DataCorrupted
from txraft.storage import active_segment
from txraft.storage.filelog import FileLog
from txraft.storage.segment import FRAME_HEADER_BYTES, segment_name
from txraft.testing.contracts.samples import command, commands, membership

FIRST = PATH / segment_name(1)


def log_of_100() -> tuple[Disk, int]:
    """Make a log of 100 entries in 25 writes; return where the last one begins."""
    disk = Disk()
    log = open_log(disk)
    for first in range(1, 97, 4):
        log.store_logs(commands(first, first + 3))
    before = len(disk.content(FIRST).data)
    log.store_logs(commands(97, 100))
    return disk, before


class CutsAndFlips(SynchronousTestCase):
    """A log of 100 entries, each byte of it harmed in turn."""

    def test_open_with_the_last_write_cut_anywhere(self) -> None:
        """Whatever is left of the last write, everything before it is there."""
        disk, before = log_of_100()
        whole = bytes(disk.content(FIRST).data)

        for size in range(before, len(whole)):
            disk.content(FIRST).data[:] = whole[:size]
            log = open_log(disk)

            self.assertEqual(log.last_index(), 96)
            self.assertEqual(len(log.warnings), 0 if size == before else 1)
            self.assertEqual(len(disk.content(FIRST).data), before)
        self.assertEqual(contents(log), commands(1, 96))

    def test_open_with_any_byte_of_the_last_write_flipped(self) -> None:
        """The last write may be cut off, with a warning; all before it is there."""
        disk, before = log_of_100()
        whole = bytes(disk.content(FIRST).data)

        for offset in range(before, len(whole)):
            disk.content(FIRST).data[:] = whole
            disk.content(FIRST).data[offset] ^= 1 << offset % 8
            log = open_log(disk)

            self.assertEqual(log.last_index(), 96)
            self.assertIn(f"from byte {before} on", log.warnings[0])
            self.assertIn(str(FIRST), log.warnings[0])
        self.assertEqual(contents(log), commands(1, 96))

    def test_open_with_any_byte_before_the_last_write_flipped(self) -> None:
        """The start is refused, naming the file; nothing is changed."""
        disk, before = log_of_100()
        whole = bytes(disk.content(FIRST).data)

        for offset in range(before):
            harmed = bytearray(whole)
            harmed[offset] ^= 1 << offset % 8
            disk.content(FIRST).data[:] = harmed
            error = self.assertRaises(DataCorrupted, open_log, disk)

            self.assertIn(f"{FIRST}: damaged at byte ", str(error))
            self.assertEqual(disk.content(FIRST).data, harmed)

    def test_open_names_the_offset(self) -> None:
        """The message names the write that is damaged, and the way out."""
        disk, _ = log_of_100()
        data = disk.content(FIRST).data
        start = data.index(b"TXRf")
        data[start + 60] ^= 1

        error = self.assertRaises(DataCorrupted, open_log, disk)

        self.assertIn(f"{FIRST}: damaged at byte {start}:", str(error))
        self.assertIn("restore the data directory from a backup", str(error))

    def test_open_with_zeros_behind_the_last_write(self) -> None:
        """A file that grew before its content arrived ends with zeros, as one does
        that has room for more: nothing was lost."""
        disk, _ = log_of_100()
        end = len(disk.content(FIRST).data)
        disk.content(FIRST).data.extend(bytes(5000))

        log = open_log(disk)

        self.assertEqual(contents(log), commands(1, 100))
        self.assertEqual(log.warnings, [])
        self.assertEqual(len(disk.content(FIRST).data), end)

    def test_torn_write_tells_which_entries_are_gone(self) -> None:
        """Their number and where they were to be, if the header is whole."""
        for left, told in (
            (1, "an unknown number of entries after 2"),
            (FRAME_HEADER_BYTES // 2, "an unknown number of entries after 2"),
            (FRAME_HEADER_BYTES, "3 entries from index 3 on"),
            (FRAME_HEADER_BYTES + 20, "3 entries from index 3 on"),
        ):
            disk = Disk()
            log = open_log(disk)
            log.store_logs(commands(1, 2))
            end = log._active.size
            log.store_logs(commands(3, 5))
            data = disk.content(FIRST).data
            data[end + left :] = bytes(len(data) - end - left)

            [warning] = open_log(disk).warnings

            self.assertIn(told, warning)
            self.assertIn(f"its {left} bytes from byte {end} on", warning)
            self.assertIn("compare it with the other members", warning)

    def test_open_with_damage_before_the_last_segment(self) -> None:
        """A broken end is torn only in the newest file."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1)
        log.store_logs(commands(1, 2))
        log.store_logs(commands(3, 4))
        disk.content(PATH / segment_name(2)).data[-1] ^= 1

        error = self.assertRaises(DataCorrupted, open_log, disk)

        self.assertIn("0000000000000002.seg: damaged at byte ", str(error))
        self.assertIn("a later segment follows", str(error))

    def test_flip_any_byte_of_many_segments(self) -> None:
        """No flip in any file makes the log shorter than its last write."""
        disk = Disk()
        log = open_log(disk, segment_bytes=300)
        for index in range(1, 21):
            log.store_log(command(index))
        names = disk.list(PATH)
        self.assertGreater(len(names), 3)

        for name in names:
            data = disk.content(PATH / name).data
            last_write = len(data)
            if name == names[-1]:
                last_write = bytes(data).rindex(b"TXRf")
            for offset in range(last_write):
                data[offset] ^= 0x10
                self.assertRaises(DataCorrupted, open_log, disk)
                data[offset] ^= 0x10
        self.assertEqual(open_log(disk).last_index(), 20)

    def test_torn_write_with_copies_of_the_log_in_it(self) -> None:
        """A value that holds the file itself is no proof of damage."""
        disk, _ = log_of_100()
        data = bytes(disk.content(FIRST).data)
        before = len(data)
        log = open_log(disk)
        log.store_log(command(101, data=data * 3))
        del disk.content(FIRST).data[-1:]

        log = open_log(disk)

        self.assertEqual(log.last_index(), 100)
        self.assertEqual(len(disk.content(FIRST).data), before)

    def test_leftovers_of_a_cut_tail_do_not_chain(self) -> None:
        """A frame that was cut off does not follow what was written instead."""
        disk = Disk()
        log = open_log(disk)
        log.store_log(command(1))
        one = len(disk.content(FIRST).data)
        log.store_log(command(2))
        log.store_log(command(3))
        leftover = bytes(disk.content(FIRST).data)
        del disk.content(FIRST).data[one:]
        log = open_log(disk)
        log.store_log(command(2, 2))
        end = len(disk.content(FIRST).data)

        disk.content(FIRST).data.extend(leftover[end:])

        error = self.assertRaises(DataCorrupted, open_log, disk)
        self.assertIn("does not follow", str(error))


class LostFiles(SynchronousTestCase):
    """A log with a file missing is refused, and the file is named."""

    def setUp(self) -> None:
        self.disk = Disk()
        log = open_log(self.disk, segment_bytes=1)
        for first in range(1, 9, 2):
            log.store_logs(commands(first, first + 1))
        self.names = self.disk.list(PATH)

    def test_open_without_a_middle_segment(self) -> None:
        """Files are numbered without gaps."""
        self.disk.unlink(PATH / self.names[2])

        error = self.assertRaises(DataCorrupted, open_log, self.disk)

        self.assertIn(f"{self.names[2]}: the file is missing", str(error))

    def test_open_without_the_first_segments(self) -> None:
        """The log says where it begins; what should be there must be there."""
        self.disk.unlink(PATH / self.names[0])
        self.disk.unlink(PATH / self.names[1])

        error = self.assertRaises(DataCorrupted, open_log, self.disk)

        self.assertIn(f"{self.names[1]}: the file is missing", str(error))
        self.assertIn("entries 1 to 2", str(error))

    def test_open_with_another_file_in_place(self) -> None:
        """A file under another's name is refused."""
        self.disk.unlink(PATH / self.names[-2])
        self.disk.rename(PATH / self.names[-1], PATH / self.names[-2])

        error = self.assertRaises(DataCorrupted, open_log, self.disk)

        self.assertIn("this is segment 5, renamed", str(error))

    def test_open_with_a_segment_of_another_life(self) -> None:
        """A file of the same number from another log does not follow."""
        other = Disk()
        log = open_log(other, segment_bytes=1)
        for first in range(1, 9, 2):
            log.store_logs(commands(first, first + 1, term=5))
        self.disk.content(PATH / self.names[3]).data[:] = other.content(
            PATH / self.names[3]
        ).data

        error = self.assertRaises(DataCorrupted, open_log, self.disk)

        self.assertIn("does not follow the segment before it", str(error))

    def test_open_with_an_empty_file(self) -> None:
        """A header is never torn: an empty file is damage."""
        self.disk.content(PATH / self.names[-1]).data.clear()

        error = self.assertRaises(DataCorrupted, open_log, self.disk)

        self.assertIn("the file ends in its header", str(error))


Step = Callable[[FileLog], object]


def storing(entries: list[Entry]) -> Step:
    return lambda log: log.store_logs(entries)


def writing(entries: list[Entry]) -> Step:
    """Store *entries* in two steps, if the log does; return whether it did."""

    def step(log: FileLog) -> bool:
        file = log.write_logs(entries)
        if file is None:
            log.store_logs(entries)
            return False
        file.sync_data()
        log.logs_synced()
        return True

    return step


def deleting(first: int, last: int) -> Step:
    return lambda log: log.delete_range(first, last)


STEPS: list[Step] = [
    storing([membership(1), *commands(2, 3)]),
    storing(commands(4, 6)),
    storing(commands(5, 6, term=2)),
    writing([command(7, 2), membership(8, 3)]),
    deleting(6, 8),
    storing(commands(6, 9, term=3)),
    writing(commands(10, 10, term=3)),
    writing(commands(11, 12, term=3)),
    deleting(1, 4),
    storing(commands(10, 14, term=3)),
    deleting(5, 10),
    writing(commands(15, 15, term=3)),
    storing(commands(12, 12, term=4)),
    deleting(11, 12),
    writing(commands(40, 44, term=5)),
    storing(commands(45, 49, term=5)),
    writing(commands(50, 50, term=5)),
    deleting(40, 47),
]


def states() -> list[list[Entry]]:
    """List what the log holds before the first step and after each."""
    log = open_log(Disk())
    found: list[list[Entry]] = [[]]
    for step in STEPS:
        step(log)
        found.append(contents(log))
    return found


def run_steps(disk: Disk, segment_bytes: int, allocated_bytes: int = 0) -> int:
    """Carry out steps until the power is cut; return how many were acknowledged."""
    done = 0
    try:
        log = open_log(disk, segment_bytes, allocated_bytes)
        for step in STEPS:
            step(log)
            done += 1
    except PowerFailed:
        return done
    return done


def frame_sizes() -> list[int]:
    """Return the bytes of each frame that the steps write."""
    sizes: list[int] = []
    log = open_log(Disk())
    for step in STEPS:
        before = log.metrics()["log_bytes_written"]
        step(log)
        sizes.append(int(log.metrics()["log_bytes_written"] - before))
    return [size for size in sizes if size]


class PowerCuts(SynchronousTestCase):
    """The power is cut after each operation of a process, and what is not synced is
    lost, kept or torn: all that was acknowledged is there."""

    def check(self, segment_bytes: int, allocated_bytes: int = 0) -> None:
        expected = states()
        disk = Disk()
        run_steps(disk, segment_bytes, allocated_bytes)
        for cut in range(1, len(disk.operations) + 1):
            for unsynced in UNSYNCED:
                disk = Disk()
                disk.cut_after = cut
                done = run_steps(disk, segment_bytes, allocated_bytes)
                after = disk.after_power_cut(unsynced)

                log = open_log(after, segment_bytes, allocated_bytes)

                self.assertIn(contents(log), expected[done : done + 2])
                self.assertEqual(log.term_runs(), runs_of(contents(log)))
                self.check_again(after, log, segment_bytes)

    def test_killed(self) -> None:
        """A process that ends without a power cut leaves much unsynced; what the next
        one finds and builds on is durable."""
        expected = states()
        for segment_bytes, allocated_bytes in ((1, 0), (400, 0), (1000, 300)):
            disk = Disk()
            run_steps(disk, segment_bytes, allocated_bytes)
            for cut in range(1, len(disk.operations) + 1):
                disk = Disk()
                disk.cut_after = cut
                done = run_steps(disk, segment_bytes, allocated_bytes)
                disk.cut_after = None

                log = open_log(disk, segment_bytes)

                self.assertIn(contents(log), expected[done : done + 2])
                self.check_again(disk, log, segment_bytes)

    def check_again(self, disk: Disk, log: FileLog, segment_bytes: int) -> None:
        """What was recovered is as durable as what is then written."""
        entries = contents(log)
        following = command(log.last_index() + 1, 9)
        log.store_log(following)
        for unsynced in UNSYNCED:
            log = open_log(disk.after_power_cut(unsynced), segment_bytes)
            self.assertEqual(contents(log), [*entries, following])

    def test_in_one_segment(self) -> None:
        """A torn write is cut off."""
        self.check(segment_bytes=1 << 20)

    def test_in_a_segment_for_each_write(self) -> None:
        """Segments are made and removed."""
        self.check(segment_bytes=1)

    def test_in_some_segments(self) -> None:
        """Segments hold several writes."""
        self.check(segment_bytes=400)

    def test_with_room_for_more(self) -> None:
        """Room is made and given back."""
        for segment_bytes in (400, 1 << 20):
            self.check(segment_bytes, allocated_bytes=300)

    def test_with_room_for_two_steps(self) -> None:
        """Power fails between the steps of a write, too: there is room for each."""
        for segment_bytes in (1000, 1 << 20):
            log = open_log(Disk(), segment_bytes, allocated_bytes=1000)
            self.assertGreaterEqual([step(log) for step in STEPS].count(True), 4)

            self.check(segment_bytes, allocated_bytes=1000)

    def test_with_room_for_some(self) -> None:
        """Large writes make none, and may begin in what a small one has left."""
        frames = frame_sizes()
        self.patch(
            active_segment, "LARGE_FRAME_BYTES", (min(frames) + max(frames)) // 2
        )

        for segment_bytes in (400, 1 << 20):
            self.check(segment_bytes, allocated_bytes=300)

    def test_during_recovery(self) -> None:
        """A cut while a torn write is being cut off leaves the same log."""
        disk, _ = log_of_100()
        file = disk.content(FIRST)
        del file.durable[-3:]
        torn = disk.after_power_cut("names")
        for cut in range(1, 6):
            for unsynced in UNSYNCED:
                again = torn.after_power_cut("kept")
                again.cut_after = cut
                with contextlib.suppress(PowerFailed):
                    open_log(again)
                after = again.after_power_cut(unsynced)
                self.assertEqual(open_log(after).last_index(), 96)

    def test_segments_go_in_order(self) -> None:
        """The removal of a segment is durable before that of the next begins."""
        disk = Disk()
        log = open_log(disk, segment_bytes=1)
        for index in range(1, 6):
            log.store_log(command(index))
        disk.operations.clear()

        log.delete_range(1, 4)

        self.assertEqual(
            disk.operations[disk.operations.index("unlink") :],
            ["unlink", "sync_directory"] * 5,
        )
        self.assertEqual(disk.list(PATH), [segment_name(6), segment_name(7)])

    def test_failed_sync_in_an_earlier_life(self) -> None:
        """A write that a failed sync left in memory only is written again, before
        anything follows it."""
        disk = Disk()
        log = open_log(disk)
        log.store_log(command(1))
        disk.failures["sync_data"] = errno.EIO
        self.assertRaises(OSError, log.store_log, command(2))

        log = open_log(disk)
        self.assertEqual(log.last_index(), 2)
        log.store_log(command(3))

        after = disk.after_power_cut("lost")
        self.assertEqual(contents(open_log(after)), commands(1, 3))


def runs_of(entries: list[Entry]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for entry in entries:
        if not runs or runs[-1][1] != entry.term:
            runs.append((entry.index, entry.term))
    return runs
