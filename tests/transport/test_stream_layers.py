"""Our stream layers through the contract: TCP on loopback, and memory."""

from __future__ import annotations

from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.support.transports import MemoryLayer, MemoryNetwork
from txraft.interfaces import StreamLayer
from txraft.testing.contracts import StreamLayerContract
from txraft.transport.tcp import TCPStreamLayer


class TCPLayers(StreamLayerContract, TestCase):
    """The contract, over sockets."""

    def make_layer(self) -> StreamLayer:
        from twisted.internet import reactor

        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        return TCPStreamLayer(reactor, endpoint)


class TurningClock(Clock):
    """A clock for what a real reactor would do at once."""

    def callLater(self, when: float, what: object, *args: object, **kw: object):  # type: ignore[no-untyped-def,override]
        from twisted.internet import reactor

        return reactor.callLater(when, what, *args, **kw)  # type: ignore[attr-defined]


class MemoryLayers(StreamLayerContract, TestCase):
    """The contract, by the layer that the tests of transports use."""

    def make_layer(self) -> MemoryLayer:
        return MemoryNetwork(TurningClock()).layer("a:1")
