"""A snapshot of the key-value state as bytes.

It is a stream of msgpack lists. The number at the head of each names its kind:

    [0, "txraft-kv", 2, index: uint64, session index]  first; format name and version
    [1, key: str, value: bin, flags, create, modify, lock, session: str]
    [2, address: str, url: str]
    [4, id: str, name, node, lock_delay_ms, deletes: bool, ttl_ms, create, modify]
    [5, key: str, index, milliseconds]                 a lock delay
    [6, client: str, floor, [[sequence, result: bin], ...]]  oldest client first
    [7, id: str, total, [piece: bin, ...]]             a backup on its way
    [3, records: uint64]                               last; how many others there are

From level 1 of the state machine on the version is 3. The header then ends with the
level, and a result with the digest of its command, if that is known. An address may be
followed by the node's name, and a session by the spelling of its maker. So a replica
that does not understand the level refuses the snapshot. At level 0 version 2 is
written, which older releases read.

    [0, "txraft-kv", 3, index: uint64, session index, level]
    [2, address: str, url: str, name: str]
    [4, id: str, ..., modify, [ttl: str, lock_delay_ns, checks, node checks, service
     checks]]                                          each of the last three may be nil
    [6, client: str, floor, [[sequence, result: bin, digest: bin], ...]]

Version 1, which is still read, has no session index, no session of a key, and no
records of the kinds 4 and above. Except for the first, the last and the clients,
records come in any order. The snapshot store checks checksums. This module checks that
the stream is whole, and that commands could have made its state.

Thread: snapshot, but for the capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol

import msgpack

from txraft.errors import DataCorrupted, FormatTooNew, UpgradeNeeded
from txraft.interfaces import SnapshotSink
from txraft.kv.commands import LEVEL, MAX_FLAGS
from txraft.kv.once import DIGEST_BYTES, WINDOW, ClientResults
from txraft.kv.records import HOLDER, Delay, Row, Session, Staged, State, Written

FORMAT = "txraft-kv"
VERSION = 3
MAX_PIECE_BYTES = 1 << 20
MAX_RECORD_BYTES = 256 << 20
_READ_BYTES = 1 << 16
_MAX_FIELDS = 1 << 16
_HEADER, _KEY, _URL, _END, _SESSION, _DELAY, _CLIENT, _STAGED = range(8)
_LISTS = frozenset(bytes([0x90 + fields]) for fields in range(16))
_MARK: bytes = msgpack.packb(_HEADER) + msgpack.packb(FORMAT)
_HEADER_FIELDS = {1: 4, 2: 5, 3: 6}
_KEY_FIELDS = {1: 7, 2: 8, 3: 8}
_SESSION_FIELDS = 9


def is_snapshot(head: bytes) -> bool:
    """Return whether *head* begins a key-value snapshot, of any version.

    Only `read_state` checks the rest.
    """
    return head[:1] in _LISTS and head[1:].startswith(_MARK)


class Rows(Protocol):
    """Keys and their records: a dict, or a capture of one."""

    def items(self) -> Iterable[tuple[str, Row]]:
        """Iterate over the keys and their records."""

    def __len__(self) -> int:
        """Return the number of keys."""


class KeyValueSnapshot:
    """A captured state that writes itself to a sink.

    *rows* holds the records, and *state* all the rest. `release` calls *let_go* once.
    """

    def __init__(
        self, state: State, rows: Rows, let_go: Callable[[], object] = lambda: None
    ) -> None:
        self._captured: tuple[State, Rows] | None = (state, rows)
        self._let_go = let_go

    def persist(self, sink: SnapshotSink) -> None:
        """Write the captured state in pieces of at most `MAX_PIECE_BYTES`."""
        assert self._captured is not None, "a released snapshot is not persisted"
        for piece in self.pieces(MAX_PIECE_BYTES):
            sink.write(piece)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Encode the captured state in pieces of at most *size* bytes.

        A released snapshot has no pieces: nobody wants them any more.
        """
        if self._captured is None:
            return
        buffered: list[bytes] = []
        held = 0
        for record in encode_state(*self._captured):
            if held + len(record) > size:
                yield from _cut(b"".join(buffered), size)
                buffered, held = [], 0
            buffered.append(record)
            held += len(record)
        yield from _cut(b"".join(buffered), size)

    def release(self) -> None:
        """Let go of the captured state; idempotent."""
        if self._captured is not None:
            self._captured = None
            self._let_go()


