"""`PUT /v1/txn`: the shapes that Consul documents."""

from __future__ import annotations

import json
from base64 import b64encode

from tests.http.network import HTTPCase, Reply


def kv(verb: str, key: str, value: bytes | None = None, **more: object) -> object:
    fields: dict[str, object] = {"Verb": verb, "Key": key, **more}
    if value is not None:
        fields["Value"] = b64encode(value).decode()
    return {"KV": fields}


class Transactions(HTTPCase):
    """Several operations in one request."""

    def txn(self, *operations: object, query: str = "") -> Reply:
        body = json.dumps(operations).encode()
        return self.reply(self.n1, "PUT", f"/v1/txn{query}", body)

    def test_results(self) -> None:
        """Writes answer without the value, reads with it, absence with nothing."""
        reply = self.txn(
            kv("check-not-exists", "k"), kv("set", "k", b"v", Flags=3), kv("get", "k")
        )

        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        shape = {"LockIndex": 0, "Key": "k", "Flags": 3, "Value": None}
        indexes = {"CreateIndex": 2, "ModifyIndex": 2}
        self.assertEqual(
            json.loads(reply.body),
            {
                "Results": [
                    {"KV": {**shape, **indexes}},
                    {"KV": {**shape, "Value": "dg==", **indexes}},
                ],
                "Errors": None,
            },
        )

    def test_errors(self) -> None:
        """409 names each operation that failed, and nothing was done."""
        reply = self.txn(
            kv("set", "new", b"v"), kv("get", "x"), kv("cas", "y", b"", Index=4)
        )

        self.assertEqual(reply.status, 409)
        told = json.loads(reply.body)
        self.assertIs(told["Results"], None)
        self.assertEqual([error["OpIndex"] for error in told["Errors"]], [1, 2])
        self.assertIn('key "x" doesn\'t exist', told["Errors"][0]["What"])
        self.assertEqual(list(self.n1.fsm), [])

    def test_every_verb(self) -> None:
        made = self.reply(self.n1, "PUT", "/v1/session/create", b"")
        id = json.loads(made.body)["ID"]

        reply = self.txn(
            kv("set", "k", b"v"),
            kv("cas", "new", b"v", Index=0),
            kv("lock", "l", b"v", Session=id),
            kv("check-session", "l", Session=id),
            kv("unlock", "l", b"v", Session=id),
            kv("get", "k"),
            kv("get-or-empty", "absent"),
            kv("get-tree", ""),
            kv("delete-cas", "absent", Index=1),
            kv("delete", "k"),
            kv("delete-tree", ""),
            kv("check-not-exists", "l"),
        )

        self.assertEqual(reply.status, 200)
        keys = [result["KV"]["Key"] for result in json.loads(reply.body)["Results"]]
        self.assertEqual(
            keys, ["k", "new", "l", "l", "l", "k", "absent", "k", "l", "new"]
        )
        self.assertEqual(list(self.n1.fsm), [])

    def test_reads_commit_nothing(self) -> None:
        """And they tell how fresh they are, as other reads do."""
        self.txn(kv("set", "k", b"v"))
        committed = len(self.n1.applied)

        for query in ("", "?consistent", "?stale"):
            reply = self.txn(
                kv("get", "k"), kv("check-index", "k", Index=2), query=query
            )
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.header("X-Consul-KnownLeader"), "true")

        self.assertEqual(len(self.n1.applied), committed)

    def test_names_in_any_letter_case(self) -> None:
        reply = self.txn({"kv": {"VERB": "set", "key": "k", "fLaGs": 9}})

        self.assertEqual(reply.status, 200)
        record = self.n1.fsm.get("k")
        assert record is not None
        self.assertEqual(record.flags, 9)

    def test_most_operations(self) -> None:
        fits = self.txn(*(kv("set", f"k{i}") for i in range(64)))
        too_many = self.txn(*(kv("set", f"l{i}") for i in range(65)))

        self.assertEqual((fits.status, too_many.status), (200, 413))
        self.assertEqual(len(self.n1.fsm), 64)

    def test_malformed_bodies(self) -> None:
        for operation in (
            kv("steal", "k"),
            kv("set", ""),
            kv("set", "k", Flags=-1),
            kv("set", "k", Flags=True),
            kv("set", "k", Flags=1 << 64),
            kv("set", "k", Value="not base64!"),
            kv("set", "k", Value=1),
            kv("lock", "k", Session=1),
            kv("set", "\ud800"),
            kv("lock", "k", Session="\ud800"),
            {"Node": {"Verb": "set"}},
            {"KV": []},
            [],
            1,
        ):
            self.assertEqual((operation, self.txn(operation).status), (operation, 400))
        for body in (b"", b"{}", b"[", b"\xff", b"[" * 100_000, b"[NaN]", b"9" * 5000):
            reply = self.reply(self.n1, "PUT", "/v1/txn", body)
            self.assertEqual((body[:9], reply.status), (body[:9], 400))

    def test_limits_of_keys_and_values(self) -> None:
        too_long = self.txn(kv("set", "é" * 513))
        too_large = self.txn(kv("set", "k", bytes((512 << 10) + 1)))

        self.assertEqual((too_long.status, too_large.status), (413, 413))
