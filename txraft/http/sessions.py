"""Sessions: `/v1/session/...`.

Source: Consul's HTTP API, "Sessions".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from uuid import uuid4

from twisted.internet.defer import Deferred

from txraft.http.answers import (
    JSON,
    TRUE,
    Answer,
    LongAnswer,
    Refusal,
    json_answer,
    refused,
)
from txraft.http.bodies import Fields, parse_json
from txraft.http.calls import Call
from txraft.http.expiry import Expiry
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.lists import json_list
from txraft.http.reads import Reads
from txraft.http.slices import Slices, Steps
from txraft.http.writes import Writes
from txraft.kv.commands import (
    MAX_LOCK_DELAY_MS,
    MAX_TTL_MS,
    CreateSession,
    encode_create_session,
    encode_destroy_sessions,
)
from txraft.kv.records import Session, exact_id
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import SESSIONS, Topic

DEFAULT_LOCK_DELAY_SECONDS = 15
_BEHAVIORS = {"": False, "release": False, "delete": True}
_Listing = tuple[list[bytes], int]
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

STEP_SESSIONS = 64
"""Sessions of a list that are looked at in one step: less than a millisecond."""

_CHECKS = frozenset({"serfHealth"})


class Sessions:
    """Makes, renews, ends and tells of sessions; *node* is where they are made."""

    def __init__(
        self,
        fsm: KeyValueFSM,
        reads: Reads,
        writes: Writes,
        slices: Slices,
        limits: HTTPLimits,
        leadership: Leadership,
        expiry: Expiry,
        node: str,
    ) -> None:
        self._fsm = fsm
        self._reads = reads
        self._writes = writes
        self._slices = slices
        self._limits = limits
        self._leadership = leadership
        self._expiry = expiry
        self._node = node

    def topic(self, call: Call) -> Topic:
        """Tell what a blocking query waits for."""
        return SESSIONS

    def create(self, call: Call) -> Deferred[Answer]:
        """Make a session; answers its id."""
        wanted, exact = _parse(call.body, self._node, self._limits.session_ttl_min)
        if not call.forwarded:
            call.body = _with_node(call.body, wanted.node)
        return self._writes.run(
            call,
            lambda level: encode_create_session(_named(wanted, exact)),
            str,
            _created,
            lambda quotas: quotas.of_session(wanted.name, wanted.node),
        )

    def destroy(self, call: Call) -> Deferred[Answer]:
        """End a session; answers `true` whether or not it was there."""
        return self._writes.run(
            call,
            lambda level: encode_destroy_sessions([_id(call)]),
            bool,
            lambda _: TRUE,
        )

    def renew(self, call: Call) -> Deferred[Answer]:
        """Let the TTL of a session begin anew, where expiry is decided."""
        _id(call)
        return self._leadership.run(call, self._renew)

    def info(self, call: Call) -> Answer | Deferred[Answer]:
        """Tell of one session: a list of it, or an empty one."""
        id = _id(call)
        return self._reads.run(call, lambda _: self._one(id))

    def node(self, call: Call) -> Answer | Deferred[Answer]:
        """List the sessions of a node."""
        if not call.key:
            raise Refusal(400, "Missing node name")
        return self._reads.run(call, lambda _: self._many(call, call.key))

    def list(self, call: Call) -> Answer | Deferred[Answer]:
        """List all sessions."""
        return self._reads.run(call, lambda _: self._many(call, None))

    def _renew(self, call: Call) -> Deferred[Answer]:
        renewed = self._expiry.renew(call.key)
        return renewed.addCallback(lambda found: self._renewed(call.key, found))

    def _renewed(self, id: str, found: bool) -> Answer:
        if not found:
            raise Refusal(404, f"Session id '{id}' not found")
        return json_answer([_as_json(id, self._fsm.sessions[id])])

    def _one(self, id: str) -> Answer:
        session = self._fsm.sessions.get(id)
        meta = self._reads.meta(self._fsm.session_index)
        return json_answer([] if session is None else [_as_json(id, session)], *meta)

    def _many(self, call: Call, node: str | None) -> Deferred[Answer]:
        """List the sessions of *node*, or all."""
        listed = self._slices.run(
            ("sessions", node), lambda: self._list(node), lambda: not call.answered
        )
        return listed.addCallback(self._listed)

    def _list(self, node: str | None) -> Steps[_Listing]:
        index = self._fsm.session_index
        # References only, and no object for each, so that this is soon done.
        ids, sessions = list(self._fsm.sessions), list(self._fsm.sessions.values())
        texts = _texts(zip(ids, sessions, strict=True), node)
        return (yield from json_list(texts, self._limits)), index

    def _listed(self, listing: _Listing) -> Answer:
        pieces, index = listing
        return LongAnswer(200, pieces or [b"[]"], JSON, *self._reads.meta(index))


def _texts(
    sessions: Iterable[tuple[str, Session]], node: str | None
) -> Iterator[bytes]:
    """Encode the sessions of *node*, or all; the empty text ends a step."""
    for count, (id, session) in enumerate(sessions, 1):
        if node is None or session.node == node:
            yield _encode(_as_json(id, session)).encode()
        if not count % STEP_SESSIONS:
            yield b""


def _parse(body: bytes, node: str, ttl_min: float) -> tuple[CreateSession, bool]:
    """Read what session is wanted, and whether it ends after one TTL."""
    fields = Fields(parse_json(body), "the session")
    behavior = fields.text("Behavior")
    if behavior not in _BEHAVIORS:
        raise refused(f"Invalid Behavior setting '{behavior}'")
    for name in ("Checks", "NodeChecks", "ServiceChecks"):
        value = fields.get(name)
        if value and not _CHECKS.issuperset(fields.texts(name)):
            raise refused(f"{name}: there is no check but serfHealth here.")
    delay = fields.seconds("LockDelay")
    if delay is None:
        delay = DEFAULT_LOCK_DELAY_SECONDS
    wanted = CreateSession(
        "",
        fields.text("Name"),
        fields.text("Node") or node,
        min(int(delay * 1000), MAX_LOCK_DELAY_MS),
        _BEHAVIORS[behavior],
        _ttl_ms(fields, ttl_min),
    )
    return wanted, _multiplier(fields) == 1


def _ttl_ms(fields: Fields, least: float) -> int:
    ttl = fields.seconds("TTL")
    if not ttl:
        return 0
    if not least <= ttl <= MAX_TTL_MS / 1000:
        raise refused(
            f"Invalid Session TTL '{ttl * 1e9:.0f}', must be between "
            f"[{least:g}s={MAX_TTL_MS // 3_600_000}h0m0s]",
        )
    return int(ttl * 1000)


def _multiplier(fields: Fields) -> int:
    """Return after how many TTLs the session ends. Consul has only the default."""
    multiplier = fields.get("TTLMultiplier")
    if multiplier is None:
        return 2
    if type(multiplier) is not int or multiplier not in (1, 2):
        raise Refusal(400, "TTLMultiplier of the session is 1 or 2.")
    return multiplier


def _with_node(body: bytes, node: str) -> bytes:
    """Write *node* into the body, so that the leader does not put in itself."""
    members = parse_json(body) or {}
    assert isinstance(members, dict), "the body was read before"
    kept = {name: v for name, v in members.items() if name.lower() != "node"}
    return json.dumps({**kept, "Node": node}).encode()


def _named(wanted: CreateSession, exact: bool) -> CreateSession:
    id = str(uuid4())
    return CreateSession(
        exact_id(id) if exact else id,
        wanted.name,
        wanted.node,
        wanted.lock_delay_ms,
        wanted.deletes,
        wanted.ttl_ms,
    )


def _created(id: str) -> Answer:
    return json_answer({"ID": id})


def _id(call: Call) -> str:
    if not call.key:
        raise Refusal(400, "Missing session")
    return call.key


def _as_json(id: str, session: Session) -> dict[str, object]:
    """Shape *session* as Consul does: LockDelay in nanoseconds, the TTL a text."""
    return {
        "ID": id,
        "Name": session.name,
        "Node": session.node,
        "LockDelay": session.lock_delay_ms * 1_000_000,
        "Behavior": "delete" if session.deletes else "release",
        "TTL": f"{session.ttl_ms / 1000:g}s" if session.ttl_ms else "",
        "Checks": None,
        "NodeChecks": ["serfHealth"],
        "ServiceChecks": None,
        "CreateIndex": session.create_index,
        "ModifyIndex": session.modify_index,
    }
