"""A file system in memory that remembers what is not durable yet.

After a power failure each write and each change of a name that was not synced is
there, is partly there, or is not, in any combination that an operating system may
leave. *operations* lists every change and sync; a disk may stop working at one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

SECTOR_BYTES = 512

READS = ("open", "read_at")
"""Operations that change nothing, and need no sync."""


class PowerFailed(BaseException):
    """The machine is off, in the middle of an operation."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes put at an offset; with *data* of None, the file is cut there instead."""

    offset: int
    data: bytes | None


@dataclass(eq=False, slots=True)
class Node:
    """A file: what is read, what is durable, and the writes between the two."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Write] = field(default_factory=list)
    locked: bool = False

    def put(self, write: Write) -> None:
        """Write into the cache."""
        _apply(self.data, write)
        self.unsynced.append(write)

    def sync(self) -> None:
        """Make durable what is not taken for durable already."""
        for write in self.unsynced:
            _apply(self.durable, write)
        self.unsynced.clear()

    def forget(self) -> None:
        """Take what was not synced for synced, as a kernel does once a sync failed."""
        self.unsynced.clear()


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of a directory: *added* names appear, *removed* ones go, together."""

    removed: str | None
    added: str | None = None
    node: Node | Folder | None = None


@dataclass(eq=False, slots=True)
class Folder:
    """A directory: its names, which of them are durable, and the changes between."""

    names: dict[str, Node | Folder] = field(default_factory=dict)
    durable: dict[str, Node | Folder] = field(default_factory=dict)
    unsynced: list[Naming] = field(default_factory=list)

    def change(self, naming: Naming) -> None:
        """Change the names in the cache."""
        _rename(self.names, naming)
        self.unsynced.append(naming)

    def sync(self) -> None:
        """Make all names durable."""
        self.durable = dict(self.names)
        self.unsynced.clear()


class Survival:
    """What is left of that which is not synced: nothing, by default."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        """Return those parts of *writes* that arrived, in order."""
        return []

    def of_namings(self, namings: list[Naming]) -> list[Naming]:
        """Return those of *namings* that arrived, in order."""
        return []


class Chance(Survival):
    """Each write, sector by sector, and each naming is left or not, as *random* says.

    A third of the time, writes are left in order up to some byte.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._share = random.choice((0.1, 0.5, 0.9))

    def of_writes(self, writes: list[Write]) -> list[Write]:
        """Return a part of them."""
        if self._random.random() < 1 / 3:
            return self._prefix(writes)
        return [piece for write in writes for piece in self._sectors(write)]

    def _prefix(self, writes: list[Write]) -> list[Write]:
        count = self._random.randint(0, len(writes))
        if count == len(writes):
            return writes
        torn = writes[count]
        if torn.data is None:
            return writes[:count]
        kept = self._random.randint(0, len(torn.data))
        return [*writes[:count], Write(torn.offset, torn.data[:kept])]

    def _sectors(self, write: Write) -> list[Write]:
        if write.data is None:
            return [write] if self._random.random() < self._share else []
        first = SECTOR_BYTES - write.offset % SECTOR_BYTES
        cuts = [0, *range(first, len(write.data), SECTOR_BYTES), len(write.data)]
        return [
            Write(write.offset + start, write.data[start:end])
            for start, end in pairwise(cuts)
            if self._random.random() < self._share
        ]

    def of_namings(self, namings: list[Naming]) -> list[Naming]:
        """Return those that came in time, or any of them."""
        if self._random.random() < 0.5:
            return namings[: self._random.randint(0, len(namings))]
        return [n for n in namings if self._random.random() < self._share]


