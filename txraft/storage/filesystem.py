"""The file operations that storage uses, as an interface that tests can replace.

All storage but LMDB reaches the disk through a `FileSystem`, so that a simulated one
can lose, tear, fail and delay writes. `OsFileSystem` is the real one: it follows no
symbolic link in the last part of a path, writes all the bytes it is given, and makes
files that only their owner can read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from txraft.errors import StorageError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
TEMPORARY_SUFFIX = ".tmp"

_ZEROS = bytes(1 << 20)
_SYNC_DATA: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class File(Protocol):
    """An open file. Every method raises OSError when the disk does."""

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; fewer only at the end of the file."""

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all of *data* at *offset*."""

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes."""

    def allocate(self, size: int) -> None:
        """Extend the file to *size* bytes with zeros that are written, not a hole."""

    def sync_data(self) -> None:
        """Make the content durable, and the size needed to read it."""

    def sync(self) -> None:
        """Make content and attributes durable."""

    def size(self) -> int:
        """Return the size in bytes."""

    def close(self) -> None:
        """Release the file, and its lock if it has one; idempotent."""


class FileSystem(Protocol):
    """The operations on names. A name is durable only once its directory is synced."""

    def open(self, path: Path, *, writable: bool = False) -> File:
        """Open an existing file. Raises: FileNotFoundError"""

    def create(self, path: Path) -> File:
        """Create and open a new file. Raises: FileExistsError"""

    def lock(self, path: Path) -> File:
        """Open or create a file and lock it while it is open.

        Raises: BlockingIOError at once, when it is locked already.
        """

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name, replacing a file of that name."""

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def make_directory(self, path: Path) -> None:
        """Create one directory. Raises: FileExistsError"""

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""

    def list(self, path: Path) -> list[str]:
        """List the names in a directory, sorted."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def is_directory(self, path: Path) -> bool:
        """Tell whether *path* is a directory itself, not a link to one."""

    def is_symlink(self, path: Path) -> bool:
        """Tell whether *path* is a symbolic link."""

    def exists(self, path: Path) -> bool:
        """Tell whether there is anything at *path*, be it a dangling link."""


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor, -1 after `close`."""
        return self._descriptor

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; fewer only at the end of the file."""
        # Nearly every read ends here, with one call of the kernel.
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        read = len(data)
        while read < size:
            data = os.pread(self._descriptor, size - read, offset + read)
            if not data:
                break
            pieces.append(data)
            read += len(data)
        return b"".join(pieces)

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all of *data* at *offset*."""
        written = os.pwrite(self._descriptor, data, offset)
        if written < len(data):
            write_rest(self._write, memoryview(data)[written:], offset + written)

    def _write(self, data: memoryview, offset: int) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes."""
        os.ftruncate(self._descriptor, size)

    def allocate(self, size: int) -> None:
        """Extend the file to *size* bytes with zeros that are written, not a hole.

        posix_fallocate would only reserve the blocks: then each sync must first record
        which of them are in use now, which is what allocation should avoid.
        """
        begin = os.fstat(self._descriptor).st_size
        for offset in range(begin, size, len(_ZEROS)):
            self.write_at(_ZEROS[: size - offset], offset)

    def sync_data(self) -> None:
        """Make the content durable, and the size needed to read it."""
        _SYNC_DATA(self._descriptor)

    def sync(self) -> None:
        """Make content and attributes durable."""
        os.fsync(self._descriptor)

    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Release the file, and its lock if it has one; idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class OsFileSystem:
    """The file system of the operating system."""

    def open(self, path: Path, *, writable: bool = False) -> OsFile:
        """Open an existing regular file, not through a link."""
        # Without O_NONBLOCK a named pipe would hold the opener for ever.
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NONBLOCK
        return _open_regular(path, flags)

    def create(self, path: Path) -> OsFile:
        """Create and open a new file."""
        return _open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def lock(self, path: Path) -> OsFile:
        """Open or create a file and lock it while it is open."""
        file = _open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
        try:
            # flock, not lockf: a lock of POSIX ends when any descriptor of the file is
            # closed, also one that only read who holds it.
            fcntl.flock(file._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        return file

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name, replacing a file of that name."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """Create one directory, for its owner alone."""
        os.mkdir(path, DIRECTORY_MODE)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def list(self, path: Path) -> list[str]:
        """List the names in a directory, sorted."""
        return sorted(os.listdir(path))

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_directory(self, path: Path) -> bool:
        """Tell whether *path* is a directory itself, not a link to one."""
        return path.is_dir() and not path.is_symlink()

    def is_symlink(self, path: Path) -> bool:
        """Tell whether *path* is a symbolic link."""
        return path.is_symlink()

    def exists(self, path: Path) -> bool:
        """Tell whether there is anything at *path*, be it a dangling link."""
        return os.path.lexists(path)


def write_rest(
    write: Callable[[memoryview, int], int], data: memoryview, offset: int
) -> None:
    """Call *write* until all of *data* is written at *offset*.

    Raises: OSError ENOSPC when a call takes nothing at all.
    """
    while data:
        written = write(data, offset)
        if written <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]
        offset += written


def temporary(path: Path) -> Path:
    """Return the name that a file has until it is complete and becomes *path*."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def create_whole(fs: FileSystem, path: Path, data: bytes) -> None:
    """Replace the file *path* by one with *data*, in one step.

    Durable: all of *data* under that name, when this returns. After a crash there is
        the old file or the new one.
    """
    # The order is what makes it one step. Synced before it is renamed, or a crash may
    # leave the new name with an empty file. The directory is synced last, or the old
    # file may come back after the caller has relied on the new one.
    unfinished = temporary(path)
    if fs.exists(unfinished):
        fs.unlink(unfinished)
    file = fs.create(unfinished)
    try:
        file.write_at(data, 0)
        file.sync()
    finally:
        file.close()
    fs.rename(unfinished, path)
    fs.sync_directory(path.parent)


def read_whole(fs: FileSystem, path: Path, limit: int) -> bytes:
    """Read a file, up to one byte more than *limit*.

    Raises: StorageError for a directory; OSError
    """
    if fs.is_directory(path):
        raise in_the_way(path)
    file = fs.open(path)
    try:
        return file.read_at(min(file.size(), limit + 1), 0)
    finally:
        file.close()


def in_the_way(path: Path) -> StorageError:
    """Make the error for a directory at *path* where this node needs a file."""
    return StorageError(
        f"{path}: a directory is in the way of a file of this node; move it away"
    )


def make_directories(fs: FileSystem, path: Path) -> None:
    """Create the directory *path* and its missing parents.

    Durable: their names, when this returns.
    """
    if fs.exists(path):
        # A process that crashed may have made it without this sync. A user who cannot
        # open the directory above has not made this one.
        with contextlib.suppress(PermissionError):
            fs.sync_directory(path.parent)
        return
    make_directories(fs, path.parent)
    with contextlib.suppress(FileExistsError):  # others start at the same time
        fs.make_directory(path)
    fs.sync_directory(path.parent)


def make_private(path: Path) -> None:
    """Give only the owner access to the directory *path*.

    Raises: PermissionError when it belongs to another user, and others may change it.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & ~DIRECTORY_MODE:
        return
    try:
        path.chmod(DIRECTORY_MODE)
    except PermissionError as error:
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(
                errno.EPERM,
                f"other users may change it (mode {mode:04o}), and it is not ours to "
                "forbid: give it to the user of the node, or the node another one",
                str(path),
            ) from error


def _open_regular(path: Path, flags: int) -> OsFile:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return OsFile(descriptor)
