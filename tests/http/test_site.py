"""The server, byte by byte: connections and their limits."""

import sys
from resource import RLIM_INFINITY

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from tests.support.http_network import Network, ScriptedNode
from txraft.http import site as site_module
from txraft.http.channel import KVChannel
from txraft.http.limits import HTTPLimits
from txraft.http.site import KVSite, make_site, share_of_descriptors
from txraft.node.worker import MemoryWorker

LIMITS = HTTPLimits(
    max_value_bytes=64,
    max_body_bytes=100,
    max_key_bytes=64,
    max_line_bytes=256,
    max_headers_bytes=600,
    max_headers=10,
    max_connections=2,
)

CHUNKED = b"PUT /v1/kv/k HTTP/1.1\r\nHost: n1\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(StringTransportWithDisconnection):
    """A connection that can also be cut, and knows when it is closing."""

    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()

    def abortConnection(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None: ...


class SiteCase(SynchronousTestCase):
    """A leader's server without sockets."""

    limits = LIMITS
    make_clock = Clock

    def setUp(self) -> None:
        self.clock, self.worker = self.make_clock(), MemoryWorker()
        self.node = ScriptedNode("n1:8300")
        self.node.lead()
        self.site: KVSite = make_site(
            self.node,
            self.node.fsm,
            HTTPClient(Network()),
            self.clock,
            self.limits,
            address="n1:8300",
            url="http://n1:8500",
            worker=self.worker,
        )
        self.site.doStart()

    def connect(self) -> tuple[KVChannel, Transport]:
        channel, transport = self.site.buildProtocol(None), Transport()
        transport.protocol = channel
        channel.makeConnection(transport)
        return channel, transport

    def send(self, *pieces: bytes) -> tuple[Transport, bytes]:
        """Send *pieces* on a new connection; return it and what came back."""
        channel, transport = self.connect()
        for piece in pieces:
            if transport.connected:
                channel.dataReceived(piece)
        return transport, transport.value()


def put(key: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"PUT /v1/kv/%s HTTP/1.1" % key, b"Host: n1", *headers]
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Crowded(SiteCase):
    """Clients have all connections that they may have."""

    limits = HTTPLimits(max_connections=2)

    def setUp(self) -> None:
        super().setUp()
        self.patch(self.site, "most_forwards", 1)
        for _ in range(2):
            self.connect()

    def test_member_is_served(self) -> None:
        """What another member passes on has a reserve; on it, a client is refused."""
        transport, response = self.send(
            put(b"k", b"v", b"X-Txraft-Forwarded: n1:8300"),
            b"GET /v1/kv/k HTTP/1.1\r\nHost: n1\r\n\r\n",
        )

        served, _, refused = response[5:].partition(b"HTTP/1.1 ")
        self.assertIn(b" 200 OK", served)
        self.assertIn(b"too many connections", refused)
        self.assertTrue(transport.disconnecting)

    def test_others_are_refused(self) -> None:
        """A client, and one that calls itself a member that there is not."""
        for headers in ((), (b"X-Txraft-Forwarded: n9:8300",)):
            transport, response = self.send(put(b"k", b"v", *headers))
            self.assertIn(b"HTTP/1.1 503 ", response)
            self.assertIn(b"too many connections", response)
            transport.loseConnection()

    def test_reserve_is_bounded(self) -> None:
        """Beyond it a connection is refused before a request of it has come."""
        self.connect()

        _, transport = self.connect()

        self.assertIn(b"too many connections", transport.value())


class Serving(SiteCase):
    """The usual."""

    def test_whole_response(self) -> None:
        """Nothing is said of the software, and no browser guesses the type."""
        transport, response = self.send(put(b"k", b"v"))

        head, _, body = response.partition(b"\r\n\r\n")
        lines = sorted(head.split(b"\r\n"))
        self.assertEqual(lines.pop(2)[:6], b"Date: ")
        self.assertEqual(
            lines,
            [
                b"Content-Length: 4",
                b"Content-Type: application/json",
                b"HTTP/1.1 200 OK",
                b"X-Content-Type-Options: nosniff",
            ],
        )
        self.assertEqual(body, b"true")
        self.assertTrue(transport.connected)

    def test_persistent_and_pipelined(self) -> None:
        """Requests on one connection are answered in their order."""
        _, response = self.send(
            put(b"k", b"1")
            + b"GET /v1/kv/k?raw HTTP/1.1\r\nHost: n1\r\n\r\n"
            + put(b"k", b"2")
            + b"GET /v1/kv/k?raw HTTP/1.1\r\nHost: n1\r\n\r\n"
        )

        bodies = [r.partition(b"\r\n\r\n")[2] for r in response.split(b"HTTP/1.1 ")[1:]]
        self.assertEqual(bodies, [b"true", b"1", b"true", b"2"])

    def test_chunked_body(self) -> None:
        self.send(
            CHUNKED,
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )

        record = self.node.fsm.get("k")
        assert record is not None
        self.assertEqual(record.value, b"abcde")

    def test_form_is_a_value_like_any_other(self) -> None:
        """curl sends this content type unless it is told otherwise."""
        form = b"Content-Type: application/x-www-form-urlencoded"
        self.send(put(b"k", b"a=1&b=2", form))

        record = self.node.fsm.get("k")
        assert record is not None
        self.assertEqual(record.value, b"a=1&b=2")

    def test_only_http_1_is_offered(self) -> None:
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])


