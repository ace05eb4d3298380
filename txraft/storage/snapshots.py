"""Snapshots in directories, in the layout of hashicorp/raft, which can read them too.

A snapshot is written in a directory whose name ends in `.tmp`. Its files are synced,
then the directory; then it is renamed. docs/reference/log-format.rst describes the
layout.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from fastcrc.crc64 import xz

from txraft.core.configuration import Configuration
from txraft.errors import DataCorrupted, StorageError
from txraft.interfaces import SnapshotMeta
from txraft.storage.directory import SNAPSHOTS_NAME
from txraft.storage.filesystem import (
    TEMPORARY_SUFFIX,
    File,
    FileSystem,
    OsFileSystem,
    in_the_way,
    make_directories,
    read_whole,
    temporary,
)
from txraft.storage.snapshotmeta import (
    MAX_META_BYTES,
    decode_meta,
    encode_meta,
    refuse_id,
)

META_NAME = "meta.json"
STATE_NAME = "state.bin"
UNRESTORED_SUFFIX = ".unrestored"
"""The suffix of a snapshot that was kept although it could not be restored."""

PIECE_BYTES = 1 << 20
BUFFER_BYTES = 1 << 16

_PROBE_NAME = "permTest"
_ID = re.compile(r"(\d{1,20})-(\d{1,20})-(\d{1,20})\Z", re.ASCII)


def _wall_milliseconds() -> int:
    return time.time_ns() // 1_000_000


class SnapshotReader:
    """Reads the snapshots in *path*/snapshots, and changes nothing.

    *warnings* lists what the latest `list` has skipped, and foreign directories;
    *left_out* has the indexes of the skipped snapshots.
    """

    def __init__(self, path: Path | str, fs: FileSystem | None = None) -> None:
        self._directory = Path(path) / SNAPSHOTS_NAME
        self._fs = fs or OsFileSystem()
        self._strays: list[str] = []
        self.warnings: list[str] = []
        self.left_out: list[int] = []

    def list(self) -> list[SnapshotMeta]:
        """List the finished snapshots, newest first.

        A snapshot whose description cannot be read is left out, with a warning.
        """
        return [*self._finished()]

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """Open a snapshot, after its checksum has been verified.

        Raises: DataCorrupted; StorageError when there is no such snapshot.
        """
        directory = self._directory / id
        if not _ID.match(id) or not self._fs.is_directory(directory):
            raise refuse_id(id)
        # Verified as a whole before the first byte is handed out: a state machine that
        # is half restored cannot go back.
        meta, crc = self._describe(id)
        path = directory / STATE_NAME
        try:
            file = self._fs.open(path)
        except FileNotFoundError as error:
            raise DataCorrupted(f"{path}: the file is missing") from error
        try:
            _verify(file, meta.size, crc, path)
        except Exception:
            file.close()
            raise
        return meta, io.BufferedReader(_FileStream(file), BUFFER_BYTES)

    def _finished(self) -> Sequence[SnapshotMeta]:
        self.warnings, self.left_out = [*self._strays], []
        found = []
        for id in self._fs.list(self._directory):
            named = _ID.match(id)
            if not named or not self._fs.is_directory(self._directory / id):
                continue
            try:
                found.append(self._describe(id)[0])
            except (StorageError, OSError) as error:
                self.warnings.append(f"snapshot {id} is left out: {error}")
                self.left_out.append(int(named[2]))
        found.sort(key=lambda meta: (meta.term, meta.index, meta.id), reverse=True)
        return found

    def _describe(self, id: str) -> tuple[SnapshotMeta, int]:
        path = self._directory / id / META_NAME
        return decode_meta(read_whole(self._fs, path, MAX_META_BYTES), id, path)


class FileSnapshotStore(SnapshotReader):
    """A `SnapshotStore` in *path*/snapshots that keeps the newest *retain*.

    *milliseconds* returns the time that goes into names; names stay in order when it
    goes back. *warnings* lists what the latest `list` has skipped.
    Raises: OSError when the directory cannot be written to.
    Durable: every snapshot in it, as soon as this is constructed. Unfinished ones are
        removed.
    """

    def __init__(
        self,
        path: Path | str,
        retain: int,
        fs: FileSystem | None = None,
        *,
        milliseconds: Callable[[], int] = _wall_milliseconds,
    ) -> None:
        if retain < 1:
            raise ValueError("must retain at least one snapshot")
        super().__init__(path, fs)
        self._retain = retain
        self._milliseconds = milliseconds
        self._latest_milliseconds = 0
        make_directories(self._fs, self._directory)
        self._probe()
        self._sweep()
        self._fs.sync_directory(self._directory)

    def create(
        self,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> FileSnapshotSink:
        """Begin a snapshot of the log up to (*index*, *term*).

        The directory of snapshots is made again if it is missing.
        """
        return self.create_for(b"", index, term, configuration, configuration_index)

    def create_for(
        self,
        cluster: bytes,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> FileSnapshotSink:
        """Begin a snapshot of *cluster*, b"" if that is not known."""
        if not self._fs.is_directory(self._directory):
            make_directories(self._fs, self._directory)
        # Never twice the same name, and never an older one when the clock goes back.
        now = max(self._milliseconds(), self._latest_milliseconds + 1)
        self._latest_milliseconds = now
        id = f"{term}-{index}-{now}"
        meta = SnapshotMeta(
            id, index, term, configuration, configuration_index, 0, cluster=cluster
        )
        return FileSnapshotSink(self._fs, self._directory / id, meta, self.reap)

    def list(self) -> list[SnapshotMeta]:
        """List the newest finished snapshots, newest first, at most *retain*.

        A snapshot whose description cannot be read is left out, with a warning.
        """
        return [*self._finished()[: self._retain]]

    def reap(self) -> None:
        """Remove all but the newest *retain* snapshots.

        Each is renamed first, so that a crash leaves none that is half removed.
        """
        for meta in self._finished()[self._retain :]:
            path = self._directory / meta.id
            self._fs.rename(path, temporary(path))
            # Otherwise the name may come back after a crash, without the files.
            self._fs.sync_directory(self._directory)
            self._remove(temporary(path))

    def _remove(self, directory: Path) -> None:
        self._strays += [
            f"{stray}: this directory is not ours, and stays; move it away"
            for stray in _remove(self._fs, directory)
        ]

    def _probe(self) -> None:
        # As in hashicorp/raft: a directory that cannot be written to fails the start,
        # not the first snapshot, days later.
        path = self._directory / _PROBE_NAME
        if self._fs.is_directory(path):
            raise in_the_way(path)
        if not self._fs.exists(path):
            self._fs.create(path).close()
        self._fs.unlink(path)

    def _sweep(self) -> None:
        for name in self._fs.list(self._directory):
            match = _ID.match(name.removesuffix(TEMPORARY_SUFFIX))
            if match is None or not self._fs.is_directory(self._directory / name):
                continue
            # Unfinished ones count as well: no name may come twice.
            self._latest_milliseconds = max(self._latest_milliseconds, int(match[3]))
            if name.endswith(TEMPORARY_SUFFIX):
                self._remove(self._directory / name)


class FileSnapshotSink:
    """A snapshot being written. `close` or `cancel` ends it; the first one wins.

    After a failed write `close` cancels the snapshot and raises the same error.
    """

    def __init__(
        self,
        fs: FileSystem,
        path: Path,
        meta: SnapshotMeta,
        finished: Callable[[], None],
    ) -> None:
        self._fs = fs
        self._path = path
        self._unfinished = temporary(path)
        self._meta = meta
        self._finished = finished
        self._buffer = bytearray()
        self._written = 0
        self._crc = xz(b"")
        self._staged = self._ended = False
        self._failure: Exception | None = None
        self._files: list[File] = []
        fs.make_directory(self._unfinished)
        try:
            self._meta_file = self._create(META_NAME)
            self._meta_file.write_at(encode_meta(meta, None), 0)
            self._file = self._create(STATE_NAME)
        except Exception:
            self._discard()
            raise

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self._meta.id

    def write(self, data: bytes) -> int:
        """Append *data*; return its length.

        Raises: ValueError after the end; OSError, and the snapshot is lost.
        Thread: snapshot.
        """
        if self._ended or self._staged:
            raise ValueError(f"snapshot {self.id} is closed")
        # Collected: applications write many small pieces, and each write is a call of
        # the kernel and a checksum.
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()
        return len(data)

    def stage(self) -> BinaryIO:
        """Refuse further writes, and open what was written after verifying it.

        Raises: ValueError after the end; DataCorrupted, OSError, and then it can only
            be cancelled.
        Durable: all of it except its name, when this returns.
        """
        if self._ended or self._staged:
            raise ValueError(f"snapshot {self.id} is closed")
        self._sync()
        path = self._unfinished / STATE_NAME
        file = self._fs.open(path)
        try:
            _verify(file, self._written, self._crc, path)
        except Exception:
            self._staged = False
            file.close()
            raise
        return io.BufferedReader(_FileStream(file), BUFFER_BYTES)

    def set_aside(self) -> str:
        """End a snapshot that could not be restored, and keep its files.

        They get a name that is not listed, and replace the ones kept before.
        Returns: their path.
        Raises: OSError, and the next start removes the files.
        """
        if self._ended:
            return ""
        self._ended = True
        self._close_files()
        # One at a time is kept: a leader tries again and again, and would fill the
        # disk.
        for name in self._fs.list(self._path.parent):
            if name.endswith(UNRESTORED_SUFFIX):
                _remove(self._fs, self._path.parent / name)
        aside = self._path.with_name(self._path.name + UNRESTORED_SUFFIX)
        self._fs.rename(self._unfinished, aside)
        self._fs.sync_directory(self._path.parent)
        return str(aside)

    def close(self) -> None:
        """Finish the snapshot, unless it was ended before.

        Raises: OSError, and the snapshot is removed, or may not be durable, or older
            ones could not be removed.
        Durable: all of it, when this returns.
        """
        if self._ended:
            return
        self._ended = True
        try:
            if not self._staged:
                self._sync()
            self._close_files()
            self._fs.rename(self._unfinished, self._path)
        except Exception:
            self._discard()
            raise
        # Older snapshots go only after the new name is durable.
        self._fs.sync_directory(self._path.parent)
        self._finished()

    def _sync(self) -> None:
        """Make all of it durable, except its name."""
        # The state before its description, which has the checksum and the size: a
        # description that is durable never promises more than there is. The names of
        # both files last, when what they name is whole.
        self._flush()
        self._file.sync()
        self._write_meta()
        self._fs.sync_directory(self._unfinished)
        self._staged = True

    def cancel(self) -> None:
        """Abandon the snapshot and remove what was written, unless it was ended."""
        if not self._ended:
            self._ended = True
            self._discard()

    def _create(self, name: str) -> File:
        file = self._fs.create(self._unfinished / name)
        self._files.append(file)
        return file

    def _flush(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        data = bytes(self._buffer)
        self._buffer.clear()
        try:
            self._file.write_at(data, self._written)
        except Exception as error:
            self._failure = error
            raise
        self._written += len(data)
        self._crc = xz(data, self._crc)

    def _write_meta(self) -> None:
        self._meta = replace(self._meta, size=self._written)
        data = encode_meta(self._meta, self._crc)
        self._meta_file.truncate(0)
        self._meta_file.write_at(data, 0)
        self._meta_file.sync()

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    def _discard(self) -> None:
        self._close_files()
        _remove(self._fs, self._unfinished)


class DiscardSnapshotStore:
    """A `SnapshotStore` that drops everything, for tests and measurements.

    The log is compacted nevertheless, so a node with it cannot be started again.
    """

    discards_snapshots = True

    def create(
        self,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> DiscardSnapshotSink:
        """Begin a snapshot whose data is dropped."""
        return DiscardSnapshotSink()

    def list(self) -> list[SnapshotMeta]:
        """Return an empty list."""
        return []

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """Refuse. Raises: StorageError"""
        raise StorageError("open is not supported: snapshots are discarded here")


class DiscardSnapshotSink:
    """A snapshot whose data is dropped."""

    @property
    def id(self) -> str:
        """The word "discard"."""
        return "discard"

    def write(self, data: bytes) -> int:
        """Drop *data*; return its length."""
        return len(data)

    def close(self) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""


class _FileStream(io.RawIOBase):
    """A `File` as a stream that begins at its first byte."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read_at(len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _verify(file: File, size: int, crc: int, path: Path) -> None:
    found = file.size()
    if found != size:
        raise DataCorrupted(
            f"{path}: damaged at byte {min(found, size)}: the file has {found} bytes, "
            f"{META_NAME} says {size}"
        )
    # In pieces: a snapshot may be larger than the memory.
    checksum, at = xz(b""), 0
    while at < size:
        piece = file.read_at(min(PIECE_BYTES, size - at), at)
        if not piece:
            break
        checksum = xz(piece, checksum)
        at += len(piece)
    if checksum != crc:
        raise DataCorrupted(
            f"{path}: damaged within bytes 0 to {size}: the checksum is "
            f"{checksum:016x}, {META_NAME} says {crc:016x}"
        )


def _remove(fs: FileSystem, directory: Path) -> list[Path]:
    """Remove the directory of a snapshot, and all files in it.

    Returns: directories in it. Somebody else has made them, so they stay, and so does
        the directory itself.
    """
    strays = []
    for name in fs.list(directory):
        if fs.is_directory(directory / name):
            strays.append(directory / name)
        else:
            fs.unlink(directory / name)
    if not strays:
        fs.remove_directory(directory)
    return strays