class SimulatedDisk:
    """A `FileSystem` in memory; *root* is its directory /.

    *before* is called with the name of each operation ahead of it, and may raise: an
    OSError, and the operation fails, or PowerFailed, and a half of it is done.
    """

    def __init__(
        self,
        root: Folder | None = None,
        before: Callable[[str], None] | None = None,
    ) -> None:
        self.root = root or Folder()
        self.before = before
        self.operations: list[str] = []
        self.open_files = 0

    def after_power_failure(self, survival: Survival) -> SimulatedDisk:
        """Return the disk that is found when power is back."""
        return SimulatedDisk(_folder_after(self.root, survival, {}))

    def after_kill(self) -> SimulatedDisk:
        """Return the same disk for another process: it keeps what is not synced."""
        _unlock(self.root)
        return SimulatedDisk(self.root)

    def is_synced(self, path: Path) -> bool:
        """Tell whether all in the directory *path* outlives a power failure."""
        return _is_synced(self._folder(path))

    # FileSystem -----------------------------------------------------------------

    def open(self, path: Path, *, writable: bool = False) -> SimulatedFile:
        """Open an existing file."""
        self.begin("open")
        return SimulatedFile(self, self.file(path), writable)

    def create(self, path: Path) -> SimulatedFile:
        """Create and open a new file."""
        folder = self._parent(path)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        self.begin("create")
        node = Node()
        folder.change(Naming(None, path.name, node))
        return SimulatedFile(self, node, True)

    def lock(self, path: Path) -> SimulatedFile:
        """Open or create a file and lock it."""
        file = self.open(path, writable=True) if self.exists(path) else None
        file = file or self.create(path)
        if file.node.locked:
            file.close()
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", str(path))
        file.node.locked = file.holds_lock = True
        return file

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name in the same directory."""
        assert source.parent == target.parent, "names change within a directory"
        folder = self._parent(source)
        if source.name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(source))
        self.begin("rename")
        node = folder.names[source.name]
        folder.change(Naming(source.name, target.name, node))

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        self.file(path)
        self.begin("unlink")
        self._parent(path).change(Naming(path.name))

    def make_directory(self, path: Path) -> None:
        """Create one directory."""
        folder = self._parent(path)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        self.begin("make_directory")
        folder.change(Naming(None, path.name, Folder()))

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        if self._folder(path).names:
            raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        self.begin("remove_directory")
        self._parent(path).change(Naming(path.name))

    def list(self, path: Path) -> list[str]:
        """List the names in a directory, sorted."""
        return sorted(self._folder(path).names)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        folder = self._folder(path)
        self.begin("sync_directory")
        folder.sync()

    def is_directory(self, path: Path) -> bool:
        """Tell whether *path* is a directory."""
        return isinstance(self._find(path), Folder)

    def is_symlink(self, path: Path) -> bool:
        """Tell that *path* is no link: there are none."""
        return False

    def exists(self, path: Path) -> bool:
        """Tell whether there is anything at *path*."""
        return self._find(path) is not None

    # Inside ---------------------------------------------------------------------

    def begin(self, operation: str) -> None:
        """Note an operation, unless it fails."""
        if self.before is not None:
            self.before(operation)
        if operation not in READS:
            self.operations.append(operation)

    def file(self, path: Path) -> Node:
        """Return the file at *path*. Raises: OSError"""
        node = self._find(path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node

    def _find(self, path: Path) -> Node | Folder | None:
        node: Node | Folder | None = self.root
        for part in path.parts[1:]:
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))
        return node

    def _parent(self, path: Path) -> Folder:
        return self._folder(path.parent)


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, node: Node, writable: bool) -> None:
        self.node = node
        self.holds_lock = False
        self._disk = disk
        self._writable = writable
        self._open = True
        disk.open_files += 1

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; fewer only at the end."""
        self._check()
        self._disk.begin("read_at")
        return bytes(self.node.data[offset : offset + size])

    def write_at(self, data: bytes, offset: int) -> None:
        """Write *data* at *offset*; a half of it, if that fails."""
        self._check(writing=True)
        data = bytes(data)
        try:
            self._disk.begin("write_at")
        except BaseException:
            self.node.put(Write(offset, data[: len(data) // 2]))
            raise
        self.node.put(Write(offset, data))

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes, or extend it with zeros."""
        self._check(writing=True)
        self._disk.begin("truncate")
        self.node.put(Write(size, None))

    def allocate(self, size: int) -> None:
        """Extend the file with zeros to *size* bytes, if it is shorter."""
        self._check(writing=True)
        self._disk.begin("allocate")
        if size > len(self.node.data):
            self.node.put(Write(size, None))

    def sync_data(self) -> None:
        """Make the content durable."""
        self._sync("sync_data")

    def sync(self) -> None:
        """Make the content durable."""
        self._sync("sync")

    def size(self) -> int:
        """Return the size in bytes."""
        self._check()
        return len(self.node.data)

    def close(self) -> None:
        """Release the file, and its lock."""
        if self._open:
            self._open = False
            self._disk.open_files -= 1
        if self.holds_lock:
            self.node.locked = self.holds_lock = False

    def _sync(self, operation: str) -> None:
        self._check()
        try:
            self._disk.begin(operation)
        except OSError:
            self.node.forget()
            raise
        self.node.sync()

    def _check(self, writing: bool = False) -> None:
        if not self._open or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _apply(data: bytearray, write: Write) -> None:
    data.extend(bytes(max(0, write.offset - len(data))))
    if write.data is None:
        del data[write.offset :]
    else:
        data[write.offset : write.offset + len(write.data)] = write.data


def _rename(names: dict[str, Node | Folder], naming: Naming) -> None:
    if naming.removed is not None:
        names.pop(naming.removed, None)
    if naming.added is not None and naming.node is not None:
        names[naming.added] = naming.node


def _node_after(node: Node, survival: Survival) -> Node:
    data = bytearray(node.durable)
    for write in survival.of_writes(node.unsynced):
        _apply(data, write)
    return Node(data, bytearray(data))


def _folder_after(
    folder: Folder, survival: Survival, known: dict[Node | Folder, Node | Folder]
) -> Folder:
    names = dict(folder.durable)
    for naming in survival.of_namings(folder.unsynced):
        _rename(names, naming)
    after = Folder()
    for name, node in names.items():
        if node not in known:
            known[node] = (
                _folder_after(node, survival, known)
                if isinstance(node, Folder)
                else _node_after(node, survival)
            )
        after.names[name] = known[node]
    after.durable = dict(after.names)
    return after


def _is_synced(folder: Folder) -> bool:
    return not folder.unsynced and all(
        _is_synced(node) if isinstance(node, Folder) else not node.unsynced
        for node in folder.names.values()
    )


def _unlock(folder: Folder) -> None:
    for node in folder.names.values():
        if isinstance(node, Folder):
            _unlock(node)
        else:
            node.locked = False
