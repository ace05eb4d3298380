"""The identity that a log and its state file share."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import WrongDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.pairing import identity_of
from txraft.storage.stable import IDENTITY, FileStableStore
from txraft.testing.contracts.samples import command

OLD, NEW = b"o" * 16, b"n" * 16


class Identities(SynchronousTestCase):
    """A log without its state file is refused, and a new directory gets a number."""

    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        self.log = path / "log"
        self.stable = FileStableStore(path / "state", "n1")

    def identity(self) -> bytes:
        """Return the identity of the directory; a new one would be `NEW`."""
        return identity_of(
            OsFileSystem(), self.log, self.stable, lambda size: NEW[:size]
        )

    def write_log(self, identity: bytes) -> None:
        """Write a log of one entry that has *identity*."""
        log = FileLog(self.log, "n1", identity=identity)
        log.store_log(command(1))
        log.close()

    def test_new_directory(self) -> None:
        """It gets a number, which is durable before any segment could contain it."""
        self.assertEqual(self.identity(), NEW)

        again = FileStableStore(self.log.parent / "state", "n1")
        self.assertEqual(again.get(IDENTITY), NEW)
        self.assertFalse(self.log.exists())

    def test_known(self) -> None:
        """A directory keeps the number that it was made with."""
        self.stable.set(IDENTITY, OLD)
        self.write_log(OLD)

        self.assertEqual(self.identity(), OLD)

    def test_log_without_its_state(self) -> None:
        """A log whose state file is gone is refused, and nothing is changed.

        Term and vote are gone with it: the node could vote twice in a term.
        """
        self.write_log(OLD)

        error = self.assertRaises(WrongDirectory, self.identity)

        self.assertIn(str(self.log), str(error))
        self.assertEqual(self.stable.get(IDENTITY), b"")

    def test_log_older_than_identities(self) -> None:
        """A log whose segments name no directory is accepted, and gets a number."""
        self.write_log(b"")

        self.assertEqual(self.identity(), NEW)
