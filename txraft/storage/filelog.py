"""A log in append-only files.

Every change is one frame at the end of the newest segment: entries, a truncation, a new
first index. Nothing is overwritten, so after a crash each change is there as a whole or
not at all. A frame is synced before the next one is begun. Old segments are removed
once a synced frame says that the log begins behind them.

Reads run beside writes. Written bytes never change, and the index contains an entry
only after its bytes are durable. A reader opens the file itself, because the writer may
remove the segment meanwhile; then the entry was deleted, and the reader reports that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from txraft.core.entry import Entry
from txraft.errors import LogNotFound, ProtocolError, StorageError
from txraft.interfaces import Syncable
from txraft.storage.active_segment import (
    ALLOCATED_BYTES,
    LARGE_FRAME_BYTES,
    ActiveSegment,
    RandomBytes,
)
from txraft.storage.filesystem import (
    TEMPORARY_SUFFIX,
    FileSystem,
    OsFileSystem,
    in_the_way,
    make_directories,
)
from txraft.storage.logindex import IndexView, LogIndex, place_in, position_of
from txraft.storage.preamble import damaged
from txraft.storage.recovery import Decode, RecoveredLog, recover, special_among
from txraft.storage.segment import (
    LENGTH_BYTES,
    MAX_ENTRY_BYTES,
    MAX_FRAME_BYTES,
    MAX_SEGMENT_BYTES,
    SALT_BYTES,
    FrameKind,
    SegmentHeader,
    entry_at,
    pack_entries,
    segment_name,
    sequence_in,
)
from txraft.wire.entries import decode_entry

DEFAULT_SEGMENT_BYTES = 16 << 20
MAX_READ_BYTES = 4 << 20
MAX_SKIPPED_BYTES = 16 << 10


class FileLog:
    """A `LogStore` in segment files in the directory *path*; also a `RangeLogStore`
    and a `TwoStepLogStore`.

    *identity* is that of the data directory, b"" for none. A log that was made in
    another directory is refused; a log without an identity gets it with the next write.
    Entries are stored as their `encoded` bytes, a msgpack map, and read back with
    *decode*. *warnings* lists what recovery has cut off. *fresh* is true if nothing had
    ever been written when it was opened. A failed write or sync is final: every later
    write raises the same error.
    Raises: DataCorrupted, FormatTooNew, WrongNode, WrongDirectory; nothing has been
        changed then.
    Durable: everything that can be read, as soon as this is constructed.
    """

    def __init__(
        self,
        path: Path | str,
        node_name: str,
        fs: FileSystem | None = None,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        allocated_bytes: int = ALLOCATED_BYTES,
        decode: Decode = decode_entry,
        random_bytes: RandomBytes = os.urandom,
        identity: bytes = b"",
    ) -> None:
        if not 1 <= segment_bytes <= MAX_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes must be 1 to {MAX_SEGMENT_BYTES}")
        self._directory = Path(path)
        self._node_name = node_name
        self._identity = identity
        self._fs = fs or OsFileSystem()
        self._segment_bytes = segment_bytes
        self._piece = min(allocated_bytes, segment_bytes)
        self._decode = decode
        self._random_bytes = random_bytes
        self._writes = _WriteGuard()
        make_directories(self._fs, self._directory)
        recovered = recover(self._fs, self._directory, node_name, decode, identity)
        self.warnings = recovered.warnings
        self._index = recovered.index
        self._active = self._begin(recovered)
        # The first segment that is still there, and what was counted in all full ones.
        self._oldest = recovered.oldest or self._active.sequence
        self._full: list[float] = [0, 0, 0.0]
        self._rotations = 0
        self._remove_old_segments()

    def _begin(self, recovered: RecoveredLog) -> ActiveSegment:
        # Only after recovery has accepted the log: a refused log is left unchanged.
        for name in self._fs.list(self._directory):
            whole = name.removesuffix(TEMPORARY_SUFFIX)
            if whole != name and sequence_in(whole) is not None:
                if self._fs.is_directory(self._directory / name):
                    raise in_the_way(self._directory / name)
                self._fs.unlink(self._directory / name)
        scanned = recovered.newest
        self.fresh = scanned is None or recovered.chain == 0
        if scanned is None:
            return self._new_segment(sequence=1, chain=0)
        self._identity = self._identity or scanned.header.directory
        # The crash may have come between the renaming of a new segment and its sync.
        self._fs.sync_directory(self._directory)
        return ActiveSegment.reopen(
            self._fs, self._directory, scanned, recovered.chain, self._piece
        )

    @property
    def place(self) -> str:
        """The path of the newest segment."""
        return str(self._directory / segment_name(self._active.sequence))

    # Reading -------------------------------------------------------------------

    def first_index(self) -> int:
        """Return the index of the oldest entry, 0 when empty. Thread: any."""
        return self._index.bounds[0]

    def last_index(self) -> int:
        """Return the index of the newest entry, 0 when empty. Thread: any."""
        return self._index.bounds[1]

    def term_runs(self) -> list[tuple[int, int]]:
        """List runs of entries of one term, as (first index, term).

        Thread: writer.
        """
        return list(self._index.runs)

    def special_entries(self) -> list[Entry]:
        """List the entries of a membership type or with a cluster's identity.

        Thread: writer.
        """
        return list(self._index.special)

    def get_log(self, index: int) -> Entry:
        """Read one entry.

        Raises: LogNotFound, DataCorrupted
        Thread: reader, beside writes.
        """
        return self.get_logs(index, index, 0)[0]

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Read entries *first* to *last*, stopping after *max_bytes* of encoding.

        At least one entry is returned. Its checksum was verified when the log was
        opened; here each entry must have the length that it had then.
        Raises: LogNotFound for *first*; DataCorrupted
        Thread: reader, beside writes.
        """
        view = self._index.view
        if not view.start <= first <= view.last:
            raise LogNotFound(first)
        wanted = _within(view, first, min(last, view.last), max_bytes)
        entries: list[Entry] = []
        try:
            for begin, end in _stretches(view, first, wanted):
                entries += self._read_stretch(view, begin, end)
        except FileNotFoundError as error:
            # Removed by the writer meanwhile, which moves the start first: a deletion.
            # If the log still has the entry, the file is really lost.
            if self._index.view.start <= first:
                raise
            raise LogNotFound(first) from error
        return entries

    def _read_stretch(self, view: IndexView, begin: int, end: int) -> list[Entry]:
        sequence, offset = place_in(view.positions[begin - view.start])
        path = self._directory / segment_name(sequence)
        base = view.positions[begin - view.start]
        number = end - view.start
        size = view.positions[number] - base + LENGTH_BYTES + view.lengths[number]
        file = self._fs.open(path)
        try:
            data = file.read_at(size, offset)
        finally:
            file.close()
        entries = []
        for number in range(begin - view.start, end - view.start + 1):
            at = view.positions[number] - base
            raw = entry_at(data, at, view.lengths[number])
            entries.append(self._decode_at(raw, path, offset + at, view.start + number))
        return entries

    def _decode_at(
        self, raw: bytes | None, path: Path, offset: int, index: int
    ) -> Entry:
        if raw is None:
            raise damaged(path, offset, f"entry {index} has changed its length")
        try:
            entry = self._decode(raw)
        except ProtocolError as error:
            raise damaged(path, offset, f"entry {index}: {error}") from error
        if entry.index != index:
            raise damaged(path, offset, f"entry {entry.index} stands for {index}")
        return entry

    def metrics(self) -> dict[str, float]:
        """Return what was written since the log was opened. Thread: any."""
        frames, size, seconds = self._written()
        return {
            "log_appends": frames,
            "log_bytes_written": size,
            "log_sync_seconds": seconds,
            "segment_rotations": self._rotations,
            "segments": self._active.sequence - self._oldest + 1,
        }

    def _written(self) -> list[float]:
        active, full = self._active, self._full
        return [
            full[0] + active.frames,
            full[1] + active.written_bytes,
            full[2] + active.sync_seconds,
        ]

    # Writing -------------------------------------------------------------------

    def store_log(self, entry: Entry) -> None:
        """Store one entry; as `store_logs`. Thread: writer."""
        self.store_logs([entry])

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries, as one write of at most MAX_FRAME_BYTES.

        More than that is several writes, in order. An entry at an index that is in
        the log replaces it and all after it.
        Raises: ValueError for entries that leave a gap, are not encoded or exceed
            MAX_ENTRY_BYTES, and nothing is done; OSError, and the log is closed to
            writes.
        Thread: writer.
        Durable: every entry, when this returns. When it raises, nothing is known.
        """
        if not entries:
            return
        self._check_entries(entries)
        with self._writes:
            for batch in _batches(entries):
                active = self._room_in_active()
                written = self._append(active, batch)
                active.sync()
                # Only now do readers see them: before, a crash could take them back.
                written.enter(self._index)

    def write_logs(self, entries: Sequence[Entry]) -> Syncable | None:
        """Append entries to a file with allocated space for them, without a sync.

        Returns: the file to sync. None, and nothing was done, when there is no space,
            the entries are larger than LARGE_FRAME_BYTES, one of them replaces an entry
            of the log, or there are none.
        Raises: as `store_logs`.
        Thread: reactor, while the writer thread does nothing.
        """
        if not entries:
            return None
        size = self._check_entries(entries)
        active = self._active
        # Whatever needs a second sync or much writing is left to the writer thread: a
        # new segment, new zeros, large entries. Replaced entries too: readers would see
        # the old ones until the sync, which `store_logs` makes in the same step.
        if (
            size > LARGE_FRAME_BYTES
            or self._is_full(active)
            or not active.has_room(size)
            or entries[0].index <= self._index.view.last
        ):
            return None
        with self._writes:
            self._writes.unsynced = self._append(active, entries)
        return active.file

    def logs_synced(self, error: BaseException | None = None) -> None:
        """Finish `write_logs`: its entries can be read; on *error* the log is closed.

        Thread: reactor.
        """
        writes = self._writes
        assert writes.unsynced is not None, "it is called once for each write"
        written, writes.unsynced = writes.unsynced, None
        if error is None:
            self._active.synced()
            written.enter(self._index)
        elif writes.failure is None:
            writes.failure = error

    def delete_range(self, first: int, last: int) -> None:
        """Delete a prefix or a suffix of the log.

        Raises: ValueError for a range that leaves entries on both sides; OSError,
            and the log is closed to writes.
        Thread: writer.
        Durable: the deletion, when this returns.
        """
        low, high = self._index.bounds
        # What is not there needs no deletion, and no frame.
        first, last = max(first, low), min(last, high)
        if low == 0 or first > last:
            return
        if low < first and last < high:
            raise ValueError(f"entries {first} to {last} are within {low} to {high}")
        with self._writes:
            if first == low:
                # The frame is durable before the files go: the other way round a crash
                # between the two leaves a log whose beginning is missing.
                self._room_in_active().write(FrameKind.FIRST_INDEX, last + 1)
                self._index.advance(last + 1)
                self._remove_old_segments()
            else:
                self._room_in_active().write(FrameKind.TRUNCATE, first)
                self._index.truncate(first)

    def close(self) -> None:
        """Release the file; later writes raise StorageError. Idempotent."""
        failed, closed = self._writes.failure, f"{self._directory}: the log is closed"
        self._writes.failure = failed or StorageError(closed)
        if failed is None:
            # If it fails, the next start gives the unused space back.
            with suppress(OSError):
                self._active.finish()
        self._active.close()

    def _check_entries(self, entries: Sequence[Entry]) -> int:
        """Return how many bytes *entries* take in a frame. Raises: ValueError"""
        index = entries[0].index
        indexes = [entry.index for entry in entries]
        if indexes != list(range(index, index + len(entries))):
            raise ValueError(f"the entries from {index} on are not consecutive")
        sizes = [len(entry.encoded) for entry in entries]
        if min(sizes) == 0 or max(sizes) > MAX_ENTRY_BYTES:
            odd = next(size for size in sizes if not 0 < size <= MAX_ENTRY_BYTES)
            raise ValueError(f"an entry from {index} on is encoded in {odd} bytes")
        low, high = self._index.bounds
        if index < 1 or (low and not low <= index <= high + 1):
            raise ValueError(f"entry {index} leaves a gap to entries {low} to {high}")
        return sum(sizes) + LENGTH_BYTES * len(sizes)

    def _append(
        self, active: ActiveSegment, entries: Sequence[Entry]
    ) -> _WrittenEntries:
        payload, places, lengths = pack_entries(entries)
        start = active.append(
            FrameKind.ENTRIES, entries[0].index, len(entries), payload
        )
        return _WrittenEntries(
            entries, position_of(active.sequence, start), places, lengths
        )

    def _room_in_active(self) -> ActiveSegment:
        active = self._active
        if self._is_full(active):
            written = self._written()
            active.finish()
            self._active = self._new_segment(active.sequence + 1, active.chain)
            self._full, self._rotations = written, self._rotations + 1
        return self._active

    def _is_full(self, active: ActiveSegment) -> bool:
        """Tell whether the next frame belongs in a new segment."""
        return active.size >= self._segment_bytes or active.directory != self._identity

    def _new_segment(self, sequence: int, chain: int) -> ActiveSegment:
        salt = self._random_bytes(SALT_BYTES)
        bounds = self._index.bounds
        header = SegmentHeader(salt, sequence, chain, *bounds, self._identity)
        return ActiveSegment.create(
            self._fs, self._directory, header, self._node_name, self._piece
        )

    def _remove_old_segments(self) -> None:
        # Oldest first, and each removal durable before the next one. Otherwise a crash
        # could leave a gap, which looks like a lost file, and the log would be refused.
        keep = self._index.oldest_segment() or self._active.sequence
        while self._oldest < keep:
            self._fs.unlink(self._directory / segment_name(self._oldest))
            self._fs.sync_directory(self._directory)
            self._oldest += 1


class _WriteGuard:
    """The `with` block around each write to a log.

    The first `failure` is final: every later write raises it again. `unsynced` is what
    was written and is not durable yet; until it is, nothing else is written.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.unsynced: _WrittenEntries | None = None

    def __enter__(self) -> None:
        assert self.unsynced is None, "a write is under way"
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # Final, as nobody knows what of the write is on the disk. A second sync may
        # succeed although the kernel has dropped the pages of the first.
        if isinstance(error, Exception):
            self.failure = error


