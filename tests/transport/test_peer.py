"""The serving side against peers that misbehave, do not read, or send too much."""

from __future__ import annotations

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.transports import MemoryNetwork, MemoryTransport, RawPeer
from txraft.errors import ConnectionClosedByPeer
from txraft.testing.contracts.samples import Recorder, agree, append, snapshot, success
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.network import NetworkTransport
from txraft.wire.requests import encode_request
from txraft.wire.stream import MessageLimits

TIMEOUT = 2.0
HEARTBEAT = encode_request(append(3))


class PeerCase(SynchronousTestCase):
    """A listening transport and raw connections to it."""

    limits = MessageLimits(max_message_bytes=1 << 16)
    connection_limits = ConnectionLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)
        self.transport = NetworkTransport(
            self.clock,
            self.network.layer("b:1"),
            timeout=TIMEOUT,
            timeout_scale=1000,
            limits=self.limits,
            connection_limits=self.connection_limits,
        )
        self.transport.listen()
        self.peer = Recorder()
        self.transport.set_handler(self.peer)
        self.warnings: list[LogEvent] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        """Keep the warnings of the transport."""
        if "refusals" in str(event.get("log_namespace")):
            self.warnings.append(event)

    def dial(self) -> RawPeer:
        """Open a raw connection."""
        raw = self.network.connect("b:1", Factory.forProtocol(RawPeer))
        return self.successResultOf(raw)  # type: ignore[return-value]

    def send(self, peer: RawPeer, data: bytes) -> None:
        """Send *data* and let everything happen that is due."""
        peer.transport.write(data)  # type: ignore[union-attr]
        self.clock.advance(0)

    @property
    def far(self) -> MemoryTransport:
        """The transport's end of the newest connection."""
        return self.network.connections[-1][1]


class Garbage(PeerCase):
    def test_only_the_connection_with_garbage_is_closed(self) -> None:
        """Each kind of nonsense closes its own connection, with one clear warning."""
        good = self.dial()
        for data, reason in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "looks like HTTP"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "looks like TLS"),
            (b"\xff\xff\xff", "unknown request type 255"),
            (b"\x07", "unknown request type 7"),
            (b"\x00\xc1", "not a message of a peer"),
            (b"\x00\x93\x01\x02\x03", "no map"),
            (b"\x00\x81\xa4Term\xff", "Term has an odd value"),
            (b"\x00" + b"\x91" * 2000, "not a message of a peer"),
            (b"\x00\xdf\xff\xff\xff\xff", "not a message of a peer"),
        ):
            before = len(self.warnings)
            bad = self.dial()
            self.send(bad, data)

            self.assertTrue(bad.lost, data)
            self.assertEqual(len(self.warnings), before + 1, data)
            self.assertIn(reason, self.warnings[-1]["reason"])
            self.assertIn("192.0.2.1", str(self.warnings[-1]["address"]))
        self.send(good, HEARTBEAT)
        self.assertEqual(self.peer.commands, [append(3)])
        self.assertFalse(good.lost)

    def test_garbage_behind_requests_lets_those_through(self) -> None:
        """What came whole before the garbage is delivered."""
        peer = self.dial()
        self.send(peer, HEARTBEAT * 3 + b"GET")
        self.assertEqual(len(self.peer.rpcs), 3)
        self.assertTrue(peer.lost)
        self.assertEqual(self.peer.closed, [self.peer.rpcs[0].connection])

    def test_endless_message_is_cut_at_the_limit(self) -> None:
        """A message that goes on and on is refused as soon as it is too large."""
        peer = self.dial()
        self.send(peer, b"\x00\x81\xa6Leader\xdb\x7f\xff\xff\xff")
        sent = 0
        while not peer.lost and sent < 1 << 20:
            self.send(peer, bytes(4096))
            sent += 4096

        self.assertTrue(peer.lost)
        self.assertLessEqual(sent, self.limits.max_message_bytes + 2 * 4096)
        self.assertIn("larger than 65536", self.warnings[0]["reason"])

    def test_warnings_are_not_endless(self) -> None:
        """A scanner fills no log; a later one is named again."""
        limits = self.connection_limits
        for _ in range(limits.max_warnings * 3):
            self.send(self.dial(), b"GET")
        self.assertEqual(len(self.warnings), limits.max_warnings)

        self.clock.advance(limits.warning_interval)
        self.send(self.dial(), b"GET")
        self.assertEqual(len(self.warnings), limits.max_warnings + 1)
        left_out = f" ({limits.max_warnings * 2} more before it)"
        self.assertEqual(self.warnings[-1]["before"], left_out)


