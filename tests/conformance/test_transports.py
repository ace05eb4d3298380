"""N, T, M and A: transports, as hashicorp/raft's own suite exercises them.

What all transports have in common is the contract in `txraft.testing.contracts`,
which ours pass in tests/transport/test_contract.py. Here is each row by name, over
streams and in memory alike.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.transports import MemoryNetwork, MemoryPort
from txraft import (
    DEFAULT_TIMEOUT_SCALE,
    AppendEntriesRequest,
    InmemTransport,
    LoopbackTransport,
    NetworkTransport,
    NotAdvertisable,
    RequestVoteRequest,
    RequestVoteResponse,
    TransportShutdown,
    WithClose,
    WithPeers,
    decode_peer,
    encode_peer,
    new_inmem_addr,
    new_tcp_transport,
)
from txraft.testing.contracts.samples import (
    HEADER,
    BytesSource,
    Recorder,
    agree,
    append,
    snapshot,
    success,
)


class Calls:
    """The rows that hashicorp/raft tests on streams and again on loopbacks."""

    clock: Clock
    here: Any
    there: Any
    peer: Any
    assertEqual: Any
    assertTrue: Any
    successResultOf: Any
    failureResultOf: Any

    def make_pair(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.here, self.there = self.make_pair()
        self.peer = Recorder(agree)
        self.there.set_handler(self.peer)

    def settle(self) -> None:
        for _ in range(3):
            self.clock.advance(0)

    def test_start_and_stop(self) -> None:
        """N01, T01: it opens and closes, and then says so."""
        closed = self.here.close()
        self.settle()

        self.successResultOf(closed)
        self.assertTrue(self.here.is_shutdown)
        call = self.here.append_entries("b:1", append(1))
        self.failureResultOf(call, TransportShutdown)

    def test_append_entries(self) -> None:
        """N03, T02: request and answer arrive unchanged."""
        request = append(10, previous=100, entries=2)

        answer = self.here.append_entries("b:1", request)
        self.settle()

        self.assertEqual(self.successResultOf(answer), success(request))
        [received] = self.peer.commands
        self.assertEqual(list(received.entries), list(request.entries))
        self.assertEqual(
            (received.term, received.leader, received.prev_log_index),
            (10, "a:1", 100),
        )

    def test_append_entries_pipeline(self) -> None:
        """N04, T03: ten requests without waiting, ten answers in order."""
        opened = self.here.append_entries_pipeline("b:1")
        self.settle()
        pipeline = self.successResultOf(opened)
        terms: list[int] = []

        for term in range(1, 11):
            answer = pipeline.append_entries(append(term, previous=1, entries=1))
            answer.addCallback(lambda response: terms.append(response.term))
        self.settle()

        self.assertEqual(terms, list(range(1, 11)))
        pipeline.close()

    def test_request_vote(self) -> None:
        """N05, T04: the answer's list of peers too."""
        answer = self.here.request_vote("b:1", RequestVoteRequest(20, "butters", 9, 19))
        self.settle()

        expected = RequestVoteResponse(20, True, ("h:1",), HEADER)
        self.assertEqual(self.successResultOf(answer), expected)

    def test_install_snapshot(self) -> None:
        """N06, T05: a request, ten bytes behind it, and the answer."""
        self.there.set_handler(peer := Recorder())
        answer = self.here.install_snapshot(
            "b:1", snapshot(10), BytesSource(b"0123456789")
        )
        self.settle()
        pieces: list[bytes] = []
        [rpc] = peer.rpcs
        assert rpc.body is not None

        rpc.body.deliver_to(pieces.append)
        self.settle()
        rpc.respond(success(rpc.command))
        self.settle()

        self.assertEqual(b"".join(pieces), b"0123456789")
        self.assertTrue(self.successResultOf(answer).success)

    def test_encode_and_decode(self) -> None:
        """N07, T06: an address comes back."""
        for address in (
            "127.0.0.1:8300",
            self.here.local_addr(),
            new_inmem_addr(Random(1)),
        ):
            self.assertEqual(
                self.here.decode_peer(self.here.encode_peer(address)), address
            )
            self.assertEqual(decode_peer(encode_peer(address)), address)


