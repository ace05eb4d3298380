"""Opening a stopped node's data directory: to look at it, or to recover it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from txraft.errors import DirectoryLocked
from txraft.storage.directory import LOCK_NAME, LOG_NAME, STATE_NAME
from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.identity import IDENTITY
from txraft.storage.owner import owner_of
from txraft.storage.readonly import ReadOnlyFileSystem
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stable import FileStableStore


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores of a stopped node, none of which changes anything."""

    name: str
    log: FileLog
    stable: FileStableStore
    snapshots: SnapshotReader


@contextmanager
def opened(directory: Path) -> Iterator[Opened]:
    """Open what is in *directory*, and read and check all of the log.

    Raises: DirectoryLocked while its node runs; StorageError, also for damage
    """
    fs = ReadOnlyFileSystem(OsFileSystem())
    name = owner_of(fs, directory)
    with _locked(directory):
        stable = FileStableStore(directory / STATE_NAME, name, fs)
        identity = stable.get(IDENTITY)
        log = FileLog(directory / LOG_NAME, name, fs, identity=identity)
        try:
            yield Opened(name, log, stable, SnapshotReader(directory, fs))
        finally:
            log.close()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of *directory*, so that no node changes what is read."""
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
