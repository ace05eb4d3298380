"""Damage at rest: a byte of a file that is not what was written.

It strikes where it cannot pass for a torn write, so the node must either refuse to
start or come up with everything it had. Files without a checksum, the list of peers
and the lock, are spared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from txraft.storage.segment import Seal, decode_header, segment_name, sequence_in
from txraft.testing.fullstack.disk import SimulatedDisk


@dataclass(frozen=True, slots=True)
class Damage:
    """A byte of the file at *path* that was *was* and is *now*."""

    path: Path
    offset: int
    was: int
    now: int

    def undo(self, disk: SimulatedDisk) -> None:
        """Bring the right byte back, where the wrong one still is."""
        if not disk.exists(self.path):
            return
        node = disk.file(self.path)
        for data in (node.data, node.durable):
            if self.offset < len(data) and data[self.offset] == self.now:
                data[self.offset] = self.was


def strike(
    disk: SimulatedDisk, data: Path, node_name: str, random: Random
) -> Damage | None:
    """Damage a byte below the directory *data*, if there is one to damage."""
    places = [(path, end) for path, end in _places(disk, data, node_name) if end]
    if not places:
        return None
    path, end = random.choice(places)
    node, offset = disk.file(path), random.randrange(end)
    was = node.data[offset]
    now = was ^ random.choice((0x01, 0x80, 0xFF, was or 0x10))
    for content in (node.data, node.durable):
        if offset < len(content):
            content[offset] = now
    return Damage(path, offset, was, now)


def _places(
    disk: SimulatedDisk, data: Path, node_name: str
) -> Iterator[tuple[Path, int]]:
    """List files that have checksums, and how many of their bytes may be damaged."""
    state, snapshots, log = data / "state", data / "snapshots", data / "log"
    if disk.exists(state):
        yield state, len(disk.file(state).data)
    if disk.exists(snapshots):
        for name in disk.list(snapshots):
            for part in ("state.bin", "meta.json"):
                path = snapshots / name / part
                if "tmp" not in name and disk.exists(path):
                    yield path, len(disk.file(path).data)
    names = disk.list(log) if disk.exists(log) else []
    segments = sorted(n for n in (sequence_in(name) for name in names) if n)
    for sequence in segments:
        path = log / segment_name(sequence)
        is_last = sequence == segments[-1]
        size = len(disk.file(path).data)
        yield path, _last_write(disk, path, node_name) if is_last else size


def _last_write(disk: SimulatedDisk, path: Path, node_name: str) -> int:
    """Return where the last whole write of a segment begins."""
    data = bytes(disk.file(path).data)
    header, at = decode_header(data, node_name, path)
    seal, last = Seal(header.salt), at
    while (frame := seal.parse(memoryview(data), at, at)) is not None:
        last, at = at, frame.start + len(frame.payload)
    return last
