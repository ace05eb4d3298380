"""A small durable map in one file, for term and vote.

The file is replaced as a whole, so that several keys change in one step. Its layout
is written down in docs/reference/log-format.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fastcrc.crc64 import xz

from txraft.errors import StorageError
from txraft.storage.filesystem import (
    FileSystem,
    OsFileSystem,
    create_whole,
    read_whole,
)
from txraft.storage.preamble import (
    PREAMBLE_BYTES,
    check_node_name,
    check_preamble,
    damaged,
    decode_node_name,
    encode_node_name,
    encode_preamble,
)

MAGIC = b"txraft-S"
VERSION = 1
MAX_STATE_BYTES = 1 << 20
MAX_HINT_BYTES = 512
HINT_SUFFIX = ".hint"

IDENTITY = b"Incarnation"
"""The key of the identity of the data directory, see `identity`."""

_COUNT = struct.Struct(">I")
_CHECK = struct.Struct(">Q")
_UINT64 = struct.Struct(">Q")


class FileStableStore:
    """A `StableStore` in the file *path*, and a `HintingStableStore`.

    *exists* is true once there is a file; before that the map is empty. A failed write
    is final: every later one raises the same error.
    Raises: DataCorrupted, FormatTooNew, WrongNode
    """

    def __init__(
        self, path: Path | str, node_name: str, fs: FileSystem | None = None
    ) -> None:
        self._path = Path(path)
        self._node_name = node_name
        self._fs = fs or OsFileSystem()
        self._failure: Exception | None = None
        self._values: dict[bytes, bytes] = {}
        self.exists = self._fs.exists(self._path)
        if self.exists:
            # A crash may have come between the renaming and its sync. A vote that is
            # read here and answered must not be undone by a second crash.
            self._fs.sync_directory(self._path.parent)
            data = read_whole(self._fs, self._path, MAX_STATE_BYTES)
            name, self._values = _decode(data, self._path)
            check_node_name(name, node_name, self._path)

    def get(self, key: bytes) -> bytes:
        """Return the value of *key*, b"" when there is none."""
        return self._values.get(key, b"")

    def get_uint64(self, key: bytes) -> int:
        """Return the integer at *key*, 0 when there is none.

        Raises: StorageError when the value is no integer.
        """
        return to_uint64(key, self.get(key))

    def set(self, key: bytes, value: bytes) -> None:
        """Store *value*. Durable: when this returns."""
        self.set_many({key: value})

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store an unsigned 64-bit integer. Durable: when this returns."""
        self.set(key, from_uint64(value))

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store several keys in one atomic write.

        Raises: ValueError when the whole map would exceed MAX_STATE_BYTES, and
            nothing is done; OSError, after which nothing can be stored.
        Durable: when this returns.
        """
        changed = {**self._values, **values}
        # Checked before the write: a file above the limit could not be read back.
        data = _encode(changed, self._node_name)
        if len(data) > MAX_STATE_BYTES:
            raise ValueError(f"{self._path}: at most {MAX_STATE_BYTES} bytes")
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        # In memory only after the disk: a vote that is not durable must not be read
        # back.
        try:
            create_whole(self._fs, self._path, data)
        except Exception as error:
            self._failure = error
            raise
        self._values = changed
        self.exists = True

    def hint(self, value: bytes) -> None:
        """Keep *value* in a second file, without a sync.

        It fits in one sector and has a checksum. If it cannot be written it is lost;
        nothing relies on it.
        """
        path, data = _hints(self._path), value + self._check_of(value)
        if self._failure is not None:
            return
        # Overwritten in place: a new file and a rename would cost syncs, and a torn
        # hint is one without a valid checksum.
        with suppress(OSError):
            try:
                file = self._fs.open(path, writable=True)
            except FileNotFoundError:
                file = self._fs.create(path)
            try:
                file.write_at(data, 0)
                # What is left of a longer one would belong to this one.
                if file.size() > len(data):
                    file.truncate(len(data))
            finally:
                file.close()

    def hinted(self) -> bytes:
        """Return the latest value of `hint` that is on the disk, b"" without any.

        Raises: OSError or StorageError when there may be one that cannot be read.
        """
        path = _hints(self._path)
        try:
            data = read_whole(self._fs, path, MAX_HINT_BYTES)
        except FileNotFoundError:
            return b""
        value, check = data[: -_CHECK.size], data[-_CHECK.size :]
        return value if check == self._check_of(value) else b""

    def _check_of(self, hint: bytes) -> bytes:
        """Make the checksum of *hint*, which covers the identity of this directory."""
        return _CHECK.pack(xz(hint, xz(self.get(IDENTITY))))


def _hints(path: Path) -> Path:
    return path.with_name(path.name + HINT_SUFFIX)


def from_uint64(value: int) -> bytes:
    """Encode an unsigned integer. Raises: ValueError when it needs over 64 bits."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is not an unsigned 64-bit integer")
    return _UINT64.pack(value)


def to_uint64(key: bytes, value: bytes) -> int:
    """Decode what is stored at *key*, 0 for nothing. Raises: StorageError"""
    if not value:
        return 0
    if len(value) != _UINT64.size:
        raise StorageError(f"the value of {key!r} is not a 64-bit integer")
    return int(_UINT64.unpack(value)[0])


def _encode(values: Mapping[bytes, bytes], node_name: str) -> bytes:
    pieces = [encode_preamble(MAGIC, VERSION)]
    pieces += _prefixed(encode_node_name(node_name))
    pieces.append(_COUNT.pack(len(values)))
    for key, value in values.items():
        pieces += _prefixed(key)
        pieces += _prefixed(value)
    checked = b"".join(pieces)
    return checked + _CHECK.pack(xz(checked))


def _prefixed(data: bytes) -> tuple[bytes, bytes]:
    return _COUNT.pack(len(data)), data


def owner_in_state(fs: FileSystem, path: Path) -> str:
    """Return the name of the node whose term and vote are in the file *path*.

    Raises: DataCorrupted, FormatTooNew
    """
    name, _ = _decode(read_whole(fs, path, MAX_STATE_BYTES), path)
    return decode_node_name(name)


def _decode(data: bytes, path: Path) -> tuple[bytes, dict[bytes, bytes]]:
    check_preamble(data, MAGIC, VERSION, path)
    end = len(data) - _CHECK.size
    if end < PREAMBLE_BYTES:
        raise damaged(path, len(data), "the file ends early")
    if _CHECK.pack(xz(data[:end])) != data[end:]:
        raise damaged(path, end, "the checksum of the file does not match")
    try:
        name, at = _take(data, PREAMBLE_BYTES, end)
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        values = {}
        for _ in range(count):
            key, at = _take(data, at, end)
            values[key], at = _take(data, at, end)
    except (struct.error, ValueError) as error:
        raise damaged(path, PREAMBLE_BYTES, str(error)) from error
    return name, values


def _take(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    (length,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if at + length > end:
        raise ValueError(f"a value of {length} bytes at byte {at} ends in nowhere")
    return data[at : at + length], at + length
