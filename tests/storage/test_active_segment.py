"""The newest file of a log has room for frames to come, made ahead with zeros."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk
from tests.support.logs import PATH, contents, open_log
from txraft.core.entry import Entry
from txraft.errors import DataCorrupted
from txraft.storage import active_segment
from txraft.storage.filelog import FileLog
from txraft.storage.segment import segment_name
from txraft.testing.contracts.samples import command


def written(*entries: Entry) -> bytes:
    """Return a file with *entries*, each a write, and no room behind them."""
    disk = Disk()
    log = open_log(disk)
    for entry in entries:
        log.store_log(entry)
    return bytes(disk.content(PATH / segment_name(1)).data)


class Room(SynchronousTestCase):
    """The newest file has room for frames to come."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.log = open_log(self.disk, segment_bytes=8192, allocated_bytes=4096)
        self.path = PATH / segment_name(1)

    def reopen(self) -> FileLog:
        return open_log(self.disk, segment_bytes=8192, allocated_bytes=4096)

    def test_allocates_by_the_piece(self) -> None:
        """A write that fits allocates nothing, and does not change the size."""
        self.log.store_log(command(1))
        self.disk.operations.clear()
        size = len(self.disk.content(self.path).data)

        self.log.store_log(command(2))

        self.assertEqual(size, 4096)
        self.assertEqual(self.disk.operations, ["write_at", "sync_data"])
        self.assertEqual(len(self.disk.content(self.path).data), size)

    def test_allocates_what_a_large_write_needs(self) -> None:
        """A write larger than a piece has room for itself and the rest of a piece."""
        self.log.store_log(command(1, data=bytes(5000)))

        self.assertEqual(len(self.disk.content(self.path).data), 8192)

    def test_allocates_nothing_for_a_large_write(self) -> None:
        """It would have to be written twice; the next small one makes room again."""
        log = open_log(self.disk, allocated_bytes=4096)
        large = command(1, data=bytes(active_segment.LARGE_FRAME_BYTES))
        self.disk.operations.clear()

        log.store_log(large)
        log.store_log(command(2))

        self.assertEqual(
            self.disk.operations,
            ["write_at", "sync_data", "allocate", "write_at", "sync_data"],
        )
        self.assertEqual(contents(log), [large, command(2)])

    def test_gives_back_before_a_new_segment(self) -> None:
        """Only the newest file may end with anything but a whole write."""
        self.log.store_log(command(1))
        self.log.store_log(command(2, data=bytes(9000)))
        self.log.store_log(command(3))

        self.assertEqual(len(self.disk.list(PATH)), 2)
        self.assertEqual(
            self.disk.content(self.path).durable,
            written(command(1), command(2, data=bytes(9000))),
        )
        self.assertEqual(self.reopen().last_index(), 3)

    def test_gives_back_in_vain(self) -> None:
        """A sync that failed may leave the room on disk, though nobody sees it there.

        The next process continues behind it, and then the power fails.
        """
        self.log.store_log(command(1, data=bytes(9000)))
        self.disk.failures["sync"] = errno.EIO
        self.assertRaises(OSError, self.log.store_log, command(2))
        log = self.reopen()
        log.store_log(command(2))
        after = self.disk.after_power_cut("lost")
        self.assertEqual(len(after.content(self.path).data), 12288)

        found = open_log(after, segment_bytes=8192, allocated_bytes=4096)

        self.assertEqual((found.last_index(), found.warnings), (2, []))

    def test_zeros_in_place_of_frames_of_a_full_segment(self) -> None:
        """They are no room: the next segment goes on with what is missing."""
        self.log.store_log(command(1))
        size = len(written(command(1)))
        self.log.store_log(command(2, data=bytes(9000)))
        self.log.store_log(command(3))
        content = self.disk.content(self.path).data
        content[size:] = bytes(len(content) - size)

        self.assertRaises(DataCorrupted, self.reopen)

    def test_gives_back_when_closed_and_when_opened(self) -> None:
        """A log at rest is as long as what it holds."""
        self.log.store_log(command(1))
        after_a_kill = self.disk.after_kill()

        again = FileLog(PATH, "n1", after_a_kill)
        self.assertLess(len(after_a_kill.file(self.path).data), 4096)
        again.close()
        self.log.close()

        self.assertLess(len(self.disk.content(self.path).data), 4096)
        self.assertEqual(self.reopen().warnings, [])

    def test_disk_without_room(self) -> None:
        """What cannot be allocated may still be written."""
        self.disk.failures["allocate"] = errno.ENOSPC

        self.log.store_log(command(1))
        self.log.store_log(command(2))

        self.assertNotIn("allocate", self.disk.operations)
        self.assertEqual(self.reopen().last_index(), 2)

    def test_failure_to_allocate(self) -> None:
        """Any other error of the disk is final."""
        self.disk.failures["allocate"] = errno.EIO

        self.assertRaises(OSError, self.log.store_log, command(1))
        self.assertRaises(OSError, self.log.store_log, command(1))

        self.log.close()
        self.assertEqual(self.reopen().last_index(), 0)

    def test_torn_write_in_the_room(self) -> None:
        """A torn write is told from room by what is in it."""
        self.log.store_log(command(1))
        data = self.disk.content(self.path).data
        end = len(written(command(1)))
        self.log.store_log(command(2))
        data[end + 60 :] = bytes(4096 - end - 60)

        again = self.reopen()

        self.assertEqual(again.last_index(), 1)
        self.assertIn(f"from byte {end} on", again.warnings[0])

    def test_damage_before_the_last_write(self) -> None:
        """A write with a whole one behind it is damage, room or no room."""
        self.log.store_log(command(1))
        data = self.disk.content(self.path).data
        end = len(written(command(1)))
        self.log.store_log(command(2))
        data[end - 1] ^= 1

        self.assertRaises(DataCorrupted, self.reopen)