def encode_state(state: State, rows: Rows) -> Iterator[bytes]:
    """Encode *state* with *rows* for its records, one list at a time."""
    # One packer for all records: `packb` would make one for each.
    pack = msgpack.Packer().pack
    yield pack(_header(state))
    for key, row in rows.items():
        yield pack([_KEY, key, *row])
    for address, url in state.urls.items():
        name = state.names.get(address)
        yield pack([_URL, address, url] if name is None else [_URL, address, url, name])
    for record in _others(state):
        yield pack(record)
    yield pack([_END, _count(state, rows)])


def digest_parts(state: State) -> Iterator[bytes]:
    """Encode *state* in an order that is the same for equal states."""
    pack = msgpack.Packer().pack
    yield pack([state.index, state.session_index, sorted(state.urls.items())])
    if state.level:
        yield pack([state.level, sorted(state.names.items())])
    # Sorted, as replicas have their keys in different orders: one by its commands, one
    # by the snapshot that it was given. The others below keep one order everywhere.
    for key in sorted(state.rows):
        yield pack([key, *state.rows[key]])
    for record in _others(state):
        yield pack(record)


def read_state(source: BinaryIO) -> State:
    """Read a whole state, strictly.

    Raises: DataCorrupted, whose text names the fault; FormatTooNew, UpgradeNeeded
    """
    reader = StateReader()
    while data := source.read(_READ_BYTES):
        reader.feed(data)
    return reader.finish()


