"""Quotas on what the cluster keeps in memory: keys, their bytes, and sessions.

The leader judges a command when it is proposed, by its own settings and by what the
state is just then, together with all that is on its way. What is in the log is applied
whatever the quotas are: replicas must agree, and their settings may differ. What
shrinks the state always passes, and so does what leaves it as large as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from twisted.logger import Logger

from txraft.http.answers import NOT_APPLIED, Refusal
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import CreateSession, Kind, Operation
from txraft.kv.state import KEY_BYTES, SESSION_BYTES, KeyValueFSM

WARN_AT = 0.8
"""The part of a quota from which on it is warned of."""

REST_AT = 0.75
"""The part below which a warning may come anew."""

_WRITES = frozenset({Kind.SET, Kind.CAS, Kind.LOCK, Kind.UNLOCK})


class Growth(NamedTuple):
    """By how much a command lets the state grow at most."""

    keys: int = 0
    state_bytes: int = 0
    sessions: int = 0


NOTHING = Growth()
_SETTINGS = {
    "keys": "max_state_keys",
    "state_bytes": "max_state_bytes",
    "sessions": "max_sessions",
}
_WAYS_OUT = {
    "keys": "delete keys",
    "state_bytes": "delete keys or shorten values",
    "sessions": "destroy sessions",
}


class Quotas:
    """The quotas of *limits* on what *fsm* holds, while this node leads."""

    log = Logger()

    def __init__(self, fsm: KeyValueFSM, limits: HTTPLimits) -> None:
        self._fsm = fsm
        self.most = Growth(
            limits.max_state_keys, limits.max_state_bytes, limits.max_sessions
        )
        self._under_way = NOTHING
        self._warned: set[str] = set()

    @property
    def used(self) -> Growth:
        """What there is, without what is under way."""
        fsm = self._fsm
        return Growth(len(fsm), fsm.state_bytes, len(fsm.sessions))

    @property
    def is_nearly_used(self) -> bool:
        """Whether one of the quotas is used to the part that is warned of."""
        return any(
            count >= WARN_AT * most
            for count, most in zip(self.used, self.most, strict=True)
        )

    # What commands add

    def of_put(self, key: str, value: bytes) -> Growth:
        """Return the growth by a record."""
        old = self._fsm.get(key)
        if old is None:
            return Growth(1, KEY_BYTES + len(key) + len(value))
        return Growth(0, max(0, len(value) - len(old.value)))

    def of_operations(self, operations: Iterable[Operation]) -> Growth:
        """Return the growth by a transaction.

        What it deletes is not set against what it writes: others may delete the same.
        """
        keys = state_bytes = 0
        for operation in operations:
            if operation.kind in _WRITES:
                added = self.of_put(operation.key, operation.value)
                keys += added.keys
                state_bytes += added.state_bytes
        return Growth(keys, state_bytes)

    def of_session(self, made: CreateSession) -> Growth:
        """Return the growth by a session."""
        written = 0 if made.written is None else made.written.characters
        return Growth(0, SESSION_BYTES + len(made.name) + len(made.node) + written, 1)

    # Judging

    def begin(self, growth: Growth) -> None:
        """Take *growth* for under way, until `end` is told of it.

        Raises: Refusal, and nothing is under way, if that would be over a quota.
        """
        if growth == NOTHING:
            return
        used, under_way = self.used, self._under_way
        for name, added, now, coming, most in zip(
            Growth._fields, growth, used, under_way, self.most, strict=True
        ):
            if added and now + coming + added > most:
                raise self._refusal(name, now, coming, added)
        self._under_way = _sum(under_way, growth)
        self._look(_sum(used, self._under_way))

    def end(self, growth: Growth) -> None:
        """Take *growth* off: it is part of the state, or never will be by this leader.

        What another leader makes of it is counted when it is applied.
        """
        if growth != NOTHING:
            now = self._under_way
            self._under_way = Growth(*(a - b for a, b in zip(now, growth, strict=True)))

    def check_whole(self, keys: int, state_bytes: int, sessions: int) -> None:
        """Raise Refusal if a state as large as this one is over a quota."""
        whole = Growth(keys, state_bytes, sessions)
        for name, size, most in zip(Growth._fields, whole, self.most, strict=True):
            if size > most:
                raise self._refusal(name, 0, 0, size)

    def _refusal(self, name: str, now: int, coming: int, added: int) -> Refusal:
        way_out = _WAYS_OUT[name]
        setting, most = _SETTINGS[name], getattr(self.most, name)
        under_way = f" with {coming} under way" if coming else ""
        return Refusal(
            507,
            f"Nothing was changed: {setting} is {most}, there are {now}{under_way}, "
            f"and this would add {added}. To go on, {way_out}, which is never refused, "
            f"or raise {setting} on all nodes.",
            NOT_APPLIED,
        )

    def _look(self, counted: Growth) -> None:
        """Warn once when a quota is nearly used up."""
        for name, count, most in zip(Growth._fields, counted, self.most, strict=True):
            if count < REST_AT * most:
                self._warned.discard(name)
            elif count >= WARN_AT * most and name not in self._warned:
                self._warned.add(name)
                self.log.warn(
                    "The quota {limit} is {percent} % used: {count} of {most}. Above "
                    "it, writes are answered with 507",
                    limit=_SETTINGS[name],
                    percent=100 * count // most,
                    count=count,
                    most=most,
                )


def _sum(a: Growth, b: Growth) -> Growth:
    return Growth(*(x + y for x, y in zip(a, b, strict=True)))
