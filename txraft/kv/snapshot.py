"""A snapshot of the key-value state as bytes.

A stream of msgpack lists, each led by a number that says what it is:

    [0, "txraft-kv", 1, index: uint64]               first; format name and version
    [1, key: str, value: bin, flags, create, modify, lock]
    [2, address: str, url: str]
    [3, records: uint64]                             last; how many of 1 and 2 there are

Records come in no order. Checksums are the snapshot store's business; what is checked
here is that the stream is whole and that it makes a state which commands could have
made.

Thread: snapshot, but for the capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack

from txraft.errors import DataCorrupted, FormatTooNew
from txraft.interfaces import SnapshotSink
from txraft.kv.commands import MAX_FLAGS

FORMAT = "txraft-kv"
VERSION = 1
MAX_PIECE_BYTES = 1 << 20
MAX_RECORD_BYTES = 256 << 20
_MAX_FIELDS = 8
_HEADER, _KEY, _URL, _END = 0, 1, 2, 3

Row = tuple[bytes, int, int, int, int]
"""A record without its key: value, flags, create, modify and lock index."""


@dataclass(slots=True)
class State:
    """The whole state: records, HTTP addresses, index of the last change of a key."""

    rows: dict[str, Row]
    urls: dict[str, str]
    index: int


class KeyValueSnapshot:
    """A captured state that writes itself to a sink."""

    def __init__(self, state: State) -> None:
        self._state: State | None = state

    def persist(self, sink: SnapshotSink) -> None:
        """Write the captured state in pieces of at most `MAX_PIECE_BYTES`."""
        assert self._state is not None, "a released snapshot is not persisted"
        buffered: list[bytes] = []
        size = 0
        for record in encode_state(self._state):
            if size + len(record) > MAX_PIECE_BYTES:
                _write(sink, b"".join(buffered))
                buffered, size = [], 0
            buffered.append(record)
            size += len(record)
        _write(sink, b"".join(buffered))

    def release(self) -> None:
        """Let go of the captured state."""
        self._state = None


def encode_state(state: State) -> Iterator[bytes]:
    """Encode *state*, one list at a time."""
    pack = msgpack.Packer().pack
    yield pack([_HEADER, FORMAT, VERSION, state.index])
    for key, row in state.rows.items():
        yield pack([_KEY, key, *row])
    for address, url in state.urls.items():
        yield pack([_URL, address, url])
    yield pack([_END, len(state.rows) + len(state.urls)])


def read_state(source: BinaryIO) -> State:
    """Read a whole state, strictly.

    Raises: DataCorrupted with what is wrong; FormatTooNew.
    """
    unpacker = msgpack.Unpacker(
        source,
        read_size=1 << 16,
        max_buffer_size=MAX_RECORD_BYTES,
        max_array_len=_MAX_FIELDS,
        max_map_len=_MAX_FIELDS,
        max_ext_len=_MAX_FIELDS,
    )
    state = State({}, {}, _read_header(_next(unpacker)))
    while True:
        fields = _next(unpacker)
        if fields[0] == _END:
            break
        _add(state, fields)
    _check_end(state, fields, unpacker)
    return state


def _write(sink: SnapshotSink, data: bytes) -> None:
    for start in range(0, len(data), MAX_PIECE_BYTES):
        sink.write(data[start : start + MAX_PIECE_BYTES])


def _next(unpacker: msgpack.Unpacker) -> list[Any]:
    try:
        fields = unpacker.unpack()
    except msgpack.OutOfData:
        raise DataCorrupted("the key-value snapshot ends before its end mark") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataCorrupted(
            f"the key-value snapshot is not msgpack: {error}"
        ) from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise DataCorrupted("the key-value snapshot holds something that is no record")
    return fields


def _read_header(fields: list[Any]) -> int:
    if fields[0] != _HEADER or len(fields) < 3 or fields[1] != FORMAT:
        raise DataCorrupted("this is not a key-value snapshot: its header is missing")
    version = fields[2]
    if not _unsigned(version) or version == 0:
        raise DataCorrupted("the version of the key-value snapshot is no number")
    if version > VERSION:
        raise FormatTooNew(
            f"the key-value snapshot has version {version}, this node understands up "
            f"to {VERSION}: upgrade it"
        )
    if len(fields) != 4 or not _unsigned(fields[3]):
        raise DataCorrupted("the header of the key-value snapshot is malformed")
    index: int = fields[3]
    return index


def _add(state: State, fields: list[Any]) -> None:
    if fields[0] == _KEY and len(fields) == 7:
        _, key, *row = fields
        _check_row(state, key, row)
        state.rows[key] = (row[0], row[1], row[2], row[3], row[4])
    elif fields[0] == _URL and len(fields) == 3:
        _, address, url = fields
        if type(address) is not str or type(url) is not str or address in state.urls:
            raise DataCorrupted("an HTTP address in the snapshot is malformed or twice")
        state.urls[address] = url
    else:
        raise DataCorrupted(
            f"the key-value snapshot holds an unknown record {fields[0]}"
        )


def _check_row(state: State, key: object, row: list[Any]) -> None:
    if type(key) is not str or not key:
        raise DataCorrupted("a key in the snapshot is not a text")
    if key in state.rows:
        raise DataCorrupted(f"the key {key!r} is twice in the snapshot")
    value, flags, create, modify, lock = row
    if type(value) is not bytes:
        raise DataCorrupted(f"the value of {key!r} in the snapshot is not binary")
    if not all(map(_unsigned, (flags, create, modify, lock))):
        raise DataCorrupted(f"a number of {key!r} in the snapshot is malformed")
    if not 0 < create <= modify <= state.index:
        raise DataCorrupted(f"the indexes of {key!r} in the snapshot contradict it")


def _unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_FLAGS


def _check_end(state: State, fields: list[Any], unpacker: msgpack.Unpacker) -> None:
    count = len(state.rows) + len(state.urls)
    if len(fields) != 2 or type(fields[1]) is not int or fields[1] != count:
        raise DataCorrupted(
            f"the key-value snapshot has {count} records, not {fields[1:]}"
        )
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        return
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise DataCorrupted("the key-value snapshot goes on after its end mark")
