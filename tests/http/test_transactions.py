"""`PUT /v1/txn`: the shapes that Consul documents."""

from __future__ import annotations

import json
from base64 import b64encode

from twisted.internet.defer import Deferred

from tests.support.http_network import HTTPCase, Reply
from txraft.http.limits import HTTPLimits
from txraft.kv import state
from txraft.kv.commands import encode_put


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
        """128 as in Consul, once all members understand as many."""
        sets = [kv("set", f"k{i}") for i in range(129)]
        before = [self.txn(*sets[:count]).status for count in (64, 65)]
        self.n1.fsm.activate(1)

        fits, too_many = self.txn(*sets[:128]), self.txn(*sets)

        self.assertEqual((*before, fits.status, too_many.status), (200, 413, 200, 413))
        self.assertEqual(
            too_many.body, b"Transaction contains too many operations (129 > 128)\n"
        )
        self.assertEqual(len(self.n1.fsm), 128)

    def test_most_operations_are_counted_where_the_leader_is(self) -> None:
        """A follower that lags does not know yet what the cluster agreed on."""
        self.n1.fsm.activate(1)
        body = json.dumps([kv("set", f"k{i}") for i in range(128)]).encode()

        reply = self.reply(self.n2, "PUT", "/v1/txn", body)

        self.assertEqual((reply.status, len(self.n1.fsm)), (200, 128))

    def test_most_operations_that_read(self) -> None:
        """They are in no log, so it is as many at any level."""
        reads = [kv("get-or-empty", "k")] * 128

        self.assertEqual(self.txn(*reads).status, 200)

    def test_answer_too_long_is_refused_before_anything_changed(self) -> None:
        """At either level, and whatever the order of the operations."""
        self.patch(state, "MAX_ANSWER_BYTES_3", 2000)
        self.n1.commit(encode_put("k/1", bytes(1000)))
        self.n1.commit(encode_put("k/2", bytes(1000)))
        before = self.n1.fsm.digest()

        for level in (0, 1):
            if level:
                self.n1.fsm.activate(1)
                before = self.n1.fsm.digest()
            for operations in (
                (kv("set", "z"), kv("get-tree", "k/")),
                (kv("get-tree", "k/"), kv("delete-tree", "")),
            ):
                reply = self.txn(*operations)
                self.assertEqual((level, reply.status), (level, 413))
                self.assertIn(b"nothing of it was done", reply.body)
                self.assertEqual(self.n1.fsm.digest(), before)

    def test_answer_that_grew_too_long_is_told_as_what_it_is(self) -> None:
        """By the rules of level 0 it is done by then, and nobody is told otherwise."""
        self.patch(state, "MAX_ANSWER_BYTES_3", 2000)
        slow: Deferred[object] = Deferred()
        self.n1.script.append(slow)
        body = json.dumps([kv("set", "z"), kv("get-tree", "k/")]).encode()
        asked = self.ask(self.n1, "PUT", "/v1/txn", body)
        for key in ("k/1", "k/2"):
            self.n1.commit(encode_put(key, bytes(1000)))

        slow.callback(None)
        self.network.flush()

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "applied"))
        self.assertIn("z", self.n1.fsm)

    def test_answer_to_a_write_has_no_bound_of_one_node(self) -> None:
        """What was applied is answered, however little a setting would let through."""
        n3 = self.node("n3", HTTPLimits(max_answer_bytes=2000))
        n3.lead()
        n3.fsm.activate(1)
        n3.commit(encode_put("k", bytes(5000)))
        operations = [kv("set", "z"), kv("get", "k")]

        wrote = self.reply(n3, "PUT", "/v1/txn", json.dumps(operations).encode())
        read = self.reply(n3, "PUT", "/v1/txn", json.dumps(operations[1:]).encode())

        self.assertEqual((wrote.status, read.status), (200, 413))

    def test_value_too_large(self) -> None:
        """Vault tells by these words that it has to split a value."""
        reply = self.txn(kv("set", "vault/big", bytes(600_000)))

        self.assertEqual(reply.status, 413)
        self.assertEqual(
            reply.body,
            b'Value for key "vault/big" is too large (600000 > 524288 bytes)\n',
        )

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
