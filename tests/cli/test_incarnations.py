"""`txraft incarnations`: the data directories that a stopped node knows."""

from __future__ import annotations

import json

from tests.support.data_directories import NODE, OTHERS, DirectoryCase
from txraft.node.incarnations import (
    KNOWN_INCARNATIONS,
    VOID,
    encode_known,
    read_incarnations,
    read_pardoned,
)
from txraft.storage.directory import DataDirectory
from txraft.storage.stores import open_stores


class Incarnations(DirectoryCase):
    """`txraft incarnations`."""

    def setUp(self) -> None:
        super().setUp()
        known = {OTHERS[0]: b"B" * 16, OTHERS[1]: VOID + b"C" * 16}
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        stores.stable.set_many({KNOWN_INCARNATIONS: encode_known(known)})
        self.own, _ = read_incarnations(stores.stable, bytes)
        stores.close()
        directory.close()

    def test_show(self) -> None:
        """It tells its own, those it knows, and which are void."""
        before = self.content()

        result = self.txraft("incarnations", self.path, "--relearn")
        told = self.txraft("incarnations", self.path, "--json")

        self.assertEqual(result.exit_code, 0, result.output)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], f"{NODE}  {self.own.hex()}  (this node)")
        self.assertEqual(lines[1], f"{OTHERS[0]}  {'42' * 16}")
        self.assertEqual(lines[2], f"{OTHERS[1]}  {'43' * 16}  void: it is refused")
        self.assertIn("Nothing was changed", lines[3])
        known = json.loads(told.stdout)["known"]
        self.assertEqual(known[OTHERS[1]], {"incarnation": "43" * 16, "void": True})
        self.assertEqual(self.content(), before)

    def test_relearn(self) -> None:
        """It forgets the others' and what the log says of them, not its own."""
        result = self.txraft("incarnations", self.path, "--relearn", "--yes")

        self.assertEqual(result.exit_code, 0, result.output)
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        self.addCleanup(directory.close)
        self.addCleanup(stores.close)
        self.assertEqual(read_incarnations(stores.stable, bytes), (self.own, {}))
        self.assertEqual(read_pardoned(stores.stable), 4)


class IncarnationsInLMDB(Incarnations):
    """The same of a log in LMDB."""

    kind = "lmdb"