class StateReader:
    """Reads a state whose bytes come in pieces, each piece when it comes."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=MAX_RECORD_BYTES,
            max_array_len=_MAX_FIELDS,
            max_map_len=_MAX_FIELDS,
            max_ext_len=_MAX_FIELDS,
        )
        self._state = State({}, {}, 0)
        self._version = 0
        self._end: list[Any] | None = None
        self._goes_on = False

    def feed(self, data: bytes) -> None:
        """Read the records that *data* completes.

        Raises: DataCorrupted, FormatTooNew, UpgradeNeeded; the reader must then be
            dropped
        """
        self._goes_on = self._goes_on or (self._end is not None and bool(data))
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull as error:
            raise DataCorrupted(
                f"a record of the key-value snapshot has over {MAX_RECORD_BYTES} bytes"
            ) from error
        # Nothing behind the end mark is unpacked: those bytes may be anything.
        while self._end is None and (fields := _next(self._unpacker)) is not None:
            self._take(fields)

    def finish(self) -> State:
        """Check that the state is whole, and return it. Raises: DataCorrupted"""
        if self._end is None:
            raise DataCorrupted("the key-value snapshot ends before its end mark")
        _check_count(self._state, self._end)
        if self._goes_on or self._holds_more():
            raise DataCorrupted("the key-value snapshot goes on after its end mark")
        # Only now, as a session may come behind the keys that it holds.
        _check_locks(self._state)
        return self._state

    def _take(self, fields: list[Any]) -> None:
        if not self._version:
            self._version = _read_header(self._state, fields)
        elif fields[0] == _END:
            self._end = fields
        else:
            _add(self._state, self._version, fields)

    def _holds_more(self) -> bool:
        return bool(self._unpacker.read_bytes(1))


def _header(state: State) -> list[object]:
    indexes = [state.index, state.session_index]
    if state.level:
        return [_HEADER, FORMAT, 3, *indexes, state.level]
    return [_HEADER, FORMAT, 2, *indexes]


def _others(state: State) -> Iterator[list[object]]:
    """Iterate over the records of all but keys and addresses.

    They keep the order of their dicts, oldest first: which client is forgotten next
    depends on it, on every replica.
    """
    for id, session in state.sessions.items():
        *fields, written = session
        yield [_SESSION, id, *fields] if written is None else [_SESSION, id, *session]
    for key, delay in state.delays.items():
        yield [_DELAY, key, *delay]
    for name, client in state.results.clients().items():
        yield [_CLIENT, name, client.floor, _results(client)]
    if state.staged is not None:
        staged = state.staged
        yield [_STAGED, staged.id, staged.total, list(staged.pieces)]


def _results(client: ClientResults) -> list[list[object]]:
    digests = client.digests
    return [
        [sequence, result, digests[sequence]]
        if sequence in digests
        else [sequence, result]
        for sequence, result in client.results.items()
    ]


def _count(state: State, rows: Rows) -> int:
    count = len(rows) + len(state.urls) + len(state.sessions)
    count += len(state.delays) + len(state.results.clients())
    return count + (state.staged is not None)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _next(unpacker: msgpack.Unpacker) -> list[Any] | None:
    """Return the next record, None while only a part of it has come."""
    try:
        fields = unpacker.unpack()
    except msgpack.OutOfData:
        return None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataCorrupted(
            f"the key-value snapshot is not msgpack: {error}"
        ) from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise DataCorrupted("the key-value snapshot has a part that is no record")
    return fields


def _read_header(state: State, fields: list[Any]) -> int:
    """Take the header into *state*; return the version."""
    if fields[0] != _HEADER or len(fields) < 3 or fields[1] != FORMAT:
        raise DataCorrupted("this is not a key-value snapshot: its header is missing")
    version: int = fields[2]
    if not _unsigned(version) or version == 0:
        raise DataCorrupted("the version of the key-value snapshot is no number")
    # Before the rest of the header is looked at: a newer version may change it, and
    # must not pass for damage.
    if version > VERSION:
        raise FormatTooNew(
            f"the key-value snapshot has version {version}, this node understands up "
            f"to {VERSION}: upgrade it"
        )
    if len(fields) != _HEADER_FIELDS[version] or not all(map(_unsigned, fields[3:])):
        raise DataCorrupted("the header of the key-value snapshot is malformed")
    state.index, state.session_index, state.level = (*fields[3:], 0, 0)[:3]
    if state.level > LEVEL:
        raise UpgradeNeeded(state.level, LEVEL)
    if version > 2 and not state.level:
        raise DataCorrupted("the key-value snapshot names no level")
    return version


def _add(state: State, version: int, fields: list[Any]) -> None:
    kind = fields[0]
    if kind == _KEY and len(fields) == _KEY_FIELDS[version]:
        _add_key(state, fields)
    elif kind == _URL and (len(fields) == 3 or (len(fields) == 4 and version > 2)):
        _add_url(state, fields)
    elif kind == _SESSION and version > 2 and len(fields) == _SESSION_FIELDS + 1:
        _add_session(state, fields[:-1], _read_written(fields[-1]))
    elif version > 1 and kind in _OTHERS and len(fields) == _OTHERS[kind][0]:
        _OTHERS[kind][1](state, fields)
    else:
        raise DataCorrupted(f"the key-value snapshot holds an unknown record {kind}")


def _add_key(state: State, fields: list[Any]) -> None:
    _, key, *row = fields
    # Version 1 has no sessions.
    if len(row) == 5:
        row.append("")
    _check_row(state, key, row)
    # Written out to make an exact tuple: see `Row`.
    state.rows[key] = (row[0], row[1], row[2], row[3], row[4], row[5])


def _add_url(state: State, fields: list[Any]) -> None:
    address, *texts = fields[1:]
    if (
        not all(type(text) is str for text in (address, *texts))
        or address in state.urls
    ):
        raise DataCorrupted("an HTTP address in the snapshot is malformed or twice")
    state.urls[address] = texts[0]
    if len(texts) > 1:
        state.names[address] = texts[1]


def _read_written(value: object) -> Written:
    """Read what was written of a session. Raises: DataCorrupted"""
    if type(value) is list and len(value) == 5:
        ttl, lock_delay, *checks = value
        if type(ttl) is str and _unsigned(lock_delay) and all(map(_is_texts, checks)):
            read = (None if each is None else tuple(each) for each in checks)
            return Written(ttl, lock_delay, *read)
    raise DataCorrupted("what was written of a session in the snapshot is malformed")


def _is_texts(value: object) -> bool:
    if value is None:
        return True
    return type(value) is list and all(type(text) is str for text in value)


def _add_session(
    state: State, fields: list[Any], written: Written | None = None
) -> None:
    _, id, name, node, lock_delay, deletes, ttl, create, modify = fields
    if (
        not all(type(text) is str for text in (id, name, node))
        or not id
        or id in state.sessions
        or type(deletes) is not bool
        or not all(map(_unsigned, (lock_delay, ttl, create, modify)))
        or not create <= modify <= state.session_index
    ):
        raise DataCorrupted("a session in the snapshot is malformed or twice")
    state.sessions[id] = Session(
        name=name,
        node=node,
        lock_delay_ms=lock_delay,
        deletes=deletes,
        ttl_ms=ttl,
        create_index=create,
        modify_index=modify,
        written=written,
    )


def _add_delay(state: State, fields: list[Any]) -> None:
    _, key, index, milliseconds = fields
    if (
        type(key) is not str
        or not _unsigned(index)
        or not _unsigned(milliseconds)
        or key in state.delays
    ):
        raise DataCorrupted("a lock delay in the snapshot is malformed or twice")
    state.delays[key] = Delay(index, milliseconds)


def _add_client(state: State, fields: list[Any]) -> None:
    _, name, floor, pairs = fields
    if (
        type(name) is not str
        or name in state.results.clients()
        or not _unsigned(floor)
        or type(pairs) is not list
        or not 0 < len(pairs) <= WINDOW
        or not all(_is_result(pair, state.level) for pair in pairs)
    ):
        raise DataCorrupted("the results of a client in the snapshot are malformed")
    results = {pair[0]: pair[1] for pair in pairs}
    digests = {pair[0]: pair[2] for pair in pairs if len(pair) == 3}
    state.results.add(name, floor, results, digests)


def _is_result(pair: object, level: int) -> bool:
    return (
        type(pair) is list
        and 2 <= len(pair) <= (3 if level else 2)
        and _unsigned(pair[0])
        and type(pair[1]) is bytes
        and (len(pair) == 2 or _is_digest(pair[2]))
    )


def _is_digest(value: object) -> bool:
    return type(value) is bytes and len(value) == DIGEST_BYTES


def _add_staged(state: State, fields: list[Any]) -> None:
    _, id, total, pieces = fields
    if (
        type(id) is not str
        or not _unsigned(total)
        or type(pieces) is not list
        or not all(type(piece) is bytes for piece in pieces)
        or state.staged is not None
    ):
        raise DataCorrupted("the backup on its way in the snapshot is malformed")
    state.staged = Staged(id, total, sum(map(len, pieces)), tuple(pieces))


def _check_row(state: State, key: object, row: list[Any]) -> None:
    if type(key) is not str or not key:
        raise DataCorrupted("a key in the snapshot is not a text")
    if key in state.rows:
        raise DataCorrupted(f"the key {key!r} is twice in the snapshot")
    value, flags, create, modify, lock, session = row
    if type(value) is not bytes:
        raise DataCorrupted(f"the value of {key!r} in the snapshot is not binary")
    if type(session) is not str:
        raise DataCorrupted(f"the session of {key!r} in the snapshot is not a text")
    if not all(map(_unsigned, (flags, create, modify, lock))):
        raise DataCorrupted(f"a number of {key!r} in the snapshot is malformed")
    if not 0 < create <= modify <= state.index:
        raise DataCorrupted(f"the indexes of {key!r} in the snapshot contradict it")


def _unsigned(value: object) -> bool:
    # Not `isinstance`, for which True is an integer.
    return type(value) is int and 0 <= value <= MAX_FLAGS


def _check_count(state: State, fields: list[Any]) -> None:
    count = _count(state, state.rows)
    if len(fields) != 2 or type(fields[1]) is not int or fields[1] != count:
        raise DataCorrupted(
            f"the key-value snapshot has {count} records, not {fields[1:]}"
        )


def _check_locks(state: State) -> None:
    for key, row in state.rows.items():
        if row[HOLDER] and row[HOLDER] not in state.sessions:
            raise DataCorrupted(f"the lock of {key!r} is held by no session")


_OTHERS: dict[int, tuple[int, Callable[[State, list[Any]], None]]] = {
    _SESSION: (_SESSION_FIELDS, _add_session),
    _DELAY: (4, _add_delay),
    _CLIENT: (4, _add_client),
    _STAGED: (4, _add_staged),
}
