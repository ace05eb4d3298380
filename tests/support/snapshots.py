"""Snapshots for tests, on a disk in memory."""

from __future__ import annotations

from pathlib import Path

from tests.support.failing_disk import Disk
from txraft.storage.snapshots import FileSnapshotStore

BASE = Path("/node")
SNAPSHOTS = BASE / "snapshots"


class Clock:
    """Milliseconds that stand still until they are set."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


def file_store(disk: Disk, retain: int = 2, now: int = 1000) -> FileSnapshotStore:
    clock = Clock()
    clock.now = now
    return FileSnapshotStore(BASE, retain, disk, milliseconds=clock)
