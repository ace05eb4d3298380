"""The contract of a stream layer, which connects a `NetworkTransport` to its peers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txraft.interfaces import StreamLayer
from txraft.testing.contracts.case import Contract


class StreamLayerContract(Contract):
    """Tests of a `StreamLayer`: a subclass makes one, and is a `TestCase` of trial.

    The tests are coroutines, as most layers need a reactor.
    """

    def make_layer(self) -> StreamLayer:
        """Make a layer that can connect to itself."""
        raise NotImplementedError

    async def open(self) -> tuple[StreamLayer, Any, _EchoServer]:
        """Listen; return the layer, its port and the factory that serves there."""
        layer, server = self.make_layer(), _EchoServer()
        return layer, await layer.listen(server), server

    async def test_bytes_pass_both_ways(self) -> None:
        """A connection to `addr()` carries bytes in both directions."""
        layer, port, _ = await self.open()

        client = await layer.dial(layer.addr()).connect(_Clients())
        assert isinstance(client, _Peer)
        client.send(b"question")

        self.assertEqual(await client.heard(8), b"QUESTION")
        client.leave()
        await client.ended
        await _stopped(port)

    async def test_end_of_a_connection_is_told(self) -> None:
        """If one end closes, the other end learns it."""
        layer, port, server = await self.open()
        client = await layer.dial(layer.addr()).connect(_Clients())
        assert isinstance(client, _Peer)
        client.send(b"x")
        await client.heard(1)

        client.leave()

        await server.served[0].ended
        await client.ended
        await _stopped(port)

    async def test_addr_is_known_once_listening(self) -> None:
        """`addr` returns an address once the layer listens."""
        layer, port, _ = await self.open()

        self.assertTrue(layer.addr())
        await _stopped(port)

    async def test_dial_refuses_what_is_no_address(self) -> None:
        """`dial` of text that is no address raises ValueError at once."""
        self.assertRaises(ValueError, self.make_layer().dial, "no address")

    async def test_nobody_listens_any_more(self) -> None:
        """Connecting fails after the port has stopped listening."""
        layer, port, _ = await self.open()
        address = layer.addr()
        await _stopped(port)

        failed = False
        try:
            await layer.dial(address).connect(_Clients())
        except Exception:
            failed = True

        self.assertTrue(failed, "somebody still listens")


async def _stopped(port: Any) -> None:
    stopped = port.stopListening()
    if isinstance(stopped, Deferred):
        await stopped


class _Peer(Protocol):
    """Keeps the bytes it receives; a server returns them in capitals."""

    def __init__(self, serves: bool) -> None:
        self.ended: Deferred[None] = Deferred()
        self._serves = serves
        self._data = b""
        self._awaited: tuple[int, Deferred[bytes]] | None = None

    def send(self, data: bytes) -> None:
        assert self.transport is not None, "it is connected"
        self.transport.write(data)

    def leave(self) -> None:
        assert self.transport is not None, "it is connected"
        self.transport.loseConnection()

    def heard(self, size: int) -> Deferred[bytes]:
        """Wait until *size* bytes have arrived; fire with all of them."""
        heard: Deferred[bytes] = Deferred()
        self._awaited = size, heard
        self.dataReceived(b"")
        return heard

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self._serves and data:
            self.send(data.upper())
        if self._awaited is not None and len(self._data) >= self._awaited[0]:
            (_, heard), self._awaited = self._awaited, None
            heard.callback(self._data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


class _EchoServer(Factory):
    noisy = False

    def __init__(self) -> None:
        self.served: list[_Peer] = []

    def buildProtocol(self, addr: IAddress | None) -> _Peer:
        self.served.append(_Peer(serves=True))
        return self.served[-1]


class _Clients(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> _Peer:
        return _Peer(serves=False)
