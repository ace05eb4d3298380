"""Read backups: gzipped tars of `meta.json`, `state.bin` and `SHA256SUMS`.

The format is that of Consul's.
Every byte is checked against the sums; nothing is unpacked to disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from txraft.errors import DataCorrupted, RaftError
from txraft.kv.backup import ArchiveReader, parse_meta
from txraft.kv.state import BackupReader

MAX_STATE_BYTES = 1 << 40
"""No limit in practice: a backup is inspected in pieces."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The contents of a backup; *keys* is None unless it is of the key-value store."""

    id: str
    index: int
    term: int
    version: int
    state_bytes: int
    members: tuple[str, ...]
    keys: int | None


def inspect_backup(path: Path) -> Backup:
    """Read and check the backup at *path*.

    Raises: DataCorrupted, OSError
    """
    state = BackupReader()
    try:
        with path.open("rb") as file:
            archive = ArchiveReader(file, MAX_STATE_BYTES)
            for piece in archive.pieces():
                state.feed(piece)
        return _described(archive, _keys(state))
    except DataCorrupted as error:
        raise DataCorrupted(f"{path}: {error}") from error


def _keys(state: BackupReader) -> int | None:
    """Count the keys; None if the state is another application's."""
    try:
        return len(state.finish().rows)
    except RaftError:
        return None


def _described(archive: ArchiveReader, keys: int | None) -> Backup:
    meta = parse_meta(archive.meta)
    try:
        servers = (meta.get("Configuration") or {}).get("Servers") or []
        return Backup(
            id=str(meta["ID"]),
            index=int(meta["Index"]),
            term=int(meta["Term"]),
            version=int(meta.get("Version", 0)),
            state_bytes=archive.state_bytes,
            members=tuple(str(server["Address"]) for server in servers),
            keys=keys,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataCorrupted("meta.json describes no snapshot") from error