class _WrittenEntries(NamedTuple):
    """Entries that were written to the file, each at its place after *base*."""

    entries: Sequence[Entry]
    base: int
    places: list[int]
    lengths: list[int]

    def enter(self, index: LogIndex) -> None:
        """Add the entries to *index*, now that they are durable."""
        entries, first = self.entries, self.entries[0].index
        if first <= index.view.last and not index.is_empty:
            index.truncate(first)
        if entries[0].term == entries[-1].term:  # terms never fall in between
            index.note_term(first, entries[0].term)
        else:
            for entry in entries:
                index.note_term(entry.index, entry.term)
        index.special += special_among(entries)
        places = [self.base + place for place in self.places]
        index.append(first, places, self.lengths)


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Split *entries* so that no frame is longer than MAX_FRAME_BYTES, if possible."""
    sizes = [LENGTH_BYTES + len(entry.encoded) for entry in entries]
    if sum(sizes) <= MAX_FRAME_BYTES:
        yield entries
        return
    begin = size = 0
    for number in range(len(entries)):
        size += sizes[number]
        if size > MAX_FRAME_BYTES and number > begin:
            yield entries[begin:number]
            begin, size = number, sizes[number]
    yield entries[begin:]


def _within(view: IndexView, first: int, last: int, max_bytes: int) -> int:
    """Return the last entry from *first* on that fits in *max_bytes*."""
    total = view.lengths[first - view.start]
    for index in range(first + 1, last + 1):
        total += view.lengths[index - view.start]
        if total > max_bytes:
            return index - 1
    return max(first, last)


def _stretches(view: IndexView, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Split entries *first* to *last* into ranges that one read can fetch.

    Frame headers and replaced entries may stand between two entries. To read a few such
    bytes costs less than a second read.
    """
    positions, lengths, start = view.positions, view.lengths, view.start
    begin = first
    for index in range(first + 1, last + 1):
        number = index - start
        end = positions[number - 1] + LENGTH_BYTES + lengths[number - 1]
        skipped = positions[number] - end
        size = positions[number] + lengths[number] - positions[begin - start]
        # The segment is in the upper bits: another one is a very long way off.
        if skipped > MAX_SKIPPED_BYTES or size > MAX_READ_BYTES:
            yield begin, index - 1
            begin = index
    yield begin, last
