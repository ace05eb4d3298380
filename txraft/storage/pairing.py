"""Which data directory a log and a state file belong to.

The state file holds a random number that was made with the directory, and every
segment of the log names it. So a log is not taken for another's, be it that of a
member of the same name in another cluster, or of this one in an earlier life.

It is the incarnation by which other members know this one, see `txraft.node`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from txraft.storage.filesystem import FileSystem
from txraft.storage.preamble import wrong_directory
from txraft.storage.segment import (
    DIRECTORY_BYTES,
    MAX_HEADER_BYTES,
    header_directory,
    segment_name,
    segments_in,
)
from txraft.storage.stable import IDENTITY, FileStableStore


def identity_of(
    fs: FileSystem,
    log: Path,
    stable: FileStableStore,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Return the identity of the data directory of *log* and *stable*.

    One that has none is given one, before there is a segment that could name it. A
    log that is older than identities is taken as it is.
    Raises: WrongDirectory when the log has an identity and the state has none.
    Durable: the identity, when this returns.
    """
    known = stable.get(IDENTITY)
    if known:
        return known
    for sequence in segments_in(fs, log) if fs.is_directory(log) else []:
        path = log / segment_name(sequence)
        if _directory_in(fs, path):
            raise wrong_directory(path)
    new = random_bytes(DIRECTORY_BYTES)
    stable.set(IDENTITY, new)
    return new


def _directory_in(fs: FileSystem, path: Path) -> bytes:
    file = fs.open(path)
    try:
        return header_directory(file.read_at(MAX_HEADER_BYTES, 0), path)
    finally:
        file.close()
