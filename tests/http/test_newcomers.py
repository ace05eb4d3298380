"""Connections that have not shown yet that they may ask for anything, and bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.http.test_site import Transport, put
from tests.support.http_network import Network, ScriptedNode
from txraft.http.auth import AccessPolicy, Accounts
from txraft.http.limits import HTTPLimits
from txraft.http.site import KVSite, make_site
from txraft.kv.commands import encode_put
from txraft.node.worker import MemoryWorker

TOKEN = b"operator-token-0123456789"
SHOWN = b"X-Consul-Token: " + TOKEN
LIMITS = HTTPLimits(
    max_new_connections=6,
    max_new_connections_per_address=3,
    max_value_bytes=1000,
    max_body_bytes=1000,
    max_bodies_bytes=2000,
    max_answer_bytes=250_000,
    max_unread_bytes=300_000,
    read_timeout=20.0,
)


class SiteCase(SynchronousTestCase):
    """A leader's server without sockets, on which a token is needed."""

    transport = Transport

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.node = ScriptedNode("n1:8300")
        self.node.lead()
        self.site = self.make_site(self.access())
        self.told: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def access(self) -> AccessPolicy | None:
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_bytes(b"operator " + TOKEN + b"\n")
        return Accounts(str(path), {})

    def make_site(self, access: AccessPolicy | None) -> KVSite:
        return make_site(
            self.node,
            self.node.fsm,
            HTTPClient(Network()),
            self.clock,
            LIMITS,
            address="n1:8300",
            url="http://n1:8500",
            access=access,
            worker=MemoryWorker(),
        )

    def observe(self, event: LogEvent) -> None:
        if "refusals" in event["log_namespace"]:
            self.told.append(formatEvent(event))

    def connect(self, host: str = "192.0.2.1") -> tuple[Any, Transport] | None:
        """Connect from *host*; None when nobody is there."""
        address = IPv4Address("TCP", host, 4321)
        channel = self.site.buildProtocol(address)
        if channel is None:
            return None
        transport = self.transport(peerAddress=address)
        transport.protocol = channel
        channel.makeConnection(transport)
        return channel, transport

    def connected(self, host: str = "192.0.2.1") -> tuple[Any, Transport]:
        """Connect from *host*, successfully."""
        made = self.connect(host)
        assert made is not None, "the connection is taken"
        return made


