"""Whatever the parser of requests cannot bear ends in one answer and one line."""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.http.test_site import SiteCase
from txraft.http.limits import HTTPLimits

HOST = b"Host: n1\r\n"
GET = b"GET /v1/status/leader HTTP/1.1\r\n"
PUT = b"PUT /v1/kv/k HTTP/1.1\r\n" + HOST
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"

LINES = {
    400: (
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET\t/\tHTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"G\xc3\x84T / HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
        b"GET /\x7f\xff HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n\r\n",
    ),
    414: (b"GET /" + b"x" * 300, b"GET /" + b"x" * 300 + b" HTTP/1.1\r\n\r\n"),
}
HEADERS = {
    400: (
        b"no colon",
        b": no name",
        b"na me: x",
        b"na\xc3\xa4me: x",
        b"name\t: x",
        b"name : x",
        b"X: a\x00b",
        b"X: a\rb",
        b"X: a\nb",
        b"Content-Length:",
        b"Content-Length: x",
        b"Content-Length: +1",
        b"Content-Length: -1",
        b"Content-Length: 0x1",
        b"Content-Length: 1_0",
        b"Content-Length: 1, 1",
        b"Content-Length: \xd9\xa1",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: 1\r\nContent-Length: 30",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 1",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ),
    413: (
        b"Content-Length: 101",
        b"Content-Length: 18446744073709551617",
        b"Content-Length: " + b"9" * 200,
    ),
    431: (
        b"X: " + b"y" * 300,
        b"X" * 300,
        b"\r\n".join([b"X: y"] * 12),
        b"\r\n".join([b"X: " + b"y" * 200] * 4),
    ),
    501: (
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: \x0bchunked",
    ),
}
CHUNKS = {
    400: (
        b"x\r\n",
        b"\r\n",
        b"-1\r\nq\r\n",
        b"+1\r\nq\r\n",
        b"0x1\r\nq\r\n",
        b" 1\r\nq\r\n",
        b"1;a\nb\r\nq\r\n",
        b"1;a\x00b\r\nq\r\n",
        b"1;" + b"a" * 2000,
        b"0" * 2000 + b"1\r\nq",
        b"1\r\nqXX0\r\n\r\n",
        b"1\nq\n0\n\n" + b"x" * 2000,
        b"0\r\n" + b"X: y\r\n" * 20_000,
        b"0\r\nX: " + b"y" * 70_000,
    ),
    413: (b"FFFFFFFFFFFFFFFF\r\n" + b"q" * 200, b"65\r\n" + b"q" * 101),
}


class Case(SiteCase):
    """A node, and all that is logged above debug."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]


class Answers(Case):
    """One answer with a sentence, one line that is bounded, and the end."""

    limits = HTTPLimits(
        max_value_bytes=64,
        max_body_bytes=100,
        max_key_bytes=64,
        max_line_bytes=256,
        max_headers_bytes=600,
        max_headers=10,
    )

    def assert_refused(self, status: int, request: bytes) -> None:
        """Send *request* whole, and byte by byte, and with more behind it."""
        for pieces in (
            (request,),
            [request[i : i + 1] for i in range(min(len(request), 3000))]
            + [request[3000:]],
            (request + GET + HOST + b"\r\n",),
            (request, GET + HOST + b"\r\n"),
        ):
            self.events.clear()
            self.clock.advance(60)
            transport, response = self.send(*pieces)
            self.clock.advance(3)

            shown = request[:80], response[:200]
            self.assertTrue(response.startswith(b"HTTP/1.1 %d " % status), shown)
            self.assertEqual(response.count(b"HTTP/1.1 "), 1, shown)
            self.assertFalse(transport.connected, shown)
            self.assertLessEqual(len(self.events), 1, self.lines())
            self.assertLess(sum(map(len, self.lines())), 300)
            self.assertEqual([e for e in self.events if "log_failure" in e], [])
        self.assertEqual(self.site._held_bytes, 0)
        self.assertEqual(list(self.node.fsm), [])

    def test_request_lines(self) -> None:
        for status, lines in LINES.items():
            for line in lines:
                self.assert_refused(status, line)

    def test_headers(self) -> None:
        for status, headers in HEADERS.items():
            for header in headers:
                self.assert_refused(status, PUT + header + b"\r\n\r\n")
                self.assert_refused(status, PUT + header + b"\r\nX: y\r\n\r\n")

    def test_chunks(self) -> None:
        for status, chunks in CHUNKS.items():
            for chunk in chunks:
                self.assert_refused(status, CHUNKED + chunk)

    def test_one_answer_and_one_line(self) -> None:
        """What comes behind is neither read nor answered."""
        channel, transport = self.connect()
        for _ in range(3):
            channel.dataReceived(b"nonsense\r\n\r\n")
            channel.dataReceived(GET + HOST + b"\r\n")

        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
        self.assertEqual(len(self.events), 1)

    def test_length_with_zeros_in_front(self) -> None:
        _, response = self.send(
            PUT + b"Content-Length: " + b"0" * 200 + b"1\r\n\r\n" + b"v"
        )

        self.assertIn(b" 200 OK", response)


class Lengths(Case):
    """A line may be so long that a length has thousands of digits."""

    limits = HTTPLimits(max_connections=2)

    def test_thousands_of_digits(self) -> None:
        """Python refuses to read such a number, which is no reason for a traceback."""
        for digits, status in ((b"9" * 5000, 413), (b"0" * 5000 + b"1", 200)):
            _, response = self.send(PUT + b"Content-Length: " + digits + b"\r\n\r\nv")
            self.assertIn(b"HTTP/1.1 %d " % status, response)
        self.assertEqual(self.events, [])


class Floods(Case):
    """The log has a bound, whoever sends what."""

    def test_lines(self) -> None:
        for _ in range(500):
            self.send(PUT + b"Content-Length: -1\r\n\r\n")
            self.send(b"nonsense\r\n\r\n")

        self.assertLess(len(self.events), 50)
