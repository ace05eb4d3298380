"""Keys over HTTP: the shapes that Consul documents."""

import json

from twisted.internet.defer import Deferred

from tests.support.http_network import HTTPCase
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import encode_put


class Reads(HTTPCase):
    """`GET /v1/kv/KEY`."""

    def test_get_shape(self) -> None:
        """The document is Consul's, compact as its own, and flags survive."""
        self.reply(self.n1, "PUT", "/v1/kv/zip?flags=42", b"test")

        reply = self.reply(self.n1, "GET", "/v1/kv/zip")

        self.assertEqual(reply.status, 200)
        self.assertEqual(
            reply.body,
            b'[{"LockIndex":0,"Key":"zip","Flags":42,"Value":"dGVzdA==",'
            b'"CreateIndex":2,"ModifyIndex":2}]',
        )
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")

    def test_get_empty_value_is_null(self) -> None:
        self.reply(self.n1, "PUT", "/v1/kv/zip", b"")

        reply = self.reply(self.n1, "GET", "/v1/kv/zip")

        self.assertIs(json.loads(reply.body)[0]["Value"], None)

    def test_get_raw(self) -> None:
        """The value and nothing else, in a form that no browser executes."""
        self.reply(self.n1, "PUT", "/v1/kv/zip", b"\x00<script>\xff")

        for query in ("raw", "raw=", "raw=1", "raw=true", "raw&raw", "raw&consistent"):
            reply = self.reply(self.n1, "GET", f"/v1/kv/zip?{query}")

            self.assertEqual((reply.status, reply.body), (200, b"\x00<script>\xff"))
            self.assertEqual(reply.header("Content-Type"), "text/plain")
            self.assertEqual(reply.header("Content-Security-Policy"), "sandbox")

    def test_get_absent(self) -> None:
        """404 without a body, and the index that a client can watch from."""
        self.reply(self.n1, "PUT", "/v1/kv/other", b"")

        reply = self.reply(self.n1, "GET", "/v1/kv/zip")

        self.assertEqual((reply.status, reply.body), (404, b""))
        self.assertEqual(reply.header("X-Consul-Index"), "2")

    def test_get_index_is_the_keys_own_and_never_zero(self) -> None:
        self.assertEqual(
            self.reply(self.n1, "GET", "/v1/kv/a").header("X-Consul-Index"), "1"
        )
        for key in ("a", "b"):
            self.reply(self.n1, "PUT", f"/v1/kv/{key}", b"")

        reply = self.reply(self.n1, "GET", "/v1/kv/a")

        self.assertEqual(reply.header("X-Consul-Index"), "2")

    def test_get_contact_headers(self) -> None:
        """They let a client judge how old a stale read may be."""
        self.n2.last_contact = self.clock.seconds()
        self.advance(0.25)

        leader = self.reply(self.n1, "GET", "/v1/kv/a?stale")
        follower = self.reply(self.n2, "GET", "/v1/kv/a?stale")
        self.n2.follow(None)
        lost = self.reply(self.n2, "GET", "/v1/kv/a?stale")

        headers = ("X-Consul-KnownLeader", "X-Consul-LastContact")
        self.assertEqual([leader.header(h) for h in headers], ["true", "0"])
        self.assertEqual([follower.header(h) for h in headers], ["true", "250"])
        self.assertEqual(lost.header("X-Consul-KnownLeader"), "false")

    def test_get_reads_only_once_it_is_linearizable(self) -> None:
        """What commits while leadership is confirmed is seen: state is read last."""
        for query in ("", "?consistent"):
            confirmed: Deferred[object] = Deferred()
            self.n1.script = [confirmed]
            asked = self.ask(self.n1, "GET", f"/v1/kv/zip{query}")
            self.assertNoResult(asked)

            self.n1.commit(encode_put("zip", query.encode() or b"x"))
            confirmed.callback(None)
            self.network.flush()

            self.assertEqual(self.successResultOf(asked).status, 200)

    def test_get_stale_asks_nobody(self) -> None:
        """The node at hand answers from what it has, leader or not."""
        self.n1.script = [Deferred()]
        self.n2.follow(None)
        self.n2.commit(encode_put("zip", b"old"))

        reply = self.reply(self.n2, "GET", "/v1/kv/zip?stale&raw")

        self.assertEqual((reply.status, reply.body), (200, b"old"))
        self.assertEqual(self.network.requests, [])