class Bodies(SiteCase):
    """A body is refused before it is read, and the client gets to know."""

    def test_announced_length(self) -> None:
        head = put(b"k", bytes(101))[:-101]

        transport, response = self.send(head)

        self.assertTrue(response.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"\r\nConnection: close\r\n", response)
        self.assertIn(b"100 bytes", response)
        self.assertTrue(transport.connected)

    def test_announced_length_that_no_integer_holds(self) -> None:
        _, response = self.send(
            b"PUT /v1/kv/k HTTP/1.1\r\nHost: n1\r\nContent-Length: %s\r\n\r\n"
            % (b"9" * 100)
        )

        self.assertTrue(response.startswith(b"HTTP/1.1 413 "))

    def test_refused_body_is_dropped_and_then_the_connection(self) -> None:
        transport, response = self.send(put(b"k", bytes(101)) + put(b"l", b"v"))

        self.assertEqual(response.count(b"HTTP/1.1 "), 1)
        self.assertFalse(transport.connected)
        self.assertEqual(list(self.node.fsm), [])

    def test_refused_body_that_does_not_end(self) -> None:
        """Reading on is for the client's good, so it has an end."""
        head = put(b"k", bytes(10**6))[: -(10**6)]
        channel, transport = self.connect()
        channel.dataReceived(head)

        for _ in range(15):
            channel.dataReceived(bytes(10))
            self.clock.advance(0.125)
        self.assertTrue(transport.connected)
        self.clock.advance(0.125)

        self.assertFalse(transport.connected)

    def test_timer_ends_with_its_connection(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(put(b"k", bytes(101))[:-101])

        transport.loseConnection()

        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expectation_is_not_met(self) -> None:
        """A client that asks first is told no, and only that."""
        body = bytes(101)
        expect = b"Expect: 100-continue"

        _, refused = self.send(put(b"k", body, expect)[: -len(body)])
        _, welcome = self.send(put(b"k", b"v", expect)[:-1])

        self.assertNotIn(b"100 Continue", refused)
        self.assertIn(b"100 Continue", welcome)

    def test_chunks_are_counted(self) -> None:
        chunk = b"20\r\n" + bytes(32) + b"\r\n"
        head = CHUNKED
        channel, transport = self.connect()
        channel.dataReceived(head + 3 * chunk)
        self.assertEqual(transport.value(), b"")

        channel.dataReceived(chunk)

        self.assertTrue(transport.value().startswith(b"HTTP/1.1 413 "))
        channel.dataReceived(100 * chunk + b"0\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
        self.assertFalse(transport.connected)
        self.assertEqual(list(self.node.fsm), [])

    def test_largest_body_is_read(self) -> None:
        """Above the limit of a value but within that of a body: answered, kept."""
        transport, response = self.send(put(b"k", bytes(100)))

        self.assertTrue(response.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"64", response)
        self.assertTrue(transport.connected)


class Heads(SiteCase):
    """Lines and headers are bounded while they arrive."""

    def test_request_line(self) -> None:
        for data in (b"GET /v1/kv/" + b"x" * 256, b"GET /" + b"x" * 999 + b"\r\n"):
            transport, response = self.send(data)
            self.assertTrue(response.startswith(b"HTTP/1.1 414 "), response)
            self.assertFalse(transport.connected)

    def test_header_line(self) -> None:
        transport, response = self.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 256)

        self.assertTrue(response.startswith(b"HTTP/1.1 431 "), response)
        self.assertFalse(transport.connected)

    def test_second_request_line(self) -> None:
        _, response = self.send(put(b"k", b"v"), b"GET /" + b"x" * 300)

        self.assertIn(b"HTTP/1.1 414 ", response)

    def test_headers_together(self) -> None:
        for headers in (b"X: y\r\n" * 20, (b"X: " + b"y" * 200 + b"\r\n") * 3):
            transport, response = self.send(b"GET / HTTP/1.1\r\n" + headers + b"\r\n")
            self.assertTrue(response.startswith(b"HTTP/1.1 431 "), response)
            self.assertFalse(transport.connected)

    def test_garbage(self) -> None:
        for garbage in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"\r\n\r\n\r\n", b"GET\r\n"):
            transport, response = self.send(garbage)
            self.assertTrue(response.startswith(b"HTTP/1.1 400 "), response)
            self.assertFalse(transport.connected)


