"""Access: the names of this machine, the probes, and the tokens in a file."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from txraft.errors import ConfigError
from txraft.http.answers import HTTPRefusal
from txraft.http.auth import (
    FORWARDED_ROLE,
    AccessPolicy,
    Accounts,
    OpenProbes,
    ThisMachine,
    read_tokens,
)
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


READER, OPERATOR = "2f4b8a01c7e94e0d", "9c1d77b3a5064c2f"
ACCOUNTS = f"# a role and a token\nread {READER}\n\noperator {OPERATOR}  # me\n"


class Tokens(SynchronousTestCase):
    """Roles by the tokens in a file that only its owner can read."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write(ACCOUNTS)

    def write(self, text: str) -> None:
        """Write the file of tokens."""
        self.path.write_text(text)
        self.path.chmod(0o600)

    def role(
        self, accounts: Accounts, name: bytes = b"", value: str = "", query: str = ""
    ) -> Role | int:
        """Return the role of a request, or the status of its refusal."""
        request = DummyRequest([b""])
        request.uri = b"/v1/kv/a" + query.encode()
        request.channel = None
        if name:
            request.requestHeaders.addRawHeader(name, value.encode())
        try:
            return accounts.role_of(request)  # type: ignore[arg-type]
        except HTTPRefusal as refusal:
            return refusal.answer.status

    def test_places(self) -> None:
        """A token stands in either header, or in the query as from older clients."""
        accounts = Accounts(str(self.path), {})

        for token, role in ((READER, Role.READ), (OPERATOR, Role.OPERATOR)):
            given = [
                self.role(accounts, b"X-Consul-Token", token),
                self.role(accounts, b"Authorization", f"Bearer {token}"),
                self.role(accounts, b"Authorization", f"bearer  {token} "),
                self.role(accounts, query=f"?token={token}"),
                self.role(accounts, b"X-Consul-Token", "", f"?a&token={token}"),
            ]
            self.assertEqual(given, [role] * 5)

    def test_strangers(self) -> None:
        """Without a token, or with one that is not in the file, nobody has a role."""
        accounts = Accounts(str(self.path), {})

        refused = [
            self.role(accounts),
            self.role(accounts, b"X-Consul-Token", READER[:-1]),
            self.role(accounts, b"X-Consul-Token", "# a role and a token"),
            self.role(accounts, b"Authorization", READER),
            self.role(accounts, b"Authorization", f"Basic {READER}"),
            self.role(accounts, query=f"?tokens={READER}"),
        ]

        self.assertEqual(refused, [403] * 6)

    def test_role_claimed(self) -> None:
        """The header with which nodes forward a role gives none to anybody else."""
        accounts = Accounts(str(self.path), {"n2.test": "node"})

        self.assertEqual(self.role(accounts, FORWARDED_ROLE, "operator"), 403)

    def test_reload(self) -> None:
        """A new file replaces the tokens; a broken one leaves them as they were."""
        accounts = Accounts(str(self.path), {})
        self.write(f"{ACCOUNTS}write short\n")

        error = self.assertRaises(ConfigError, accounts.reload)

        self.assertNotIn("short", str(error))
        self.assertEqual(self.role(accounts, b"X-Consul-Token", READER), Role.READ)
        self.write(f"write {READER}\n")
        accounts.reload()
        self.assertEqual(self.role(accounts, b"X-Consul-Token", READER), Role.WRITE)
        self.assertEqual(self.role(accounts, b"X-Consul-Token", OPERATOR), 403)

    def test_same_token_twice(self) -> None:
        """Which of two roles a token has is never a guess."""
        self.write(f"read {READER}\noperator {READER}\n")

        error = self.assertRaises(ConfigError, read_tokens, str(self.path))

        self.assertIn("a token is given twice", str(error))
        self.assertNotIn(READER, str(error))

    def test_no_plain_file(self) -> None:
        """A link, a pipe and a directory are refused at once; a pipe could block."""
        link, pipe = Path(self.mktemp()), Path(self.mktemp())
        link.symlink_to(self.path.absolute())
        os.mkfifo(pipe, 0o600)

        for path in (link, pipe, self.path.parent, self.path / "none"):
            self.assertRaises(ConfigError, read_tokens, str(path))
