"""Keys over HTTP: conditions, locks, trees, and writes that are done once."""

from __future__ import annotations

import json
from urllib.parse import quote

from twisted.web.http_headers import Headers
from twisted.web.test.requesthelper import DummyRequest

from tests.support.http_network import HTTPCase, Reply
from txraft.http.answers import HTTPRefusal
from txraft.http.inflight import HTTPCall
from txraft.http.limits import HTTPLimits


class Conditions(HTTPCase):
    """`cas`, `acquire` and `release` answer whether the write was done."""

    def put(self, path: str, body: bytes = b"") -> object:
        reply = self.reply(self.n1, "PUT", f"/v1/kv/{path}", body)
        return json.loads(reply.body) if reply.status == 200 else reply.status

    def test_cas(self) -> None:
        answers = [self.put("k?cas=0"), self.put("k?cas=0"), self.put("k?cas=2", b"v")]

        self.assertEqual(answers, [True, False, True])
        self.assertEqual(self.put("k?cas=-1"), 400)

    def test_delete_cas(self) -> None:
        self.put("k")

        answers = [
            self.reply(self.n1, "DELETE", f"/v1/kv/k?cas={index}").body
            for index in (9, 2, 2)
        ]

        self.assertEqual(answers, [b"false", b"true", b"true"])

    def test_delete_recurse(self) -> None:
        for key in ("a/1", "a/2", "b"):
            self.put(key)

        reply = self.reply(self.n1, "DELETE", "/v1/kv/a/?recurse")
        self.assertEqual((reply.body, list(self.n1.fsm)), (b"true", ["b"]))
        self.reply(self.n1, "DELETE", "/v1/kv/?recurse")
        self.assertEqual(list(self.n1.fsm), [])

    def test_lock(self) -> None:
        made = self.reply(self.n1, "PUT", "/v1/session/create", b"")
        id = json.loads(made.body)["ID"]

        answers = [
            self.put(f"k?acquire={id}&flags=7", b"v"),
            self.put(f"k?release={id}", b"v"),
            self.put(f"k?release={id}", b"v"),
        ]
        self.put(f"k?acquire={id}", b"w")

        self.assertEqual(answers, [True, True, False])
        shape = json.loads(self.reply(self.n1, "GET", "/v1/kv/k").body)[0]
        self.assertEqual((shape["Session"], shape["LockIndex"]), (id, 2))

    def test_lock_by_no_session(self) -> None:
        for query in ("acquire=x", "acquire=", "release="):
            self.assertEqual(self.put(f"k?{query}"), 500)

    def test_conditions_exclude_each_other(self) -> None:
        for query in ("cas=0&acquire=x", "acquire=x&release=x"):
            self.assertEqual(self.put(f"k?{query}"), 400)
        reply = self.reply(self.n1, "DELETE", "/v1/kv/k?cas=1&recurse")
        self.assertEqual(reply.status, 400)

    def test_missing_key_name(self) -> None:
        for method in ("GET", "PUT", "DELETE"):
            reply = self.reply(
                self.n1, method, "/v1/kv/", b"" if method == "PUT" else None
            )
            self.assertEqual((reply.status, reply.body), (400, b"Missing key name\n"))