class Connections(SiteCase):
    """Connections are counted, and end."""

    def test_too_many(self) -> None:
        first, _ = self.connect(), self.connect()

        third, response = self.send(put(b"k", b"v"))

        self.assertTrue(response.startswith(b"HTTP/1.1 503 "))
        self.assertIn(b"X-Txraft-Outcome: not-applied\r\n", response)
        self.assertIn(b"Retry-After: 1\r\n", response)
        self.assertTrue(third.disconnecting)
        third.loseConnection()
        first[1].loseConnection()
        _, response = self.send(put(b"k", b"v"))
        self.assertIn(b"200 OK", response)

    def test_idle_ones_are_closed(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(put(b"k", b"v"))

        self.clock.advance(59)
        self.assertTrue(transport.connected)
        self.clock.advance(1)

        self.assertFalse(transport.connected)
        self.assertEqual(self.site.channels, set())

    def test_stop_closes_idle_ones(self) -> None:
        _, idle = self.connect()

        self.site.doStop()

        self.assertFalse(idle.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.node.observers, [])

    def test_stop_lets_a_request_have_its_answer(self) -> None:
        commit: Deferred[object] = Deferred()
        self.node.script = [commit]
        channel, busy = self.connect()
        channel.dataReceived(put(b"k", b"v"))

        self.site.doStop()
        self.assertTrue(busy.connected)
        commit.callback(None)

        self.assertTrue(busy.value().endswith(b"true"))
        self.assertFalse(busy.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_start_advertises(self) -> None:
        self.assertEqual(self.node.fsm.http_url("n1:8300"), "http://n1:8500")


class Descriptors(SiteCase):
    """Connections never take the last file descriptors from the log."""

    def test_most_connections(self) -> None:
        for allowed, most in ((8, 2), (2, 2), (1, 1), (RLIM_INFINITY, 2)):
            self.patch(site_module, "getrlimit", lambda _, n=allowed: (n, n))
            self.setUp()

            self.assertEqual((allowed, self.site.most), (allowed, most))

    def test_share_of_descriptors(self) -> None:
        """The node and what members pass on have theirs, however few there are."""
        for allowed, clients, forwards in (
            (64, 32, 8),
            (256, 128, 32),
            (1024, 768, 64),
            (RLIM_INFINITY, sys.maxsize, 64),
        ):
            shares = share_of_descriptors(allowed)
            self.assertEqual((allowed, *shares), (allowed, clients, forwards))
