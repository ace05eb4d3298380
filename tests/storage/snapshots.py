"""Snapshots for tests, on a disk in memory."""

from __future__ import annotations

from pathlib import Path

from tests.storage.disk import Disk
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.interfaces import SnapshotStore
from txraft.storage.snapshots import FileSnapshotStore

BASE = Path("/node")
SNAPSHOTS = BASE / "snapshots"
TRIO = Configuration(
    (
        Server("n1", "a:1"),
        Server("n2", "b:1"),
        Server("n3", "c:1", Suffrage.NONVOTER),
    )
)


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


def write(store: SnapshotStore, index: int, data: bytes, term: int = 1) -> str:
    """Take a whole snapshot; return its id."""
    sink = store.create(index, term, TRIO, 5)
    sink.write(data)
    sink.close()
    return sink.id


def read(store: SnapshotStore, id: str) -> bytes:
    _, source = store.open(id)
    with source:
        return source.read()
