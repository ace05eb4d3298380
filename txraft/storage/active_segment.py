"""The segment that is being written: the only file of a log that ever changes."""

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
"""Room is made in pieces of this size, by writing zeros. A sync of what replaces them
changes nothing but data: from 4 KiB on that saves a third of its time
(`benchmarks.disk`). Whoever waits for the sync of a new piece waits for its zeros too:
with 1 MiB, 64 in flight, one commit in a hundred took 5.5 ms instead of 4."""

LARGE_FRAME_BYTES = 64 << 10
"""A frame of more gains less by room than it costs to write zeros first: with values of
4 KiB, 64 in flight, a third of all commits (`benchmarks.scale`). It is also more than
the reactor thread should write itself."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ActiveSegment:
    """Appends frames, each with one write and one sync, to `file`.

    *chain* is the checksum of the newest frame of the log. After an error nothing
    may be written any more: what the file holds is known only by reading it back.
    `frames`, `written_bytes` and `sync_seconds` add up what was written since it was
    opened. Room for frames to come is made in pieces of *piece* bytes.
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
        """Go on in a segment that was scanned, without what is behind its last frame.

        The newest frame is written once more: a sync that failed in an earlier life
        of this node may have left it in memory only, and marked as written.
        Durable: all that was found whole, when this returns.
        """
        header = scanned.header
        file = fs.open(directory / segment_name(header.sequence), writable=True)
        if scanned.end < scanned.size:
            file.truncate(scanned.end)
        if scanned.last_frame is not None:
            size = scanned.end - scanned.last_frame
            file.write_at(file.read_at(size, scanned.last_frame), scanned.last_frame)
        file.sync()
        return cls(file, header, scanned.end, chain, piece)

    def has_room(self, size: int) -> bool:
        """Tell whether there is room, with zeros in it, for a frame of *size* bytes
        of payload."""
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

        Whoever syncs `file` himself says so by `synced`.
        Returns: where its payload begins in the file.
        """
        offset = self.size
        frame, checksum = self._seal.make(
            offset, kind, count, first, payload, self.chain
        )
        end = offset + len(frame)
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
        """Sync the newest frame. Durable: it, when this returns."""
        self.file.sync_data()
        self.synced()

    def synced(self) -> None:
        """Learn that the newest frame is durable."""
        self.sync_seconds += perf_counter() - self._began

    def _make_room(self, end: int) -> None:
        """Allocate up to *end* and a little more; do without on a full disk."""
        if self._piece:
            self._allocated = -(-end // self._piece) * self._piece
            try:
                self.file.allocate(self._allocated)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._piece = 0

    def finish(self) -> None:
        """Give back the room that was not used, and release the file.

        Durable: that, when this returns.
        """
        if self._allocated > self.size:
            self.file.truncate(self.size)
            self.file.sync()
        self.close()

    def close(self) -> None:
        """Release the file."""
        self.file.close()
