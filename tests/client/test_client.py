"""The client's calls: their requests, and the reading of their answers."""

from __future__ import annotations

import json

from tests.support.client_cluster import ClientCase, answer, record
from txraft.client import (
    KeyValue,
    MalformedAnswer,
    Operation,
    OperationError,
    Refused,
    TransactionFailed,
)


class Reads(ClientCase):
    """`get`, `tree` and `keys`."""

    def test_get(self) -> None:
        """A key comes with its value, whatever bytes that is, and its indexes."""
        listed = [record("a b/ü", b"\x00\xff", 9, Flags=3, LockIndex=1, Session="s")]
        self.a.script = [answer(200, listed, X_Consul_Index="9")]

        found = self.done(self.client.get("a b/ü"))

        self.assertEqual(found, KeyValue("a b/ü", b"\x00\xff", 3, 9, 9, 1, "s"))
        self.assertEqual(self.a.asked, ["GET /v1/kv/a%20b/%C3%BC"])

    def test_get_of_an_absent_key(self) -> None:
        """404 with an index says that there is no such key."""
        self.a.script = [answer(404, X_Consul_Index="9")]

        self.assertIsNone(self.done(self.client.get("a")))

    def test_get_where_no_such_api_is(self) -> None:
        """404 without an index is that of some other server: no key was looked for."""
        self.a.script = [answer(404, b"There is nothing at this path.\n")]

        error = self.failed(self.client.get("a"), Refused)

        self.assertIn("There is nothing at this path.", str(error))

    def test_get_of_what_is_no_json(self) -> None:
        """An answer that is none of the API is an error and no value."""
        for body in (b"<html>", {}, [1], [{"Key": "a"}]):
            self.a.script = [answer(200, body, X_Consul_Index="9")]
            self.failed(self.client.get("a"), MalformedAnswer)

    def test_tree_and_keys(self) -> None:
        """Prefixes are read as trees of records, or of names."""
        self.a.script = [
            answer(200, [record("p/1", b"x"), record("p/2", b"")], X_Consul_Index="9"),
            answer(200, ["p/1", "p/2/"], X_Consul_Index="9"),
            answer(404, X_Consul_Index="9"),
        ]

        tree = self.done(self.client.tree("p/", stale=True))
        keys = self.done(self.client.keys("p/", "/"))
        none = self.done(self.client.keys("q/"))

        self.assertEqual(
            [(r.key, r.value) for r in tree], [("p/1", b"x"), ("p/2", b"")]
        )
        self.assertEqual((keys, none), (["p/1", "p/2/"], []))
        self.assertEqual(
            self.a.asked,
            [
                "GET /v1/kv/p/?stale=1&recurse=1",
                "GET /v1/kv/p/?keys=1&separator=%2F",
                "GET /v1/kv/q/?keys=1",
            ],
        )

    def test_token(self) -> None:
        """The token travels with every request."""
        seen = []
        client = self.make_client(token="secret")
        self.a.default = lambda request: (
            seen.append(request.getHeader("Authorization")),
            answer(200, b"true")(request),
        )

        self.done(client.put("a", b""))

        self.assertEqual(seen, ["Bearer secret"])


class Writes(ClientCase):
    """`put`, `cas`, `delete` and `txn`."""

    def test_put_cas_and_delete(self) -> None:
        """Each says with its parameters what is asked, index 0 too."""
        self.a.default = answer(200, b"true")

        self.done(self.client.put("a", b"1", flags=7))
        self.done(self.client.put("a", b"2", acquire="s"))
        self.done(self.client.cas("a", b"3", 0))
        self.done(self.client.delete("a", cas=4))
        self.done(self.client.delete("a/", recurse=True))

        self.assertEqual(
            self.a.asked,
            [
                "PUT /v1/kv/a?flags=7",
                "PUT /v1/kv/a?acquire=s",
                "PUT /v1/kv/a?cas=0",
                "DELETE /v1/kv/a?cas=4",
                "DELETE /v1/kv/a/?recurse=1",
            ],
        )
        self.assertEqual(self.a.bodies, [b"1", b"2", b"3", b"", b""])

    def test_cas_in_vain(self) -> None:
        """An index that has passed is an answer and no error."""
        self.a.script = [answer(200, b"false")]

        self.assertIs(self.done(self.client.cas("a", b"", 5)), False)

    def test_put_refused(self) -> None:
        """What is wrong with a request is told in the node's own words."""
        self.a.script = [answer(413, b"The value has too many bytes.\n")]

        error = self.failed(self.client.put("a", b""), Refused)

        self.assertEqual(error.status, 413)
        self.assertIn("too many bytes", str(error))

    def test_txn(self) -> None:
        """Operations go in one request; their results come back as records."""
        result = {"KV": {k: v for k, v in record("a", b"").items() if k != "Value"}}
        self.a.script = [answer(200, {"Results": [result], "Errors": None})]

        done = self.done(
            self.client.txn(
                Operation.check_index("b", 3),
                Operation.set("a", b"\xff", flags=2),
                Operation.cas("c", b"", 0),
                Operation.check_session("d", "s"),
            )
        )

        self.assertEqual([r.key for r in done], ["a"])
        self.assertEqual(
            [each["KV"] for each in json.loads(self.a.bodies[0])],
            [
                {"Verb": "check-index", "Key": "b", "Index": 3},
                {"Verb": "set", "Key": "a", "Value": "/w==", "Flags": 2},
                {"Verb": "cas", "Key": "c", "Value": "", "Index": 0},
                {"Verb": "check-session", "Key": "d", "Session": "s"},
            ],
        )

    def test_txn_that_may_be_repeated(self) -> None:
        """It goes to the next node when nobody knows what became of the first."""
        for node in (self.a, self.b):
            node.script = [answer(500, b"unknown", X_Txraft_Outcome="unknown")]
        self.c.script = [answer(200, {"Results": None, "Errors": None})]

        self.done(self.client.txn(Operation.set("a", b""), repeatable=True))

        self.assertEqual(len(self.c.asked), 1)

    def test_txn_rolled_back(self) -> None:
        """Which operation stood in the way, and why, comes with the error."""
        errors = [{"OpIndex": 1, "What": "current modify index"}]
        self.a.script = [answer(409, {"Results": None, "Errors": errors})]

        error = self.failed(self.client.txn(Operation.delete("a")), TransactionFailed)

        self.assertEqual(error.errors, [OperationError(1, "current modify index")])
