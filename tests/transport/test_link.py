"""The calling side: the pool, dialling, deadlines, peers that answer nonsense."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.transports import MemoryNetwork, MemoryTransport, RawPeer
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ConnectionFailed,
    ProtocolError,
    TransportShutdown,
)
from txraft.testing.contracts.samples import BytesSource, append, snapshot, success
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.link import Link
from txraft.transport.network import NetworkTransport
from txraft.wire.requests import REQUEST_PRE_VOTE
from txraft.wire.responses import encode_response
from txraft.wire.stream import MessageLimits

TIMEOUT = 2.0
ANSWER = encode_response(success(append(3)))


class LinkCase(SynchronousTestCase):
    """A transport that calls, and raw peers that answer as a test says."""

    connection_limits = ConnectionLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)
        self.transport = NetworkTransport(
            self.clock,
            self.network.layer("a:1"),
            timeout=TIMEOUT,
            connection_limits=self.connection_limits,
        )
        self.peers: list[RawPeer] = []
        self.network.listening["b:1"] = Factory.forProtocol(self.new_peer)

    def new_peer(self) -> Protocol:
        """Make the peer's end of a connection."""
        self.peers.append(RawPeer())
        return self.peers[-1]

    def answer(self, number: int, data: bytes = ANSWER) -> None:
        """Let peer *number* write *data*."""
        self.peers[number].transport.write(data)  # type: ignore[union-attr]
        self.clock.advance(0)

    @property
    def near(self) -> MemoryTransport:
        """The transport's end of the newest connection."""
        return self.network.connections[-1][0]


class Pool(LinkCase):
    def test_idle_connection_to_a_removed_member_is_closed(self) -> None:
        """Nothing is said any more to one that was removed."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0)
        self.successResultOf(call)

        self.transport.members_committed(["a:1", "b:1"])
        self.clock.advance(0)
        self.assertEqual(self.network.open, 1)
        self.transport.members_committed(["a:1"])
        self.clock.advance(0)

        self.assertEqual(self.network.open, 0)

    def test_at_most_max_pool_stay_idle(self) -> None:
        """Connections beyond the pool are closed once their call is answered."""
        calls = [self.transport.append_entries("b:1", append(3)) for _ in range(5)]
        self.clock.advance(0)
        for number in range(5):
            self.answer(number)
        for call in calls:
            self.successResultOf(call)
        self.clock.advance(0)
        self.assertEqual(self.network.open, 3)

    def test_newest_idle_connection_is_used_first(self) -> None:
        """The pool is last in, first out."""
        for _ in range(2):
            self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0)
        self.answer(1)
        length = [len(peer.received) for peer in self.peers]

        self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)

        self.assertEqual(len(self.peers[0].received), length[0])
        self.assertGreater(len(self.peers[1].received), length[1])

    def test_connection_that_ended_is_not_used(self) -> None:
        """An idle connection that its peer closed is forgotten at once."""
        self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0)
        self.peers[0].transport.loseConnection()  # type: ignore[union-attr]
        self.clock.advance(0)

        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(1)

        self.successResultOf(call)

    def test_idle_connection_that_speaks_is_closed(self) -> None:
        """Bytes that answer nothing end a connection and fail no call."""
        self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0, ANSWER + ANSWER)
        self.clock.advance(0)
        self.assertTrue(self.peers[0].lost)

    def test_connection_of_a_cancelled_call_is_closed(self) -> None:
        """Its answer may still come, so nobody else can use it."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        call.cancel()
        self.failureResultOf(call)
        self.clock.advance(0)
        self.assertTrue(self.peers[0].lost)

    def test_no_timer_is_left_behind(self) -> None:
        """Closing leaves nothing on the clock and no connection open."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0)
        self.successResultOf(call)

        closed = self.transport.close()
        self.clock.advance(0)

        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.network.open, 0)


class Answers(LinkCase):
    def test_nonsense_fails_the_call_and_closes(self) -> None:
        """An answer that cannot be read ends the connection, named."""
        for number, (data, reason) in enumerate(
            (
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", "looks like HTTP"),
                (b"\x15\x03\x01\x00\x02\x02\x46", "looks like TLS"),
                (b"\xa0\x93\x01\x02\x03", "no map"),
                (b"\xa0\x81\xa4Term\xa1x", "Term has an odd value"),
                (b"\x90", "error string"),
            )
        ):
            call = self.transport.append_entries("b:1", append(3))
            self.clock.advance(0)
            self.answer(number, data)

            failure = self.failureResultOf(call, ProtocolError)
            self.assertIn(reason, str(failure.value))
            self.assertIn("b:1", str(failure.value))
            self.clock.advance(0)
            self.assertTrue(self.peers[number].lost)

    def test_endless_answer_is_cut_at_the_limit(self) -> None:
        """An answer may be as large as its limit and no larger."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.answer(0, b"\xdb\x7f\xff\xff\xff")
        for _ in range(40):
            self.answer(0, bytes(1 << 16))
        self.failureResultOf(call, ProtocolError)

    def test_answer_in_single_bytes(self) -> None:
        """An answer may arrive in any pieces."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        for start in range(len(ANSWER)):
            self.answer(0, ANSWER[start : start + 1])
        self.assertEqual(self.successResultOf(call), success(append(3)))

    def test_connection_that_ends_fails_the_call(self) -> None:
        """A peer that closes instead of answering is told apart from silence."""
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(0)
        self.peers[0].transport.loseConnection()  # type: ignore[union-attr]
        self.clock.advance(0)
        self.failureResultOf(call, ConnectionClosedByPeer)


class Socket(StringTransport):
    """What TLS is spoken over."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing."""


