"""Backups as Consul writes them: a gzipped tar of metadata, state and checksums.

meta.json     the metadata of a snapshot, as hashicorp/raft writes it
state.bin     a snapshot of the key-value state
SHA256SUMS    checksums of both, as sha256sum(1) writes them

Archives are written and read in pieces, so neither side ever holds a whole one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from txraft.core.configuration import Configuration
from txraft.errors import DataCorrupted

META, STATE, SUMS = "meta.json", "state.bin", "SHA256SUMS"
MAX_SMALL_BYTES = 1 << 20
PIECE_BYTES = 128 << 10
_COMPRESSION = 1
_GZIP = 31
_BLOCK = tarfile.BLOCKSIZE
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


def describe(
    index: int, term: int, configuration: Configuration, size: int
) -> dict[str, object]:
    """Make the metadata of a state of *size* bytes at *index* and *term*."""
    servers = [
        {
            "Suffrage": int(server.suffrage),
            "ID": server.id,
            "Address": server.address,
        }
        for server in configuration.servers
    ]
    return {
        "Version": 1,
        "ID": f"{term}-{index}",
        "Index": index,
        "Term": term,
        "Peers": None,
        "Configuration": {"Servers": servers},
        "ConfigurationIndex": 0,
        "Size": size,
    }


def pack(
    meta: Callable[[int], dict[str, object]], state: Callable[[], Iterator[bytes]]
) -> Iterator[bytes]:
    """Make an archive in pieces, some of them empty.

    *meta* gets the size of the state in bytes and returns its description. *state* is
    called twice and must give the same bytes each time.
    """
    size, total = 0, hashlib.sha256()
    # A tar states the size of a file before its content, and the metadata come first:
    # so one pass measures, and a second one writes. The empty pieces let a caller give
    # the worker to others while nothing is there to send.
    for piece in state():
        size += len(piece)
        total.update(piece)
        yield b""
    described = json.dumps(meta(size)).encode() + b"\n"
    sums = (
        f"{hashlib.sha256(described).hexdigest()}  {META}\n"
        f"{total.hexdigest()}  {STATE}\n"
    )
    zipper = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, _GZIP)
    yield zipper.compress(_file(META, described) + _header(STATE, size))
    for piece in state():
        yield zipper.compress(piece)
    rest = _padding(size) + _file(SUMS, sums.encode()) + bytes(2 * _BLOCK)
    yield zipper.compress(rest) + zipper.flush()


class ArchiveReader:
    """Reads and checks the archive in *file*; its state has at most *max_state_bytes*.

    *meta* and *state_bytes* are set once the first piece of the state was read.
    """

    def __init__(self, file: IO[bytes], max_state_bytes: int) -> None:
        self.meta = b""
        self.state_bytes = 0
        self._file = file
        self._most = max_state_bytes
        self._sums: dict[str, str] = {}

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """Iterate over the state in pieces of at most *size* bytes.

        When the iteration ends, all checksums were right.
        Raises: DataCorrupted, whose text names the fault
        """
        try:
            yield from self._pieces(size)
        except _BROKEN as error:
            raise DataCorrupted(f"the backup is damaged or cut off: {error}") from error

    def _pieces(self, size: int) -> Iterator[bytes]:
        with gzip.GzipFile(fileobj=self._file, mode="rb") as unzipped:
            bounded = cast(IO[bytes], _Bounded(cast(IO[bytes], unzipped), self._most))
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                for member in archive:
                    yield from self._member(archive, member, size)
            # gzip checks its own checksum at the end only. To stop at the last file
            # would miss a fault in the bytes before it.
            while bounded.read(size):
                yield b""
        if self._sums.keys() != {META, STATE, SUMS}:
            raise DataCorrupted(f"the backup lacks {META}, {STATE} or {SUMS}")

    def _member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, size: int
    ) -> Iterator[bytes]:
        file = archive.extractfile(member) if member.isfile() else None
        name = member.name
        # A second file of one name would replace one whose checksum was compared.
        if file is None or name not in (META, STATE, SUMS) or name in self._sums:
            raise DataCorrupted(f"{name!r} is no part of a backup, or is twice in it")
        if member.size > (self._most if name == STATE else MAX_SMALL_BYTES):
            raise DataCorrupted(f"{name} is longer than a backup may be")
        total = hashlib.sha256()
        if name == STATE:
            self.state_bytes = member.size
            while piece := file.read(size):
                total.update(piece)
                yield piece
        else:
            data = file.read()
            total.update(data)
            if name == META:
                self.meta = data
            else:
                self._compare(_parse_sums(data))
        self._sums[name] = total.hexdigest()

    def _compare(self, listed: dict[str, str]) -> None:
        # `SHA256SUMS` has to come last: what was not read yet has no sum, and fails.
        for name in (META, STATE):
            if listed.get(name) != self._sums.get(name):
                raise DataCorrupted(
                    f"the sum of {name} is {self._sums.get(name)}, {SUMS} says "
                    f"{listed.get(name)}"
                )


class _Bounded:
    """Reads the inflated *file*; raises DataCorrupted beyond what a backup may hold."""

    def __init__(self, file: IO[bytes], max_state_bytes: int) -> None:
        self._file = file
        self._most = max_state_bytes
        # A few bytes of gzip can inflate to gigabytes. The three small sizes stand for
        # metadata, sums, and the headers and padding of the tar.
        self._room = max_state_bytes + 3 * MAX_SMALL_BYTES

    def read(self, size: int) -> bytes:
        """Read up to *size* bytes."""
        data = self._file.read(size)
        self._room -= len(data)
        if self._room < 0:
            raise DataCorrupted(f"the backup holds more than {self._most} bytes")
        return data


def parse_meta(data: bytes) -> dict[str, Any]:
    """Read the metadata of an archive. Raises: DataCorrupted"""
    try:
        meta = json.loads(data)
    except ValueError as error:
        raise DataCorrupted(f"{META} is not JSON") from error
    if not isinstance(meta, dict):
        raise DataCorrupted(f"{META} describes no snapshot")
    return meta


def _parse_sums(data: bytes) -> dict[str, str]:
    lines = data.decode("ascii").splitlines()
    pairs = [line.split() for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise DataCorrupted(f"a line of {SUMS} is not a checksum and a name")
    return {name: digest for digest, name in pairs}


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + _padding(len(data))


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
