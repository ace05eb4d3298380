"""Query parameters: reads take what Consul's clients write, writes are strict."""

from __future__ import annotations

from tests.support.http_network import HTTPCase
from txraft.kv.commands import encode_put


class Reads(HTTPCase):
    """What a read does not know, it ignores."""

    def setUp(self) -> None:
        super().setUp()
        for key in ("a/b/c", "a/b/d", "e"):
            for node in (self.n1, self.n2):
                node.commit(encode_put(key, b"v"))

    def test_flags_count_by_presence(self) -> None:
        """Clients write what their language makes of a flag.  Source: Consul."""
        for value in ("", "=", "=None", "=false", "=0", "=yes"):
            for node in (self.n1, self.n2):
                tree = self.reply(node, "GET", f"/v1/kv/a?recurse{value}")
                self.assertEqual(tree.body.count(b'"Key"'), 2)
            raw = self.reply(self.n1, "GET", f"/v1/kv/e?raw{value}")
            self.assertEqual(raw.body, b"v")
            keys = self.reply(self.n1, "GET", f"/v1/kv/e?keys{value}")
            self.assertEqual(keys.body, b'["e"]')

    def test_hints_and_unknown_parameters(self) -> None:
        for query in (
            "cached",
            "near=_agent",
            "hash=1",
            "leader",
            "foo=1",
            "ns=default",
        ):
            for path in ("kv/e", "status/leader", "agent/self", "session/list"):
                for node in (self.n1, self.n2):
                    reply = self.reply(node, "GET", f"/v1/{path}?{query}&stale=false")
                    self.assertEqual((path, query, reply.status), (path, query, 200))

    def test_leader_of_another_release_is_told_what_it_knows(self) -> None:
        self.reply(self.n2, "GET", "/v1/kv/a?recurse=None&cached&foo=1")

        (_, uri, _) = self.network.requests[-1]
        self.assertEqual(uri, b"http://n1:8500/v1/kv/a?recurse=")

    def test_old_spelling(self) -> None:
        reply = self.reply(self.n1, "GET", "/v1/kv/a/?keys&seperator=/")

        self.assertEqual(reply.body, b'["a/b/"]')

    def test_repeated(self) -> None:
        """The first one counts."""
        reply = self.reply(self.n1, "GET", "/v1/kv/e?raw&dc=dc1&dc=dc2")

        self.assertEqual(reply.body, b"v")

    def test_filter_is_refused_where_all_would_be_listed(self) -> None:
        for path in ("catalog/nodes", "health/state/any", "health/service/x"):
            reply = self.reply(self.n1, "GET", f"/v1/{path}?filter=Node==x")
            self.assertEqual(reply.status, 400)

    def test_other_tenants(self) -> None:
        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/e?ns=mine").status, 400)

    def test_max_stale(self) -> None:
        """A node that has not heard of the leader for longer asks it."""
        self.clock.advance(10)
        for contact, asked in ((9.0, 0), (4.0, 1), (None, 1)):
            self.n2.last_contact = contact
            del self.network.requests[:]
            self.reply(self.n2, "GET", "/v1/kv/e?max_stale=5s")
            self.assertEqual(len(self.network.requests), asked)

        both = self.reply(self.n2, "GET", "/v1/kv/e?max_stale=5s&consistent")
        none = self.reply(self.n2, "GET", "/v1/kv/e?max_stale=soon")
        self.assertEqual((both.status, none.status), (400, 400))

    def test_ids_that_are_missing(self) -> None:
        for path in ("session/info/", "session/node/", "health/node/", "health/state/"):
            self.assertEqual(self.reply(self.n1, "GET", f"/v1/{path}").status, 400)
        for path in ("destroy", "renew"):
            reply = self.reply(self.n1, "PUT", f"/v1/session/{path}/", b"")
            self.assertEqual((reply.status, reply.body), (400, b"Missing session\n"))

    def test_options(self) -> None:
        reply = self.reply(self.n1, "OPTIONS", "/v1/kv/e")

        told = (reply.status, reply.header("Allow"))
        self.assertEqual(told, (200, "OPTIONS,GET,PUT,DELETE"))


class EmptyStore(HTTPCase):
    """There is a root, if only an empty one."""

    def test_keys(self) -> None:
        replies = [self.reply(self.n1, "GET", f"/v1/kv/{p}?keys") for p in ("", "a/")]

        self.assertEqual([r.status for r in replies], [200, 404])
        self.assertEqual(replies[0].body, b"[]")


class Writes(HTTPCase):
    """A flag or condition that is mistyped destroys nothing."""

    def test_unknown_parameters(self) -> None:
        for method, query in (
            ("DELETE", "recurse=false"),
            ("DELETE", "recursive"),
            ("DELETE", "ca=5"),
            ("DELETE", "cas=1&cas=2"),
            ("PUT", "aquire=x"),
            ("PUT", "ns=mine"),
        ):
            body = b"" if method == "PUT" else None
            reply = self.reply(self.n1, method, f"/v1/kv/k?{query}", body)
            self.assertEqual((query, reply.status), (query, 400))
        self.assertEqual(len(self.n1.applied), 0)

    def test_hints(self) -> None:
        reply = self.reply(self.n2, "PUT", "/v1/kv/k?consistent&cached&ns=", b"v")

        self.assertEqual(reply.status, 200)
