"""The contract of a peer store: it keeps one list of addresses."""

from __future__ import annotations

from txraft.interfaces import PeerStore
from txraft.testing.contracts.case import Contract


class PeerStoreContract(Contract):
    """Tests of a `PeerStore`: a subclass makes an empty one."""

    def make_store(self) -> PeerStore:
        """Make an empty store."""
        raise NotImplementedError

    def test_peers(self) -> None:
        """`peers` returns the list that was set last, in its order."""
        store = self.make_store()
        self.assertEqual(store.peers(), [])

        store.set_peers(["c:1"])
        store.set_peers(["b:1", "a:1"])

        self.assertEqual(store.peers(), ["b:1", "a:1"])

    def test_peers_is_a_copy(self) -> None:
        """Changing the returned list does not change the store."""
        store = self.make_store()
        store.set_peers(["a:1"])

        store.peers().append("b:1")

        self.assertEqual(store.peers(), ["a:1"])
