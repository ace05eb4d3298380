"""Opens the stores of a data directory: its log, term and vote, in files or in LMDB.

A directory keeps the kind that it began with. A node that opened an empty store of the
other kind would have forgotten its vote, and could vote twice in one term.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from txraft.errors import StorageError
from txraft.interfaces import LogStore, StableStore
from txraft.storage.directory import (
    LMDB_NAME,
    LOG_NAME,
    STATE_NAME,
    DataDirectory,
)
from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import FileSystem
from txraft.storage.pairing import identity_of
from txraft.storage.stable import FileStableStore

STORE_KINDS = ("file", "lmdb")


@dataclass(frozen=True, slots=True)
class Stores:
    """The open stores of a node. *close* closes them; *warnings* lists repairs."""

    log: LogStore
    stable: StableStore
    close: Callable[[], None]
    warnings: Sequence[str] = ()


def open_stores(kind: str, directory: DataDirectory, node_name: str) -> Stores:
    """Open the stores of *kind*, one of STORE_KINDS, in *directory*.

    Raises: StorageError, also when the directory holds another kind; OSError.
    """
    assert kind in STORE_KINDS, "the settings know these kinds only"
    refuse_other_kind(kind, directory.file_system, directory.path)
    return (
        _open_lmdb(directory, node_name)
        if kind == "lmdb"
        else _open_files(directory, node_name)
    )


def refuse_other_kind(kind: str, files: FileSystem, path: Path) -> None:
    """Refuse a data directory *path* that does not hold stores of *kind*.

    Raises: StorageError
    """
    held = "file"
    if kind == "file":
        held = "lmdb" if files.exists(path / LMDB_NAME) else kind
    elif not files.exists(path / STATE_NAME) and not _holds(files, path / LOG_NAME):
        held = kind
    if held != kind:
        raise StorageError(
            f"{path}: the data directory holds a store of kind {held}, and {kind} is "
            f"asked for; write store: {held}, or remove this member from the cluster "
            "and add it again with an empty data directory"
        )


def _holds(files: FileSystem, directory: Path) -> bool:
    return files.is_directory(directory) and bool(files.list(directory))


def _open_files(directory: DataDirectory, node_name: str) -> Stores:
    fs = directory.file_system
    stable = FileStableStore(directory.state, node_name, fs)
    identity = identity_of(fs, directory.log, stable)
    log = FileLog(directory.log, node_name, fs, identity=identity)
    return Stores(log, stable, log.close, log.warnings)


def _open_lmdb(directory: DataDirectory, node_name: str) -> Stores:
    from txraft.storage.lmdbstore import LMDBStore  # an extra: it may be missing

    store = LMDBStore(directory.lmdb, node_name)
    return Stores(store, store, store.close)
