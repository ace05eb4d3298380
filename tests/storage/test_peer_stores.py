"""Peer stores."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk
from txraft.core.configuration import Server, Suffrage
from txraft.errors import StorageError
from txraft.interfaces import PeerStore
from txraft.storage.peer_stores import MAX_PEERS_BYTES, JSONPeers, StaticPeers
from txraft.testing.contracts import PeerStoreContract

FILE = Path("/peers.json")


class Static(PeerStoreContract, SynchronousTestCase):
    """The contract, in memory."""

    def make_store(self) -> PeerStore:
        return StaticPeers()

    def test_initial(self) -> None:
        """It can begin with a list."""
        self.assertEqual(StaticPeers(["a:1"]).peers(), ["a:1"])


class Json(PeerStoreContract, SynchronousTestCase):
    """The contract, in a file, and the file."""

    def make_store(self) -> JSONPeers:
        self.disk = Disk()
        return JSONPeers("/", self.disk)

    def test_file(self) -> None:
        """The file is what 0.1.0 writes; it is durable."""
        store = self.make_store()

        store.set_peers(["127.0.0.1:22601", "127.0.0.1:22602"])

        after = self.disk.after_power_cut("lost")
        expected = b'["127.0.0.1:22601","127.0.0.1:22602"]\n'
        self.assertEqual(after.content(FILE).data, expected)

    def test_empty_file(self) -> None:
        """An empty file is no peers."""
        for text in (b"", b"\n", b"[]"):
            store = self.make_store()
            self.disk.create(FILE).write_at(text, 0)
            self.assertEqual(store.peers(), [])

    def test_refused(self) -> None:
        """Anything but a list of addresses is refused, naming the file."""
        for text in (
            b"null",
            b"{}",
            b'"a:1"',
            b"[1]",
            b'[""]',
            b'["a:1","a:1"]',
            b'["a:1"',
            b'["a:1"] // comment',
            b'[{"id":"n1"}]',
            b'[{"id":"","address":"a:1"}]',
            b'[{"id":"n1","address":"a:1","non_voter":1}]',
            b'[{"id":"n1","address":"a:1"},{"id":"n1","address":"b:1"}]',
            b" " * (MAX_PEERS_BYTES + 1),
            b"[" * 100_000,
        ):
            store = self.make_store()
            self.disk.create(FILE).write_at(text, 0)

            error = self.assertRaises(StorageError, store.peers)

            self.assertIn(str(FILE), str(error))
            self.assertIn("write a JSON list", str(error))

    def test_servers(self) -> None:
        """The form with ids is what versioned Go peers read."""
        store = self.make_store()
        self.disk.create(FILE).write_at(
            b'[{"id":"node-1","address":"a:1"},'
            b'{"id":"node-2","address":"b:1","non_voter":true}]',
            0,
        )

        self.assertEqual(store.peers(), ["a:1", "b:1"])
        servers = store.servers()
        self.assertEqual(
            servers,
            [Server("node-1", "a:1"), Server("node-2", "b:1", Suffrage.NONVOTER)],
        )
        store.set_servers(servers)
        self.assertEqual(store.servers(), servers)
        store.set_peers(["a:1"])
        self.assertEqual(store.servers(), [Server("a:1", "a:1")])

    def test_mode(self) -> None:
        """The file is for its owner alone."""
        path = Path(self.mktemp())
        path.mkdir()

        JSONPeers(path).set_peers(["a:1"])

        self.assertEqual((path / "peers.json").stat().st_mode & 0o777, 0o600)
        self.assertEqual(JSONPeers(path).peers(), ["a:1"])
