"""The log, term and vote of a data directory, in the kind of store that is asked for.

A directory keeps the kind that it began with: a node that opened an empty store of
another kind would have forgotten whom it has voted for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from txraft.errors import StorageError
from txraft.interfaces import LogStore, StableStore
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.identity import identity_of
from txraft.storage.stable import FileStableStore

STORE_KINDS = ("file", "lmdb")


@dataclass(frozen=True, slots=True)
class Stores:
    """The open stores of a node; *close* closes them, *warnings* is what was mended."""

    log: LogStore
    stable: StableStore
    close: Callable[[], None]
    warnings: Sequence[str] = ()


def open_stores(kind: str, directory: DataDirectory, node_name: str) -> Stores:
    """Open the stores of *kind*, one of STORE_KINDS, in *directory*.

    Raises: StorageError, also when the directory holds another kind; OSError.
    """
    assert kind in STORE_KINDS, "the settings know these kinds only"
    return (
        _open_lmdb(directory, node_name)
        if kind == "lmdb"
        else _open_files(directory, node_name)
    )


def _open_files(directory: DataDirectory, node_name: str) -> Stores:
    if directory.file_system.exists(directory.lmdb):
        raise _refusal(directory, "lmdb", "file")
    fs = directory.file_system
    stable = FileStableStore(directory.state, node_name, fs)
    identity = identity_of(fs, directory.log, stable)
    log = FileLog(directory.log, node_name, fs, identity=identity)
    return Stores(log, stable, log.close, log.warnings)


def _open_lmdb(directory: DataDirectory, node_name: str) -> Stores:
    from txraft.storage.lmdbstore import LMDBStore  # an extra: it may be missing

    files = directory.file_system
    if files.exists(directory.state) or files.list(directory.log):
        raise _refusal(directory, "file", "lmdb")
    store = LMDBStore(directory.lmdb, node_name)
    return Stores(store, store, store.close)


def _refusal(directory: DataDirectory, held: str, asked: str) -> StorageError:
    return StorageError(
        f"{directory.path}: the data directory holds a store of kind {held}, and "
        f"{asked} is asked for; write store: {held}, or remove this member from the "
        "cluster and add it again with an empty data directory"
    )
