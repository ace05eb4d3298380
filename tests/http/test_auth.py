"""A port that only this machine reaches is open to names of this machine alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from txraft.http.answers import HTTPRefusal
from txraft.http.auth import AccessPolicy, Accounts, OpenProbes, ThisMachine
from txraft.http.roles import Role


class Hosts(SynchronousTestCase):
    """A page from elsewhere gives its own name the address of this machine."""

    def role(self, host: bytes | None) -> Role:
        request = DummyRequest([b""])
        if host is not None:
            request.requestHeaders.addRawHeader(b"Host", host)
        return ThisMachine("n1.test").role_of(request)  # type: ignore[arg-type]

    def test_names_of_this_machine(self) -> None:
        """Addresses, localhost, and what the node is advertised as."""
        for host in (
            None,
            b"localhost",
            b"LocalHost:8500",
            b"n1.localhost:8500",
            b"127.0.0.1:8500",
            b"[::1]:8500",
            b"192.0.2.1",
            b"n1.test:8500",
        ):
            self.assertEqual(self.role(host), Role.OPERATOR, host)

    def test_names_that_anybody_may_give(self) -> None:
        for host in (
            b"evil.test",
            b"evil.test:8500",
            b"localhost.evil.test",
            b"notlocalhost",
            b"127.0.0.1.evil.test:8500",
            b"n1.test.evil.test",
            b"[evil.test]:8500",
            b"\xff\xfe",
        ):
            refusal = self.assertRaises(HTTPRefusal, self.role, host)
            self.assertEqual(refusal.answer.status, 403)
            self.assertIn(b"names another machine", refusal.answer.body)


class Probes(SynchronousTestCase):
    """Who watches a node has no token to show."""

    def role(self, access: AccessPolicy, method: bytes, uri: bytes) -> Role | None:
        request = DummyRequest([b""])
        request.method, request.uri = method, uri
        request.requestHeaders.addRawHeader(b"Host", b"elsewhere.test")
        try:
            return access.role_of(request)  # type: ignore[arg-type]
        except HTTPRefusal:
            return None

    def test_open(self) -> None:
        """Both probes answer a stranger, with a query too; nothing else does."""
        for inner in (ThisMachine("n1.test"), Accounts(None, {})):
            access = OpenProbes(inner)
            for uri in (b"/livez", b"/readyz", b"/readyz?verbose"):
                self.assertIs(self.role(access, b"GET", uri), Role.READ, uri)
            for method, uri in (
                (b"PUT", b"/livez"),
                (b"GET", b"/livez/"),
                (b"GET", b"/v1/kv/livez"),
                (b"GET", b"/v1/kv/a?x=/livez"),
                (b"GET", b"//livez"),
            ):
                self.assertIsNone(self.role(access, method, uri), uri)

    def test_closed(self) -> None:
        """Without it a probe is asked who it is, as everything else."""
        for uri in (b"/livez", b"/readyz"):
            self.assertIsNone(self.role(Accounts(None, {}), b"GET", uri))
