"""A read-only file system, to inspect the files of a node."""

from __future__ import annotations

from pathlib import Path

from txraft.storage.filesystem import File, FileSystem


class ReadOnlyFileSystem:
    """Reads the files of *fs*. Changes are silently left out, or refused.

    A log can be opened on it: recovery runs as on a node, but changes no file.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def open(self, path: Path, *, writable: bool = False) -> File:
        """Open an existing file, to be read. Raises: FileNotFoundError"""
        return _ReadOnlyFile(self._fs.open(path))

    def create(self, path: Path) -> File:
        """Refuse. Raises: PermissionError"""
        raise PermissionError(f"{path}: nothing is created here")

    def lock(self, path: Path) -> File:
        """Refuse. Raises: PermissionError"""
        raise PermissionError(f"{path}: nothing is locked here")

    def rename(self, source: Path, target: Path) -> None:
        """Do nothing."""

    def unlink(self, path: Path) -> None:
        """Do nothing."""

    def make_directory(self, path: Path) -> None:
        """Refuse. Raises: PermissionError"""
        raise PermissionError(f"{path}: nothing is created here")

    def remove_directory(self, path: Path) -> None:
        """Do nothing."""

    def list(self, path: Path) -> list[str]:
        """List the names in a directory, sorted."""
        return self._fs.list(path)

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""

    def is_directory(self, path: Path) -> bool:
        """Tell whether *path* is a directory itself, not a link to one."""
        return self._fs.is_directory(path)

    def is_symlink(self, path: Path) -> bool:
        """Tell whether *path* is a symbolic link."""
        return self._fs.is_symlink(path)

    def exists(self, path: Path) -> bool:
        """Tell whether there is anything at *path*, be it a dangling link."""
        return self._fs.exists(path)


class _ReadOnlyFile:
    """An open file that ignores writes."""

    def __init__(self, file: File) -> None:
        self._file = file

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; fewer only at the end of the file."""
        return self._file.read_at(size, offset)

    def write_at(self, data: bytes, offset: int) -> None:
        """Do nothing."""

    def truncate(self, size: int) -> None:
        """Do nothing."""

    def allocate(self, size: int) -> None:
        """Do nothing."""

    def sync_data(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def size(self) -> int:
        """Return the size in bytes."""
        return self._file.size()

    def close(self) -> None:
        """Release the file; idempotent."""
        self._file.close()
