"""Backups: a gzipped tar of `meta.json`, `state.bin` and `SHA256SUMS`, as Consul's are.

Every byte is checked against its sum; nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from txraft.errors import DataCorrupted, FormatTooNew
from txraft.kv.snapshot import read_state

PIECE_BYTES = 1 << 20
MAX_SMALL_BYTES = 1 << 20
_NAMES = frozenset({"meta.json", "state.bin", "SHA256SUMS"})


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds; *keys* is None for a state that is not a key-value store."""

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
    sums: dict[str, str] = {}
    listed: dict[str, str] = {}
    meta: dict[str, Any] = {}
    size, keys = 0, None
    try:
        with gzip.open(path) as raw, tarfile.open(fileobj=raw, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if member.name not in _NAMES or file is None:
                    raise DataCorrupted(
                        f"{path}: {member.name!r} is no part of a backup"
                    )
                if member.name == "state.bin":
                    size = member.size
                    sums[member.name], keys = _read_state(file)
                    continue
                data = file.read(MAX_SMALL_BYTES)
                sums[member.name] = hashlib.sha256(data).hexdigest()
                if member.name == "meta.json":
                    meta = json.loads(data)
                else:
                    listed = _parse_sums(data)
            while raw.read(PIECE_BYTES):  # up to the checksum of the whole
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataCorrupted(f"{path}: this is no whole backup: {error}") from error
    except ValueError as error:
        raise DataCorrupted(f"{path}: meta.json or SHA256SUMS: {error}") from error
    _check(path, sums, listed)
    return _described(path, meta, size, keys)


class _Hashed:
    """Reads a file and keeps the sum of all that was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sum = hashlib.sha256()

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """Read up to *size* bytes."""
        data = self._file.read(size)
        self.sum.update(data)
        return data


def _read_state(file: IO[bytes]) -> tuple[str, int | None]:
    hashed = _Hashed(file)
    keys: int | None = None
    try:
        keys = len(read_state(cast(BinaryIO, hashed)).rows)
    except (DataCorrupted, FormatTooNew):
        keys = None  # the sum tells whether it is damaged, or another application's
    while hashed.read(PIECE_BYTES):
        pass
    return hashed.sum.hexdigest(), keys


def _parse_sums(data: bytes) -> dict[str, str]:
    lines = data.decode("ascii").splitlines()
    pairs = [line.split() for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a line of SHA256SUMS is no sum and name")
    return {name: digest for digest, name in pairs}


def _check(path: Path, sums: dict[str, str], listed: dict[str, str]) -> None:
    for name in ("meta.json", "state.bin"):
        if name not in sums:
            raise DataCorrupted(f"{path}: {name} is missing")
        if listed.get(name) != sums[name]:
            raise DataCorrupted(
                f"{path}: the sum of {name} is {sums[name]}, SHA256SUMS says "
                f"{listed.get(name)}"
            )


def _described(path: Path, meta: dict[str, Any], size: int, keys: int | None) -> Backup:
    try:
        servers = (meta.get("Configuration") or {}).get("Servers") or []
        return Backup(
            str(meta["ID"]),
            int(meta["Index"]),
            int(meta["Term"]),
            int(meta.get("Version", 0)),
            size,
            tuple(str(server["Address"]) for server in servers),
            keys,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataCorrupted(f"{path}: meta.json describes no snapshot") from error
