"""Snapshots of replicated objects.

A capture copies the containers, and nothing in them: values cannot change. It is packed
on the snapshot thread, while commands go on.

    b"txraft objects" version
    frame [application, index, term, microseconds, [object ...]]
    frame [number, item, item, ...] ...     the items of a container, in pieces
    frame [count]                           of containers, at the end

An object is [name, class, attribute, value, attribute, value ...].

A frame is its length and CRC-32, four bytes each, and msgpack. A container is a
reference where it stands, and numbered in the order of the references: nothing here
goes as deep as the state does. Equal states make equal snapshots.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from zlib import crc32

from txraft.errors import CannotTravel, DataCorrupted, FormatTooNew, WrongApplication
from txraft.interfaces import SnapshotSink
from txraft.replicated.containers import JournaledDict, JournaledList, JournaledSet
from txraft.replicated.encoding import (
    DICT,
    ENCODERS,
    LIST,
    REFERENCE,
    SET,
    decode,
    encode,
    make_packer,
    unpack,
)
from txraft.replicated.journal import Contained, Journal, containers

MAGIC = b"txraft objects"
VERSION = 1

PIECE_BYTES = 1 << 18
"""So much is gathered before it is written; a piece may be twice as large."""

MOST_BYTES = 1 << 20
"""A piece that a sink takes, at most."""

ROW_ITEMS = 1000
"""Items of a container that are in one frame."""

MAX_FRAME_BYTES = 1 << 31
_FRAME = struct.Struct(">II")

KINDS: dict[type, int] = {JournaledDict: DICT, JournaledList: LIST, JournaledSet: SET}
MAKERS: dict[int, Callable[[Journal], Any]] = {
    kind: made for made, kind in KINDS.items()
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the log a state is, and its time in microseconds."""

    index: int = 0
    term: int = 0
    microseconds: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """What a snapshot holds: where it is, and the attributes of each object by name."""

    position: Position
    objects: dict[str, dict[str, Any]]


class _Reference:
    """A container, where it stands."""

    __slots__ = ("kind", "number")

    def __init__(self, number: int, kind: int) -> None:
        self.number = number
        self.kind = kind


ENCODERS[_Reference] = lambda item, depth: [REFERENCE, item.number, item.kind]


@dataclass(slots=True)
class Capture:
    """A captured state, which is a `FSMSnapshot`."""

    application: str
    position: Position
    objects: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    copies: list[Any] = field(default_factory=list)

    def persist(self, sink: SnapshotSink) -> None:
        """Write the state. Thread: snapshot."""
        gathered = bytearray(MAGIC + bytes([VERSION]))
        for frame in self._frames():
            gathered += _FRAME.pack(len(frame), crc32(frame)) + frame
            if len(gathered) >= PIECE_BYTES:
                _write(sink, gathered)
                gathered = bytearray()
        _write(sink, gathered)

    def release(self) -> None:
        """Let go of the copies."""
        self.objects, self.copies = [], []

    def _frames(self) -> Iterator[bytes]:
        pack = make_packer()
        at = self.position
        rows = []
        for name, kind, state in self.objects:
            row: list[object] = [name, kind]
            for attribute, item in state.items():
                row += [attribute, encode(item)]
            rows.append(row)
        yield pack([self.application, at.index, at.term, at.microseconds, rows])
        for number, items in enumerate(self.copies):
            for row in _rows(items):
                yield pack([number, *map(encode, row)])
        yield pack([len(self.copies)])


def _rows(items: Any) -> Iterator[list[Any]]:
    flat = items
    if type(items) is dict:
        flat = [each for pair in items.items() for each in pair]
    for first in range(0, len(flat), ROW_ITEMS):
        yield flat[first : first + ROW_ITEMS]


def _write(sink: SnapshotSink, data: bytearray) -> None:
    for first in range(0, len(data), MOST_BYTES):
        sink.write(bytes(data[first : first + MOST_BYTES]))


def capture(
    application: str,
    position: Position,
    objects: Iterable[tuple[str, str, Mapping[str, Any]]],
) -> Capture:
    """Copy the state of *objects*: their names, their classes' and their attributes.

    Thread: reactor.
    """
    captured = Capture(application, position)
    waiting: list[Contained] = []

    def refer(item: Any) -> Any:
        if type(item) not in containers:
            return item
        waiting.append(item)
        return _Reference(len(waiting) - 1, KINDS[type(item)])

    for name, kind, state in objects:
        # By their names: an attribute that was deleted and came back is not the last.
        copy = {key: refer(state[key]) for key in sorted(state)}
        captured.objects.append((name, kind, copy))
    for each in waiting:  # which grows meanwhile
        captured.copies.append(_copy(each, refer))
    return captured


