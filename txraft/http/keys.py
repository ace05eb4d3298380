"""Keys: `GET`, `PUT` and `DELETE` on `/v1/kv/KEY`.

Source: Consul's HTTP API, "KV Store Endpoints".
"""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from typing import NamedTuple

from twisted.internet.defer import Deferred

from txraft.http.answers import (
    FALSE,
    JSON,
    RETRY_AFTER,
    TRUE,
    Answer,
    HTTPRefusal,
    LongAnswer,
    json_answer,
    not_applied,
    refused,
)
from txraft.http.inflight import HTTPCall
from txraft.http.limits import HTTPLimits
from txraft.http.lists import json_list
from txraft.http.reads import BLOCKING, Reads
from txraft.http.slices import Slices, Steps
from txraft.http.writes import Writes
from txraft.kv.commands import Operation, encode_delete, encode_put, encode_transact
from txraft.kv.keyindex import ReadView, ReadViewEnded
from txraft.kv.operations import STEP_KEYS
from txraft.kv.records import Record, Row, TransactionResult
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind
from txraft.kv.watches import Scope, Topic

GET_PARAMETERS = BLOCKING | {"raw", "recurse", "keys", "separator", "seperator"}
PUT_PARAMETERS = frozenset({"flags", "cas", "acquire", "release"})
DELETE_PARAMETERS = frozenset({"recurse", "cas"})
_RAW = (b"Content-Type", b"text/plain")
_SANDBOX = (b"Content-Security-Policy", b"sandbox")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

STEP_NAMES = 1024
"""Keys in one step of a list of names: no records are looked at, so it is as short."""

ATTEMPTS = 3
"""How often a list is begun again because too much has changed meanwhile."""


def changes_too_fast() -> HTTPRefusal:
    """Make the refusal of a list whose view has ended each time."""
    return not_applied(
        "Keys change faster than they can be listed: ask for a longer prefix.",
        RETRY_AFTER,
    )


