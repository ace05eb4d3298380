"""Keys: `GET`, `PUT` and `DELETE` on `/v1/kv/KEY`.

Source: Consul's HTTP API, "KV Store Endpoints".
"""

from __future__ import annotations

import re
from base64 import b64encode

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.http.answers import TRUE, Answer, Header, Refusal, json_answer
from txraft.http.calls import Call
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.kv.commands import MAX_FLAGS, encode_delete, encode_put
from txraft.kv.state import KeyValueFSM, Record
from txraft.node.pending import ApplyResult
from txraft.node.state import RaftState

_UNSIGNED = re.compile(r"[0-9]{1,20}")
_RAW = (b"Content-Type", b"text/plain")
_SANDBOX = (b"Content-Security-Policy", b"sandbox")


class Keys:
    """Reads and writes of single keys."""

    def __init__(
        self,
        raft: Node,
        fsm: KeyValueFSM,
        leadership: Leadership,
        clock: IReactorTime,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._leadership = leadership
        self._clock = clock
        self._limits = limits

    def get(self, call: Call) -> Answer | Deferred[Answer]:
        """Read a key: linearizable, or with `?stale` as this node knows it."""
        stale, consistent = call.flag("stale"), call.flag("consistent")
        call.flag("raw")
        if stale and consistent:
            raise Refusal(400, "Cannot specify ?stale with ?consistent.")
        if stale:
            return self._read(call)
        return self._leadership.run(call, self._linearizable)

    def put(self, call: Call) -> Deferred[Answer]:
        """Write a key; answers `true` once that is committed and applied."""
        if len(call.body) > self._limits.max_value_bytes:
            raise Refusal(
                413,
                f"The value has {len(call.body)} bytes, at most "
                f"{self._limits.max_value_bytes} fit.",
            )
        _flags(call)
        return self._leadership.run(call, self._apply_put)

    def delete(self, call: Call) -> Deferred[Answer]:
        """Delete a key; answers `true` whether or not it was there."""
        return self._leadership.run(call, self._apply_delete)

    def _linearizable(self, call: Call) -> Deferred[Answer]:
        return self._raft.linearizable().addCallback(lambda _index: self._read(call))

    def _apply_put(self, call: Call) -> Deferred[Answer]:
        return self._apply(call, encode_put(call.key, call.body, _flags(call)))

    def _apply_delete(self, call: Call) -> Deferred[Answer]:
        return self._apply(call, encode_delete(call.key))

    def _apply(self, call: Call, command: bytes) -> Deferred[Answer]:
        call.submitted = True
        applied = self._raft.apply(command, timeout=self._limits.leader_wait)
        return applied.addCallback(_true)

    def _read(self, call: Call) -> Answer:
        record = self._fsm.get(call.key)
        if record is None:
            return Answer(404, b"", *self._meta(max(self._fsm.index, 1)))
        meta = self._meta(record.modify_index)
        if "raw" in call.parameters:
            return Answer(200, record.value, _RAW, _SANDBOX, *meta)
        return json_answer([_as_json(record)], *meta)

    def _meta(self, index: int) -> tuple[Header, Header, Header]:
        known = b"false" if self._raft.leader is None else b"true"
        return (
            (b"X-Consul-Index", b"%d" % index),
            (b"X-Consul-KnownLeader", known),
            (b"X-Consul-LastContact", b"%d" % self._last_contact_ms()),
        )

    def _last_contact_ms(self) -> int:
        """Count milliseconds since the leader was heard: 0 on it, or when never."""
        contact = self._raft.last_contact
        if self._raft.state is RaftState.LEADER or contact is None:
            return 0
        return max(0, int((self._clock.seconds() - contact) * 1000))


def _true(_result: ApplyResult) -> Answer:
    return TRUE


def _flags(call: Call) -> int:
    text = call.parameters.get("flags", "0")
    if not _UNSIGNED.fullmatch(text) or int(text) > MAX_FLAGS:
        raise Refusal(400, "The parameter 'flags' is an unsigned 64-bit integer.")
    return int(text)


def _as_json(record: Record) -> dict[str, object]:
    """Shape *record* as Consul does: the value in base64, an empty one as null."""
    return {
        "LockIndex": record.lock_index,
        "Key": record.key,
        "Flags": record.flags,
        "Value": b64encode(record.value).decode("ascii") if record.value else None,
        "CreateIndex": record.create_index,
        "ModifyIndex": record.modify_index,
    }