class Secured(SynchronousTestCase):
    """A connection over TLS, whose handshake ends later at the other side."""

    def setUp(self) -> None:
        self.link = Link(Clock(), "b:1", MessageLimits(), lambda _: None)
        inner = Factory.forProtocol(lambda: self.link)
        outer = TLSMemoryBIOFactory(optionsForClientTLS("b.example"), True, inner)
        self.tls = outer.buildProtocol(None)
        self.tls.makeConnection(Socket())
        self.call = self.link.send(b"\x04\x80", REQUEST_PRE_VOTE, 10.0)

    def test_connection_that_is_not_taken(self) -> None:
        """A reset before the first answer is no closing on the request."""
        self.tls.connectionLost(Failure(ConnectionLost()))

        self.failureResultOf(self.call, ConnectionFailed)

    def test_connection_that_is_closed(self) -> None:
        """A connection that ends in good order was taken."""
        self.link.connectionLost(Failure(ConnectionDone()))

        self.failureResultOf(self.call, ConnectionClosedByPeer)

    def test_reset_of_a_connection_in_use(self) -> None:
        """Once the peer has answered anything it had taken the connection."""
        self.link.dataReceived(b"\xa0\x80")
        self.successResultOf(self.call)
        later = self.link.send(b"\x04\x80", REQUEST_PRE_VOTE, 10.0)

        self.tls.connectionLost(Failure(ConnectionLost()))

        self.failureResultOf(later, ConnectionClosedByPeer)


