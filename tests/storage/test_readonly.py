"""A file system that shows files and changes none."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.readonly import ReadOnlyFileSystem
from txraft.testing.contracts.samples import command, commands


class ReadOnly(SynchronousTestCase):
    """Whatever is done to it, the files stay as they are, byte for byte."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir(parents=True)
        self.fs = ReadOnlyFileSystem(OsFileSystem())

    def files(self) -> dict[str, bytes]:
        """Return all files below the directory."""
        return {
            str(path): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    def test_recovery(self) -> None:
        """A log with a torn end can be opened and read, and keeps its torn end."""
        log = FileLog(self.path, "n1")
        log.store_logs(commands(1, 3))
        log.store_log(command(4))
        log.close()
        newest = max(self.path.iterdir())
        newest.write_bytes(newest.read_bytes().rstrip(b"\0")[:-5])
        before = self.files()

        opened = FileLog(self.path, "n1", self.fs)
        self.addCleanup(opened.close)

        self.assertEqual(opened.last_index(), 3)
        self.assertEqual(opened.get_log(2).data, command(2).data)
        self.assertEqual(self.files(), before)

    def test_changes(self) -> None:
        """Changes that a recovery makes are left out; new files are refused."""
        file = self.path / "file"
        file.write_bytes(b"content")
        before = self.files()

        with_file = self.fs.open(file, writable=True)
        with_file.write_at(b"X", 0)
        with_file.truncate(1)
        with_file.allocate(100)
        with_file.sync_data()
        with_file.sync()
        self.assertEqual((with_file.size(), with_file.read_at(9, 3)), (7, b"tent"))
        with_file.close()
        self.fs.rename(file, self.path / "other")
        self.fs.unlink(file)
        self.fs.remove_directory(self.path)
        self.fs.sync_directory(self.path)
        for refused in (self.fs.create, self.fs.lock, self.fs.make_directory):
            self.assertRaises(PermissionError, refused, self.path / "new")

        self.assertEqual(self.files(), before)
