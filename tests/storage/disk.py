"""A disk in memory that can lose power, fail, and fill up."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

# What becomes of that which is not synced: nothing is left of it; names are there
# and content is not; all is there; half of the content is; zeros are in its place.
Unsynced = Literal["lost", "names", "kept", "torn", "zeros"]
UNSYNCED: tuple[Unsynced, ...] = ("lost", "names", "kept", "torn", "zeros")


class PowerCut(BaseException):
    """The machine is off."""


class Content:
    """What a file holds, and what of it would survive a power cut."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.synced = data
        self.locked = False
        self._dropped = (0, 0)

    def put(self, data: bytes, offset: int) -> None:
        """Write into memory; what is written again is to be synced again."""
        self.data.extend(bytes(max(0, offset - len(self.data))))
        self.data[offset : offset + len(data)] = data
        start, end = self._dropped
        if offset <= start and end <= offset + len(data):
            self._dropped = (0, 0)

    def sync(self) -> None:
        """Make durable what is not taken for durable already."""
        start, end = self._dropped
        synced = bytearray(self.data)
        synced[start:end] = bytes(end - start)
        self.synced = bytes(synced)

    def fail_to_sync(self) -> None:
        """Keep everything in memory, and take it for durable from now on."""
        self._dropped = (common_bytes(bytes(self.data), self.synced), len(self.data))

    def after(self, unsynced: Unsynced) -> Content:
        """Make what is found after a power cut."""
        data, synced = bytes(self.data), self.synced
        common = common_bytes(data, synced)
        if unsynced in ("lost", "names"):
            return Content(synced)
        if unsynced == "torn" and common < len(data):
            return Content(data[: common + (len(data) - common + 1) // 2])
        if unsynced == "zeros" and len(synced) < len(data):
            return Content(synced + bytes(len(data) - len(synced)))
        return Content(data)


def common_bytes(one: bytes, other: bytes) -> int:
    """Count the bytes that both begin with."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(at for at in range(shorter) if one[at] != other[at])


class Folder:
    """Names in a directory, and those that would survive a power cut."""

    def __init__(self) -> None:
        self.names: dict[str, Content | Folder] = {}
        self.synced: dict[str, Content | Folder] = {}

    def after(self, unsynced: Unsynced) -> Folder:
        """Make what is found after a power cut."""
        folder = Folder()
        names = self.synced if unsynced == "lost" else self.names
        folder.names = {name: node.after(unsynced) for name, node in names.items()}
        folder.synced = dict(folder.names)
        return folder


class Disk:
    """A `FileSystem` in memory.

    *operations* lists every change and sync. Power is cut behind the one whose
    number is *cut_after*. *failures* maps the name of an operation to the error that
    its next call raises. A write that fails writes half; after a sync that fails
    the content is in memory and will not be synced, as on Linux.
    """

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.operations: list[str] = []
        self.cut_after: int | None = None
        self.failures: dict[str, int] = {}

    def after_power_cut(self, unsynced: Unsynced) -> Disk:
        """Make the disk that is found when power is back."""
        return Disk(self.root.after(unsynced))

    def content(self, path: Path) -> Content:
        """Find a file."""
        node = self._folder(path.parent).names.get(path.name)
        if isinstance(node, Folder):
            raise OSError(errno.EISDIR, "is a directory", str(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node

    def done(self, operation: str) -> None:
        """Record an operation that has been carried out."""
        if self.cut_after is not None and len(self.operations) >= self.cut_after:
            raise PowerCut
        self.operations.append(operation)
        if len(self.operations) == self.cut_after:
            raise PowerCut

    def fail(self, operation: str) -> None:
        """Raise the error that is due at *operation*."""
        number = self.failures.pop(operation, None)
        if number is not None:
            raise OSError(number, os.strerror(number))

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        self.fail("open")
        return DiskFile(self, self.content(path))

    def create(self, path: Path) -> DiskFile:
        self.fail("create")
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        content = Content()
        folder.names[path.name] = content
        self.done("create")
        return DiskFile(self, content)

    def lock(self, path: Path) -> DiskFile:
        file = self.open(path) if self.exists(path) else self.create(path)
        if file.content.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", str(path))
        file.content.locked = True
        file.holds_lock = True
        return file

    def rename(self, source: Path, target: Path) -> None:
        self.fail("rename")
        node = self._folder(source.parent).names.pop(source.name)
        self._folder(target.parent).names[target.name] = node
        self.done("rename")

    def unlink(self, path: Path) -> None:
        self.fail("unlink")
        self.content(path)
        del self._folder(path.parent).names[path.name]
        self.done("unlink")

    def make_directory(self, path: Path) -> None:
        self.fail("make_directory")
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        folder.names[path.name] = Folder()
        self.done("make_directory")

    def remove_directory(self, path: Path) -> None:
        if self._folder(path).names:
            raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        del self._folder(path.parent).names[path.name]
        self.done("remove_directory")

    def list(self, path: Path) -> list[str]:
        return sorted(self._folder(path).names)

    def sync_directory(self, path: Path) -> None:
        self.fail("sync_directory")
        folder = self._folder(path)
        if self.cut_after is None or len(self.operations) < self.cut_after:
            folder.synced = dict(folder.names)
        self.done("sync_directory")

    def is_directory(self, path: Path) -> bool:
        return isinstance(self._find(path), Folder)

    def is_symlink(self, path: Path) -> bool:
        return False

    def exists(self, path: Path) -> bool:
        return self._find(path) is not None

    def _find(self, path: Path) -> Content | Folder | None:
        node: Content | Folder | None = self.root
        for part in path.parts[1:]:
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))
        return node


class DiskFile:
    """An open file of a `Disk`."""

    def __init__(self, disk: Disk, content: Content) -> None:
        self.content = content
        self.holds_lock = False
        self._disk = disk

    def read_at(self, size: int, offset: int) -> bytes:
        self._disk.fail("read_at")
        return bytes(self.content.data[offset : offset + size])

    def write_at(self, data: bytes, offset: int) -> None:
        try:
            self._disk.fail("write_at")
        except OSError:
            self.content.put(data[: len(data) // 2], offset)
            raise
        if self._has_power():
            self.content.put(data, offset)
        self._disk.done("write_at")

    def truncate(self, size: int) -> None:
        self._disk.fail("truncate")
        del self.content.data[size:]
        self._disk.done("truncate")

    def sync_data(self) -> None:
        self._sync("sync_data")

    def sync(self) -> None:
        self._sync("sync")

    def size(self) -> int:
        return len(self.content.data)

    def close(self) -> None:
        if self.holds_lock:
            self.content.locked = self.holds_lock = False

    def _sync(self, operation: str) -> None:
        try:
            self._disk.fail(operation)
        except OSError:
            self.content.fail_to_sync()
            raise
        if self._has_power():
            self.content.sync()
        self._disk.done(operation)

    def _has_power(self) -> bool:
        cut_after = self._disk.cut_after
        return cut_after is None or len(self._disk.operations) < cut_after