class Newcomers(SiteCase):
    """Few connections at once have had no request let in."""

    def test_no_more_of_one_address(self) -> None:
        """In a flood nothing is made for newcomers; other addresses are free."""
        for _ in range(3):
            self.connected()

        self.assertIsNone(self.connect())
        self.connected("192.0.2.2")

        self.assertEqual(len(self.told), 1)
        self.assertIn("too many unauthenticated connections at once", self.told[0])
        self.assertIn("192.0.2.1", self.told[0])

    def test_no_more_in_all(self) -> None:
        for number in range(6):
            self.connected(f"192.0.2.{number}")

        self.assertIsNone(self.connect("192.0.2.9"))

    def test_oldest_goes_once_it_is_slow(self) -> None:
        """Whoever has a request sends it at once: one that waits is nobody."""
        _, oldest = self.connected()
        others = [self.connected()[1] for _ in range(2)]
        self.clock.advance(LIMITS.read_timeout / 10)

        self.connected()

        self.assertFalse(oldest.connected)
        self.assertTrue(all(other.connected for other in others))

    def test_who_was_let_in_is_no_newcomer(self) -> None:
        """Clients are as many as they like, within `max_connections`."""
        transports = []
        for number in range(10):
            channel, transport = self.connected()
            channel.dataReceived(put(b"k%d" % number, b"v", SHOWN))
            transports.append(transport)

        for transport in transports:
            self.assertTrue(transport.connected)
            self.assertIn(b"200 OK", transport.value())

    def test_refused_request_lets_nobody_in(self) -> None:
        """Without a token a connection is a newcomer's, however much it asks."""
        for _ in range(3):
            channel, transport = self.connected()
            channel.dataReceived(b"GET /v1/kv/k HTTP/1.1\r\nHost: n1\r\n\r\n")
            channel.dataReceived(b"GET /v1/kv/%%% HTTP/1.1\r\nHost: n1\r\n\r\n")
            self.assertIn(b"403 Forbidden", transport.value())

        self.assertIsNone(self.connect())
        self.assertEqual(sum("may not send such" in line for line in self.told), 6)

    def test_silent_one_is_closed(self) -> None:
        """A connection must be good for something after `read_timeout`."""
        _, transport = self.connected()

        self.clock.advance(LIMITS.read_timeout)

        self.assertFalse(transport.connected)
        self.assertIn("closed: no request was let in within 20 s", self.told[0])
        self.assertEqual(len(self.site.unauthenticated), 0)

    def test_slow_one_is_told(self) -> None:
        """A request that has begun is answered, once, and named once in the log."""
        channel, transport = self.connected()
        channel.dataReceived(b"GET /v1/kv/k HT")

        self.clock.advance(LIMITS.read_timeout)

        self.assertEqual(transport.value().count(b"408 Request Time"), 1)
        self.assertEqual(len(self.told), 1)
        self.assertIn("a request took too long to arrive", self.told[0])

    def test_nothing_is_left_behind(self) -> None:
        """A connection that ends is counted no more."""
        _, transport = self.connected()
        transport.loseConnection()

        self.assertEqual(len(self.site.unauthenticated), 0)
        self.site.doStart()
        self.site.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def head(length: int, *headers: bytes, path: bytes = b"/v1/kv/k") -> bytes:
    """Begin a request whose body of *length* bytes is still to come."""
    lines = [b"PUT %s HTTP/1.1" % path, b"Host: n1", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", b""])


class Bodies(SiteCase):
    """Bodies take memory only for those who may send them, and not too much."""

    def test_body_of_a_stranger(self) -> None:
        """It is refused by the head of its request; what comes then is dropped."""
        chunked = b"PUT /v1/kv/k HTTP/1.1\r\nHost: n1\r\nTransfer-Encoding: chunked"
        backup = head(1200, path=b"/v1/snapshot")
        for begun in (head(900), chunked + b"\r\n\r\n5\r\n", backup):
            channel, transport = self.connected()
            channel.dataReceived(begun)

            self.assertIn(b"403 Forbidden", transport.value())
            channel.dataReceived(b"12345" * 100)
            self.assertEqual(self.site._held_bytes, 0)
            transport.loseConnection()
        self.assertEqual(len(self.told), 3)

    def test_bodies_together(self) -> None:
        """Unfinished ones share one bound; what ends makes room."""
        halves = [self.connected(f"192.0.2.{number}") for number in range(3)]
        for channel, _ in halves:
            channel.dataReceived(head(1000, SHOWN) + bytes(900))

        first, second, third = (transport for _, transport in halves)
        self.assertIn(b"503 Service Unavailable", third.value())
        self.assertIn(b"as much of unfinished requests as it may", third.value())
        self.assertIn(b"X-Txraft-Outcome: not-applied", third.value())
        self.assertEqual(self.site._held_bytes, 1800)
        second.loseConnection()
        self.assertEqual(self.site._held_bytes, 900)
        halves[0][0].dataReceived(bytes(100))
        self.assertIn(b"200 OK", first.value())
        self.assertEqual(self.site._held_bytes, 0)

    def test_body_at_work(self) -> None:
        """A body counts until its request is answered."""
        commit: Deferred[object] = Deferred()
        self.node.script = [commit]
        channel, transport = self.connected()

        channel.dataReceived(head(1000, SHOWN) + bytes(1000))

        self.assertEqual(self.site._held_bytes, 1000)
        commit.callback(None)
        self.assertIn(b"200 OK", transport.value())
        self.assertEqual(self.site._held_bytes, 0)

    def test_body_that_nothing_reads(self) -> None:
        """What comes with a blocking query is not kept while it waits."""
        channel, _ = self.connected()

        channel.dataReceived(
            b"GET /v1/kv/k?index=1&wait=5m HTTP/1.1\r\nHost: n1\r\n"
            b"Content-Length: 900\r\n" + SHOWN + b"\r\n\r\n" + bytes(900)
        )

        self.assertEqual(self.site._held_bytes, 0)
        [request] = channel.requests
        self.assertEqual(request.content.read(), b"")


class Full(Transport):
    """A connection whose client reads nothing until `read`."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > 1 << 16 and not self.disconnecting:
            self.producer.pauseProducing()

    def read(self) -> bytes:
        """Take all that waits."""
        data = self.value()
        self.clear()
        self.producer.resumeProducing()
        return data


class Readers(SiteCase):
    """Answers wait for those who read them, not for all, and not without end."""

    transport = Full
    ask = b"GET /v1/kv/?recurse HTTP/1.1\r\nHost: n1\r\n" + SHOWN + b"\r\n\r\n"

    def setUp(self) -> None:
        super().setUp()
        for number in range(100):
            self.node.commit(encode_put(f"k{number}", bytes(700)))

    def test_who_reads_is_not_counted(self) -> None:
        for _ in range(5):
            channel, transport = self.connected()
            for _ in range(3):
                channel.dataReceived(self.ask)
                self.assertGreater(self.site.unread.bytes, 1 << 16)
                self.assertIn(b"200 OK", transport.read())
                self.assertEqual(self.site.unread.bytes, 0)
            self.assertTrue(transport.connected)

    def test_who_waits_longest_is_closed(self) -> None:
        """A client that reads now and then stays, one that never does goes."""
        clients = [self.connected(f"192.0.2.{number}") for number in range(3)]
        for channel, _ in clients:
            channel.dataReceived(self.ask)
        first, second, third = (transport for _, transport in clients)
        second.read()
        clients[1][0].dataReceived(self.ask)
        self.clock.advance(0)

        self.assertFalse(first.connected)
        self.assertTrue(second.connected and third.connected)
        self.assertEqual(len(self.told), 1)
        self.assertIn("192.0.2.0", self.told[0])
        self.assertIn("closed: it does not read its answers", self.told[0])
        self.assertLessEqual(self.site.unread.bytes, LIMITS.max_unread_bytes)

    def test_pipelined_requests(self) -> None:
        """What one connection asks for is no exception."""
        channel, transport = self.connected()

        channel.dataReceived(self.ask * 50)
        self.clock.advance(0)

        self.assertFalse(transport.connected)
        self.assertLess(len(transport.value()), LIMITS.max_unread_bytes + 200_000)
        self.assertEqual(self.site.unread.bytes, 0)
        self.assertEqual(len(self.told), 1)

    def test_gone_reader(self) -> None:
        """Whoever leaves is counted no more."""
        channel, transport = self.connected()
        channel.dataReceived(self.ask)

        transport.loseConnection()

        self.assertEqual(self.site.unread.bytes, 0)
