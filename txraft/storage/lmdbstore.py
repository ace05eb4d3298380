"""Log, term and vote in one LMDB environment: hashicorp/raft-mdb's store, as an extra.

It needs the package `lmdb` (`pip install 'txraft[lmdb]'`). Every write is one
transaction, which is synced when it commits: after a crash all of it is there, or
nothing. Values have a checksum of themselves and their key, because LMDB has none.

    about   format   4-byte big-endian format version
            node     the node's name
    log     8-byte big-endian index  ->  the entry's msgpack map
    state   key                      ->  value
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import lmdb

from txraft.core.entry import Entry
from txraft.errors import (
    DataCorrupted,
    FormatTooNew,
    LogNotFound,
    ProtocolError,
    StorageError,
)
from txraft.storage.filesystem import OsFileSystem, make_directories
from txraft.storage.preamble import (
    WAY_OUT,
    check_node_name,
    decode_node_name,
    encode_node_name,
)
from txraft.storage.stable import from_uint64, to_uint64
from txraft.wire.entries import decode_entry

FORMAT_VERSION = 1
INITIAL_MAP_BYTES = 64 << 20
MAX_MAP_BYTES = 1 << 40
"""A bound on the file, which grows as it is used; nothing is reserved."""

MAX_DELETED_ENTRIES = 4096
"""Most entries that one transaction deletes: pages it changes stay in memory."""

_INDEX = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")

_DAMAGE: tuple[tuple[type[lmdb.Error], str], ...] = (
    (lmdb.InvalidError, "its data.mdb is no file of LMDB's"),
    (lmdb.VersionMismatchError, "another version of LMDB wrote its data.mdb"),
    (lmdb.CorruptedError, "its data.mdb is damaged"),
    (lmdb.PageNotFoundError, "its data.mdb is damaged or cut off: a page is missing"),
)
_FAILURES: tuple[tuple[type[lmdb.Error], str], ...] = (
    (
        lmdb.LockError,
        "its lock.mdb cannot be locked: another process has the environment open, or "
        "this one may not write there",
    ),
    (
        lmdb.MapResizedError,
        "another process has made the map larger: nothing but its node may write to it",
    ),
    (
        lmdb.BadTxnError,
        "a transaction was broken off by an error in it, and nothing of it is stored",
    ),
    (
        lmdb.PanicError,
        "LMDB gave up after a failed write: look after the disk, then start the node "
        "again",
    ),
    (lmdb.DiskError, "the disk failed"),
    (lmdb.ReadersFullError, "more readers are open than LMDB has room for"),
    (lmdb.ReadonlyError, "it was opened for reading only"),
    (lmdb.MemoryError, "there is not enough memory for it"),
)
"""The meaning of LMDB's errors in words; the first one that fits is used."""

if TYPE_CHECKING:
    Transaction = lmdb.Transaction[bytes]
    Database = lmdb._Database


