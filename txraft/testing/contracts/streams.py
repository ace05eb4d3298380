"""What `NetworkTransport` relies on in every stream layer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txraft.interfaces import StreamLayer
from txraft.testing.contracts.case import Contract


class StreamLayerContract(Contract):
    """The tests of a `StreamLayer`; a subclass makes one, and is a `TestCase` of trial.

    Its tests are coroutines, for layers that need a reactor.
    """

    def make_layer(self) -> StreamLayer:
        """Make a layer that can reach itself."""
        raise NotImplementedError

    async def open(self) -> tuple[StreamLayer, Any, _Server]:
        """Listen; return the layer, its port and what serves there."""
        layer, server = self.make_layer(), _Server()
        return layer, await layer.listen(server), server

    async def test_bytes_pass_both_ways(self) -> None:
        """What is dialled is who listens, and each hears the other."""
        layer, port, _ = await self.open()

        client = await layer.dial(layer.addr()).connect(_Clients())
        assert isinstance(client, _Peer)
        client.send(b"question")

        self.assertEqual(await client.heard(8), b"QUESTION")
        client.leave()
        await client.ended
        await _stopped(port)

    async def test_end_of_a_connection_is_told(self) -> None:
        """One that closes ends the other."""
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
        """It is what others dial."""
        layer, port, _ = await self.open()

        self.assertTrue(layer.addr())
        await _stopped(port)

    async def test_dial_refuses_what_is_no_address(self) -> None:
        """A mistake is told from a peer that is not there."""
        self.assertRaises(ValueError, self.make_layer().dial, "no address")

    async def test_nobody_listens_any_more(self) -> None:
        """After the port has stopped, connecting fails."""
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
    """Keeps what it hears; answers in capitals if it serves."""

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
        """Wait until *size* bytes have come."""
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


class _Server(Factory):
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