class SlowDrip(PeerCase):
    def test_message_that_has_begun_must_end(self) -> None:
        """Half a message holds a connection for one timeout, not longer."""
        peer = self.dial()
        self.send(peer, HEARTBEAT[:10])
        self.clock.advance(TIMEOUT * 0.9)
        self.assertFalse(peer.lost)
        self.clock.advance(TIMEOUT * 0.2)
        self.clock.advance(0)
        self.assertTrue(peer.lost)

    def test_idle_connection_stays(self) -> None:
        """Between messages a connection may rest for ever."""
        peer = self.dial()
        self.send(peer, HEARTBEAT)
        self.clock.advance(100 * TIMEOUT)
        self.assertFalse(peer.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages_that_follow_each_other_slowly_are_fine(self) -> None:
        """Always being within some message is not being stuck in one."""
        peer = self.dial()
        stream = HEARTBEAT * 50
        for start in range(0, len(stream), 70):
            self.send(peer, stream[start : start + 70])
            self.clock.advance(TIMEOUT * 0.4)
        self.assertFalse(peer.lost)

    def test_snapshot_must_keep_a_pace(self) -> None:
        """A body is granted a timeout for each piece of `timeout_scale` bytes."""
        peer = self.dial()
        self.send(peer, encode_request(snapshot(10_000)))
        self.peer.rpcs[0].body.drain()  # type: ignore[union-attr]
        for _ in range(4):
            self.send(peer, bytes(1000))
            self.clock.advance(TIMEOUT * 0.9)
        self.assertFalse(peer.lost)
        self.clock.pump([TIMEOUT] * 3)
        self.assertTrue(peer.lost)

    def test_consumer_of_a_snapshot_may_take_its_time(self) -> None:
        """Time in which we read nothing ourselves is not held against the peer."""
        peer = self.dial()
        self.send(peer, encode_request(snapshot(100)) + bytes(50))
        self.clock.pump([TIMEOUT] * 5)
        self.assertFalse(peer.lost)


class Pipelining(PeerCase):
    connection_limits = ConnectionLimits(
        max_unanswered_requests=10, max_unanswered_bytes=1 << 20
    )

    def test_all_requests_of_one_read_are_delivered_at_once(self) -> None:
        """One read, one turn: everything that is complete is handed on."""
        self.send(self.dial(), HEARTBEAT * 10)
        self.assertEqual(len(self.peer.rpcs), 10)

    def test_reading_stops_while_too_much_is_unanswered(self) -> None:
        """Requests beyond the bound stay with the peer until answers have left."""
        peer = self.dial()
        self.send(peer, HEARTBEAT * 25)
        self.assertEqual(len(self.peer.rpcs), 10)
        self.assertFalse(self.far.reading)

        self.peer.rpcs[0].respond(success(append(3)))
        self.assertEqual(len(self.peer.rpcs), 11)
        self.assertFalse(self.far.reading)
        for number in range(1, 25):
            self.peer.rpcs[number].respond(success(append(3)))
        self.clock.advance(0)

        self.assertEqual(len(self.peer.rpcs), 25)
        self.assertTrue(self.far.reading)
        self.assertEqual(peer.received.count(b"\xa7Success\xc3"), 25)

    def test_peer_that_does_not_read_is_read_no_further(self) -> None:
        """A peer that never takes its answers costs bounded memory."""
        self.transport.set_handler(Recorder(agree))
        peer = self.dial()
        near, far = self.network.connections[-1]
        near.reading = False
        for _ in range(200):
            self.send(peer, HEARTBEAT * 50)

        self.assertFalse(far.reading)
        self.assertLess(far.largest_wait, 1 << 17)
        near.resumeProducing()
        self.clock.advance(0)
        self.assertTrue(far.reading)
        self.assertEqual(peer.received.count(b"\xa7Success\xc3"), 200 * 50)

    def test_requests_behind_a_snapshot_wait_for_its_body(self) -> None:
        """The stream stays in step: body, then the next request, answers in order.

        The answer to the snapshot does not wait: who is refused can stop sending.
        """
        peer = self.dial()
        self.send(peer, encode_request(snapshot(6)) + b"abc")
        self.peer.rpcs[0].respond(success(snapshot(6)))
        self.clock.advance(0)
        self.assertIn(b"Success", peer.received)

        self.send(peer, b"def" + HEARTBEAT)

        self.assertEqual(len(self.peer.rpcs), 2)
        self.assertEqual(peer.received.count(b"\xa7Success\xc3"), 1)

    def test_lost_connection_fails_a_body_and_tells_the_handler(self) -> None:
        """Both the consumer of a body and the handler learn of the end."""
        peer = self.dial()
        self.send(peer, encode_request(snapshot(6)) + b"abc")
        pieces: list[bytes] = []
        done = self.peer.rpcs[0].body.deliver_to(pieces.append)  # type: ignore[union-attr]
        peer.transport.loseConnection()  # type: ignore[union-attr]
        self.clock.advance(0)

        self.failureResultOf(done, ConnectionClosedByPeer)
        self.assertEqual(pieces, [b"abc"])
        self.assertEqual(self.peer.closed, [self.peer.rpcs[0].connection])


class TooManyConnections(PeerCase):
    connection_limits = ConnectionLimits(max_inbound_connections=3)

    def test_one_more_is_closed_at_once(self) -> None:
        """Those that are there go on, and one that ends makes room."""
        peers = [self.dial() for _ in range(4)]
        self.clock.advance(0)
        self.assertEqual([peer.lost for peer in peers], [False, False, False, True])
        self.assertIn("more than 3 connections", self.warnings[0]["reason"])
        self.send(peers[0], HEARTBEAT)
        self.assertEqual(len(self.peer.rpcs), 1)

        peers[1].transport.loseConnection()  # type: ignore[union-attr]
        self.clock.advance(0)
        newer = self.dial()
        self.send(newer, HEARTBEAT)
        self.assertEqual(len(self.peer.rpcs), 2)


class RemovedMembers(PeerCase):
    """Source: Raft dissertation §4.2.3; a server that was removed disturbs nobody."""

    def setUp(self) -> None:
        super().setUp()
        self.sender = append(3).leader
        self.transport.members_committed([self.sender, "b:1", "c:1"])

    def test_connection_of_a_removed_member_is_closed(self) -> None:
        """It is not enough to let it make no new one: what is open says anything."""
        peer = self.dial()
        self.send(peer, HEARTBEAT)

        self.transport.members_committed(["b:1", "c:1"])
        self.send(peer, HEARTBEAT)

        self.assertEqual(len(self.peer.rpcs), 1)
        self.assertTrue(peer.lost)
        self.assertIn("no member any more", self.warnings[0]["reason"])

    def test_other_connections_stay(self) -> None:
        """Those of members, and of those who have not said who they are."""
        member, unknown = self.dial(), self.dial()
        self.send(member, HEARTBEAT)

        self.transport.members_committed([self.sender, "b:1"])
        self.clock.advance(0)

        self.assertFalse(member.lost or unknown.lost)
