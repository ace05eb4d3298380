"""HTTPS, tokens and roles, on a node of its own; and clients that are too slow."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from typing import ClassVar

import trustme

from tests.support.forgery import CLIENT, Pair
from tests.support.hostile_members import (
    LEADERLESS,
    Member,
    SecureCluster,
    identity,
    wait,
)

TOKENS = {
    "read": "read-token-0123456789",
    "write": "write-token-0123456789",
    "operator": "operator-token-0123456789",
}
HTTP = """
http:
  listen: "tcp:{port}:interface=127.0.0.1"
  advertise: https://localhost:{port}
  tokens: tokens
  tls:
    certificate: {certificate}
    private_key: {key}
    ca: {ca}
    roles: {{ops.test: operator, look.test: read, node.test: node}}
"""
Headers = dict[str, str]


class HTTPS(SecureCluster):
    server: ClassVar[Pair]
    servers: ClassVar[list[Member]]

    @classmethod
    def begin(cls) -> None:
        """Start the processes again, with HTTPS and tokens."""
        super().begin()
        tokens = cls.directory / "tokens"
        lines = ["# who may do what", *(f"{r} {t}" for r, t in TOKENS.items()), ""]
        tokens.touch(0o600)
        tokens.write_text("\n".join(lines))
        cls.server = cls.forge.issue("localhost", "node.test")
        for member in cls.members:
            member.stop()
        for member in cls.members:
            cls.secure(member)
            member.log_path.write_text("")
            member.start()
        wait(lambda: all(m.lines("takes part") for m in cls.members), cls.all_logs)

    @classmethod
    def secure(cls, member: Member) -> None:
        """Give *member* HTTPS."""
        path = cls.directory / f"{member.name}.yaml"
        rest = [line for line in path.read_text().splitlines() if "http:" not in line]
        path.write_text(
            "\n".join(rest)
            + HTTP.format(
                port=member.http,
                certificate=cls.server.certificate,
                key=cls.server.key,
                ca=cls.forge.ca_file,
            )
        )

    def ask(
        self,
        method: str,
        path: str,
        headers: Headers | None = None,
        pair: Pair | None = None,
        at: int = 0,
    ) -> int:
        """Make one request over HTTPS and return its status."""
        context = ssl.create_default_context(cafile=self.forge.ca_file)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        member = self.members[at]
        connection = http.client.HTTPSConnection(
            "localhost", member.http, context=context, timeout=20
        )
        try:
            connection.request(method, path, b"v", headers or {})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def allowed(self, headers: Headers, pair: Pair | None = None) -> list[bool]:
        """Tell whether reading, writing and operating are permitted."""
        statuses: list[int] = []
        for method, path in (
            ("GET", "/v1/status/leader"),
            ("PUT", "/v1/kv/k"),
            ("DELETE", "/v1/operator/raft/peer?address=x:1"),
        ):
            wait(
                lambda m=method, p=path: self.settles(statuses, m, p, headers, pair),  # type: ignore[misc]
                self.all_logs,
            )
        self.assertTrue(set(statuses) <= {200, 403, 404}, statuses)
        return [status != 403 for status in statuses]

    def settles(
        self,
        statuses: list[int],
        method: str,
        path: str,
        headers: Headers,
        pair: Pair | None,
    ) -> bool:
        """Note a status, unless a busy machine has left nobody to answer."""
        status = self.ask(method, path, headers, pair)
        if status not in LEADERLESS:
            statuses.append(status)
        return status not in LEADERLESS

    def test_roles_of_tokens(self) -> None:
        """Each role may do what those before it may; nobody may do nothing."""
        self.assertEqual(self.allowed({}), [False, False, False])
        for role, expected in (
            ("read", [True, False, False]),
            ("write", [True, True, False]),
            ("operator", [True, True, True]),
        ):
            token = TOKENS[role]
            for headers in (
                {"X-Consul-Token": token},
                {"Authorization": f"Bearer {token}"},
                {"authorization": f"bearer {token}"},
            ):
                self.assertEqual(self.allowed(headers), expected, headers)

    def test_every_node_forwards_for_the_client(self) -> None:
        """A write reaches the leader with the rights it came with, from any node."""
        for at in range(3):
            headers = {"X-Consul-Token": TOKENS["write"]}
            self.assertEqual(self.ask("PUT", "/v1/kv/k", headers, at=at), 200)
            operator = self.forge.issue("ops.test", uses=CLIENT)
            self.assertEqual(self.ask("PUT", "/v1/kv/k", None, operator, at=at), 200)

    def test_every_node_tells_where_it_serves(self) -> None:
        """With the role of a node; the leader then knows the addresses of all."""

        def known() -> int:
            context = ssl.create_default_context(cafile=self.forge.ca_file)
            member = self.members[0]
            connection = http.client.HTTPSConnection(
                "localhost", member.http, context=context, timeout=20
            )
            headers = {"X-Consul-Token": TOKENS["read"]}
            connection.request("GET", "/v1/catalog/nodes", None, headers)
            nodes = json.loads(connection.getresponse().read())
            connection.close()
            return sum(node["Meta"].get("http", "")[:8] == "https://" for node in nodes)

        wait(lambda: known() == 3, self.all_logs)

    def test_token_as_parameter(self) -> None:
        """Older Consul clients write it there."""
        path = f"/v1/status/leader?token={TOKENS['read']}"
        self.assertEqual(self.ask("GET", path), 200)

    def test_unknown_tokens(self) -> None:
        """A token that is not wholly right is wrong, and none is ever logged."""
        good = TOKENS["operator"]
        for token in (good[:-1], good + "x", good.upper(), "x" * 20, "", "\x7f"):
            headers = {"X-Consul-Token": token}
            self.assertEqual(self.allowed(headers), [False, False, False], token)
        for member in self.members:
            for token in TOKENS.values():
                self.assertNotIn(token, member.log)

    def test_roles_of_certificates(self) -> None:
        """A name in a client's certificate has the role that the file gives it."""
        for name, expected in (
            ("ops.test", [True, True, True]),
            ("look.test", [True, False, False]),
            ("other.test", [False, False, False]),
            (identity(self.absent), [False, False, False]),
        ):
            pair = self.forge.issue(name, uses=CLIENT)
            self.assertEqual(self.allowed({}, pair), expected, name)

    def test_certificate_of_another_authority(self) -> None:
        pair = self.forge.issue("ops.test", uses=CLIENT, ca=trustme.CA())
        mark = len(self.members[0].log)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.ask("GET", "/v1/status/leader", None, pair)
        self.assertTold("closed: its TLS handshake failed: certificate verify", mark)

    def test_role_claimed_by_a_client(self) -> None:
        """Only another node may say with which role it forwards."""
        headers = {"X-Txraft-Role": "operator"}
        self.assertEqual(self.allowed(headers), [False, False, False])
        headers["X-Consul-Token"] = TOKENS["read"]
        self.assertEqual(self.allowed(headers), [True, False, False])

    def test_plain_http(self) -> None:
        """Without TLS nothing is answered."""
        mark = len(self.members[0].log)
        status, _ = self.members[0].request("GET", "/v1/status/leader")
        self.assertEqual(status, 0)
        self.assertTold("closed: its TLS handshake failed: http request", mark)

    def test_stranger_is_logged(self) -> None:
        """Whoever tries tokens is seen, and the tokens are not."""
        mark = len(self.members[0].log)
        headers = {"X-Consul-Token": "guess-0123456789-guess"}
        self.assertEqual(self.ask("PUT", "/v1/kv/k", headers), 403)
        self.assertTold("refused: it may not send such a request", mark)
        self.assertNotIn("guess", self.members[0].log)

    def assertTold(self, reason: str, since: int) -> None:
        """Assert that the first member says *reason* once of an HTTP client."""
        member = self.members[0]
        words = ("HTTP connection from", reason)
        wait(lambda: bool(member.lines(*words, since=since)), lambda: member.log)
        self.assertEqual(len(member.lines("HTTP connection from", since=since)), 1)

    def test_tokens_are_reread(self) -> None:
        """SIGHUP takes new tokens; a file that others may read is not taken."""
        path = self.directory / "tokens"
        before = path.read_text()
        headers = {"X-Consul-Token": "another-token-0123456789"}
        self.assertEqual(self.ask("GET", "/v1/status/leader", headers), 403)
        member = self.members[0]
        path.write_text(before + "read another-token-0123456789\n")
        self.addCleanup(path.write_text, before)
        os.chmod(path, 0o644)
        self.addCleanup(os.chmod, path, 0o600)
        member.hang_up()
        wait(
            lambda: bool(member.lines("Not reloaded", "chmod 600")), lambda: member.log
        )
        self.assertEqual(self.ask("GET", "/v1/status/leader", headers), 403)
        os.chmod(path, 0o600)
        mark = len(member.log)
        member.hang_up()
        wait(lambda: bool(member.lines("were reread", since=mark)), lambda: member.log)
        self.assertEqual(self.ask("GET", "/v1/status/leader", headers), 200)
