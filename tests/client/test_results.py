"""Records and operations in the JSON of the API, and answers that hold none."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from txraft.client import KeyValue, MalformedAnswer, Operation
from txraft.client.errors import OperationError
from txraft.client.results import (
    parse_flag,
    parse_json,
    parse_keys,
    parse_records,
    parse_refusals,
    parse_results,
)
from txraft.kv.verbs import INDEXED, VERBS

FIELDS = {
    "Key": "a",
    "Value": "MQ==",
    "Flags": 2,
    "CreateIndex": 3,
    "ModifyIndex": 4,
    "LockIndex": 5,
    "Session": "s",
}
RECORD = KeyValue(
    "a", b"1", flags=2, create_index=3, modify_index=4, lock_index=5, session="s"
)


def encoded(value: object) -> bytes:
    """Return an answer."""
    return json.dumps(value).encode()


class Records(SynchronousTestCase):
    def test_whole(self) -> None:
        """Every field of the API stands in its place."""
        self.assertEqual(parse_records(encoded([FIELDS])), [RECORD])

    def test_empty(self) -> None:
        """A null value is an empty one, and a key that nobody locks has no session."""
        free = {**FIELDS, "Value": None}
        del free["Session"]

        (record,) = parse_records(encoded([free]))

        self.assertEqual((record.value, record.session), (b"", None))

    def test_results(self) -> None:
        """The result of a write has no value; a transaction of checks has no result."""
        written = {name: FIELDS[name] for name in FIELDS if name != "Value"}

        (record,) = parse_results(encoded({"Results": [{"KV": written}]}))

        self.assertEqual((record.key, record.value, record.modify_index), ("a", b"", 4))
        self.assertEqual(parse_results(encoded({"Results": None})), [])

    def test_refusals(self) -> None:
        """Each tells which operation was refused, and why."""
        body = encoded({"Errors": [{"OpIndex": 1, "What": "no"}]})

        self.assertEqual(parse_refusals(body), [OperationError(1, "no")])
        self.assertEqual(parse_refusals(encoded({"Errors": None})), [])

    def test_malformed(self) -> None:
        """Whatever else a server sends is one kind of error, never another's."""
        for parse, bodies in (
            (parse_json, [b"", b"{", b"\xff", b"[" * 100_000]),
            (parse_flag, [b"null", b"1", b'"true"']),
            (parse_keys, [b"null", b"{}", b"[1]"]),
            (parse_records, [b"null", b"{}", b"[1]", b"[null]", b"[{}]"]),
            (parse_results, [b"null", b"[]", b"{}", b'{"Results": [1]}']),
            (parse_refusals, [b"null", b"[]", b"{}", b'{"Errors": [{}]}']),
        ):
            for body in bodies:
                self.assertRaises(MalformedAnswer, parse, body)

    def test_malformed_fields(self) -> None:
        """A record with one field that is odd is none."""
        for name, odd in (
            ("Value", "no base64"),
            ("Value", 1),
            ("Flags", None),
            ("ModifyIndex", "x"),
        ):
            body = encoded([{**FIELDS, name: odd}])
            self.assertRaises(MalformedAnswer, parse_records, body)


class Operations(SynchronousTestCase):
    def test_constructors(self) -> None:
        """Each constructor makes the operation of the API that its name says."""
        made = [
            Operation.set("k", b"1", 7),
            Operation.cas("k", b"1", 9),
            Operation.get("k"),
            Operation.check_index("k", 0),
            Operation.check_session("k", "s"),
            Operation.check_not_exists("k"),
            Operation.delete("k"),
            Operation.delete_tree("k"),
        ]

        self.assertEqual(
            [operation.as_json()["KV"] for operation in made],
            [
                {"Verb": "set", "Key": "k", "Value": "MQ==", "Flags": 7},
                {"Verb": "cas", "Key": "k", "Value": "MQ==", "Index": 9},
                {"Verb": "get", "Key": "k"},
                {"Verb": "check-index", "Key": "k", "Index": 0},
                {"Verb": "check-session", "Key": "k", "Session": "s"},
                {"Verb": "check-not-exists", "Key": "k"},
                {"Verb": "delete", "Key": "k"},
                {"Verb": "delete-tree", "Key": "k"},
            ],
        )

    def test_index(self) -> None:
        """A verb that compares an index carries one, also 0: then the key is absent."""
        for verb, kind in VERBS.items():
            fields = Operation(verb, "k").as_json()["KV"]
            self.assertEqual("Index" in fields, kind in INDEXED, verb)

    def test_reads(self) -> None:
        """Whatever changes nothing may be sent again; an unknown verb may not."""
        self.assertTrue(Operation.get("k").reads)
        self.assertTrue(Operation.check_index("k", 1).reads)
        self.assertFalse(Operation.delete("k").reads)
        self.assertFalse(Operation("of-a-later-release", "k").reads)
