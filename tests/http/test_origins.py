"""Pages from elsewhere: a browser sends what they ask for, and tells where from."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from tests.http.test_site import SiteCase
from tests.support.http_network import HTTPCase
from txraft.http.answers import HTTPRefusal
from txraft.http.limits import HTTPLimits
from txraft.http.origins import Origins, check_host, parse_origin

Headers = Sequence[tuple[str, str]]
EVERY_KIND = (
    ("GET", "/v1/kv/k"),
    ("GET", "/v1/kv/?recurse&stale"),
    ("PUT", "/v1/kv/k"),
    ("DELETE", "/v1/kv/?recurse"),
    ("PUT", "/v1/txn"),
    ("GET", "/v1/session/list"),
    ("PUT", "/v1/session/create"),
    ("GET", "/v1/agent/self"),
    ("GET", "/v1/status/leader"),
    ("POST", "/v1/operator/raft/transfer-leader"),
    ("GET", "/v1/snapshot"),
    ("PUT", "/v1/snapshot"),
    ("GET", "/nothing/here"),
)


def status(headers: Headers, *allowed: str, path: str = "/v1/kv/k") -> int:
    """Check a request with *headers*; return what it is refused with, or 200."""
    request = DummyRequest([b""])
    request.method, request.uri, request.clientproto = (
        b"GET",
        path.encode(),
        b"HTTP/1.1",
    )
    for name, value in headers:
        request.requestHeaders.addRawHeader(name.encode(), value.encode("latin-1"))
    try:
        check_host(request)  # type: ignore[arg-type]
        Origins(allowed).check(request)  # type: ignore[arg-type]
    except HTTPRefusal as refusal:
        return refusal.answer.status
    return 200


class Pages(SynchronousTestCase):
    """Only pages of this node's own origin, and of those that are allowed."""

    def assert_status(self, expected: int, headers: Headers, *allowed: str) -> None:
        headers = [("Host", "n1:8500"), *headers]
        self.assertEqual((headers, status(headers, *allowed)), (headers, expected))

    def test_no_browser(self) -> None:
        self.assert_status(200, [])

    def test_what_the_user_typed(self) -> None:
        self.assert_status(200, [("Sec-Fetch-Site", "none")])

    def test_own_pages(self) -> None:
        for origin in ("http://n1:8500", "HTTP://N1:8500", "https://n1:8500"):
            self.assert_status(200, [("Origin", origin)])
            site = ("Sec-Fetch-Site", "same-origin")
            self.assert_status(200, [("Origin", origin), site])
        self.assert_status(200, [("Sec-Fetch-Site", "same-origin")])

    def test_own_pages_on_default_ports(self) -> None:
        for host, origin in (
            ("n1", "http://n1"),
            ("n1:80", "http://n1"),
            ("n1", "https://n1"),
            ("[::1]", "http://[::1]"),
        ):
            headers = [("Host", host), ("Origin", origin)]
            self.assertEqual((headers, status(headers)), (headers, 200))

    def test_pages_from_elsewhere(self) -> None:
        for origin in (
            "https://evil.example",
            "http://n1:3000",
            "http://n1",
            "http://n1:85000",
            "http://evil.n1:8500",
            "http://n1:8500.evil.example",
            "http://n1:8500@evil.example",
            "http://n1:8500/",
            "null",
            "",
            "file://",
            "chrome-extension://abc",
            "\xff",
        ):
            self.assert_status(403, [("Origin", origin)])
        for site in ("cross-site", "same-site", "SAME-ORIGIN", "", "else"):
            self.assert_status(403, [("Sec-Fetch-Site", site)])

    def test_allowed(self) -> None:
        site = ("Sec-Fetch-Site", "cross-site")
        for origin, expected in (
            ("https://kv.example", 200),
            ("http://kv.example", 403),
            ("https://kv.example:8443", 403),
            ("null", 403),
        ):
            headers = [("Origin", origin), site]
            self.assert_status(expected, headers, "https://kv.example")

    def test_given_twice(self) -> None:
        for name, value in (
            ("Origin", "http://n1:8500"),
            ("Sec-Fetch-Site", "same-origin"),
        ):
            self.assert_status(400, [(name, value), (name, value)])

    def test_probes(self) -> None:
        """They tell nothing but that the node lives."""
        headers = [("Host", "n1:8500"), ("Origin", "https://evil.example")]
        for path in ("/livez", "/readyz", "/readyz?x"):
            self.assertEqual((path, status(headers, path=path)), (path, 200))

    def test_parse_origin(self) -> None:
        self.assertEqual(parse_origin("HTTPS://KV.example:443/"), "https://kv.example")
        self.assertEqual(parse_origin("http://[::1]:8500"), "http://[::1]:8500")
        for text in ("kv.example", "*", "https://", "https://a/b", "ftp://a", "null"):
            self.assertRaises(ValueError, parse_origin, text)


class Served(HTTPCase):
    """Nothing that reads or changes state is left out."""

    def test_every_kind_of_request(self) -> None:
        before = len(self.n1.applied)
        for method, path in EVERY_KIND:
            for header in (
                {"Origin": "https://evil.example"},
                {"Sec-Fetch-Site": "cross-site"},
            ):
                body = None if method == "GET" else b"[]"
                reply = self.reply(self.n1, method, path, body, header)
                self.assertEqual((method, path, reply.status), (method, path, 403))
                self.assertIn(b"http.allowed_origins", reply.body)
        self.assertEqual(len(self.n1.applied), before)
        self.assertEqual(self.n1.leader, "n1:8300")


class Hosts(SiteCase):
    """A request says once, and plainly, which host it means."""

    limits = HTTPLimits()

    def test_hosts(self) -> None:
        for host in (
            "n1",
            "n1:8500",
            "127.0.0.1:8500",
            "[::1]:8500",
            "[fe80::1%25eth0]",
            "n1.",
            "node_1.cluster:8500",
        ):
            self.assertEqual((host, status([("Host", host)])), (host, 200))

    def test_what_is_no_host(self) -> None:
        for host in (
            "",
            "localhost:80@evil.example",
            "n1:http",
            "n1:123456",
            "[::1",
            "::1",
            "n1/v1",
            "n1 evil",
            "n1?x",
            "n1#x",
            "n1\\evil",
            "\xff",
        ):
            self.assertEqual((host, status([("Host", host)])), (host, 400))

    def test_before_a_body_is_taken(self) -> None:
        for hosts in (b"", b"Host: n1\r\nHost: n1\r\n", b"Host: a@b\r\n"):
            _, response = self.send(
                b"PUT /v1/kv/k HTTP/1.1\r\n" + hosts + b"Content-Length: 5\r\n\r\n"
            )
            self.assertTrue(response.startswith(b"HTTP/1.1 400 "), response)
            self.assertIn(b"Host", response)

    def test_older_protocol_has_none(self) -> None:
        _, response = self.send(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")

        self.assertIn(b" 200 OK", response)
