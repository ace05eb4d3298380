"""The data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import txraft
from tests.support.failing_disk import UNSYNCED, Disk
from txraft.errors import DirectoryLocked, StorageError
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.pairing import identity_of
from txraft.storage.peer_stores import JSONPeers
from txraft.storage.stable import FileStableStore

CHECKOUT = Path(txraft.__file__).parents[1]
HOLD = """
import sys
from txraft.storage.directory import DataDirectory
directory = DataDirectory(sys.argv[1], "n1")
print("ready", flush=True)
sys.stdin.read()
"""


class Directories(SynchronousTestCase):
    """One node, one directory, one process."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "data"

    def test_created(self) -> None:
        """It is made with what is above it, for its owner alone."""
        directory = DataDirectory(self.path, "n1")

        self.assertEqual(self.path.stat().st_mode & 0o777, 0o700)
        self.assertEqual(directory.log, self.path / "log")
        self.assertEqual(directory.snapshots, self.path / "snapshots")
        self.assertEqual(directory.state, self.path / "state")
        self.assertEqual(directory.peers, self.path / "peers.json")
        self.assertEqual(sorted(os.listdir(self.path)), ["lock", "log", "snapshots"])
        directory.close()

    def test_there_before(self) -> None:
        """What others could do in it they can no more."""
        self.path.mkdir(parents=True)
        self.path.chmod(0o777)

        DataDirectory(self.path, "n1").close()

        self.assertEqual(self.path.stat().st_mode & 0o7777, 0o700)

    def test_of_another_user(self) -> None:
        """One that others may change, and this user cannot change, is refused."""
        if os.getuid() != 0:
            raise SkipTest("only root can become somebody else")
        base = Path(mkdtemp())
        self.addCleanup(rmtree, base)
        base.chmod(0o711)
        path = base / "data"
        path.mkdir()
        path.chmod(0o777)
        become = "import os, txraft.storage.directory\nos.setuid(65534)\n"

        held = subprocess.run(
            [sys.executable, "-c", become + HOLD, path],
            check=False,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            input="",
            capture_output=True,
            text=True,
        )

        self.assertIn("other users may change it (mode 0777)", held.stderr)
        self.assertIn("or the node another one", held.stderr)

    def test_created_durably(self) -> None:
        """Its name and those in it survive a power cut."""
        disk = Disk()
        DataDirectory(Path("/a/b"), "n1", disk)

        after = disk.after_power_cut("lost")

        self.assertEqual(after.list(Path("/a/b")), ["lock", "log", "snapshots"])

    def test_opened_after_any_power_cut(self) -> None:
        """A process that died while it made the directory does not hinder the next."""
        disk = Disk()
        DataDirectory(Path("/a/b"), "n1", disk)
        for cut in range(1, len(disk.operations)):
            for unsynced in UNSYNCED:
                disk = Disk()
                disk.cut_after = cut
                with self.assertRaises(BaseException):  # noqa: B017
                    DataDirectory(Path("/a/b"), "n1", disk)

                DataDirectory(Path("/a/b"), "n1", disk.after_power_cut(unsynced))

    def test_second_in_one_process(self) -> None:
        """The directory is one node's until it is closed."""
        first = DataDirectory(self.path, "n1")

        error = self.assertRaises(DirectoryLocked, DataDirectory, self.path, "n1")

        self.assertIn(str(self.path), str(error))
        self.assertIn(f"process {os.getpid()}", str(error))
        first.close()
        DataDirectory(self.path, "n1").close()

    def test_second_process(self) -> None:
        """Another process is refused at once, and let in when the first is killed."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(self.path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        assert process.stdin is not None
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")

        error = self.assertRaises(DirectoryLocked, DataDirectory, self.path, "n1")

        self.assertIn(f"process {process.pid}", str(error))
        process.kill()
        process.wait()
        DataDirectory(self.path, "n1").close()

    def test_owner_unknown(self) -> None:
        """A lock file without a number is named all the same."""
        first = DataDirectory(self.path, "n1")
        self.addCleanup(first.close)
        (self.path / "lock").write_bytes(b"")

        error = self.assertRaises(DirectoryLocked, DataDirectory, self.path, "n1")

        self.assertIn("another process", str(error))

    def test_unfinished_files(self) -> None:
        """What a crash left half written goes, what others put there stays."""
        DataDirectory(self.path, "n1").close()
        for name in ("state.tmp", "peers.json.tmp", "notes.tmp"):
            (self.path / name).write_bytes(b"x")

        DataDirectory(self.path, "n1").close()

        self.assertEqual(
            sorted(os.listdir(self.path)), ["lock", "log", "notes.tmp", "snapshots"]
        )

    def test_links(self) -> None:
        """A part that is a symbolic link is refused by its name."""
        for name in ("log", "snapshots", "state", "lock", "peers.json"):
            path = Path(self.mktemp())
            path.mkdir()
            (path / name).symlink_to(self.mktemp())

            error = self.assertRaises(StorageError, DataDirectory, path, "n1")

            self.assertIn(str(path / name), str(error))


class Strays(SynchronousTestCase):
    """Directories that are not the node's own, where its files are."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.path = Path("/node")
        self.disk.make_directory(self.path)

    def open(self) -> FileLog:
        """Open what a node opens."""
        directory = DataDirectory(self.path, "n1", self.disk, 1)
        self.addCleanup(directory.close)
        stable = FileStableStore(directory.state, "n1", self.disk)
        JSONPeers(self.path, self.disk).servers()
        identity = identity_of(self.disk, directory.log, stable)
        return FileLog(directory.log, "n1", self.disk, identity=identity)

    def test_lost_and_found(self) -> None:
        """It does not matter, wherever it is."""
        self.open().close()
        for place in (self.path, self.path / "log", self.path / "snapshots"):
            self.disk.make_directory(place / "lost+found")
        DataDirectory(self.path, "n1", self.disk.after_kill(), 1).close()

        self.assertEqual(self.open().last_index(), 0)

    def test_directory_with_the_name_of_a_file(self) -> None:
        """It is refused, with what to do."""
        for name in (
            "state",
            "state.tmp",
            "peers.json",
            "peers.json.tmp",
            "log/0000000000000001.seg",
            "log/0000000000000001.seg.tmp",
        ):
            self.setUp()
            self.disk.make_directory(self.path / "log")
            self.disk.make_directory(self.path / name)

            error = self.assertRaises(StorageError, self.open)

            self.assertIn(f"{self.path / name}: a directory is in the way", str(error))
            self.disk = Disk()
