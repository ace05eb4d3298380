"""The newest segment: the only file of a log that is written to."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from txraft.storage.filesystem import File, FileSystem, create_whole
from txraft.storage.recovery import Scanned
from txraft.storage.segment import (
    FRAME_HEADER_BYTES,
    FrameKind,
    Seal,
    SegmentHeader,
    segment_name,
)

RandomBytes = Callable[[int], bytes]

ALLOCATED_BYTES = 256 << 10
"""Space is allocated in pieces of this size, by writing zeros. A sync of a frame that
replaces zeros changes data only, not the size of the file: from 4 KiB on that saves a
third of its time (`benchmarks.disk`). But the sync after a new piece also has to write
the zeros: with 1 MiB, 64 in flight, one commit in a hundred took 5.5 ms, not 4."""

LARGE_FRAME_BYTES = 64 << 10
"""A larger frame gains less from allocated space than it costs to write zeros first:
with values of 4 KiB, 64 in flight, that cost a third of all commits
(`benchmarks.scale`). It is also more than the reactor thread should write itself."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ActiveSegment:
    """Appends frames, each with one write and one sync, to `file`.

    *chain* is the checksum of the newest frame of the log. After an error nothing may
    be written any more: only reading the file back tells what it holds. `frames`,
    `written_bytes` and `sync_seconds` are totals since it was opened. Space is
    allocated in pieces of *piece* bytes.
    """

    def __init__(
        self, file: File, header: SegmentHeader, size: int, chain: int, piece: int
    ) -> None:
        self._piece = piece
        self._allocated = size
        self.sequence = header.sequence
        self.directory = header.directory
        self.size = size
        self.chain = chain
        self.file = file
        self._seal = Seal(header.salt)
        self.frames = 0
        self.written_bytes = 0
        self.sync_seconds = 0.0
        self._began = 0.0

    @classmethod
    def create(
        cls,
        fs: FileSystem,
        directory: Path,
        header: SegmentHeader,
        node_name: str,
        piece: int = 0,
    ) -> ActiveSegment:
        """Make a new segment.

        Durable: the file under its name, when this returns.
        """
        path = directory / segment_name(header.sequence)
        data = header.encode(node_name)
        create_whole(fs, path, data)
        file = fs.open(path, writable=True)
        return cls(file, header, len(data), header.chain, piece)

    @classmethod
    def reopen(
        cls,
        fs: FileSystem,
        directory: Path,
        scanned: Scanned,
        chain: int,
        piece: int = 0,
    ) -> ActiveSegment:
        """Continue in a segment that was scanned; cut off what follows its last frame.

        Durable: every whole frame that was found, when this returns.
        """
        header = scanned.header
        file = fs.open(directory / segment_name(header.sequence), writable=True)
        if scanned.end < scanned.size:
            file.truncate(scanned.end)
        # The newest frame is written once more. If its sync failed before the restart,
        # the kernel may take its pages for written and still have them in memory: they
        # were read back, but no later sync would write them.
        if scanned.last_frame is not None:
            size = scanned.end - scanned.last_frame
            file.write_at(file.read_at(size, scanned.last_frame), scanned.last_frame)
        file.sync()
        return cls(file, header, scanned.end, chain, piece)

    def has_room(self, size: int) -> bool:
        """Tell whether a frame with *size* bytes of payload fits in allocated space."""
        end = self.size + FRAME_HEADER_BYTES + size
        return end <= self._allocated and self._piece > 0

    def write(
        self, kind: FrameKind, first: int, count: int = 0, payload: bytes = b""
    ) -> int:
        """Append a frame and sync it.

        Returns: where its payload begins in the file.
        Durable: the frame, when this returns.
        """
        start = self.append(kind, first, count, payload)
        self.sync()
        return start

    def append(
        self, kind: FrameKind, first: int, count: int = 0, payload: bytes = b""
    ) -> int:
        """Append a frame, which is durable after `sync`.

        A caller that syncs `file` itself calls `synced` afterwards.
        Returns: where its payload begins in the file.
        """
        offset = self.size
        frame, checksum = self._seal.make(
            offset, kind, count, first, payload, self.chain
        )
        end = offset + len(frame)
        # Allocated before the frame is written: zeros over it would destroy it.
        if end > self._allocated and len(frame) <= LARGE_FRAME_BYTES:
            self._make_room(end)
        self.file.write_at(frame, offset)
        self._began = perf_counter()
        self.frames += 1
        self.written_bytes += len(frame)
        self.size = end
        self.chain = checksum
        return offset + FRAME_HEADER_BYTES

    def sync(self) -> None:
        """Sync the newest frame. Durable: the frame, when this returns."""
        self.file.sync_data()
        self.synced()

    def synced(self) -> None:
        """Count the time of the sync: the newest frame is durable now."""
        self.sync_seconds += perf_counter() - self._began

    def _make_room(self, end: int) -> None:
        """Allocate space up to *end* and a little more, until the disk is full."""
        if self._piece:
            self._allocated = -(-end // self._piece) * self._piece
            try:
                self.file.allocate(self._allocated)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                # The frame itself may still fit; if not, its write fails.
                self._piece = 0

    def finish(self) -> None:
        """Give back the space that was not used, and release the file.

        Durable: the size of the file, when this returns.
        """
        if self._allocated > self.size:
            self.file.truncate(self.size)
            self.file.sync()
        self.close()

    def close(self) -> None:
        """Release the file."""
        self.file.close()
