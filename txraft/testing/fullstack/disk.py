"""A file system in memory that knows what is durable and what is not yet.

After a power failure each write and each change of a name that was not synced is there,
partly there, or lost, in any combination that an operating system may leave.
`SimulatedDisk.operations` lists every change and sync, and a disk may fail at any.
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
"""Operations that change nothing, so they are not listed."""


class PowerFailed(BaseException):
    """The power fails in the middle of an operation.

    A BaseException, so that no `except Exception` of the code under test handles it.
    """


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written at an offset; with *data* None, the file gets that size instead."""

    offset: int
    data: bytes | None


@dataclass(eq=False, slots=True)
class Inode:
    """A file: its content, what of it is durable, and the writes between the two."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Write] = field(default_factory=list)
    locked: bool = False

    def put(self, write: Write) -> None:
        """Write, not yet durably."""
        _apply(self.data, write)
        self.unsynced.append(write)

    def sync(self) -> None:
        """Make all writes durable that are not taken for durable."""
        for write in self.unsynced:
            _apply(self.durable, write)
        self.unsynced.clear()

    def forget(self) -> None:
        """Take all writes for durable, as a kernel does after a failed sync.

        They are not: a later sync succeeds and makes nothing of them durable. That is
        why a node must never try a failed sync again.
        """
        self.unsynced.clear()


@dataclass(frozen=True, slots=True)
class Naming:
    """A change in a directory: *removed* goes and *added* comes, in one step."""

    removed: str | None
    added: str | None = None
    inode: Inode | Folder | None = None


@dataclass(eq=False, slots=True)
class Folder:
    """A directory: its names, the durable ones, and the changes between the two."""

    names: dict[str, Inode | Folder] = field(default_factory=dict)
    durable: dict[str, Inode | Folder] = field(default_factory=dict)
    unsynced: list[Naming] = field(default_factory=list)

    def change(self, naming: Naming) -> None:
        """Change names, not yet durably."""
        _rename(self.names, naming)
        self.unsynced.append(naming)

    def sync(self) -> None:
        """Make all names durable."""
        self.durable = dict(self.names)
        self.unsynced.clear()


class Survival:
    """Decides what of the unsynced is left after a power failure: here, nothing."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        """Return the parts of *writes* that are left, in order."""
        return []

    def of_namings(self, namings: list[Naming]) -> list[Naming]:
        """Return those of *namings* that are left, in order."""
        return []


class Chance(Survival):
    """Leaves each sector and each change of a name at random.

    In a third of the files, writes are left in order up to some byte instead.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._share = random.choice((0.1, 0.5, 0.9))

    def of_writes(self, writes: list[Write]) -> list[Write]:
        """Return random parts of *writes*."""
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
        """Return the first of *namings*, or any of them."""
        if self._random.random() < 0.5:
            return namings[: self._random.randint(0, len(namings))]
        return [n for n in namings if self._random.random() < self._share]