class Trees(HTTPCase):
    """`recurse` and `keys`, in the order of the keys."""

    limits = HTTPLimits(max_answer_bytes=2000)

    def setUp(self) -> None:
        super().setUp()
        for key in ("a/c/2", "a/b", "a/c/1", "b"):
            self.reply(self.n1, "PUT", f"/v1/kv/{key}", key.encode())

    def keys(self, query: str) -> object:
        return json.loads(self.reply(self.n1, "GET", f"/v1/kv/{query}").body)

    def test_recurse(self) -> None:
        reply = self.reply(self.n1, "GET", "/v1/kv/a/?recurse")

        found = [shape["Key"] for shape in json.loads(reply.body)]
        self.assertEqual(found, ["a/b", "a/c/1", "a/c/2"])
        self.assertEqual(reply.header("X-Consul-Index"), "4")

    def test_recurse_index_counts_deletions(self) -> None:
        """A watch would otherwise not see that a key has gone."""
        self.reply(self.n1, "DELETE", "/v1/kv/a/b")

        reply = self.reply(self.n1, "GET", "/v1/kv/a/?recurse")

        self.assertEqual(reply.header("X-Consul-Index"), "6")

    def test_keys(self) -> None:
        for query, expected in (
            ("?keys", ["a/b", "a/c/1", "a/c/2", "b"]),
            ("?keys&separator=/", ["a/", "b"]),
            ("a/?keys=True&separator=/", ["a/b", "a/c/"]),
            ("a/c?keys&separator=/", ["a/c/"]),
            ("a/?keys&separator=c/", ["a/b", "a/c/"]),
            ("a/?keys&separator=", ["a/b", "a/c/1", "a/c/2"]),
        ):
            self.assertEqual((query, self.keys(query)), (query, expected))

    def test_nothing_there(self) -> None:
        for query in ("x?recurse", "x?keys"):
            reply = self.reply(self.n1, "GET", f"/v1/kv/{query}")
            self.assertEqual((reply.status, reply.body), (404, b""))
            self.assertEqual(reply.header("X-Consul-Index"), "5")

    def test_answer_is_bounded(self) -> None:
        for i in range(20):
            self.reply(self.n1, "PUT", f"/v1/kv/many/{i}", bytes(80))

        for query in ("?recurse", "many?recurse"):
            reply = self.reply(self.n1, "GET", f"/v1/kv/{query}")
            self.assertEqual(reply.status, 413)
            self.assertIn(b"longer prefix", reply.body)


