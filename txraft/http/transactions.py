"""Transactions: `PUT /v1/txn`.

Source: Consul's HTTP API, "Transactions".
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterator

from twisted.internet.defer import Deferred

from txraft.http.answers import (
    APPLIED,
    JSON,
    Answer,
    HTTPRefusal,
    LongAnswer,
    refusal_of,
)
from txraft.http.bodies import Fields, parse_json
from txraft.http.inflight import HTTPCall
from txraft.http.keys import ATTEMPTS, changes_too_fast, record_as_bytes
from txraft.http.limits import HTTPLimits
from txraft.http.lists import json_list
from txraft.http.reads import Reads
from txraft.http.slices import Slices, Steps
from txraft.http.writes import Writes
from txraft.kv.commands import (
    LEVEL,
    Operation,
    encode_transact,
    most_operations,
)
from txraft.kv.keyindex import ReadViewEnded
from txraft.kv.operations import STEP_KEYS, TransactionTooLarge
from txraft.kv.records import Record, TransactionResult
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import TREES, VALUES, VERBS, WRITES

_LINE_ENDS = {ord("\r"): None, ord("\n"): None}


class Transactions:
    """Does several operations on keys: all of them or none."""

    def __init__(
        self,
        fsm: KeyValueFSM,
        reads: Reads,
        writes: Writes,
        slices: Slices,
        limits: HTTPLimits,
    ) -> None:
        self._fsm = fsm
        self._reads = reads
        self._writes = writes
        self._slices = slices
        self._limits = limits

    def put(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """Do the operations in the body."""
        # One that only reads need not go into the log: it is an ordinary read.
        operations = _parse(call.body, self._limits)
        if not any(operation.kind in WRITES for operation in operations):
            call.writes = False
            return self._reads.run(call, lambda call: self._read(call, operations))
        if call.once and any(operation.kind in VALUES for operation in operations):
            raise HTTPRefusal(
                400, "A transaction that is done once cannot return values."
            )
        return self._writes.run(
            call,
            lambda level: self._encode(operations, level),
            TransactionResult,
            lambda outcome: self._tell(call, outcome),
            lambda quotas: quotas.of_operations(operations),
        )

    def _encode(self, operations: list[Operation], level: int) -> bytes:
        """Encode a transaction by the rules of *level*. Raises: HTTPRefusal"""
        # Parsed by the bounds of the newest level; the level at the leader may be
        # lower.
        _check_count(len(operations), most_operations(level))
        if not level:
            # At level 0 the state machine does it however long its answer is, so the
            # answer is measured before. If it grows until then, `_tell` reports that.
            try:
                self._fsm.check_answer(operations)
            except TransactionTooLarge as error:
                raise refusal_of(error) from error
        return encode_transact(operations, level)

    def _read(self, call: HTTPCall, operations: list[Operation]) -> Deferred[Answer]:
        def told(found: tuple[TransactionResult, list[bytes], int]) -> Answer:
            outcome, pieces, index = found
            status, headers = _status(outcome), self._reads.meta(index)
            return LongAnswer(status, pieces, JSON, *headers)

        # A key of its own: transactions never share their work.
        read = self._slices.run(
            object(), lambda: self._in_steps(operations), lambda: not call.answered
        )
        return read.addCallback(told)

    def _in_steps(
        self, operations: list[Operation]
    ) -> Steps[tuple[TransactionResult, list[bytes], int]]:
        """Read the state of one moment; return the outcome, its JSON and its index."""
        for _ in range(ATTEMPTS):
            index = self._fsm.index
            try:
                outcome = yield from self._fsm.read(
                    operations, self._limits.max_answer_bytes
                )
            except ReadViewEnded:
                continue
            except TransactionTooLarge as error:
                raise refusal_of(error) from error
            pieces = yield from _shape(outcome)
            return outcome, pieces, index
        raise changes_too_fast()

    def _tell(self, call: HTTPCall, outcome: TransactionResult) -> Deferred[Answer]:
        """Answer with *outcome*."""
        # The transaction has been done, so no bound may refuse it here.
        if not outcome.told and not outcome.errors:
            raise HTTPRefusal(
                500,
                "The transaction was applied, but its answer is too long to be told: "
                "read with GET and ?recurse.",
                APPLIED,
            )
        shaped = self._slices.run(
            object(), lambda: _shape(outcome), lambda: not call.answered
        )
        return shaped.addCallback(
            lambda pieces: LongAnswer(_status(outcome), pieces, JSON)
        )


def _status(outcome: TransactionResult) -> int:
    return 409 if outcome.errors else 200


def _shape(outcome: TransactionResult) -> Steps[list[bytes]]:
    """Encode *outcome* as Consul's JSON, in pieces of a body."""
    results = yield from json_list(_texts(outcome.records))
    errors = [
        {"OpIndex": error.position, "What": error.sentence} for error in outcome.errors
    ]
    text = json.dumps(errors or None, ensure_ascii=False, separators=(",", ":"))
    end = b',"Errors":%b}' % text.encode()
    return [b'{"Results":', *(results or [b"null"]), end]


def _texts(records: list[Record]) -> Iterator[bytes]:
    """Encode *records*; an empty text ends a step."""
    for count, record in enumerate(records, 1):
        yield b'{"KV":%b}' % record_as_bytes(record.key, record[1:])
        if not count % STEP_KEYS:
            yield b""


def _parse(body: bytes, limits: HTTPLimits) -> list[Operation]:
    value = parse_json(body)
    if not isinstance(value, list):
        raise HTTPRefusal(400, "The body is not a JSON list of operations.")
    _check_count(len(value), most_operations(LEVEL))
    return [_operation(each, f"operation {i}", limits) for i, each in enumerate(value)]


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise HTTPRefusal(
            413, f"Transaction contains too many operations ({count} > {most})"
        )


def _operation(value: object, what: str, limits: HTTPLimits) -> Operation:
    inner = Fields(value, what).get("KV")
    if inner is None:
        raise HTTPRefusal(400, f"{what} is not of type KV, the only one there is.")
    fields = Fields(inner, what)
    kind = VERBS.get(fields.text("Verb"))
    if kind is None:
        raise HTTPRefusal(400, f"The verb of {what} is not known.")
    key = fields.text("Key", limits.max_key_bytes)
    if not key and kind not in TREES:
        raise HTTPRefusal(400, f"The key of {what} is missing.")
    if len(key.encode()) > limits.max_key_bytes:
        raise HTTPRefusal(413, f"The key of {what} is too long.")
    return Operation(
        kind,
        key,
        _value(fields, what, key, limits),
        fields.number("Flags"),
        fields.number("Index"),
        fields.text("Session"),
    )


def _value(fields: Fields, what: str, key: str, limits: HTTPLimits) -> bytes:
    text = fields.get("Value")
    if text is None:
        return b""
    if not isinstance(text, str):
        raise HTTPRefusal(400, f"The value of {what} is not base64.")
    try:
        # Consul's decoder skips line ends, which some encoders write.
        value = b64decode(text.translate(_LINE_ENDS), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPRefusal(400, f"The value of {what} is not base64.") from error
    if len(value) > limits.max_value_bytes:
        # Vault's storage on Consul looks for these words.
        raise HTTPRefusal(
            413,
            f'Value for key "{key}" is too large ({len(value)} > '
            f"{limits.max_value_bytes} bytes)",
        )
    return value