class SimulatedDisk:
    """A `FileSystem` in memory; *root* is its directory `/`.

    *before* is called with the name of each operation before it is done, and may raise:
    with an OSError the operation fails, with PowerFailed a half of it is done.
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
        """Return the disk as it is when the power is back."""
        return SimulatedDisk(_folder_after(self.root, survival, {}))

    def after_kill(self) -> SimulatedDisk:
        """Return the disk for a new process: unsynced writes stay, locks are free."""
        _unlock(self.root)
        return SimulatedDisk(self.root)

    def is_synced(self, path: Path) -> bool:
        """Tell whether everything in the directory *path* is durable."""
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
        inode = Inode()
        folder.change(Naming(None, path.name, inode))
        return SimulatedFile(self, inode, True)

    def lock(self, path: Path) -> SimulatedFile:
        """Open or create a file and lock it."""
        file = self.open(path, writable=True) if self.exists(path) else None
        file = file or self.create(path)
        if file.inode.locked:
            file.close()
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", str(path))
        file.inode.locked = file.holds_lock = True
        return file

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name in the same directory."""
        assert source.parent == target.parent, "names change within a directory"
        folder = self._parent(source)
        if source.name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(source))
        self.begin("rename")
        inode = folder.names[source.name]
        folder.change(Naming(source.name, target.name, inode))

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        # Looked up first, as in the others: an operation that cannot be done is none,
        # and must not count as one at which the power can fail.
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
        """Call `before` and list the operation, unless it fails."""
        if self.before is not None:
            self.before(operation)
        if operation not in READS:
            self.operations.append(operation)

    def file(self, path: Path) -> Inode:
        """Return the file at *path*. Raises: OSError"""
        inode = self._find(path)
        if isinstance(inode, Folder):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return inode

    def _find(self, path: Path) -> Inode | Folder | None:
        inode: Inode | Folder | None = self.root
        for part in path.parts[1:]:
            inode = inode.names.get(part) if isinstance(inode, Folder) else None
        return inode

    def _folder(self, path: Path) -> Folder:
        inode = self._find(path)
        if not isinstance(inode, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))
        return inode

    def _parent(self, path: Path) -> Folder:
        return self._folder(path.parent)


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, inode: Inode, writable: bool) -> None:
        self.inode = inode
        self.holds_lock = False
        self._disk = disk
        self._writable = writable
        self._open = True
        disk.open_files += 1

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; fewer only at the end."""
        self._check()
        self._disk.begin("read_at")
        return bytes(self.inode.data[offset : offset + size])

    def write_at(self, data: bytes, offset: int) -> None:
        """Write *data* at *offset*; if that fails, half of it is written."""
        self._check(writing=True)
        data = bytes(data)
        try:
            self._disk.begin("write_at")
        except BaseException:
            # Like a disk that is full, or a process that is killed: a failed write may
            # have done a part.
            self.inode.put(Write(offset, data[: len(data) // 2]))
            raise
        self.inode.put(Write(offset, data))

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes, or extend it with zeros."""
        self._check(writing=True)
        self._disk.begin("truncate")
        self.inode.put(Write(size, None))

    def allocate(self, size: int) -> None:
        """Extend the file with zeros to *size* bytes, if it is shorter."""
        self._check(writing=True)
        self._disk.begin("allocate")
        # Else it would cut the file: `Write` without data sets the size.
        if size > len(self.inode.data):
            self.inode.put(Write(size, None))

    def sync_data(self) -> None:
        """Make the content durable."""
        self._sync("sync_data")

    def sync(self) -> None:
        """Make the content durable."""
        self._sync("sync")

    def size(self) -> int:
        """Return the size in bytes."""
        self._check()
        return len(self.inode.data)

    def close(self) -> None:
        """Release the file, and its lock."""
        if self._open:
            self._open = False
            self._disk.open_files -= 1
        if self.holds_lock:
            self.inode.locked = self.holds_lock = False

    def _sync(self, operation: str) -> None:
        self._check()
        try:
            self._disk.begin(operation)
        # Only for an error of the disk: a power failure is no failed sync, and what was
        # not synced is then decided by `Survival`.
        except OSError:
            self.inode.forget()
            raise
        self.inode.sync()

    def _check(self, writing: bool = False) -> None:
        if not self._open or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _apply(data: bytearray, write: Write) -> None:
    # A write behind the end leaves zeros between, as in a sparse file.
    data.extend(bytes(max(0, write.offset - len(data))))
    if write.data is None:
        del data[write.offset :]
    else:
        data[write.offset : write.offset + len(write.data)] = write.data


def _rename(names: dict[str, Inode | Folder], naming: Naming) -> None:
    if naming.removed is not None:
        names.pop(naming.removed, None)
    if naming.added is not None and naming.inode is not None:
        names[naming.added] = naming.inode


def _inode_after(inode: Inode, survival: Survival) -> Inode:
    data = bytearray(inode.durable)
    for write in survival.of_writes(inode.unsynced):
        _apply(data, write)
    return Inode(data, bytearray(data))


def _folder_after(
    folder: Folder, survival: Survival, known: dict[Inode | Folder, Inode | Folder]
) -> Folder:
    names = dict(folder.durable)
    for naming in survival.of_namings(folder.unsynced):
        _rename(names, naming)
    after = Folder()
    for name, inode in names.items():
        # By the inode, not the name: after a rename that is half durable one file may
        # have two names.
        if inode not in known:
            known[inode] = (
                _folder_after(inode, survival, known)
                if isinstance(inode, Folder)
                else _inode_after(inode, survival)
            )
        after.names[name] = known[inode]
    after.durable = dict(after.names)
    return after


def _is_synced(folder: Folder) -> bool:
    return not folder.unsynced and all(
        _is_synced(inode) if isinstance(inode, Folder) else not inode.unsynced
        for inode in folder.names.values()
    )


def _unlock(folder: Folder) -> None:
    for inode in folder.names.values():
        if isinstance(inode, Folder):
            _unlock(inode)
        else:
            inode.locked = False