class Keys:
    """Reads and writes a key, or all keys under a prefix."""

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

    def topic(self, call: HTTPCall) -> Topic:
        """Return the topic that a blocking query waits for."""
        many = call.flag("recurse") or call.flag("keys")
        return Topic(Scope.PREFIX if many else Scope.KEY, call.key)

    def get(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """Read a key, all keys under it (`?recurse`), or only their names (`?keys`)."""
        call.flag("raw")
        if call.flag("keys"):
            return self._reads.run(call, self._names)
        if call.flag("recurse"):
            return self._reads.run(call, self._tree)
        _check_named(call)
        return self._reads.run(call, self._one)

    def put(self, call: HTTPCall) -> Deferred[Answer]:
        """Write a key; answers `true` if it was written, else `false`."""
        _check_named(call)
        if len(call.body) > self._limits.max_value_bytes:
            raise HTTPRefusal(
                413,
                f"Request body({len(call.body)} bytes) too large, max size: "
                f"{self._limits.max_value_bytes} bytes.",
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

    def delete(self, call: HTTPCall) -> Deferred[Answer]:
        """Delete a key, or all keys under it with `?recurse`."""
        cas, recurse = call.number("cas"), call.flag("recurse")
        if cas is not None and recurse:
            raise HTTPRefusal(400, "Conflicting flags: cas and recurse")
        if recurse:
            return self._transact(call, Operation(OperationKind.DELETE_TREE, call.key))
        _check_named(call)
        if cas is not None:
            operation = Operation(OperationKind.DELETE_CAS, call.key, modify_index=cas)
            return self._transact(call, operation)
        return self._writes.run(
            call, lambda level: encode_delete(call.key), bool, _true
        )

    def _transact(self, call: HTTPCall, operation: Operation) -> Deferred[Answer]:
        return self._writes.run(
            call,
            lambda level: encode_transact([operation], level),
            TransactionResult,
            _whether_released if operation.kind is OperationKind.UNLOCK else _whether,
            lambda quotas: quotas.of_operations([operation]),
        )

    # Reads

    def _one(self, call: HTTPCall) -> Answer:
        record = self._fsm.get(call.key)
        if record is None:
            return self._absent()
        meta = self._reads.meta(record.modify_index)
        if "raw" in call.parameters:
            return Answer(200, record.value, _RAW, _SANDBOX, *meta)
        return json_answer([record_as_json(record)], *meta)

    def _tree(self, call: HTTPCall) -> Deferred[Answer]:
        return self._many(call, _records, "")

    def _names(self, call: HTTPCall) -> Deferred[Answer]:
        return self._many(call, _names, _separator(call))

    def _many(self, call: HTTPCall, texts: _Texts, separator: str) -> Deferred[Answer]:
        """Answer with a list of *texts* about the keys under the key of *call*."""
        prefix = call.key
        listed = self._slices.run(
            (texts, prefix, separator),
            lambda: self._list(prefix, texts, separator),
            lambda: not call.answered,
        )
        return listed.addCallback(self._listed, call)

    def _list(self, prefix: str, texts: _Texts, separator: str) -> Steps[_Listing]:
        """List the keys now under *prefix*, in steps. Raises: HTTPRefusal"""
        for _ in range(ATTEMPTS):
            view = self._fsm.read_view(prefix)
            now = self._fsm.index
            index = self._fsm.changed_at(Topic(Scope.PREFIX, prefix))
            try:
                body = yield from json_list(
                    texts(view, prefix, separator), self._limits
                )
            except ReadViewEnded:
                continue
            finally:
                view.close()
            return _Listing(body, index, now)
        raise changes_too_fast()

    def _listed(self, listing: _Listing, call: HTTPCall) -> Answer:
        if not listing.pieces and "keys" in call.parameters and not call.key:
            # The root always exists, even empty: no 404.
            return Answer(200, b"[]", JSON, *self._reads.meta(listing.now))
        if not listing.pieces:
            return self._absent(listing.now)
        # Nodes forget deletions at different times, so another node may have told this
        # client a later index than is known here. Its index must not go back: it would
        # take that for a restart. So its own index counts, if this node has reached it.
        index = max(listing.changed_at, min(call.known_index, listing.now))
        return LongAnswer(200, listing.pieces, JSON, *self._reads.meta(index))

    def _absent(self, index: int | None = None) -> Answer:
        now = self._fsm.index if index is None else index
        return Answer(404, b"", *self._reads.meta(now))


class _Listing(NamedTuple):
    """The body of a list, the index of the last change in it, and that of all keys."""

    pieces: list[bytes]
    changed_at: int
    now: int


_Texts = Callable[[ReadView, str, str], Iterator[bytes]]


def _records(view: ReadView, _prefix: str, _separator: str) -> Iterator[bytes]:
    """Encode the records that *view* shows; an empty text ends each step."""
    while (piece := view.read(STEP_KEYS)) is not None:
        for key, row in piece:
            yield record_as_bytes(key, row)
        yield b""


def _names(view: ReadView, prefix: str, separator: str) -> Iterator[bytes]:
    """Encode the names that *view* shows, each up to *separator* and only once."""
    # For speed: without a separator the encoder takes a whole piece at once.
    if not separator:
        while (names := view.read_names(STEP_NAMES)) is not None:
            if names:
                yield _encode(names)[1:-1].encode()  # a list without its brackets
            yield b""
        return
    start, last = len(prefix), None
    while (names := view.read_names(STEP_KEYS)) is not None:
        for key in names:
            if last is not None and key.startswith(last):
                continue
            end = key.find(separator, start)
            if end < 0:
                yield _text(key)
            else:
                last = key[: end + len(separator)]
                yield _text(last)
        # For speed: a "directory" of a million keys costs one step, not a million
        # looks.
        if last is not None and names and names[-1].startswith(last):
            view.skip(last)
        yield b""


def record_as_json(record: Record) -> dict[str, object]:
    """Return *record* as Consul's JSON object: the value in base64, null if empty."""
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


def record_as_bytes(key: str, row: Row) -> bytes:
    """Encode a record as compact JSON, equal to that of `record_as_json`."""
    # For speed, by hand: lists consist of nothing else.
    value, flags, created, modified, lock_index, session = row
    return b'{"LockIndex":%d,"Key":%b,"Flags":%d,"Value":%b%b,%b}' % (
        lock_index,
        _text(key),
        flags,
        b'"%b"' % b2a_base64(value, newline=False) if value else b"null",
        b',"Session":%b' % _text(session) if session else b"",
        b'"CreateIndex":%d,"ModifyIndex":%d' % (created, modified),
    )


def _text(text: str) -> bytes:
    return _encode(text).encode()


def _conditional_put(call: HTTPCall, flags: int) -> Operation | None:
    """Return the operation of a put with `cas`, `acquire` or `release`, else None."""
    given = call.parameters.keys() & {"cas", "acquire", "release"}
    if not given:
        return None
    if len(given) > 1:
        raise HTTPRefusal(400, f"Conflicting flags: {' and '.join(sorted(given))}")
    key, value = call.key, call.body
    cas = call.number("cas")
    if cas is not None:
        return Operation(OperationKind.CAS, key, value, flags, cas)
    locks = "acquire" in given
    session = call.parameters["acquire" if locks else "release"]
    if not session:
        raise refused("missing session")
    kind = OperationKind.LOCK if locks else OperationKind.UNLOCK
    return Operation(kind, key, value, flags, 0, session)


def _separator(call: HTTPCall) -> str:
    """Return the separator at which names are cut. Consul takes both spellings."""
    old = call.parameters.get("seperator", "")
    return call.parameters.get("separator", old)


def _check_named(call: HTTPCall) -> None:
    if not call.key:
        raise HTTPRefusal(400, "Missing key name")


def _true(_done: bool) -> Answer:
    return TRUE


def _whether(outcome: TransactionResult) -> Answer:
    """Answer whether the only operation has succeeded."""
    for error in outcome.errors:
        if error.invalid:
            raise refused(error.sentence)
    return FALSE if outcome.errors else TRUE


def _whether_released(outcome: TransactionResult) -> Answer:
    """Answer whether a lock was released; that of an ended session was not.

    The rules of level 0 report such a session as an error of its own, and the rules of
    a level never change. So here that error counts as `false`.
    """
    return FALSE if outcome.errors else TRUE