class Dialling(LinkCase):
    connection_limits = ConnectionLimits(max_outbound_connections=4)

    def test_silent_peer_is_given_up_after_the_timeout(self) -> None:
        """Nothing was sent, so it is ConnectionFailed."""
        self.network.silent.add("b:1")
        call = self.transport.append_entries("b:1", append(3))
        self.clock.advance(TIMEOUT * 0.9)
        self.assertNoResult(call)
        self.clock.advance(TIMEOUT * 0.2)
        failure = self.failureResultOf(call, ConnectionFailed)
        self.assertIn("b:1", str(failure.value))
        self.assertEqual(self.network.given_up, 1)

    def test_address_that_is_none_cannot_be_reached(self) -> None:
        """A name without a port fails its call and nothing else."""
        failure = self.failureResultOf(
            self.transport.append_entries("nonsense", append(3)), ConnectionFailed
        )
        self.assertIn("nonsense", str(failure.value))

    def test_calls_in_flight_are_bounded(self) -> None:
        """One connection too many is refused before it is dialled."""
        calls = [self.transport.append_entries("b:1", append(3)) for _ in range(5)]
        self.failureResultOf(calls[4], ConnectionFailed)
        self.assertEqual(self.network.dials, 4)

    def test_close_ends_a_dial(self) -> None:
        """A call that is still dialling fails with TransportShutdown."""
        self.network.silent.add("b:1")
        call = self.transport.append_entries("b:1", append(3))
        self.successResultOf(self.transport.close())
        self.failureResultOf(call, TransportShutdown)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_dial_is_given_up(self) -> None:
        """Cancelling a call that is still dialling leaves no timer."""
        self.network.silent.add("b:1")
        call = self.transport.append_entries("b:1", append(3))
        call.cancel()
        self.failureResultOf(call)
        self.assertEqual(self.network.given_up, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UnreadingPeer(LinkCase):
    connection_limits = ConnectionLimits(max_unsent_bytes=1 << 18)

    def test_pipeline_to_a_peer_that_does_not_read_fails(self) -> None:
        """What waits for such a peer is bounded: the pipeline fails, not the node."""
        opened = self.transport.append_entries_pipeline("b:1")
        pipeline = self.successResultOf(opened)
        self.network.connections[-1][1].reading = False
        answers = []
        for number in range(2000):
            answers.append(
                pipeline.append_entries(append(3, previous=number * 64, entries=64))
            )
        self.clock.advance(0)

        self.failureResultOf(answers[0], CallTimedOut)
        self.failureResultOf(answers[-1], ConnectionClosedByPeer)
        for answer in answers[1:-1]:
            self.failureResultOf(answer)
        self.assertLess(self.near.largest_wait, (1 << 18) + (1 << 17))

    def test_snapshot_is_read_no_faster_than_it_is_sent(self) -> None:
        """A peer that stops reading stops the reading of the file."""
        source = BytesSource(bytes(1 << 24))
        call = self.transport.install_snapshot("b:1", snapshot(1 << 24), source)
        self.network.connections[-1][1].reading = False
        self.clock.advance(0)
        self.assertLess(source.taken, 1 << 20)

        self.network.connections[-1][1].resumeProducing()
        self.clock.advance(0)
        self.assertEqual(source.taken, 1 << 24)
        self.assertNoResult(call)

    def test_snapshot_of_which_nothing_is_taken_is_given_up(self) -> None:
        """After one timeout, however large it is; the connection ends."""
        source = BytesSource(bytes(1 << 24))
        call = self.transport.install_snapshot("b:1", snapshot(1 << 24), source)
        self.network.connections[-1][1].reading = False
        self.clock.advance(0)
        self.clock.advance(TIMEOUT * 0.9)
        self.assertNoResult(call)
        self.clock.advance(TIMEOUT * 0.2)
        self.failureResultOf(call, CallTimedOut)
        self.clock.advance(0)
        self.assertEqual(self.network.open, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answer_to_a_snapshot_is_granted_time_for_its_size(self) -> None:
        """A timeout for every 256 KiB, when the source does not know better."""
        source = BytesSource(bytes(1 << 20))
        call = self.transport.install_snapshot("b:1", snapshot(1 << 20), source)
        self.clock.advance(0)
        self.clock.advance(TIMEOUT * 3.9)
        self.assertNoResult(call)
        self.clock.advance(TIMEOUT * 0.2)
        self.failureResultOf(call, CallTimedOut)
        self.clock.advance(0)
        self.assertTrue(self.peers[0].lost)
