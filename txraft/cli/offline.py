"""Open a stopped node's data directory without changing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from txraft.errors import DirectoryLocked, StorageError
from txraft.storage.directory import LMDB_NAME, LOCK_NAME, LOG_NAME, STATE_NAME
from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import FileSystem, OsFileSystem
from txraft.storage.owner import owner_of
from txraft.storage.readonly import ReadOnlyFileSystem
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stable import IDENTITY, FileStableStore

if TYPE_CHECKING:
    from txraft.storage.lmdbstore import LMDBStore


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores of a stopped node, opened to be read only.

    *kind* is the kind of `open_stores`. *warnings* are what a start would repair.
    """

    name: str
    kind: str
    log: FileLog | LMDBStore
    stable: FileStableStore | LMDBStore
    snapshots: SnapshotReader
    warnings: Sequence[str] = ()


@contextmanager
def opened(directory: Path) -> Iterator[Opened]:
    """Open the stores in *directory*, and hold its lock meanwhile.

    A log in files is read and checked as a whole now; one in LMDB when it is read.
    Raises: DirectoryLocked while its node runs; StorageError, also for damage.
    """
    fs = ReadOnlyFileSystem(OsFileSystem())
    open_either = _lmdb if fs.exists(directory / LMDB_NAME) else _files
    with _locked(directory), open_either(directory, fs) as stores:
        yield stores


@contextmanager
def _files(directory: Path, fs: FileSystem) -> Iterator[Opened]:
    name = owner_of(fs, directory)
    stable = FileStableStore(directory / STATE_NAME, name, fs)
    identity = stable.get(IDENTITY)
    # With the identity of the state file, so that a log of another directory is refused
    # here as it would be at a start.
    log = FileLog(directory / LOG_NAME, name, fs, identity=identity)
    try:
        snapshots = SnapshotReader(directory, fs)
        yield Opened(name, "file", log, stable, snapshots, log.warnings)
    finally:
        log.close()


@contextmanager
def _lmdb(directory: Path, fs: FileSystem) -> Iterator[Opened]:
    try:
        from txraft.storage.lmdbstore import LMDBStore, owner_in_lmdb
    except ImportError as error:
        raise StorageError(
            f"{directory}: the log is in LMDB, which is not installed here: pip "
            "install 'txraft[lmdb]'"
        ) from error
    path = directory / LMDB_NAME
    name = owner_in_lmdb(path)
    store = LMDBStore(path, name, read_only=True)
    try:
        yield Opened(name, "lmdb", store, store, SnapshotReader(directory, fs))
    finally:
        store.close()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of *directory*, so that no node changes the data meanwhile."""
    try:
        lock = OsFileSystem().lock(directory / LOCK_NAME)
    except BlockingIOError as error:
        raise DirectoryLocked(
            f"{directory}: a node runs on this directory; stop it first"
        ) from error
    try:
        yield
    finally:
        lock.close()
