"""Lists of peers, and their bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.wire.membership import (
    add_unique_peer,
    decode_peer,
    encode_peer,
    exclude_peer,
    peer_contained,
)


class Lists(SynchronousTestCase):
    """Each answer is a list of its own: what was handed in stays as it was."""

    def test_add_unique_peer(self) -> None:
        """A peer that is there is not added again."""
        peers = ["a:1", "b:1"]

        self.assertEqual(add_unique_peer(peers, "c:1"), ["a:1", "b:1", "c:1"])
        self.assertEqual(add_unique_peer(peers, "a:1"), peers)
        add_unique_peer(peers, "a:1").append("d:1")
        self.assertEqual(peers, ["a:1", "b:1"])

    def test_exclude_peer(self) -> None:
        """Every occurrence goes, and order is kept."""
        peers = ["a:1", "b:1", "a:1", "c:1"]

        self.assertEqual(exclude_peer(peers, "a:1"), ["b:1", "c:1"])
        self.assertEqual(exclude_peer(peers, "d:1"), peers)

    def test_peer_contained(self) -> None:
        """The whole address counts."""
        self.assertTrue(peer_contained(["a:1"], "a:1"))
        self.assertFalse(peer_contained(["a:1"], "a:10"))

    def test_encode_and_decode(self) -> None:
        """Any bytes come back, be they text or not."""
        for raw in (b"127.0.0.1:8300", "ü:1".encode(), b"\xff\x00odd", b""):
            self.assertEqual(encode_peer(decode_peer(raw)), raw)
