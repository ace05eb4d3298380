"""The identity of a data directory, which its log and its state file share.

The state file holds a random number that was made with the directory, and every segment
of the log contains it. So a log that does not belong to the state file is refused: one
of a member of the same name in another cluster, or one of an earlier incarnation.

Other members know this number as the incarnation of the node, see `txraft.node`.
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

    A directory without one gets a new one before any segment could contain it. A log of
    a format older than identities is accepted.
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
    # Written before the first segment: a segment with an identity beside a state file
    # without one is what the loop above refuses.
    new = random_bytes(DIRECTORY_BYTES)
    stable.set(IDENTITY, new)
    return new


def _directory_in(fs: FileSystem, path: Path) -> bytes:
    file = fs.open(path)
    try:
        return header_directory(file.read_at(MAX_HEADER_BYTES, 0), path)
    finally:
        file.close()
