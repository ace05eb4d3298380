"""The contract of a loopback transport: tests connect and disconnect its routes."""

from __future__ import annotations

from typing import Any

from txraft.errors import ConnectionClosedByPeer, ConnectionFailed
from txraft.interfaces import LoopbackTransport
from txraft.testing.contracts.samples import Recorder, agree, append
from txraft.testing.contracts.transports import TransportContract


class LoopbackTransportContract(TransportContract):
    """Tests of a `LoopbackTransport`: those of a `Transport`, and those of its routes.

    `make_pair` must connect both to each other.
    """

    def test_fits_its_plug_points(self) -> None:
        """It has the methods of `LoopbackTransport`."""
        self.assertIsInstance(self.here, LoopbackTransport)

    def test_disconnect_ends_calls_and_tells_the_other_side(self) -> None:
        """`disconnect` looks like the end of a connection, at both ends."""
        call = self.here.append_entries("b:1", append(3))
        pipeline = self.pipeline()
        flying = pipeline.append_entries(append(4))
        self.settle()

        self.here.disconnect("b:1")
        self.settle()

        self.failureResultOf(call, ConnectionClosedByPeer)
        self.failureResultOf(flying, ConnectionClosedByPeer)
        self.assertEqual(len(self.peer.closed), 2)
        refused = self.here.append_entries("b:1", append(3))
        self.failureResultOf(refused, ConnectionFailed)

    def test_disconnect_leaves_the_other_direction(self) -> None:
        """`disconnect` ends one direction only."""
        self.here.disconnect("b:1")
        self.here.set_handler(Recorder(agree))
        call = self.there.append_entries("a:1", append(3))
        self.settle()
        self.successResultOf(call)

    def test_idle_connection_is_dropped_too(self) -> None:
        """After `disconnect` and `connect`, calls use a new connection."""
        peer: Any = Recorder(agree)
        self.there.set_handler(peer)
        first = self.here.append_entries("b:1", append(3))
        self.settle()
        self.successResultOf(first)
        self.here.disconnect("b:1")
        self.here.connect("b:1", self.there)
        call = self.here.append_entries("b:1", append(4))
        self.settle()
        self.successResultOf(call)
        self.assertNotEqual(peer.rpcs[0].connection, peer.rpcs[1].connection)
        self.assertEqual(peer.closed, [peer.rpcs[0].connection])

    def test_disconnect_all_cuts_both_directions(self) -> None:
        """`disconnect_all` ends the connections from peers too."""
        self.there.set_handler(Recorder())
        theirs = self.there.append_entries("a:1", append(3))
        ours = self.here.append_entries("b:1", append(3))
        self.here.disconnect_all()
        self.settle()
        self.failureResultOf(ours, ConnectionClosedByPeer)
        self.failureResultOf(theirs, ConnectionClosedByPeer)
