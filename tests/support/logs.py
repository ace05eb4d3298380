"""Logs for tests, on a disk in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.support.failing_disk import Disk
from txraft.core.entry import Entry
from txraft.storage.filelog import FileLog

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


def fixed_bytes(size: int) -> bytes:
    """Return a salt that is the same every time."""
    return bytes(range(size))


def open_log(
    disk: Disk, segment_bytes: int = 1 << 20, allocated_bytes: int = 0
) -> FileLog:
    """Open the log of node n1 on *disk*."""
    return FileLog(
        PATH,
        "n1",
        disk,
        segment_bytes=segment_bytes,
        allocated_bytes=allocated_bytes,
        random_bytes=fixed_bytes,
    )


def contents(log: AnyLog) -> list[Entry]:
    """Read a whole log."""
    if log.last_index() == 0:
        return []
    return log.get_logs(log.first_index(), log.last_index(), 1 << 30)