class Writes(HTTPCase):
    """`PUT` and `DELETE` on `/v1/kv/KEY`."""

    def test_put_answers_true(self) -> None:
        reply = self.reply(self.n1, "PUT", "/v1/kv/zip", b"v")

        self.assertEqual((reply.status, reply.body), (200, b"true"))
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertIs(reply.outcome, None)

    def test_put_answers_no_sooner_than_committed(self) -> None:
        committed: Deferred[object] = Deferred()
        self.n1.script = [committed]

        asked = self.ask(self.n1, "PUT", "/v1/kv/zip", b"v")

        self.assertNoResult(asked)
        committed.callback(None)
        self.network.flush()
        self.assertEqual(self.successResultOf(asked).body, b"true")

    def test_put_flags(self) -> None:
        largest = (1 << 64) - 1

        good = self.reply(self.n1, "PUT", f"/v1/kv/a?flags={largest}", b"")

        self.assertEqual(good.status, 200)
        record = self.n1.fsm.get("a")
        assert record is not None
        self.assertEqual(record.flags, largest)
        for bad in ("", "-1", "1.5", "x", "1_0", "%D9%A1", f"{largest + 1}"):
            reply = self.reply(self.n1, "PUT", f"/v1/kv/b?flags={bad}", b"")
            self.assertEqual((bad, reply.status), (bad, 400))
        self.assertIs(self.n1.fsm.get("b"), None)

    def test_put_value_limit(self) -> None:
        limit = HTTPLimits().max_value_bytes

        fits = self.reply(self.n1, "PUT", "/v1/kv/a", bytes(limit))
        too_long = self.reply(self.n1, "PUT", "/v1/kv/b", bytes(limit + 1))

        self.assertEqual((fits.status, too_long.status), (200, 413))
        self.assertIn(b"524288", too_long.body)
        self.assertIs(self.n1.fsm.get("b"), None)

    def test_delete(self) -> None:
        """True whether or not there was something to delete."""
        self.reply(self.n1, "PUT", "/v1/kv/zip", b"v")

        for _ in range(2):
            reply = self.reply(self.n1, "DELETE", "/v1/kv/zip")
            self.assertEqual((reply.status, reply.body), (200, b"true"))
            self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/zip").status, 404)


class Names(HTTPCase):
    """What a key may be, and how it is written in a URL."""

    def test_keys_are_percent_decoded(self) -> None:
        for path, key in (
            ("a/b/c", "a/b/c"),
            ("a%2Fb", "a/b"),
            ("a//b/", "a//b/"),
            ("/", "/"),
            ("%C3%A9", "é"),
            ("a+b%20c", "a+b c"),
            ("../x/./y", "../x/./y"),
            ("a%00%25%3F%23;=&", "a\x00%?#;=&"),
        ):
            self.reply(self.n1, "PUT", f"/v1/kv/{path}", b"v")
            self.assertEqual(list(self.n1.fsm), [key])
            self.reply(self.n1, "DELETE", f"/v1/kv/{path}")
            self.assertEqual(list(self.n1.fsm), [])

    def test_missing_key(self) -> None:
        for method, body in (("GET", None), ("PUT", b""), ("DELETE", None)):
            reply = self.reply(self.n1, method, "/v1/kv/", body)
            self.assertEqual((reply.status, reply.body), (400, b"Missing key name\n"))

    def test_malformed_keys(self) -> None:
        for path in ("%FF", "%C3", "%ED%A0%80", "%", "a%2", "a%zz"):
            reply = self.reply(self.n1, "PUT", f"/v1/kv/{path}", b"")
            self.assertEqual((path, reply.status), (path, 400))
            self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(list(self.n1.fsm), [])

    def test_key_limit_counts_decoded_bytes(self) -> None:
        fits = self.reply(self.n1, "PUT", "/v1/kv/" + "%C3%A9" * 512, b"")
        too_long = self.reply(self.n1, "PUT", "/v1/kv/" + "%C3%A9" * 512 + "x", b"")

        self.assertEqual((fits.status, too_long.status), (200, 414))


class Parameters(HTTPCase):
    """A parameter of a write is obeyed or refused, never ignored."""

    def test_unknown_or_not_served(self) -> None:
        self.reply(self.n1, "PUT", "/v1/kv/a", b"kept")
        for method, query in (
            ("PUT", "raw"),
            ("PUT", "recurse"),
            ("DELETE", "acquire=x"),
            ("DELETE", "Recurse"),
        ):
            body = b"lost" if method == "PUT" else None
            reply = self.reply(self.n1, method, f"/v1/kv/a?{query}", body)
            self.assertEqual((query, reply.status), (query, 400))
            self.assertIn(b"is not served here.", reply.body)
        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/a?raw").body, b"kept")

    def test_flags_of_writes_take_no_other_value(self) -> None:
        """`?recurse=false` must not be read as a wish to delete everything."""
        self.reply(self.n1, "PUT", "/v1/kv/a", b"kept")
        for value in ("false", "0", "no", "None"):
            reply = self.reply(self.n1, "DELETE", f"/v1/kv/a?recurse={value}")
            self.assertEqual(reply.status, 400)
        self.assertIsNotNone(self.n1.fsm.get("a"))

    def test_stale_and_consistent_exclude_each_other(self) -> None:
        reply = self.reply(self.n1, "GET", "/v1/kv/a?stale&consistent")
        self.assertEqual(reply.status, 400)

    def test_repetition_must_agree(self) -> None:
        """Clients exist that send every parameter twice."""
        same = self.reply(self.n1, "PUT", "/v1/kv/a?flags=7&flags=7", b"")
        differs = self.reply(self.n1, "PUT", "/v1/kv/a?flags=7&flags=8", b"")

        self.assertEqual((same.status, differs.status), (200, 400))

    def test_malformed_query(self) -> None:
        for query in ("raw=%zz", "%FF", "&".join(f"p{i}" for i in range(40))):
            self.assertEqual(
                self.reply(self.n1, "GET", f"/v1/kv/a?{query}").status, 400
            )
