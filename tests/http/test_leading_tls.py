"""Forwarding for clients that come over TLS."""

from __future__ import annotations

from tests.support.http_network import HTTPCase
from txraft.kv.commands import encode_advertise


class WithTLS(HTTPCase):
    """What a client shows over TLS goes no further without it."""

    def test_leader_told_an_address_without_tls(self) -> None:
        """A token that was shown over TLS is not sent on without it."""
        token = {"X-Consul-Token": "secret"}
        asked = self.ask(self.n2, "PUT", "/v1/kv/a", b"1", token, scheme="https")

        self.advance(*[0.25] * 20)

        self.assertEqual(self.n1.applied, [])
        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertIn(b"n1:8300 is known without TLS only", reply.body)

    def test_leader_tells_an_address_with_tls_meanwhile(self) -> None:
        """A cluster that is moved to HTTPS serves on, once its leader has told."""
        asked = self.ask(self.n2, "PUT", "/v1/kv/a", b"1", scheme="https")
        self.advance(0.1)
        for node in (self.n1, self.n2):
            node.commit(encode_advertise("n1:8300", "https://n1:8500"))

        self.advance(0.1)

        self.assertEqual(self.successResultOf(asked).status, 200)