class Once(HTTPCase):
    """A write with a client and a sequence number is done once."""

    def numbered(
        self, method: str, path: str, body: bytes | None = None, number: str = "1"
    ) -> Reply:
        headers = {"X-Txraft-Client": "c", "X-Txraft-Sequence": number}
        return self.reply(self.n2, method, path, body, headers)

    def test_repetition_through_any_node(self) -> None:
        """The headers travel with a request that is forwarded."""
        first = self.numbered("PUT", "/v1/kv/k?cas=0", b"1")
        self.reply(self.n1, "DELETE", "/v1/kv/k")
        second = self.numbered("PUT", "/v1/kv/k?cas=0", b"1")
        third = self.numbered("PUT", "/v1/kv/k?cas=0", b"2", "2")

        self.assertEqual([r.body for r in (first, second, third)], [b"true"] * 3)
        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/k?raw").body, b"2")

    def test_session_keeps_its_id(self) -> None:
        replies = [self.numbered("PUT", "/v1/session/create", b"") for _ in range(2)]

        self.assertEqual(replies[0].body, replies[1].body)
        self.assertEqual(len(self.n1.fsm.sessions), 1)

    def test_transaction(self) -> None:
        body = json.dumps([{"KV": {"Verb": "cas", "Key": "k", "Index": 0}}]).encode()

        replies = [self.numbered("PUT", "/v1/txn", body) for _ in range(2)]

        self.assertEqual([r.status for r in replies], [200, 200])
        self.assertEqual(replies[0].body, replies[1].body)

    def test_same_number_for_another_write(self) -> None:
        """What the first got is no answer to it, and it is not done."""
        writes = (
            ("PUT", "/v1/kv/a", b""),
            ("PUT", "/v1/kv/b?cas=0", b""),
            ("PUT", "/v1/session/create", b""),
        )
        for number, first in enumerate(writes, 1):
            self.assertEqual(self.numbered(*first, str(number)).status, 200)
            for other in writes:
                if other is not first:
                    reply = self.numbered(*other, str(number))
                    self.assertEqual((first, other, reply.status), (first, other, 409))
                    self.assertIn(b"another write", reply.body)

        self.assertEqual(sorted(self.n1.fsm), ["a", "b"])
        self.assertEqual(len(self.n1.fsm.sessions), 1)

    def test_same_number_for_another_write_of_the_same_kind(self) -> None:
        """From level 1 on it is the command that is compared, not what it answers."""
        self.n1.fsm.activate(1)
        lock = {"Name": "a", "TTL": "10s"}
        writes = (
            ("PUT", "/v1/kv/a", b"1"),
            ("PUT", "/v1/kv/a", b"2"),
            ("PUT", "/v1/kv/a?flags=1", b"1"),
            ("PUT", "/v1/kv/b", b"1"),
            ("DELETE", "/v1/kv/a", None),
            ("PUT", "/v1/kv/a?cas=1", b"1"),
            ("PUT", "/v1/kv/a?cas=2", b"1"),
            ("PUT", "/v1/session/create", json.dumps(lock).encode()),
            ("PUT", "/v1/session/create", json.dumps({**lock, "Name": "b"}).encode()),
            ("PUT", "/v1/session/destroy/x", b""),
            ("PUT", "/v1/session/destroy/y", b""),
        )
        for number, first in enumerate(writes, 1):
            done = self.numbered(*first, str(number))
            self.assertEqual(done.status, 200)
            for other in writes:
                if other is not first:
                    reply = self.numbered(*other, str(number))
                    self.assertEqual((first, other, reply.status), (first, other, 409))
                    self.assertIn(b"another write", reply.body)
            again = self.numbered(*first, str(number))
            self.assertEqual((again.status, again.body), (200, done.body))

    def test_session_is_the_same_through_another_node(self) -> None:
        """Its id is drawn anew, and its node is by default the one that was asked."""
        self.n1.fsm.activate(1)
        headers = {"X-Txraft-Client": "c", "X-Txraft-Sequence": "1"}

        replies = [
            self.reply(node, "PUT", "/v1/session/create", b"", headers)
            for node in (self.n1, self.n2, self.n1)
        ]

        self.assertEqual({reply.body for reply in replies}, {replies[0].body})

    def test_headers_given_twice(self) -> None:
        """Even alike: whoever adds them cannot know of each other."""
        for twice in ("X-Txraft-Client", "X-Txraft-Sequence"):
            for values in (["5", "5"], ["5", "6"]):
                headers = {"X-Txraft-Client": ["5"], "X-Txraft-Sequence": ["5"]}
                headers[twice] = values
                request = DummyRequest([])
                request.method, request.uri = b"PUT", b"/v1/kv/k"
                request.requestHeaders = Headers(headers)

                refusal = self.assertRaises(HTTPRefusal, HTTPCall, request)

                self.assertEqual(refusal.answer.status, 400)
                self.assertIn(twice, str(refusal))

    def test_transaction_that_returns_values_is_refused(self) -> None:
        verbs = ({"Verb": "set", "Key": "k"}, {"Verb": "get", "Key": "k"})
        body = json.dumps([{"KV": verb} for verb in verbs]).encode()

        self.assertEqual(self.numbered("PUT", "/v1/txn", body).status, 400)

    def test_malformed_headers(self) -> None:
        for client, number in (
            (None, "1"),
            ("c", None),
            ("", "1"),
            ("c d", "1"),
            ("c" * 129, "1"),
            ("c", "0"),
            ("c", "-1"),
            ("c", "x"),
            ("c", str(1 << 64)),
        ):
            headers = {}
            if client is not None:
                headers["X-Txraft-Client"] = client
            if number is not None:
                headers["X-Txraft-Sequence"] = number
            reply = self.reply(self.n1, "PUT", "/v1/kv/k", b"", headers)
            self.assertEqual((headers, reply.status), (headers, 400))
        self.assertEqual(list(self.n1.fsm), [])


class CommonParameters(HTTPCase):
    """What every endpoint takes."""

    def test_datacenter(self) -> None:
        for path in ("/v1/kv/k", "/v1/status/leader", "/v1/session/list"):
            self.assertNotEqual(
                self.reply(self.n1, "GET", f"{path}?dc=dc1").status, 400
            )
            reply = self.reply(self.n1, "GET", f"{path}?dc=dc2")
            # Clients look for the words.  Source: Consul's ErrNoDCPath.
            self.assertEqual((reply.status, reply.outcome), (500, "refused"))
            self.assertTrue(reply.body.startswith(b"No path to datacenter"))

    def test_repeated_parameters(self) -> None:
        """A Twisted client of Consul sends all of them twice."""
        self.reply(self.n1, "PUT", "/v1/kv/" + quote("a/é"), b"v")

        reply = self.reply(self.n1, "GET", "/v1/kv/a?recurse=1&dc=dc1&recurse=1&dc=dc1")

        self.assertEqual([s["Key"] for s in json.loads(reply.body)], ["a/é"])