class Streams(Calls, SynchronousTestCase):
    """N: the transport over a stream layer."""

    def make_pair(self) -> tuple[NetworkTransport, NetworkTransport]:
        self.network = MemoryNetwork(self.clock)
        pair = []
        for address in ("a:1", "b:1"):
            layer = self.network.layer(address)
            transport = NetworkTransport(self.clock, layer, max_pool=3, timeout=1.0)
            self.successResultOf(transport.listen())
            pair.append(transport)
        return pair[0], pair[1]

    def test_heartbeat_fast_path(self) -> None:
        """N02: what has a heartbeat's shape reaches the heartbeat handler only."""
        fast = Recorder(agree)
        self.there.set_heartbeat_handler(fast.rpc_received)
        beat = AppendEntriesRequest(10, "cartman", header=HEADER)

        answer = self.here.append_entries("b:1", beat)
        self.settle()

        self.assertEqual(self.successResultOf(answer), success(beat))
        self.assertEqual(len(fast.rpcs), 1)
        self.assertEqual(self.peer.rpcs, [])

    def test_pooled_connections(self) -> None:
        """N08: after five calls at once, three connections are kept."""
        calls = [self.here.append_entries("b:1", append(term)) for term in range(5)]
        self.assertEqual(self.network.open, 5)

        self.settle()

        for call in calls:
            self.successResultOf(call)
        self.assertEqual(self.network.open, 3)

    def test_timeout_scale(self) -> None:
        """A8: a snapshot is granted the timeout once for every so many bytes."""
        self.assertEqual(self.here.timeout_scale, DEFAULT_TIMEOUT_SCALE)
        self.assertEqual(DEFAULT_TIMEOUT_SCALE, 256 * 1024)
        self.there.set_handler(Recorder())
        self.here.timeout_scale = 5
        answer = self.here.install_snapshot(
            "b:1", snapshot(10), BytesSource(b"0123456789")
        )

        self.clock.advance(1.5)
        self.settle()
        self.assertNoResult(answer)
        self.clock.advance(1.0)

        self.failureResultOf(answer)


class Loopbacks(Calls, SynchronousTestCase):
    """T: the transport inside one process."""

    def make_pair(self) -> tuple[InmemTransport, InmemTransport]:
        here, there = (InmemTransport(self.clock, a) for a in ("a:1", "b:1"))
        here.connect("b:1", there)
        there.connect("a:1", here)
        return here, there

    def test_capabilities(self) -> None:
        """M01: it is a loopback transport, with peers and to be closed."""
        for capability in (LoopbackTransport, WithPeers, WithClose):
            self.assertIsInstance(self.here, capability)

    def test_random_address(self) -> None:
        """A1: without an address it makes one, in the form of a UUID."""
        made = InmemTransport(self.clock).local_addr()
        self.assertRegex(made, r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


@implementer(IStreamServerEndpoint)
class ReadyMade:
    """An endpoint that somebody has bound already."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.stopped = 0

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        port = MemoryPort(self._stop)
        port.getHost = lambda: IPv4Address("TCP", self.host, 8300)  # type: ignore[method-assign]
        return succeed(port)

    def _stop(self) -> None:
        self.stopped += 1


class TCP(SynchronousTestCase):
    """A: addresses that others can dial, and none that they cannot."""

    def transport(self, host: str, advertise: str | None = None) -> Any:
        self.endpoint = ReadyMade(host)
        return new_tcp_transport(MemoryReactorClock(), self.endpoint, advertise)

    def test_bad_address(self) -> None:
        """A01: a wildcard without an address to advertise is refused, and closed."""
        for host in ("0.0.0.0", "::"):
            self.failureResultOf(self.transport(host), NotAdvertisable)
            self.assertEqual(self.endpoint.stopped, 1)

    def test_with_advertise(self) -> None:
        """A02: the local address is the advertised one."""
        transport = self.successResultOf(self.transport("0.0.0.0", "10.0.0.1:8300"))
        self.assertEqual(transport.local_addr(), "10.0.0.1:8300")

    def test_ready_made_endpoint(self) -> None:
        """A0: the caller's own listener, whose address is advertised."""
        transport = self.successResultOf(self.transport("10.0.0.2"))
        self.assertEqual(transport.local_addr(), "10.0.0.2:8300")
