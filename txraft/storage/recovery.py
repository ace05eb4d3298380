"""Reads a whole log back when it is opened, and tells a torn write from damage.

Every frame was synced before the next one was written, so a crash can tear only the
last write; zeros behind it are allocated space. Therefore:

* a broken frame with nothing behind it is the write that a crash interrupted, and it is
  cut off;
* a broken frame with a whole frame or a later segment behind it is damage, and so are
  frames that do not follow each other: the log is refused.

Nothing is changed here: `RecoveredLog` says what to cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgpack

from txraft.core.entry import MEMBERSHIP_TYPES, Entry
from txraft.errors import DataCorrupted, ProtocolError
from txraft.storage.filesystem import File, FileSystem
from txraft.storage.logindex import LogIndex, position_of
from txraft.storage.preamble import WAY_OUT, damaged
from txraft.storage.segment import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    Frame,
    FrameKind,
    Seal,
    SegmentHeader,
    decode_header,
    segment_name,
    segments_in,
    unpack_lengths,
)

WINDOW_BYTES = 1 << 20

Decode = Callable[[bytes], Entry]


@dataclass(slots=True)
class Scanned:
    """The last segment, as it was found.

    Its last whole frame begins at *last_frame* and ends at *end*; *size* is that of the
    file. Between *end* and *size* is allocated space, or what a torn write left there.
    """

    header: SegmentHeader
    end: int
    last_frame: int | None
    size: int


@dataclass(slots=True)
class RecoveredLog:
    """The log that the segments of a directory hold.

    *oldest* is the sequence number of the first segment, *newest* describes the last
    one. *chain* is the checksum of the newest frame, which the next one has to name.
    """

    index: LogIndex = field(default_factory=LogIndex)
    warnings: list[str] = field(default_factory=list)
    oldest: int = 0
    chain: int = 0
    newest: Scanned | None = None


def special_among(entries: Iterable[Entry]) -> list[Entry]:
    """List those of *entries* that a start needs: memberships, cluster identities."""
    return [
        entry
        for entry in entries
        if entry.cluster is not None or entry.type in MEMBERSHIP_TYPES
    ]


def recover(
    fs: FileSystem,
    directory: Path,
    node_name: str,
    decode: Decode,
    identity: bytes = b"",
) -> RecoveredLog:
    """Read every segment in *directory*, of the data directory *identity*.

    Raises: DataCorrupted, FormatTooNew, WrongNode, WrongDirectory; nothing has been
        changed.
    """
    recovered = RecoveredLog()
    sequences = _sequences(fs, directory)
    for sequence in sequences:
        path = directory / segment_name(sequence)
        file = fs.open(path)
        try:
            header, at = decode_header(
                file.read_at(MAX_HEADER_BYTES, 0), node_name, path, identity
            )
            scan = _Scan(recovered, file, path, header, at, decode)
            recovered.newest = scan.run(sequence, is_last=sequence == sequences[-1])
        finally:
            file.close()
    if sequences:
        recovered.oldest = sequences[0]
    _refuse_missing(recovered, directory)
    return recovered


def _sequences(fs: FileSystem, directory: Path) -> list[int]:
    sequences = segments_in(fs, directory)
    for before, after in pairwise(sequences):
        if after != before + 1:
            raise DataCorrupted(
                f"{directory / segment_name(before + 1)}: the file is missing, later "
                f"ones are there; {WAY_OUT}"
            )
    return sequences


def _refuse_missing(recovered: RecoveredLog, directory: Path) -> None:
    missing = recovered.index.missing
    if missing:
        raise DataCorrupted(
            f"{directory / segment_name(recovered.oldest - 1)}: the file is missing, "
            f"the log needs it for entries {missing[0]} to {missing[1]}; {WAY_OUT}"
        )


class _Scan:
    """Reads one segment through a window that moves along the file."""

    def __init__(
        self,
        recovered: RecoveredLog,
        file: File,
        path: Path,
        header: SegmentHeader,
        at: int,
        decode: Decode,
    ) -> None:
        self._recovered = recovered
        self._index = recovered.index
        self._file = file
        self._size = file.size()
        self._path = path
        self._decode = decode
        self._header, self._at = header, at
        self._seal = Seal(header.salt)
        self._window = memoryview(b"")
        self._window_at = self._at

    def run(self, sequence: int, *, is_last: bool) -> Scanned:
        self._continue_from(self._header, sequence)
        last_frame = None
        while self._at < self._size:
            frame = self._frame_here()
            if frame is None:
                self._accept_torn_write(is_last)
                break
            self._take(frame)
            last_frame = self._at
            self._at = frame.start + len(frame.payload)
        return Scanned(self._header, self._at, last_frame, self._size)

    def _continue_from(self, header: SegmentHeader, sequence: int) -> None:
        if header.sequence != sequence:
            raise damaged(self._path, 0, f"this is segment {header.sequence}, renamed")
        if self._recovered.newest is None:
            self._index.begin_behind(header.first, header.last)
            self._recovered.chain = header.chain
        elif header.chain != self._recovered.chain:
            raise damaged(self._path, 0, "it does not follow the segment before it")
        elif (header.first, header.last) != self._index.known_bounds:
            raise damaged(self._path, 0, "the segment before it holds another log")

    def _frame_here(self) -> Frame | None:
        at = self._at - self._window_at
        frame = self._seal.parse(self._window, at, self._at)
        if frame is not None:
            return frame
        # Perhaps it only crosses the end of the window. Not damage before it was read
        # from its own beginning.
        self._move_window(WINDOW_BYTES)
        length = self._seal.payload_length(self._window, 0, self._at)
        if length is None or length > self._size - self._at:
            return None
        frame = self._seal.parse(self._window, 0, self._at)
        # Only a frame whose header is whole is read as a whole: otherwise damage to one
        # length could ask for gigabytes.
        if frame is None and length > len(self._window) // 2:
            self._move_window(length + WINDOW_BYTES)
            frame = self._seal.parse(self._window, 0, self._at)
        return frame

    def _move_window(self, size: int) -> None:
        self._window = memoryview(self._file.read_at(size, self._at))
        self._window_at = self._at

    def _accept_torn_write(self, is_last: bool) -> None:
        rest = self._file.read_at(self._size - self._at, self._at)
        broken = len(rest.rstrip(b"\0"))
        if not broken:
            # Room for frames to come. A full segment may have it again after a power
            # failure, if the sync of giving it back had failed; frames that zeros have
            # replaced are missed by the chain, which the next segment goes on with.
            return
        if not is_last:
            raise damaged(self._path, self._at, "a later segment follows")
        # A whole frame behind this one was written after it was synced: so these bytes
        # were durable, and have been damaged since. To cut here would lose entries that
        # other members count on.
        follows = self._seal.find(rest[1:], self._at + 1)
        if follows is not None:
            what = f"a whole write follows at byte {follows}"
            raise damaged(self._path, self._at, what)
        self._recovered.warnings.append(
            f"{self._path}: the last write is torn: its {broken} bytes from byte "
            f"{self._at} on are cut off, and with them {self._unaccounted(rest)}. "
            "After a loss of power that is in order, as nobody was told of them; after "
            "anything else this node has lost what others may count on: compare it "
            "with the other members"
        )

    def _unaccounted(self, rest: bytes) -> str:
        """Name the entries of the torn write, as far as its header tells."""
        entries = self._seal.torn_entries(memoryview(rest), 0, self._at)
        known = self._index.known_bounds[1]
        if entries is None:
            return f"an unknown number of entries after {known}, its header is torn too"
        first, count = entries
        if not count:
            return "no entry"
        return f"{count} {'entry' if count == 1 else 'entries'} from index {first} on"

    def _take(self, frame: Frame) -> None:
        # The chain shows frames that are missing before this one, also where zeros have
        # replaced the end of the segment before.
        if frame.previous != self._recovered.chain:
            raise damaged(self._path, self._at, "it does not follow the write before")
        self._recovered.chain = frame.checksum
        index = self._index
        first, last = index.known_bounds
        inside = first <= frame.first <= last
        if frame.kind == FrameKind.ENTRIES and frame.entries > 0:
            if not (inside or index.is_empty or frame.first == last + 1):
                raise damaged(self._path, self._at, "entries leave a gap")
            # A frame that begins within the log replaces what follows, as `store_logs`
            # did when it wrote it.
            if inside:
                index.truncate(frame.first)
            self._take_entries(frame)
        elif frame.kind == FrameKind.TRUNCATE and inside:
            index.truncate(frame.first)
        elif frame.kind == FrameKind.FIRST_INDEX and first < frame.first <= last + 1:
            index.advance(frame.first)
        else:
            raise damaged(self._path, self._at, "a write that makes no sense")

    def _take_entries(self, frame: Frame) -> None:
        try:
            places, lengths = unpack_lengths(frame.payload, frame.entries)
        except ValueError as error:
            raise damaged(self._path, self._at, str(error)) from error
        base = position_of(self._header.sequence, frame.start)
        for number, place in enumerate(places):
            at = place + LENGTH_BYTES
            raw = frame.payload[at : at + lengths[number]]
            try:
                self._note(raw, frame.first + number)
            except (ValueError, TypeError, KeyError, ProtocolError) as error:
                what = f"no entry can be read here: {error!r}"
                raise damaged(self._path, frame.start + place, what) from error
        self._index.append(frame.first, [base + place for place in places], lengths)

    def _note(self, raw: memoryview, index: int) -> None:
        fields = msgpack.unpackb(raw, raw=True, strict_map_key=False)
        if fields[b"Index"] != index:
            raise ValueError(f"entry {fields[b'Index']} in the place of {index}")
        self._index.note_term(index, fields[b"Term"])
        if fields[b"Type"] in MEMBERSHIP_TYPES or fields.get(b"Extensions"):
            self._index.special += special_among([self._decode(bytes(raw))])
