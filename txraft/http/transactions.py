"""Transactions: `PUT /v1/txn`.

Source: Consul's HTTP API, "Transactions".
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode

from twisted.internet.defer import Deferred

from txraft.http.answers import JSON, Answer, Header, Refusal
from txraft.http.bodies import Fields, parse_json
from txraft.http.calls import Call
from txraft.http.keys import record_as_json, too_much
from txraft.http.limits import HTTPLimits
from txraft.http.reads import Reads
from txraft.http.writes import Writes
from txraft.kv.commands import MAX_OPERATIONS, Kind, Operation, encode_transact
from txraft.kv.operations import is_write
from txraft.kv.records import Outcome
from txraft.kv.state import KeyValueFSM

VERBS = {
    "set": Kind.SET,
    "cas": Kind.CAS,
    "lock": Kind.LOCK,
    "unlock": Kind.UNLOCK,
    "get": Kind.GET,
    "get-or-empty": Kind.GET_OR_EMPTY,
    "get-tree": Kind.GET_TREE,
    "check-index": Kind.CHECK_INDEX,
    "check-session": Kind.CHECK_SESSION,
    "check-not-exists": Kind.CHECK_NOT_EXISTS,
    "delete": Kind.DELETE,
    "delete-tree": Kind.DELETE_TREE,
    "delete-cas": Kind.DELETE_CAS,
}
_TREES = frozenset({Kind.GET_TREE, Kind.DELETE_TREE})
_VALUES = frozenset({Kind.GET, Kind.GET_OR_EMPTY, Kind.GET_TREE})


class Transactions:
    """Several operations on keys, all of which are done or none."""

    def __init__(
        self, fsm: KeyValueFSM, reads: Reads, writes: Writes, limits: HTTPLimits
    ) -> None:
        self._fsm = fsm
        self._reads = reads
        self._writes = writes
        self._limits = limits

    def put(self, call: Call) -> Answer | Deferred[Answer]:
        """Do the operations of the body; one that only reads changes nothing."""
        operations = _parse(call.body, self._limits)
        if not any(is_write(operation.kind) for operation in operations):
            call.writes = False
            return self._reads.run(call, lambda _: self._read(operations))
        if call.once and any(operation.kind in _VALUES for operation in operations):
            raise Refusal(400, "A transaction that is done once cannot return values.")
        return self._writes.run(
            call, lambda: encode_transact(operations), Outcome, self._shape
        )

    def _read(self, operations: list[Operation]) -> Answer:
        outcome = self._fsm.read(operations)
        return self._shape(outcome, *self._reads.meta(self._fsm.index))

    def _shape(self, outcome: Outcome, *headers: Header) -> Answer:
        size = sum(4 * len(record.value) // 3 + 160 for record in outcome.records)
        if size > self._limits.max_answer_bytes:
            raise too_much(self._limits)
        results = [{"KV": record_as_json(record)} for record in outcome.records]
        errors = [
            {"OpIndex": error.position, "What": error.sentence}
            for error in outcome.errors
        ]
        shape = {"Results": results or None, "Errors": errors or None}
        text = json.dumps(shape, ensure_ascii=False, separators=(",", ":"))
        return Answer(409 if errors else 200, text.encode(), JSON, *headers)


def _parse(body: bytes, limits: HTTPLimits) -> list[Operation]:
    value = parse_json(body)
    if not isinstance(value, list):
        raise Refusal(400, "The body is not a JSON list of operations.")
    if len(value) > MAX_OPERATIONS:
        raise Refusal(
            413,
            f"Transaction contains too many operations ({len(value)} > "
            f"{MAX_OPERATIONS})",
        )
    return [_operation(each, f"operation {i}", limits) for i, each in enumerate(value)]


def _operation(value: object, what: str, limits: HTTPLimits) -> Operation:
    inner = Fields(value, what).get("KV")
    if inner is None:
        raise Refusal(400, f"{what} is not of type KV, the only one there is.")
    fields = Fields(inner, what)
    kind = VERBS.get(fields.text("Verb"))
    if kind is None:
        raise Refusal(400, f"The verb of {what} is not known.")
    key = fields.text("Key", limits.max_key_bytes)
    if not key and kind not in _TREES:
        raise Refusal(400, f"The key of {what} is missing.")
    if len(key.encode()) > limits.max_key_bytes:
        raise Refusal(413, f"The key of {what} is too long.")
    return Operation(
        kind,
        key,
        _value(fields, what, limits),
        fields.number("Flags"),
        fields.number("Index"),
        fields.text("Session"),
    )


def _value(fields: Fields, what: str, limits: HTTPLimits) -> bytes:
    text = fields.get("Value")
    if text is None:
        return b""
    if not isinstance(text, str):
        raise Refusal(400, f"The value of {what} is not base64.")
    try:
        value = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"The value of {what} is not base64.") from error
    if len(value) > limits.max_value_bytes:
        raise Refusal(413, f"The value of {what} is too long.")
    return value
