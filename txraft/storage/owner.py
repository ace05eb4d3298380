"""Reads the name of the node that owns a data directory."""

from __future__ import annotations

from pathlib import Path

from txraft.errors import StorageError
from txraft.storage.directory import LOG_NAME, STATE_NAME
from txraft.storage.filesystem import FileSystem
from txraft.storage.segment import (
    MAX_HEADER_BYTES,
    header_node_name,
    segment_name,
    segments_in,
)
from txraft.storage.stable import owner_in_state


def owner_of(fs: FileSystem, directory: Path) -> str:
    """Return the name of the node that owns *directory*.

    Raises: StorageError when it is no data directory, or holds nothing of its node yet;
        DataCorrupted, FormatTooNew
    """
    state = directory / STATE_NAME
    if fs.exists(state):
        return owner_in_state(fs, state)
    log = directory / LOG_NAME
    for sequence in segments_in(fs, log) if fs.is_directory(log) else []:
        path = log / segment_name(sequence)
        return header_node_name(_head(fs, path), path)
    raise StorageError(
        f"{directory}: this is no data directory of a node that keeps its log in "
        "files, or the node has not written anything yet"
    )


def _head(fs: FileSystem, path: Path) -> bytes:
    file = fs.open(path)
    try:
        return file.read_at(MAX_HEADER_BYTES, 0)
    finally:
        file.close()
