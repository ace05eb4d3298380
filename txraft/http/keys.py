"""Keys: `GET`, `PUT` and `DELETE` on `/v1/kv/KEY`.

Source: Consul's HTTP API, "KV Store Endpoints".
"""

from __future__ import annotations

from base64 import b64encode

from twisted.internet.defer import Deferred

from txraft.http.answers import FALSE, TRUE, Answer, Refusal, json_answer
from txraft.http.calls import Call
from txraft.http.limits import HTTPLimits
from txraft.http.reads import BLOCKING, Reads
from txraft.http.writes import Writes
from txraft.kv.commands import (
    Kind,
    Operation,
    encode_delete,
    encode_put,
    encode_transact,
)
from txraft.kv.records import Outcome, Record
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import Scope, Topic

GET_PARAMETERS = BLOCKING | {"raw", "recurse", "keys", "separator"}
PUT_PARAMETERS = frozenset({"flags", "cas", "acquire", "release"})
DELETE_PARAMETERS = frozenset({"recurse", "cas"})
_RAW = (b"Content-Type", b"text/plain")
_SANDBOX = (b"Content-Security-Policy", b"sandbox")


class Keys:
    """Reads and writes of keys, of one or of all under a prefix."""

    def __init__(
        self, fsm: KeyValueFSM, reads: Reads, writes: Writes, limits: HTTPLimits
    ) -> None:
        self._fsm = fsm
        self._reads = reads
        self._writes = writes
        self._limits = limits

    def topic(self, call: Call) -> Topic:
        """Tell what a blocking query waits for."""
        many = call.flag("recurse") or call.flag("keys")
        return Topic(Scope.PREFIX if many else Scope.KEY, call.key)

    def get(self, call: Call) -> Answer | Deferred[Answer]:
        """Read a key, with `?recurse` all that begin with it, or only their names."""
        call.flag("raw")
        if call.flag("keys"):
            return self._reads.run(call, self._names)
        if call.flag("recurse"):
            return self._reads.run(call, self._tree)
        _check_named(call)
        return self._reads.run(call, self._one)

    def put(self, call: Call) -> Deferred[Answer]:
        """Write a key; answers whether that was done."""
        _check_named(call)
        if len(call.body) > self._limits.max_value_bytes:
            raise Refusal(
                413,
                f"The value has {len(call.body)} bytes, at most "
                f"{self._limits.max_value_bytes} fit.",
            )
        flags = call.number("flags") or 0
        operation = _conditional_put(call, flags)
        if operation is None:
            return self._writes.run(
                call,
                lambda level: encode_put(call.key, call.body, flags),
                bool,
                _true,
                lambda quotas: quotas.of_put(call.key, call.body),
            )
        return self._transact(call, operation)

    def delete(self, call: Call) -> Deferred[Answer]:
        """Delete a key, or with `?recurse` all that begin with it."""
        cas, recurse = call.number("cas"), call.flag("recurse")
        if cas is not None and recurse:
            raise Refusal(400, "Conflicting flags: cas and recurse")
        if recurse:
            return self._transact(call, Operation(Kind.DELETE_TREE, call.key))
        _check_named(call)
        if cas is not None:
            operation = Operation(Kind.DELETE_CAS, call.key, modify_index=cas)
            return self._transact(call, operation)
        return self._writes.run(
            call, lambda level: encode_delete(call.key), bool, _true
        )

    def _transact(self, call: Call, operation: Operation) -> Deferred[Answer]:
        return self._writes.run(
            call,
            lambda level: encode_transact([operation], level),
            Outcome,
            _whether,
            lambda quotas: quotas.of_operations([operation]),
        )

    # Reads

    def _one(self, call: Call) -> Answer:
        record = self._fsm.get(call.key)
        if record is None:
            return self._absent()
        meta = self._reads.meta(record.modify_index)
        if "raw" in call.parameters:
            return Answer(200, record.value, _RAW, _SANDBOX, *meta)
        return json_answer([record_as_json(record)], *meta)

    def _tree(self, call: Call) -> Answer:
        shapes: list[dict[str, object]] = []
        room = self._limits.max_answer_bytes
        for record in self._fsm.records(call.key):
            room -= 4 * len(record.value) // 3 + len(record.key) + 160
            if room < 0:
                raise too_much(self._limits)
            shapes.append(record_as_json(record))
        return self._many(call, shapes)

    def _names(self, call: Call) -> Answer:
        separator = call.parameters.get("separator", "")
        names: dict[str, None] = {}
        room = self._limits.max_answer_bytes
        for key in self._fsm.keys(call.key):
            name = _up_to(key, separator, len(call.key))
            if name not in names:
                names[name] = None
                room -= len(name) + 3
                if room < 0:
                    raise too_much(self._limits)
        return self._many(call, list(names))

    def _many(self, call: Call, found: list[dict[str, object]] | list[str]) -> Answer:
        if not found:
            return self._absent()
        index = self._fsm.changed_at(Topic(Scope.PREFIX, call.key))
        return json_answer(found, *self._reads.meta(index))

    def _absent(self) -> Answer:
        return Answer(404, b"", *self._reads.meta(self._fsm.index))


def record_as_json(record: Record) -> dict[str, object]:
    """Shape *record* as Consul does: the value in base64, an empty one as null."""
    shape: dict[str, object] = {
        "LockIndex": record.lock_index,
        "Key": record.key,
        "Flags": record.flags,
        "Value": b64encode(record.value).decode("ascii") if record.value else None,
    }
    if record.session:
        shape["Session"] = record.session
    shape["CreateIndex"] = record.create_index
    shape["ModifyIndex"] = record.modify_index
    return shape


def too_much(limits: HTTPLimits) -> Refusal:
    """Make the refusal of a read whose answer would be too long."""
    return Refusal(
        413,
        f"The answer is longer than {limits.max_answer_bytes} bytes: ask for a longer "
        "prefix.",
    )


def _conditional_put(call: Call, flags: int) -> Operation | None:
    """Return the one operation that a put with a condition stands for."""
    given = call.parameters.keys() & {"cas", "acquire", "release"}
    if not given:
        return None
    if len(given) > 1:
        raise Refusal(400, f"Conflicting flags: {' and '.join(sorted(given))}")
    key, value = call.key, call.body
    cas = call.number("cas")
    if cas is not None:
        return Operation(Kind.CAS, key, value, flags, cas)
    locks = "acquire" in given
    session = call.parameters["acquire" if locks else "release"]
    if not session:
        raise Refusal(400, "The session is missing.")
    kind = Kind.LOCK if locks else Kind.UNLOCK
    return Operation(kind, key, value, flags, 0, session)


def _check_named(call: Call) -> None:
    if not call.key:
        raise Refusal(400, "Missing key name")


def _up_to(key: str, separator: str, start: int) -> str:
    """Cut *key* behind the first *separator* that comes after *start*."""
    found = key.find(separator, start) if separator else -1
    return key if found < 0 else key[: found + len(separator)]


def _true(_done: bool) -> Answer:
    return TRUE


def _whether(outcome: Outcome) -> Answer:
    """Tell whether the only operation has succeeded."""
    for error in outcome.errors:
        if error.invalid:
            raise Refusal(400, error.sentence)
    return FALSE if outcome.errors else TRUE