class LMDBStore:
    """A `LogStore`, `RangeLogStore` and `StableStore` in the directory *path*.

    The map begins with *map_bytes* and doubles when it is full, up to
    *max_map_bytes*. A failed write is final: every later one raises the same error.
    With *read_only* nothing is written and no lock is taken; use it while no node runs.
    Raises: DataCorrupted, FormatTooNew, WrongNode, StorageError; nothing has been
        changed then.
    Durable: everything that can be read, as soon as this is constructed.
    """

    def __init__(
        self,
        path: Path | str,
        node_name: str,
        *,
        map_bytes: int = INITIAL_MAP_BYTES,
        max_map_bytes: int = MAX_MAP_BYTES,
        read_only: bool = False,
    ) -> None:
        self._path = Path(path)
        self._max_map_bytes = max_map_bytes
        self._failure: Exception | None = None
        self._closed = False
        self._mapping = Lock()
        files = OsFileSystem()
        if not read_only:
            make_directories(files, self._path)
        try:
            # `sync`, `metasync` and `writemap` keep their defaults: each commit is
            # synced, and a stray pointer of this process cannot write to the file.
            self._environment = lmdb.open(
                str(self._path),
                map_size=map_bytes,
                max_dbs=3,
                mode=0o600,
                readonly=read_only,
                create=not read_only,
                lock=not read_only,
            )
        except lmdb.Error as error:
            raise self._sentence(error) from error
        try:
            self._about, self._log, self._state = (
                self._environment.open_db(name, create=not read_only)
                for name in (b"about", b"log", b"state")
            )
            # LMDB syncs its file, but not the directory that names it.
            if not read_only:
                files.sync_directory(self._path)
            self._check_owner(node_name)
            self._bounds = self._read_bounds()
        except lmdb.Error as error:
            self._environment.close()
            raise self._sentence(error) from error
        except Exception:
            self._environment.close()
            raise

    def close(self) -> None:
        """Close the environment; idempotent. Nothing may be under way."""
        if not self._closed:
            self._closed = True
            self._environment.close()

    @property
    def place(self) -> str:
        """The path of the environment."""
        return str(self._path)

    # Log

    def first_index(self) -> int:
        """Return the index of the oldest entry, 0 when empty. Thread: any."""
        return self._bounds[0]

    def last_index(self) -> int:
        """Return the index of the newest entry, 0 when empty. Thread: any."""
        return self._bounds[1]

    def get_log(self, index: int) -> Entry:
        """Read one entry. Raises: LogNotFound, DataCorrupted"""
        return self.get_logs(index, index, 0)[0]

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Read entries *first* to *last*, stopping after *max_bytes* of encoding.

        At least one entry is returned.
        Raises: LogNotFound for *first*; DataCorrupted.
        """
        found: list[Entry] = []
        size = 0
        with self._reading(self._log) as transaction:
            for index in range(first, max(first, min(last, self.last_index())) + 1):
                key = _INDEX.pack(index) if 0 <= index < 1 << 64 else b""
                stored = transaction.get(key) if key else None
                if stored is None:
                    break
                size += len(stored) - _NUMBER.size
                if found and size > max_bytes:
                    break
                found.append(self._entry(index, self._checked(key, stored)))
        if not found:
            raise LogNotFound(first)
        return found

    def store_log(self, entry: Entry) -> None:
        """Store one entry; as `store_logs`."""
        self.store_logs([entry])

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries, in one transaction.

        An entry at an index that is in the log replaces it and all after it.
        Raises: ValueError for entries that leave a gap, and nothing is done.
        Durable: every entry, when this returns.
        """
        if not entries:
            return
        first, last = entries[0].index, entries[-1].index
        if [entry.index for entry in entries] != [*range(first, first + len(entries))]:
            raise ValueError("the entries are not consecutive")
        low, high = self._bounds
        if first < 1 or (low and not low <= first <= high + 1):
            raise ValueError(f"entry {first} leaves a gap to entries {low} to {high}")

        def store(transaction: Transaction) -> None:
            for index in range(last + 1, high + 1):
                transaction.delete(_INDEX.pack(index), db=self._log)
            for entry in entries:
                key = _INDEX.pack(entry.index)
                transaction.put(key, _with_checksum(key, entry.encoded), db=self._log)

        self._write(store)
        # Readers find entries only once they are committed.
        self._bounds = (low or first, last)

    def delete_range(self, first: int, last: int) -> None:
        """Delete a prefix or a suffix of the log.

        Raises: ValueError for a range that leaves entries on both sides.
        Durable: the deletion, when this returns.
        """
        low, high = self._bounds
        first, last = max(first, low), min(last, high)
        if low == 0 or first > last:
            return
        if low < first and last < high:
            raise ValueError(f"entries {first} to {last} are within {low} to {high}")

        # Before the entries go: a reader on another thread must not look for them.
        kept = (last + 1, high) if first == low else (low, first - 1)
        self._bounds = kept if kept[0] <= kept[1] else (0, 0)
        # From the outer end inwards, so that a crash between two transactions leaves a
        # shorter log, not a gap.
        indexes = range(first, last + 1) if first == low else range(last, first - 1, -1)
        for start in range(0, len(indexes), MAX_DELETED_ENTRIES):
            self._delete(indexes[start : start + MAX_DELETED_ENTRIES])

    def _delete(self, indexes: range) -> None:
        def delete(transaction: Transaction) -> None:
            for index in indexes:
                transaction.delete(_INDEX.pack(index), db=self._log)

        self._write(delete)

    # Stable

    def get(self, key: bytes) -> bytes:
        """Return the value of *key*, b"" when there is none. Raises: DataCorrupted"""
        with self._reading(self._state) as transaction:
            stored = transaction.get(_state_key(key))
            return b"" if stored is None else self._checked(key, stored)

    def get_uint64(self, key: bytes) -> int:
        """Return the integer at *key*, 0 when there is none.

        Raises: DataCorrupted; StorageError when what is there is no integer.
        """
        return to_uint64(key, self.get(key))

    def set(self, key: bytes, value: bytes) -> None:
        """Store *value*. Durable: when this returns."""
        self.set_many({key: value})

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store an unsigned 64-bit integer. Durable: when this returns."""
        self.set(key, from_uint64(value))

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store several keys in one transaction. Durable: when this returns."""

        def put(transaction: Transaction) -> None:
            for key, value in values.items():
                stored = _with_checksum(key, value)
                transaction.put(_state_key(key), stored, db=self._state)

        self._write(put)

    # Transactions

    def _write(self, change: Callable[[Transaction], None]) -> None:
        """Commit *change*; enlarge the map as often as needed."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        try:
            while not self._commit(change):
                self._grow()
        except Exception as error:
            # Final: nobody knows what of a failed commit is on the disk.
            self._failure = error
            raise

    def _commit(self, change: Callable[[Transaction], None]) -> bool:
        """Try once; False if the map is full, and then nothing is changed."""
        try:
            with self._environment.begin(write=True) as transaction:
                change(transaction)
        except lmdb.MapFullError:
            return False
        except lmdb.Error as error:
            raise self._sentence(error) from error
        return True

    def _grow(self) -> None:
        """Double the map, while no transaction is open: LMDB moves it in memory."""
        size = self._environment.info()["map_size"]
        if size >= self._max_map_bytes:
            raise StorageError(
                f"{self._path}: the map is full at {size} bytes; lower trailing_logs "
                "or snapshot_threshold, or raise max_map_bytes"
            )
        try:
            with self._mapping:
                self._environment.set_mapsize(min(2 * size, self._max_map_bytes))
        except lmdb.Error as error:
            raise self._sentence(error) from error

    # What is there

    def _check_owner(self, node_name: str) -> None:
        name = encode_node_name(node_name)
        with self._environment.begin(self._about) as transaction:
            version, owner = (transaction.get(key) for key in (b"format", b"node"))
        if version is None and owner is None:

            def claim(transaction: Transaction) -> None:
                number = _NUMBER.pack(FORMAT_VERSION)
                transaction.put(b"format", number, db=self._about)
                transaction.put(b"node", name, db=self._about)

            self._write(claim)
            return
        if version is None or owner is None or len(version) != _NUMBER.size:
            raise self._damaged("there is no format version or no node name")
        (number,) = _NUMBER.unpack(version)
        if number > FORMAT_VERSION:
            raise FormatTooNew(
                f"{self._path}: the environment has format {number}, this version "
                f"reads formats up to {FORMAT_VERSION}; start the version that wrote "
                "it, or a later one"
            )
        check_node_name(owner, node_name, self._path)

    def _read_bounds(self) -> tuple[int, int]:
        with self._environment.begin(self._log) as transaction:
            cursor = transaction.cursor()
            if not cursor.first():
                return 0, 0
            first = cursor.key()
            cursor.last()
            last = cursor.key()
            count = transaction.stat(self._log)["entries"]
        low, high = (int.from_bytes(key, "big") for key in (first, last))
        # Bounds and number together show a gap without reading the whole log.
        if count != high - low + 1:
            raise self._damaged(f"entries {low} to {high} are {count}")
        return low, high

    def _entry(self, index: int, encoded: bytes) -> Entry:
        try:
            entry = decode_entry(encoded)
        except ProtocolError as error:
            raise self._damaged(str(error)) from error
        if entry.index != index:
            raise self._damaged(f"entry {entry.index} is at index {index}")
        return entry

    def _checked(self, key: bytes, stored: bytes) -> bytes:
        value = stored[_NUMBER.size :]
        if stored != _with_checksum(key, value):
            raise self._damaged(f"the checksum of the value at {key!r} does not match")
        return value

    def _sentence(self, error: lmdb.Error) -> StorageError:
        return sentence_of(error, self._path)

    @contextmanager
    def _reading(self, database: Database) -> Iterator[Transaction]:
        """Open a transaction to read *database*; `_grow` waits until it has ended."""
        try:
            with self._mapping, self._environment.begin(database) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._sentence(error) from error

    def _damaged(self, what: str) -> DataCorrupted:
        return DataCorrupted(f"{self._path}: damaged: {what}; {WAY_OUT}")


def sentence_of(error: lmdb.Error, path: Path) -> StorageError:
    """Explain an *error* of the environment at *path*, with LMDB's own words."""
    for kind, meaning in _DAMAGE:
        if isinstance(error, kind):
            return DataCorrupted(f"{path}: {meaning} ({error}); {WAY_OUT}")
    for kind, meaning in _FAILURES:
        if isinstance(error, kind):
            return StorageError(f"{path}: {meaning} ({error})")
    return StorageError(f"{path}: LMDB refuses: {error}")


def owner_in_lmdb(path: Path) -> str:
    """Return the name of the node whose environment is at *path*.

    Raises: DataCorrupted, also when it names no node yet
    """
    try:
        with (
            lmdb.open(
                str(path), max_dbs=3, readonly=True, create=False, lock=False
            ) as environment,
            environment.begin(environment.open_db(b"about", create=False)) as about,
        ):
            owner = about.get(b"node")
    except lmdb.Error as error:
        raise sentence_of(error, path) from error
    if owner is None:
        raise DataCorrupted(f"{path}: it names no node; {WAY_OUT}")
    return decode_node_name(owner)


def _with_checksum(key: bytes, value: bytes) -> bytes:
    return _NUMBER.pack(zlib.crc32(value, zlib.crc32(key))) + value


def _state_key(key: bytes) -> bytes:
    """Make a key for LMDB, which refuses an empty one."""
    return b"=" + key
