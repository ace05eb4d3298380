"""Logs for tests: small entries, on a disk in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.storage.disk import Disk
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.storage.filelog import FileLog
from txraft.wire.entries import encode_new

PATH = Path("/node/log")


class AnyLog(Protocol):
    """What every log of this package does, beyond the plug points."""

    def first_index(self) -> int: ...
    def last_index(self) -> int: ...
    def get_log(self, index: int) -> Entry: ...
    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]: ...
    def store_log(self, entry: Entry) -> None: ...
    def store_logs(self, entries: Sequence[Entry]) -> None: ...
    def delete_range(self, first: int, last: int) -> None: ...
    def term_runs(self) -> list[tuple[int, int]]: ...
    def special_entries(self) -> list[Entry]: ...


def command(index: int, term: int = 1, data: bytes = b"") -> Entry:
    """Make an encoded command."""
    entry = Entry(index, term, LogType.COMMAND, data or b"%d/%d" % (index, term))
    encode_new(entry)
    return entry


def commands(first: int, last: int, term: int = 1) -> list[Entry]:
    """Make encoded commands *first* to *last*."""
    return [command(index, term) for index in range(first, last + 1)]


def membership(index: int, term: int = 1) -> Entry:
    """Make an encoded entry that holds a membership."""
    configuration = Configuration.of_voters(["a:1", "b:1"])
    entry = Entry(index, term, LogType.ADD_PEER, configuration=configuration)
    encode_new(entry)
    return entry


def identity(index: int, term: int = 1) -> Entry:
    """Make an encoded entry that holds a cluster's identity."""
    entry = Entry(index, term, LogType.NOOP, cluster=b"0123456789abcdef")
    encode_new(entry)
    return entry


def fixed_bytes(size: int) -> bytes:
    """Return a salt that is the same every time."""
    return bytes(range(size))


def open_log(disk: Disk, segment_bytes: int = 1 << 20) -> FileLog:
    """Open the log of node n1 on *disk*."""
    return FileLog(
        PATH, "n1", disk, segment_bytes=segment_bytes, random_bytes=fixed_bytes
    )


def contents(log: AnyLog) -> list[Entry]:
    """Read a whole log."""
    if log.last_index() == 0:
        return []
    return log.get_logs(log.first_index(), log.last_index(), 1 << 30)
