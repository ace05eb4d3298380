"""Who is let in on a port that only this machine reaches."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from txraft.http.answers import Refusal
from txraft.http.auth import ThisMachine
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
            refusal = self.assertRaises(Refusal, self.role, host)
            self.assertEqual(refusal.answer.status, 403)
            self.assertIn(b"names another machine", refusal.answer.body)
