"""The file operations, on the operating system and in memory."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk
from txraft.storage.filesystem import (
    FileSystem,
    OsFileSystem,
    create_whole,
    make_directories,
    read_whole,
    write_rest,
)


class FileSystemContract:
    """The tests; a subclass names the file system and a directory on it."""

    fs: FileSystem
    path: Path

    def test_write_and_read(self) -> None:
        """What is written at an offset is read there, and less only at the end."""
        file = self.fs.create(self.path / "f")

        file.write_at(b"0123456789", 0)
        file.write_at(b"ab", 4)
        file.sync_data()

        self.assertEqual(file.read_at(4, 3), b"3ab6")
        self.assertEqual(file.read_at(9, 8), b"89")
        self.assertEqual(file.read_at(9, 80), b"")
        self.assertEqual(file.size(), 10)
        file.truncate(3)
        file.sync()
        self.assertEqual(self.fs.open(self.path / "f").read_at(9, 0), b"012")
        file.close()
        file.close()

    def test_create_is_exclusive(self) -> None:
        """An existing file is never opened as a new one."""
        self.fs.create(self.path / "f").close()

        self.assertRaises(FileExistsError, self.fs.create, self.path / "f")
        self.assertRaises(FileNotFoundError, self.fs.open, self.path / "g")

    def test_names(self) -> None:
        """Names come and go."""
        for name in ("b", "a"):
            self.fs.create(self.path / name).close()
        self.fs.make_directory(self.path / "d")
        self.fs.rename(self.path / "b", self.path / "c")
        self.fs.sync_directory(self.path)

        self.assertEqual(self.fs.list(self.path), ["a", "c", "d"])
        self.fs.rename(self.path / "a", self.path / "c")
        self.assertEqual(self.fs.list(self.path), ["c", "d"])
        self.assertTrue(self.fs.is_directory(self.path / "d"))
        self.assertFalse(self.fs.is_directory(self.path / "c"))
        self.assertFalse(self.fs.is_symlink(self.path / "c"))
        self.fs.unlink(self.path / "c")
        self.fs.remove_directory(self.path / "d")
        self.assertEqual(self.fs.list(self.path), [])
        self.assertFalse(self.fs.exists(self.path / "c"))
        self.assertRaises(FileNotFoundError, self.fs.unlink, self.path / "c")

    def test_lock(self) -> None:
        """One lock at a time, released by closing; it works in one process too."""
        first = self.fs.lock(self.path / "l")
        self.assertRaises(BlockingIOError, self.fs.lock, self.path / "l")

        first.close()

        self.fs.lock(self.path / "l").close()

    def test_create_whole(self) -> None:
        """A file is replaced as a whole; leftovers of an earlier try do no harm."""
        self.fs.create(self.path / "f.tmp").write_at(b"leftover", 0)
        create_whole(self.fs, self.path / "f", b"one")
        create_whole(self.fs, self.path / "f", b"two")

        self.assertEqual(read_whole(self.fs, self.path / "f", 10), b"two")
        self.assertEqual(read_whole(self.fs, self.path / "f", 1), b"tw")
        self.assertEqual(self.fs.list(self.path), ["f"])

    def test_make_directories(self) -> None:
        """What is missing above is made too, and what is there is left."""
        make_directories(self.fs, self.path / "a" / "b")
        make_directories(self.fs, self.path / "a" / "b")

        self.assertTrue(self.fs.is_directory(self.path / "a" / "b"))


class InMemory(FileSystemContract, SynchronousTestCase):
    """The disk that other tests use."""

    def setUp(self) -> None:
        self.fs = Disk()
        self.path = Path("/base")
        self.fs.make_directory(self.path)


class OnTheOperatingSystem(FileSystemContract, SynchronousTestCase):
    """The real one."""

    def setUp(self) -> None:
        self.fs = OsFileSystem()
        self.path = Path(self.mktemp())
        self.path.mkdir()

    def test_modes(self) -> None:
        """Files and directories are for their owner alone."""
        self.fs.create(self.path / "f").close()
        self.fs.lock(self.path / "l").close()
        self.fs.make_directory(self.path / "d")

        modes = [(self.path / name).stat().st_mode & 0o777 for name in "fld"]
        self.assertEqual(modes, [0o600, 0o600, 0o700])

    def test_allocate_writes(self) -> None:
        """Room is zeros behind what is there, on blocks of its own, of any size."""
        size = 3_000_001
        with contextlib.closing(self.fs.create(self.path / "f")) as file:
            file.write_at(b"there", 0)

            file.allocate(size)
            file.allocate(1000)
            file.sync()

        self.assertEqual(
            (self.path / "f").read_bytes(), b"there" + bytes(size - len(b"there"))
        )
        self.assertGreaterEqual((self.path / "f").stat().st_blocks * 512, size)

    def test_links_are_not_followed(self) -> None:
        """A symbolic link is never opened, locked or taken for a directory."""
        (self.path / "target").write_bytes(b"secret")
        (self.path / "link").symlink_to("target")
        (self.path / "folder").symlink_to(".")

        for attempt in (self.fs.open, self.fs.lock):
            error = self.assertRaises(OSError, attempt, self.path / "link")
            self.assertEqual(error.errno, errno.ELOOP)
        self.assertRaises(FileExistsError, self.fs.create, self.path / "link")
        self.assertTrue(self.fs.is_symlink(self.path / "link"))
        self.assertFalse(self.fs.is_directory(self.path / "folder"))

    def test_what_is_no_file(self) -> None:
        """A named pipe does not hold whoever opens it."""
        os.mkfifo(self.path / "pipe")

        self.assertRaises(OSError, self.fs.open, self.path / "pipe", writable=True)

    def test_lock_of_another_process(self) -> None:
        """The lock holds between processes, and ends with the one that has it."""
        holder = python(
            "import sys\n"
            "lock = OsFileSystem().lock(Path(sys.argv[1]))\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
            self.path / "l",
        )
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), b"held\n")

        self.assertRaises(BlockingIOError, self.fs.lock, self.path / "l")

        holder.communicate()
        self.fs.lock(self.path / "l").close()


def python(code: str, path: Path) -> subprocess.Popen[bytes]:
    """Run *code* in a process of its own: a fork of one with threads may hang."""
    imports = "from pathlib import Path\nfrom txraft.storage.filesystem import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", imports + code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


class ShortWrites(SynchronousTestCase):
    """A write that takes less than it is given is continued."""

    def test_write_rest(self) -> None:
        """Every byte arrives in its place."""
        held = bytearray(12)

        def write(data: memoryview, offset: int) -> int:
            taken = min(3, len(data))
            held[offset : offset + taken] = data[:taken]
            return taken

        write_rest(write, memoryview(b"0123456789"), 2)

        self.assertEqual(held, b"\0\x000123456789")

    def test_write_rest_without_space(self) -> None:
        """A write that takes nothing does not loop."""
        error = self.assertRaises(
            OSError, write_rest, lambda data, offset: 0, memoryview(b"x"), 0
        )

        self.assertEqual(error.errno, errno.ENOSPC)

    def test_file_size_limit(self) -> None:
        """Where the operating system takes less than all, the error is seen."""
        path = Path(self.mktemp())
        limited = python(
            "import resource, signal, sys\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "file = OsFileSystem().create(Path(sys.argv[1]))\n"
            "try:\n"
            "    file.write_at(bytes(5000), 0)\n"
            "except OSError as error:\n"
            "    sys.exit(error.errno)\n",
            path,
        )
        limited.communicate()

        self.assertEqual(limited.returncode, errno.EFBIG)
        self.assertEqual(path.stat().st_size, 4096)


class _Raced(OsFileSystem):
    """Somebody else makes each directory just before."""

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        super().make_directory(path)


class MakingDirectories(SynchronousTestCase):
    """Several processes that start at once."""

    def test_make_directories_beside_others(self) -> None:
        """It is no failure that another process has made a common parent."""
        path = Path(self.mktemp())

        make_directories(_Raced(), path / "a")

        self.assertTrue(path.joinpath("a").is_dir())
