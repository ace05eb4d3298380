"""Sessions: `/v1/session/...`.

Source: Consul's HTTP API, "Sessions".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from uuid import uuid4

from twisted.internet.defer import Deferred

from txraft.http.answers import (
    JSON,
    TRUE,
    Answer,
    HTTPRefusal,
    LongAnswer,
    json_answer,
    refused,
)
from txraft.http.bodies import Fields, parse_json
from txraft.http.catalog import SERF_CHECK, Catalog
from txraft.http.expiry import Expiry
from txraft.http.inflight import HTTPCall, format_duration, parse_duration
from txraft.http.leading import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.lists import json_list
from txraft.http.reads import Reads
from txraft.http.slices import Slices, Steps
from txraft.http.writes import Writes
from txraft.kv.commands import (
    MAX_CHECKS,
    MAX_DURATION_CHARACTERS,
    MAX_LOCK_DELAY_MS,
    MAX_NAME_CHARACTERS,
    MAX_TTL_MS,
    CreateSession,
    encode_create_session,
    encode_destroy_sessions,
)
from txraft.kv.records import Session, Written, exact_id
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import SESSIONS, Scope, Topic

DEFAULT_LOCK_DELAY_NS = 15_000_000_000
MAX_LOCK_DELAY_NS = (1 << 63) - 1
_BEHAVIORS = {"": False, "release": False, "delete": True}
_Listing = tuple[list[bytes], int]
# Made once: `json.dumps` with options makes an encoder for each call.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

STEP_SESSIONS = 64
"""Sessions looked at in one step of a list: less than a millisecond."""

_DEFAULT_CHECKS = (SERF_CHECK,)
_Checks = tuple[str, ...] | None


class Sessions:
    """Makes, renews, ends and lists sessions; each belongs to a node in *catalog*."""

    def __init__(
        self,
        fsm: KeyValueFSM,
        reads: Reads,
        writes: Writes,
        slices: Slices,
        limits: HTTPLimits,
        leadership: Leadership,
        expiry: Expiry,
        catalog: Catalog,
    ) -> None:
        self._fsm = fsm
        self._reads = reads
        self._writes = writes
        self._slices = slices
        self._limits = limits
        self._leadership = leadership
        self._expiry = expiry
        self._catalog = catalog

    def topic(self, call: HTTPCall) -> Topic:
        """Return the topic that a blocking query waits for."""
        return SESSIONS

    def topic_of_one(self, call: HTTPCall) -> Topic:
        """Return the topic that a blocking query for one session waits for."""
        return Topic(Scope.SESSION, _id(call))

    def create(self, call: HTTPCall) -> Deferred[Answer]:
        """Make a session; answers its id."""
        least = self._limits.session_ttl_min
        wanted, exact = _parse(call.body, self._catalog.name, least)
        if not call.forwarded:
            # The node that the client asked knows the services registered there, and
            # the leader does not. So it judges, and the leader does not judge again.
            self._catalog.check_session(wanted.node, _ids_of_checks(wanted))
            call.body = _with_node(call.body, wanted.node)
        return self._writes.run(
            call,
            lambda level: encode_create_session(_named(wanted, exact, level)),
            str,
            _created,
            lambda quotas: quotas.of_session(wanted),
        )

    def destroy(self, call: HTTPCall) -> Deferred[Answer]:
        """End a session; answers `true`, also if there is none."""
        return self._writes.run(
            call,
            lambda level: encode_destroy_sessions([_id(call)]),
            bool,
            lambda _: TRUE,
        )

    def renew(self, call: HTTPCall) -> Deferred[Answer]:
        """Start the TTL of a session again, at the leader, which decides its expiry."""
        _id(call)
        return self._leadership.run(call, self._renew)

    def info(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """Answer with a list of one session, or an empty list."""
        id = _id(call)
        return self._reads.run(call, lambda _: self._one(id))

    def node(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """List the sessions of a node."""
        if not call.key:
            raise HTTPRefusal(400, "Missing node name")
        return self._reads.run(call, lambda _: self._many(call, call.key))

    def list(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """List all sessions."""
        return self._reads.run(call, lambda _: self._many(call, None))

    def _renew(self, call: HTTPCall) -> Deferred[Answer]:
        renewed = self._expiry.renew(call.key)
        return renewed.addCallback(lambda found: self._renewed(call.key, found))

    def _renewed(self, id: str, found: bool) -> Answer:
        if not found:
            raise HTTPRefusal(404, f"Session id '{id}' not found")
        return json_answer([_as_json(id, self._fsm.sessions[id])])

    def _one(self, id: str) -> Answer:
        session = self._fsm.sessions.get(id)
        meta = self._reads.meta(self._fsm.session_index)
        return json_answer([] if session is None else [_as_json(id, session)], *meta)

    def _many(self, call: HTTPCall, node: str | None) -> Deferred[Answer]:
        """List the sessions of *node*, or all."""
        listed = self._slices.run(
            ("sessions", node), lambda: self._list(node), lambda: not call.answered
        )
        return listed.addCallback(self._listed)

    def _list(self, node: str | None) -> Steps[_Listing]:
        index = self._fsm.session_index
        # Only references are copied, no object is made for each session: this is the
        # one part of the list that is done in one step.
        ids, sessions = list(self._fsm.sessions), list(self._fsm.sessions.values())
        texts = _texts(zip(ids, sessions, strict=True), node)
        return (yield from json_list(texts, self._limits)), index

    def _listed(self, listing: _Listing) -> Answer:
        pieces, index = listing
        return LongAnswer(200, pieces or [b"[]"], JSON, *self._reads.meta(index))


def _texts(
    sessions: Iterable[tuple[str, Session]], node: str | None
) -> Iterator[bytes]:
    """Encode the sessions of *node*, or all; an empty text ends a step."""
    for count, (id, session) in enumerate(sessions, 1):
        if node is None or session.node.lower() == node.lower():
            yield _encode(_as_json(id, session)).encode()
        if not count % STEP_SESSIONS:
            yield b""


def _parse(body: bytes, node: str, ttl_min: float) -> tuple[CreateSession, bool]:
    """Parse a new session; return it, and whether it ends after one TTL."""
    fields = Fields(parse_json(body), "the session")
    behavior = fields.text("Behavior")
    if behavior not in _BEHAVIORS:
        raise refused(f"Invalid Behavior setting '{behavior}'")
    ttl = fields.text("TTL", MAX_DURATION_CHARACTERS)
    lock_delay_ns = _lock_delay_ns(fields)
    wanted = CreateSession(
        id="",
        name=fields.text("Name"),
        node=fields.text("Node") or node,
        lock_delay_ms=min(lock_delay_ns // 1_000_000, MAX_LOCK_DELAY_MS),
        deletes=_BEHAVIORS[behavior],
        ttl_ms=_ttl_ms(ttl, ttl_min),
        written=Written(ttl, lock_delay_ns, *_checks(fields)),
    )
    return wanted, _multiplier(fields) == 1


def _lock_delay_ns(fields: Fields) -> int:
    """Parse the lock delay; below 1000 ns it is taken for seconds, as in Consul.

    Source: Consul's `Session.UnmarshalJSON`.
    """
    seconds = fields.seconds("LockDelay")
    if seconds is None:
        return DEFAULT_LOCK_DELAY_NS
    nanoseconds = round(seconds * 1e9)
    if nanoseconds < 1000:
        nanoseconds *= 1_000_000_000
    return min(nanoseconds, MAX_LOCK_DELAY_NS)


def _checks(fields: Fields) -> tuple[_Checks, _Checks, _Checks]:
    """Parse `Checks`, `NodeChecks` and `ServiceChecks` into what Consul keeps.

    Either of the first two can remove the check that a session has by default.
    Source: Consul's `fixupEmptySessionChecks`.
    """
    checks = _listed(fields, "Checks", _DEFAULT_CHECKS)
    node_checks = _listed(fields, "NodeChecks", _DEFAULT_CHECKS)
    if not checks:
        node_checks = ()
    elif checks == _DEFAULT_CHECKS or not node_checks:
        checks = None
    return checks, node_checks, _service_checks(fields)


def _listed(fields: Fields, name: str, default: _Checks) -> _Checks:
    if not fields.has(name):
        return default
    if fields.get(name) is None:
        return None
    return _bounded(name, fields.texts(name))


def _service_checks(fields: Fields) -> _Checks:
    given = fields.get("ServiceChecks")
    if given is None:
        return None
    if not isinstance(given, list):
        raise HTTPRefusal(400, "ServiceChecks of the session is not a list.")
    shapes = (Fields(each, "a member of ServiceChecks") for each in given)
    return _bounded("ServiceChecks", [shape.text("ID") for shape in shapes])


def _bounded(name: str, checks: list[str]) -> tuple[str, ...]:
    if len(checks) > MAX_CHECKS or any(
        len(each) > MAX_NAME_CHARACTERS for each in checks
    ):
        raise HTTPRefusal(
            400, f"{name} of the session has too many members, or long ones."
        )
    return tuple(checks)


def _ids_of_checks(wanted: CreateSession) -> list[str]:
    """List the ids of all checks of a session."""
    assert wanted.written is not None, "`_parse` always sets it"
    _, _, *lists = wanted.written
    return [check for checks in lists for check in checks or ()]


def _ttl_ms(ttl: str, least: float) -> int:
    if not ttl:
        return 0
    seconds = parse_duration(ttl)
    if seconds is None:
        raise refused(f"Session TTL '{ttl}' invalid: time: invalid duration {ttl!r}")
    if seconds and not least <= seconds <= MAX_TTL_MS / 1000:
        raise refused(
            f"Invalid Session TTL '{seconds * 1e9:.0f}', must be between "
            f"[{format_duration(least)}={format_duration(MAX_TTL_MS / 1000)}]",
        )
    return int(seconds * 1000)


def _multiplier(fields: Fields) -> int:
    """Return the TTLs after which the session ends. Consul has only the default, 2."""
    multiplier = fields.get("TTLMultiplier")
    if multiplier is None:
        return 2
    if type(multiplier) is not int or multiplier not in (1, 2):
        raise HTTPRefusal(400, "TTLMultiplier of the session is 1 or 2.")
    return multiplier


def _with_node(body: bytes, node: str) -> bytes:
    """Put *node* into the body: else the leader would take its own node."""
    members = parse_json(body) or {}
    assert isinstance(members, dict), "the body was read before"
    kept = {name: v for name, v in members.items() if name.lower() != "node"}
    return json.dumps({**kept, "Node": node}).encode()


def _named(wanted: CreateSession, exact: bool, level: int) -> CreateSession:
    """Give *wanted* a new id; drop `written` below *level* 1."""
    id = str(uuid4())
    return replace(
        wanted,
        id=exact_id(id) if exact else id,
        written=wanted.written if level else None,
    )


def _created(id: str) -> Answer:
    return json_answer({"ID": id})


def _id(call: HTTPCall) -> str:
    if not call.key:
        raise HTTPRefusal(400, "Missing session")
    return call.key


def _as_json(id: str, session: Session) -> dict[str, object]:
    """Return *session* as Consul's JSON object: LockDelay in ns, the TTL a text."""
    written = session.written or _unwritten(session)
    service_checks = written.service_checks
    return {
        "ID": id,
        "Name": session.name,
        "Node": session.node,
        "LockDelay": written.lock_delay_ns,
        "Behavior": "delete" if session.deletes else "release",
        "TTL": written.ttl,
        # Consul leaves it out if it is empty, and clients read that as null.
        "Checks": written.checks or None,
        "NodeChecks": written.node_checks,
        "ServiceChecks": None
        if service_checks is None
        else [{"ID": each, "Namespace": ""} for each in service_checks],
        "CreateIndex": session.create_index,
        "ModifyIndex": session.modify_index,
    }


def _unwritten(session: Session) -> Written:
    """Derive the spelling of a session that was made at level 0 and kept none."""
    ttl = f"{session.ttl_ms / 1000:g}s" if session.ttl_ms else ""
    delay = session.lock_delay_ms * 1_000_000
    return Written(ttl, delay, None, _DEFAULT_CHECKS, None)
