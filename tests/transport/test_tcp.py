"""Real TCP on loopback, addresses, and what may be advertised."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet import defer, endpoints
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from txraft.errors import ConnectionFailed, NotAdvertisable
from txraft.interfaces import IncomingRPC
from txraft.testing.contracts.samples import (
    BytesSource,
    Recorder,
    agree,
    append,
    snapshot,
    success,
)
from txraft.transport.network import NetworkTransport
from txraft.transport.tcp import (
    TCPStreamLayer,
    join_address,
    new_tcp_transport,
    split_address,
)


class Addresses(SynchronousTestCase):
    def test_address_splits_and_joins(self) -> None:
        """Names, IPv4 and bracketed IPv6, as Go peers write them."""
        for address, parts in (
            ("127.0.0.1:8300", ("127.0.0.1", 8300)),
            ("node-1.example:1", ("node-1.example", 1)),
            ("[::1]:8300", ("::1", 8300)),
        ):
            self.assertEqual(split_address(address), parts)
            self.assertEqual(join_address(*parts), address)

    def test_nonsense_is_refused_by_name(self) -> None:
        """What is wrong is said about the address itself."""
        for address in (
            "",
            "host",
            ":8300",
            "host:",
            "host:port",
            "host:65536",
            "host:-1",
            "host:٣",
            "::1:8300",
            "[::1]",
            "[host]:1",
            "a:b:c",
        ):
            error = self.assertRaises(ValueError, split_address, address)
            self.assertIn(repr(address), str(error))


@implementer(IStreamServerEndpoint)
class Bound:
    """An endpoint, and its port, that are bound where a test says."""

    def __init__(self, address: object) -> None:
        self.address = address
        self.stopped = False

    def listen(self, protocolFactory: Factory) -> defer.Deferred[Any]:
        return defer.succeed(self)

    def getHost(self) -> object:
        return self.address

    def stopListening(self) -> None:
        self.stopped = True


class Listening(SynchronousTestCase):
    def transport(self, listen: str, advertise: str | None = None) -> Any:
        """Listen on a reactor in memory."""
        self.reactor = MemoryReactorClock()
        return new_tcp_transport(self.reactor, listen, advertise)

    def test_bound_address_is_advertised(self) -> None:
        """Without another name a node is known by where its socket is bound."""
        for bound, address in (
            (IPv4Address("TCP", "127.0.0.1", 8300), "127.0.0.1:8300"),
            (IPv6Address("TCP", "::1", 8300), "[::1]:8300"),
        ):
            made = new_tcp_transport(MemoryReactorClock(), Bound(bound))
            self.assertEqual(self.successResultOf(made).local_addr(), address)

    def test_socket_without_host_and_port_needs_an_advertised_address(self) -> None:
        """A path is no address, and the port is closed again."""
        bound = Bound(UNIXAddress("/run/raft"))
        made = new_tcp_transport(MemoryReactorClock(), bound)
        self.failureResultOf(made, NotAdvertisable)
        self.assertTrue(bound.stopped)

    def test_wildcard_needs_an_advertised_address(self) -> None:
        """Peers cannot dial 0.0.0.0."""
        made = self.transport("tcp:8300")
        failure = self.failureResultOf(made, NotAdvertisable)
        self.assertIn("0.0.0.0:8300", str(failure.value))
        made = self.transport("tcp:8300", "node-1:8300")
        self.assertEqual(self.successResultOf(made).local_addr(), "node-1:8300")

    def test_advertised_address_must_be_one(self) -> None:
        """Nothing is opened for an address that nobody can dial."""
        for advertise in ("0.0.0.0:8300", "[::]:8300", "node-1:0", "node-1"):
            made = self.transport("tcp:8300:interface=127.0.0.1", advertise)
            self.failureResultOf(made, NotAdvertisable)
            self.assertEqual(self.reactor.tcpServers, [])

    def test_name_is_resolved_at_each_dial(self) -> None:
        """Names go to the resolver, numbers straight to a socket."""
        reactor = MemoryReactorClock()
        layer = TCPStreamLayer(
            reactor, endpoints.TCP4ServerEndpoint(reactor, 8300), "node-1:8300"
        )
        kinds = [
            type(layer.dial(address)).__name__
            for address in ("node-2:8300", "192.0.2.1:8300", "[2001:db8::1]:8300")
        ]
        self.assertEqual(
            kinds, ["HostnameEndpoint", "TCP4ClientEndpoint", "TCP6ClientEndpoint"]
        )


class Loopback(TestCase):
    """Two nodes and real sockets."""

    @defer.inlineCallbacks
    def setUp(self) -> Generator[Any, Any, None]:
        from twisted.internet import reactor

        self.reactor = reactor
        self.here = yield self.listen()
        self.there = yield self.listen()
        self.here.set_handler(Recorder())

    def listen(self, timeout: float = 20.0) -> defer.Deferred[NetworkTransport]:
        """Make a transport on a port of its own, closed after the test."""
        made = new_tcp_transport(
            self.reactor, "tcp:0:interface=127.0.0.1", timeout=timeout
        )

        def remember(transport: NetworkTransport) -> NetworkTransport:
            self.addCleanup(transport.close)
            return transport

        return made.addCallback(remember)

    @defer.inlineCallbacks
    def test_calls_and_pipeline(self) -> Generator[Any, Any, None]:
        """Calls and a thousand pipelined requests come back in order."""
        self.there.set_handler(peer := Recorder(agree))
        target = self.there.local_addr()

        first = yield self.here.append_entries(target, append(3))
        pipeline = yield self.here.append_entries_pipeline(target)
        answers = yield defer.gatherResults(
            [
                pipeline.append_entries(append(3 + number, previous=64, entries=64))
                for number in range(1000)
            ]
        )
        pipeline.close()

        self.assertEqual(first, success(append(3)))
        self.assertEqual([a.term for a in answers], list(range(3, 1003)))
        self.assertEqual(len(peer.rpcs), 1001)

    @defer.inlineCallbacks
    def test_snapshot(self) -> Generator[Any, Any, None]:
        """Several megabytes arrive unchanged, through real back-pressure."""
        data = bytes(range(256)) * (1 << 14)
        pieces: list[bytes] = []

        def take(rpc: IncomingRPC) -> None:
            def consume(piece: bytes) -> defer.Deferred[None]:
                pieces.append(piece)
                later = defer.Deferred[None]()
                self.reactor.callLater(0, later.callback, None)
                return later

            assert rpc.body is not None
            done = rpc.body.deliver_to(consume)
            done.addCallback(lambda _: agree(rpc))

        self.there.set_handler(Recorder(take))
        answer = yield self.here.install_snapshot(
            self.there.local_addr(), snapshot(len(data)), BytesSource(data)
        )
        self.assertTrue(answer.success)
        self.assertEqual(b"".join(pieces), data)

    @defer.inlineCallbacks
    def test_http_is_turned_away_while_others_go_on(self) -> Generator[Any, Any, None]:
        """A browser on the peer port is cut off, and a peer is still served."""
        self.there.set_handler(Recorder(agree))
        from tests.support.transports import RawPeer

        ended = defer.Deferred[None]()

        class Browser(RawPeer):
            def connectionMade(self) -> None:
                self.transport.write(b"GET / HTTP/1.1\r\n\r\n")  # type: ignore[union-attr]

            def connectionLost(self, reason: object = None) -> None:  # type: ignore[override]
                ended.callback(None)

        _, port = split_address(self.there.local_addr())
        endpoint = endpoints.TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        yield endpoint.connect(Factory.forProtocol(Browser))
        yield ended
        answer = yield self.here.append_entries(self.there.local_addr(), append(3))
        self.assertEqual(answer, success(append(3)))

    @defer.inlineCallbacks
    def test_dead_peer_is_refused_and_port_in_use_is_named(
        self,
    ) -> Generator[Any, Any, None]:
        """A closed port fails a dial, and an open one cannot be had twice."""
        address = self.there.local_addr()
        _, port = split_address(address)
        again = new_tcp_transport(self.reactor, f"tcp:{port}:interface=127.0.0.1")
        yield self.assertFailure(again, CannotListenError)

        yield self.there.close()

        yield self.assertFailure(
            self.here.append_entries(address, append(3)), ConnectionFailed
        )
