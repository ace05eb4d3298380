"""Damage at rest: one byte of a file is no longer what was written, or a log is cut.

A byte is damaged where it cannot look like a torn write, so the node must refuse to
start, or start with everything it had. Files without a checksum, the list of peers and
the lock, are left alone.

A log that is cut looks like one that was never longer. Only the note of what was synced
tells the difference, so a log is cut only if its note covers all that is lost: then the
node must refuse to start and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random

from txraft.errors import DataCorrupted, StorageError
from txraft.node.synced_note import read_note
from txraft.storage.filelog import FileLog
from txraft.storage.segment import Seal, decode_header, segment_name, sequence_in
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import Folder, Inode, SimulatedDisk


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged byte of the file at *path*: it was *was* and is *now*."""

    path: Path
    offset: int
    was: int
    now: int

    def undo(self, disk: SimulatedDisk) -> None:
        """Restore the byte, unless it has been overwritten."""
        if not disk.exists(self.path):
            return
        inode = disk.file(self.path)
        for data in (inode.data, inode.durable):
            if self.offset < len(data) and data[self.offset] == self.now:
                data[self.offset] = self.was

    def check_started(self, last_index: int) -> None:
        """Allow a node to start: what it has was compared with what others have."""

    def check_refused(self, error: Exception) -> None:
        """Assert that *error* is one of the storage."""
        assert isinstance(error, StorageError), f"damage stops a start by {error!r}"


CUTS = ("truncated", "zeroed", "lost")


@dataclass(frozen=True, slots=True)
class Cut:
    """A log that has lost its newest entries: the file at *path*, which was *was*.

    It was synced up to the index *end*, and this is noted.
    """

    path: Path
    kind: str
    was: Inode
    end: int

    def undo(self, disk: SimulatedDisk) -> None:
        """Restore the file as it was."""
        for names in _names(disk, self.path):
            names[self.path.name] = self.was

    def check_started(self, last_index: int) -> None:
        """Assert that a node which starts with *last_index* has lost nothing."""
        assert last_index >= self.end, (
            f"a log that was synced up to {self.end} was {self.kind}, and its node "
            f"starts with {last_index}"
        )

    def check_refused(self, error: Exception) -> None:
        """Assert that *error* says what is missing.

        Most often that is what the note tells. If the cut took the frame that let
        older files go, their absence is told instead.
        """
        assert isinstance(error, DataCorrupted), f"a cut log stops a start by {error!r}"
        told = (f"synced up to index {self.end}", "the file is missing")
        assert any(words in str(error) for words in told), (
            f"a log that was {self.kind} is refused by {str(error)!r}"
        )


def strike(
    disk: SimulatedDisk, data: Path, node_name: str, random: Random
) -> Damage | None:
    """Damage a random byte in the directory *data*.

    Returns: the damage, None if no file there has a checksum.
    """
    places = [(path, end) for path, end in _places(disk, data, node_name) if end]
    if not places:
        return None
    path, end = random.choice(places)
    inode, offset = disk.file(path), random.randrange(end)
    was = inode.data[offset]
    now = was ^ random.choice((0x01, 0x80, 0xFF, was or 0x10))
    for content in (inode.data, inode.durable):
        if offset < len(content):
            content[offset] = now
    return Damage(path, offset, was, now)


def _places(
    disk: SimulatedDisk, data: Path, node_name: str
) -> Iterator[tuple[Path, int]]:
    """List files with checksums; only so many first bytes of each may be damaged."""
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
    """Return the offset of the last whole write in a segment.

    Damage from there on would look like a torn write, which a node may drop.
    """
    return _frames(disk, path, node_name)[-2:][0]


def _frames(disk: SimulatedDisk, path: Path, node_name: str) -> list[int]:
    """Return the offsets of the whole writes in a segment, and the end of the last."""
    data = bytes(disk.file(path).data)
    header, at = decode_header(data, node_name, path)
    seal, found = Seal(header.salt), [at]
    while (frame := seal.parse(memoryview(data), at, at)) is not None:
        at = frame.start + len(frame.payload)
        found.append(at)
    return found


def cut(disk: SimulatedDisk, data: Path, node_name: str, random: Random) -> Cut | None:
    """Cut the log below the directory *data*, if its note tells of all that is lost."""
    log = data / "log"
    names = disk.list(log) if disk.exists(log) else []
    newest = max(filter(None, (sequence_in(name) for name in names)), default=None)
    end = _noted_end(disk, data, node_name)
    if newest is None or not end:
        return None
    path = log / segment_name(newest)
    inode = disk.file(path)
    frames = _frames(disk, path, node_name)
    if len(frames) < 2:
        return None
    was = Inode(inode.data[:], inode.durable[:], list(inode.unsynced))
    kind, offset = random.choice(CUTS), random.randrange(frames[0], frames[-1])
    if kind == "lost":
        for present in _names(disk, path):
            present.pop(path.name, None)
    for content in (inode.data, inode.durable):
        if kind == "truncated":
            del content[offset:]
        elif kind == "zeroed":
            content[offset:] = bytes(max(0, len(content) - offset))
    inode.unsynced.clear()
    return Cut(path, kind, was, end)


def _noted_end(disk: SimulatedDisk, data: Path, node_name: str) -> int:
    """Return where the log ends, if that is noted and in no snapshot; else 0.

    A hint does not count: the power may fail once more before the node has looked, and
    takes it away.
    """
    # To open a store may change something.
    probe = SimulatedDisk(deepcopy(disk.root))
    try:
        note = read_note(FileStableStore(data / "state", node_name, probe)).end
        store = FileLog(data / "log", node_name, probe)
        last = store.last_index()
        store.close()
        covered = [m.index for m in FileSnapshotStore(data, 1, probe).list()]
    except StorageError:
        return 0
    return last if max([*covered, 0]) < last == note.index else 0


def _names(disk: SimulatedDisk, path: Path) -> Iterator[dict[str, Inode | Folder]]:
    """Return the names in the directory of *path*, and those that are durable."""
    folder: Inode | Folder | None = disk.root
    for part in path.parent.parts[1:]:
        assert isinstance(folder, Folder), "a file is in a directory"
        folder = folder.names[part]
    assert isinstance(folder, Folder), "a file is in a directory"
    yield folder.names
    yield folder.durable