def _copy(container: Any, refer: Callable[[Any], Any]) -> Any:
    if type(container) is JournaledSet:
        return [*container]
    if not container.nested:  # all at once, in C: this is what holds the reactor
        return container.copy()
    if type(container) is JournaledDict:
        return {key: refer(each) for key, each in container.items()}
    return [refer(each) for each in container]


# Reading ------------------------------------------------------------------------


def read(
    source: BinaryIO, application: str, journals: Mapping[str, Journal]
) -> Restored:
    """Read a snapshot of *application*, whose objects have *journals* by name.

    Nothing of them is changed.
    Raises: DataCorrupted, for what is damaged or no snapshot of objects; FormatTooNew;
        WrongApplication; CannotTravel, for a class that is not declared here.
    """
    head = source.read(len(MAGIC) + 1)
    if head[:-1] != MAGIC:
        raise DataCorrupted(
            f"this is no snapshot of replicated objects: it begins with {head[:16]!r}"
        )
    if head[-1] > VERSION:
        raise FormatTooNew(
            f"the snapshot of objects has format {head[-1]}, and this version of "
            f"txraft knows {VERSION}: upgrade this node"
        )
    frames = _unframed(source)
    try:
        return _read(next(frames), frames, application, journals)
    except StopIteration:
        raise DataCorrupted("the snapshot of objects ends too early") from None
    except (ValueError, TypeError, KeyError, IndexError, AssertionError) as error:
        if isinstance(error, CannotTravel):
            raise
        raise DataCorrupted(
            f"the snapshot of objects is damaged: {type(error).__name__}: {error}"
        ) from error


def _unframed(source: BinaryIO) -> Iterator[Any]:
    while head := source.read(_FRAME.size):
        if len(head) < _FRAME.size:
            raise DataCorrupted("the snapshot of objects ends too early")
        size, checksum = _FRAME.unpack(head)
        if size > MAX_FRAME_BYTES:
            raise DataCorrupted(f"the snapshot of objects has a frame of {size} bytes")
        frame = source.read(size)
        if len(frame) < size or crc32(frame) != checksum:
            raise DataCorrupted(
                "the snapshot of objects is damaged: a checksum is wrong"
            )
        yield unpack(frame)


def _read(
    header: Any,
    frames: Iterator[Any],
    application: str,
    journals: Mapping[str, Journal],
) -> Restored:
    other, index, term, microseconds, rows = header
    if application and other and application != other:
        raise WrongApplication(
            f"the snapshot is of the application {other!r}, not of {application!r}"
        )
    made: list[Any] = []
    restored = Restored(Position(index, term, microseconds), {})
    for name, kind, *state in rows:
        if name not in journals:
            what = f"an object called {name!r}" if name else "an object without a name"
            known = ", ".join(map(repr, journals)) or "none"
            raise WrongApplication(
                f"the snapshot has {what}, of {kind}, and this node has {known}: give "
                "it to the node under the same name"
            )
        items = [_resolved(each, made, journals[name]) for each in state[1::2]]
        restored.objects[name] = dict(zip(state[::2], items, strict=True))
    last = -1
    for number, *row in frames:
        if not row:  # the end; an empty container has no frame
            if number != len(made) or next(frames, None) is not None:
                raise DataCorrupted("the snapshot of objects ends in the wrong place")
            return restored
        if number < last:
            raise DataCorrupted("containers of the snapshot are out of order")
        last = number
        _fill(made[number], row, made)
    raise StopIteration


def _resolved(raw: Any, made: list[Any], journal: Journal) -> Any:
    """Return the value of *raw*, or the container that it refers to, still empty."""
    if type(raw) is not list:
        return raw
    if raw[0] != REFERENCE:
        return decode(raw)
    container = MAKERS[raw[2]](journal)
    if raw[1] != len(made):
        raise DataCorrupted(f"container {raw[1]} of the snapshot is out of order")
    container.places = 1
    made.append(container)
    return container


def _fill(container: Any, row: Sequence[Any], made: list[Any]) -> None:
    before = len(made)
    items = [_resolved(each, made, container.journal) for each in row]
    container.nested += len(made) - before
    if type(container) is JournaledDict:
        dict.update(container, zip(items[::2], items[1::2], strict=True))
    elif type(container) is JournaledList:
        container._items += items
    else:
        container._put_all(items)
