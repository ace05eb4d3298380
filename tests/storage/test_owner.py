"""The name of the node to which a data directory belongs."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import DataCorrupted, StorageError
from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.owner import owner_of
from txraft.storage.stable import FileStableStore
from txraft.testing.contracts.samples import command


class Owners(SynchronousTestCase):
    """Both kinds of files name their node; either is enough."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir(parents=True)

    def owner(self) -> str:
        """Return the owner of the directory."""
        return owner_of(OsFileSystem(), self.path)

    def write_state(self) -> None:
        """Write a state file."""
        FileStableStore(self.path / "state", "n1:8300").set(b"CurrentTerm", b"1")

    def write_log(self) -> None:
        """Write a log with an entry."""
        log = FileLog(self.path / "log", "n1:8300")
        log.store_log(command(1))
        log.close()

    def test_state(self) -> None:
        """The state file has the name, with a log or without one."""
        self.write_state()
        self.assertEqual(self.owner(), "n1:8300")

        self.write_log()
        self.assertEqual(self.owner(), "n1:8300")

    def test_log_alone(self) -> None:
        """A log that has lost its state file still tells whose it is."""
        self.write_log()

        self.assertEqual(self.owner(), "n1:8300")

    def test_no_data_directory(self) -> None:
        """A directory with neither, or an empty log, is said to be no such thing."""
        for folder in (None, "log"):
            if folder is not None:
                (self.path / folder).mkdir()
            error = self.assertRaises(StorageError, self.owner)
            self.assertIn(f"{self.path}: this is no data directory", str(error))

    def test_damage(self) -> None:
        """A damaged state file is named; the log is not asked instead of it."""
        self.write_log()
        (self.path / "state").write_bytes(b"\xff" * 64)

        error = self.assertRaises(DataCorrupted, self.owner)

        self.assertIn(str(self.path / "state"), str(error))
