"""Draining: each client gets its answers, and is then asked to go."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.http.test_site import SiteCase, Transport, put
from txraft.http.channel import QUIET_SECONDS, KVChannel
from txraft.http.limits import HTTPLimits

GET = b"GET /v1/kv/k?raw HTTP/1.1\r\nHost: n1\r\n\r\n"
PARKED = b"GET /v1/kv/k?index=9 HTTP/1.1\r\nHost: n1\r\n\r\n"
READY = b"GET /readyz HTTP/1.1\r\nHost: n1\r\n\r\n"
CLOSE = b"\r\nConnection: close\r\n"


class DrainCase(SiteCase):
    """A server that can hold a write back."""

    limits = HTTPLimits()
    clock: IReactorTime

    def busy(self) -> tuple[KVChannel, Transport, Deferred[object]]:
        """Connect a client whose write is not committed yet."""
        commit: Deferred[object] = Deferred()
        self.node.script.append(commit)
        channel, transport = self.connect()
        channel.dataReceived(put(b"k", b"v"))
        return channel, transport, commit


class LastAnswers(DrainCase):
    """The answer to each request that comes is the last one of its connection."""

    def test_request_in_flight(self) -> None:
        """It is answered although it came before, and its connection ends with it."""
        _, transport, commit = self.busy()

        self.site.drain()
        self.clock.advance(2 * QUIET_SECONDS)
        self.assertTrue(transport.connected)
        commit.callback(None)

        self.assertIn(CLOSE, transport.value())
        self.assertTrue(transport.value().endswith(b"\r\n\r\ntrue"))
        self.assertFalse(transport.connected)

    def test_request_on_an_idle_connection(self) -> None:
        """A client may have sent it before it can know that the node stops."""
        channel, transport = self.connect()
        channel.dataReceived(put(b"k", b"v"))
        transport.clear()

        self.site.drain()
        self.clock.advance(QUIET_SECONDS / 2)
        channel.dataReceived(GET)

        self.assertIn(CLOSE, transport.value())
        self.assertTrue(transport.value().endswith(b"\r\n\r\nv"))
        self.assertFalse(transport.connected)

    def test_request_that_comes_slowly(self) -> None:
        """Once it has begun it has the time that it always has."""
        channel, transport = self.connect()
        self.site.drain()
        request = put(b"k", b"v")

        channel.dataReceived(request[:5])
        self.clock.advance(2 * QUIET_SECONDS)
        channel.dataReceived(request[5:-1])
        self.clock.advance(2 * QUIET_SECONDS)
        channel.dataReceived(request[-1:])

        self.assertTrue(transport.value().endswith(b"\r\n\r\ntrue"))
        self.assertFalse(transport.connected)

    def test_request_on_a_new_connection(self) -> None:
        """As long as connections are accepted, they are served."""
        self.site.drain()

        transport, response = self.send(put(b"k", b"v"))

        self.assertIn(CLOSE, response)
        self.assertIn(b"200 OK", response)
        self.assertFalse(transport.connected)

    def test_requests_in_a_row(self) -> None:
        """All that have come are answered; the last answer alone says that it is."""
        channel, transport, commit = self.busy()
        channel.dataReceived(GET + GET)

        self.site.drain()
        commit.callback(None)

        answers = transport.value().split(b"HTTP/1.1 ")[1:]
        self.assertEqual([CLOSE in each for each in answers], [False, False, True])
        self.assertFalse(transport.connected)

    def test_answer_that_has_begun(self) -> None:
        """Its head did not say so: another request may come, and is answered."""
        record = put(b"long", bytes(200_000))
        channel, transport = self.connect()
        channel.dataReceived(record)
        transport.clear()
        get = GET.replace(b"/k?", b"/long?")
        channel.pauseProducing()
        channel.dataReceived(get)
        self.assertNotIn(CLOSE, transport.value())

        self.site.drain()
        channel.resumeProducing()
        self.assertTrue(transport.connected)
        self.clock.advance(QUIET_SECONDS / 2)
        transport.clear()
        channel.dataReceived(GET)

        self.assertIn(CLOSE, transport.value())
        self.assertFalse(transport.connected)


class Quiet(DrainCase):
    """Who sends nothing for a while is taken for a client that rests."""

    def test_idle_connection(self) -> None:
        """It is closed when it was quiet for a while, and not before."""
        _, transport = self.connect()

        self.site.drain()
        self.clock.advance(QUIET_SECONDS - 0.1)
        self.assertTrue(transport.connected)
        self.clock.advance(0.2)

        self.assertFalse(transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_new_connection(self) -> None:
        """One that comes while the node drains has as long."""
        self.site.drain()
        self.clock.advance(QUIET_SECONDS)

        _, transport = self.connect()
        self.clock.advance(QUIET_SECONDS - 0.1)
        self.assertTrue(transport.connected)
        self.clock.advance(0.2)

        self.assertFalse(transport.connected)

    def test_client_that_goes(self) -> None:
        """Nothing is left of it."""
        _, transport = self.connect()
        self.site.drain()

        transport.loseConnection()

        self.assertEqual(self.clock.getDelayedCalls(), [])


class Parked(DrainCase):
    """Blocking queries are cut: an answer could tell a client what is not so."""

    def setUp(self) -> None:
        super().setUp()
        transport, _ = self.send(put(b"k", b"v"))
        transport.loseConnection()

    def test_drain_drops_them(self) -> None:
        """They get no answer at all."""
        transport, response = self.send(PARKED)

        self.site.drain()

        self.assertEqual(response + transport.value(), b"")
        self.assertFalse(transport.connected)

    def test_drain_drops_those_that_come_again(self) -> None:
        """They wait again, as long as the node takes connections."""
        self.site.drain()
        transport, response = self.send(PARKED)
        self.assertTrue(transport.connected)

        self.site.drain()

        self.assertEqual(response + transport.value(), b"")
        self.assertFalse(transport.connected)

    def test_connection_that_was_there(self) -> None:
        """A query that it sends later would hold the drain up: it is dropped, too."""
        channel, transport = self.connect()
        self.site.drain()
        left = self.site.when_left()
        self.clock.advance(QUIET_SECONDS / 2)

        channel.dataReceived(PARKED)

        self.assertEqual(transport.value(), b"")
        self.assertFalse(transport.connected)
        self.successResultOf(left)

    def test_query_that_need_not_wait(self) -> None:
        """It is answered there, like any other request."""
        channel, transport = self.connect()
        self.site.drain()

        channel.dataReceived(PARKED.replace(b"index=9", b"index=1&stale"))

        self.assertIn(b"200 OK", transport.value())
        self.assertIn(CLOSE, transport.value())

    def test_connection_that_came_late(self) -> None:
        """Once the node takes no more connections, no query may wait on it, either."""
        self.site.drain()
        channel, transport = self.connect()
        self.site.drain()
        empty = self.site.when_empty()

        channel.dataReceived(PARKED)

        self.assertEqual(transport.value(), b"")
        self.assertFalse(transport.connected)
        self.successResultOf(empty)


class Probes(DrainCase):
    """Whoever spreads requests over nodes learns that this one is to be left out."""

    def test_ready(self) -> None:
        """It is not ready from the first moment on, but alive."""
        self.site.drain()

        _, ready = self.send(READY)
        _, live = self.send(READY.replace(b"readyz", b"livez"))

        self.assertIn(b"HTTP/1.1 503 ", ready)
        self.assertIn(b"the node is stopping", ready)
        self.assertIn(b"HTTP/1.1 200 ", live)


class Leaving(DrainCase):
    """The server tells when its clients have gone."""

    def test_when_left(self) -> None:
        """It waits for those who were there, and not for those who come."""
        _, transport, commit = self.busy()
        self.site.drain()
        left = self.site.when_left()
        self.connect()
        self.assertNoResult(left)

        commit.callback(None)

        self.assertFalse(transport.connected)
        self.successResultOf(left)

    def test_when_left_with_nobody_there(self) -> None:
        """There is nothing to wait for."""
        self.site.drain()
        self.connect()

        self.successResultOf(self.site.when_left())

    def test_when_empty(self) -> None:
        """It waits for everybody."""
        self.site.drain()
        _, transport = self.connect()
        empty = self.site.when_empty()
        self.assertNoResult(empty)

        transport.loseConnection()

        self.successResultOf(empty)

    def test_when_empty_cancelled(self) -> None:
        """Who waits no longer is forgotten."""
        self.site.drain()
        _, transport = self.connect()
        empty = self.site.when_empty()

        empty.cancel()
        transport.loseConnection()

        self.failureResultOf(empty)

    def test_close_tells_those_who_wait_for_a_leader(self) -> None:
        """They learn that nothing was applied, and what comes then is told so, too."""
        self.node.follow(None)
        transport, _ = self.send(put(b"k", b"v"))
        self.site.drain()
        self.site.stopFactory()
        self.assertEqual(transport.value(), b"")

        self.site.close()

        self.assertIn(b"X-Txraft-Outcome: not-applied\r\n", transport.value())
        self.assertIn(CLOSE, transport.value())
        self.assertFalse(transport.connected)

    def test_cut(self) -> None:
        """What is left can be cut."""
        _, transport, _commit = self.busy()
        self.site.drain()

        self.site.cut()

        self.assertFalse(transport.connected)
