"""The data directory of a stopped node, and commands on it."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from txraft.cli.app import main
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState
from txraft.kv.commands import encode_put
from txraft.node.writer import stored_state
from txraft.storage.directory import DataDirectory
from txraft.storage.stores import open_stores
from txraft.wire.entries import encode_new

NODE = "127.0.0.1:8300"
OTHERS = ("127.0.0.1:8310", "127.0.0.1:8320")
VERSION = 1


class DirectoryCase(SynchronousTestCase):
    """The data directory of a node that was a member of three, and has stopped."""

    kind = "file"

    def setUp(self) -> None:
        self.path = Path(mkdtemp()) / "n1"
        self.addCleanup(rmtree, self.path.parent)
        members = Configuration.of_voters((NODE, *OTHERS))
        entries = [
            Entry(1, 1, LogType.ADD_PEER, configuration=members),
            Entry(2, 2, LogType.NOOP),
            Entry(3, 2, LogType.COMMAND, encode_put("a", b"x")),
            Entry(4, 2, LogType.COMMAND, encode_put("b", b"y" * 500)),
        ]
        for entry in entries:
            encode_new(entry, VERSION)
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        stores.stable.set_many(stored_state(HardState(2, NODE)))
        stores.log.store_logs(entries[:2])
        stores.log.store_logs(entries[2:])
        stores.close()
        directory.close()

    def txraft(self, *arguments: object) -> Result:
        """Run one command."""
        return CliRunner().invoke(
            main, [str(argument) for argument in arguments], catch_exceptions=False
        )

    def content(self) -> dict[str, bytes]:
        """Return every file and what is in it."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file()
        }
