"""The private parts of Twisted that `txraft._twisted` uses do what it says of them.

A test that fails here with a new Twisted says which of them has changed.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.logger import ILogObserver
from twisted.python.failure import Failure
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web._newclient import Request as ClientRequest
from twisted.web.http_headers import Headers

import txraft
from tests.test_clock import TimersOnly
from txraft import _twisted
from txraft.http.channel import KVChannel


class _SlowSocket:
    """A socket that takes three bytes and then nothing."""

    def __init__(self) -> None:
        self.taken = b""

    def send(self, data: bytes) -> int:
        if self.taken:
            raise BlockingIOError(11, "it would block")
        self.taken = bytes(data[:3])
        return len(self.taken)

    def setblocking(self, is_blocking: bool) -> None:
        """Never block."""

    def fileno(self) -> int:
        return -1


class UnsentBytes(SynchronousTestCase):
    """`unsent_bytes_of` tells what a TCP connection has queued."""

    def setUp(self) -> None:
        self.socket: Any = _SlowSocket()
        self.connection: Any = TCPConnection(self.socket, None, MemoryReactor())
        self.connection.connected = 1

    def test_nothing(self) -> None:
        self.assertFalse(_twisted.unsent_bytes_of(self.connection))

    def test_rest_of_a_write(self) -> None:
        """What the socket has not taken is there, and only that."""
        self.connection.write(b"abcdef")
        self.connection.doWrite()

        self.assertEqual(self.socket.taken, b"abc")
        unsent = bytes(_twisted.unsent_bytes_of(self.connection))
        self.assertEqual(unsent[self.connection.offset :], b"def")


class Seconds(SynchronousTestCase):
    """`set_seconds` replaces the clock of a reactor and of its pending timers."""

    def test_new_and_pending_timers(self) -> None:
        reactor = TimersOnly()
        calls: list[str] = []
        pending = reactor.callLater(5, calls.append, "pending")
        offset = reactor.wall - reactor.steady

        _twisted.set_seconds(reactor, lambda: reactor.steady + offset)
        reactor.callLater(5, calls.append, "new")
        reactor.wall -= 3600
        pending.reset(4)
        reactor.pass_time(4.5)
        self.assertEqual(calls, ["pending"])
        reactor.pass_time(0.6)
        self.assertEqual(calls, ["pending", "new"])


class LogObserver(SynchronousTestCase):
    """`log_observer` makes the observer that the options of `twistd` ask for."""

    def test_log_file(self) -> None:
        path = self.mktemp()
        options = ServerOptions()
        options.parseOptions(["--nodaemon", "--logfile", path])

        observer = _twisted.log_observer(options)
        observer({"log_format": "written", "log_time": 0.0})

        self.assertTrue(ILogObserver.providedBy(observer))
        with open(path) as file:
            self.assertIn("written", file.read())


class NotSent(SynchronousTestCase):
    """`request_not_sent` is the error of a request that never left."""

    def test_connection_at_work(self) -> None:
        protocol: Any = HTTP11ClientProtocol()
        protocol.makeConnection(StringTransport())
        headers = Headers({b"Host": [b"a"]})
        self.first = protocol.request(ClientRequest(b"GET", b"/", headers, None))
        second = protocol.request(ClientRequest(b"GET", b"/", headers, None))
        self.failureResultOf(second, _twisted.request_not_sent())


@_twisted.handles_malformed
class _Channel(http.HTTPChannel):
    """A channel that counts what its parser refuses."""

    is_malformed = False

    def malformed(self) -> None:
        self.is_malformed = True


class _Pending(http.Request):
    """A request whose response is begun and not finished."""

    def process(self) -> None:
        self.write(b"begun")


class Channels(SynchronousTestCase):
    """What is asked of the parser of HTTP."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.channel: Any = _Channel()
        self.channel.requestFactory = _Pending
        self.channel.site = self.channel.factory = http.HTTPFactory(reactor=Clock())
        self.channel.callLater = Clock().callLater
        self.channel.makeConnection(self.transport)

    def test_request_line_and_headers(self) -> None:
        self.channel.dataReceived(b"PUT /a?b HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n")
        self.assertEqual(
            _twisted.request_line(self.channel), (b"PUT", b"/a?b", b"HTTP/1.1")
        )
        # A header counts once the next line has shown that it does not go on.
        self.assertGreaterEqual(_twisted.header_count(self.channel), 1)
        self.assertGreaterEqual(_twisted.header_bytes(self.channel), len(b"Host: a"))

    def test_bytes_behind_a_request(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        self.channel.dataReceived(request)
        self.assertFalse(_twisted.has_unparsed_bytes(self.channel))
        self.channel.dataReceived(request)
        self.assertTrue(_twisted.has_unparsed_bytes(self.channel))

    def test_client_that_does_not_read(self) -> None:
        self.channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertFalse(_twisted.waits_for_transport(self.channel))
        producer = self.transport.producer
        assert producer is not None
        producer.pauseProducing()  # type: ignore[attr-defined]
        self.assertTrue(_twisted.waits_for_transport(self.channel))

    def test_producer_of_a_response(self) -> None:
        self.channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIsNone(_twisted.response_producer(self.channel))
        producer: Any = object()
        self.channel.registerProducer(producer, True)
        self.assertIs(_twisted.response_producer(self.channel), producer)

    def test_abort_call_is_cancelled(self) -> None:
        """A connection that closes by itself is not cut afterwards."""
        clock = Clock()
        _twisted.set_abort_call(self.channel, clock.callLater(1, self.fail))
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_malformed_request(self) -> None:
        self.channel.dataReceived(b"GET\r\n")
        self.assertTrue(self.channel.is_malformed)
        self.assertEqual(self.transport.value(), b"")


class OneRoom(SynchronousTestCase):
    """No other module of the package uses private parts of Twisted."""

    def test_imports(self) -> None:
        root = Path(txraft.__file__).parent
        found = {
            str(path.relative_to(root))
            for path in root.rglob("*.py")
            if re.search(
                r"^\s*(from|import) twisted\S*\._|^from twisted\S* import _",
                path.read_text(),
                re.MULTILINE,
            )
        }
        self.assertEqual(found, {"_twisted.py"})

    def test_parser(self) -> None:
        """A subclass of the parser of HTTP names none of its private attributes."""
        private = {*re.findall(r"self\.(_\w+)", inspect.getsource(http.HTTPChannel))}
        used = {*re.findall(r"self\.(_\w+)", inspect.getsource(KVChannel))}
        self.assertEqual(used & private, set())
