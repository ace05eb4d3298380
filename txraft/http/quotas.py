"""Quotas on the memory of the cluster: keys, their bytes, and sessions.

The leader judges a command when it is proposed: by its own settings, and by the present
state together with all commands under way. A command in the log is applied whatever the
quotas are, because replicas must agree and their settings may differ. A command that
does not make the state larger always passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from twisted.logger import Logger

from txraft.http.answers import NOT_APPLIED, HTTPRefusal
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import CreateSession, Operation
from txraft.kv.state import KEY_BYTES, SESSION_BYTES, KeyValueFSM
from txraft.kv.verbs import GROWS

WARN_AT = 0.8
"""The used part of a quota from which a warning is logged."""

REST_AT = 0.75
"""The used part below which a warning may be logged again."""


class Growth(NamedTuple):
    """The most by which a command makes the state larger."""

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
    """The quotas in *limits* on the state of *fsm*, judged while this node leads."""

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
        """The present size of the state, without commands under way."""
        fsm = self._fsm
        return Growth(len(fsm), fsm.state_bytes, len(fsm.sessions))

    @property
    def is_nearly_used(self) -> bool:
        """Whether one of the quotas is used up to `WARN_AT`."""
        return any(
            count >= WARN_AT * most
            for count, most in zip(self.used, self.most, strict=True)
        )

    # What commands add

    def of_put(self, key: str, value: bytes) -> Growth:
        """Return the growth by a put."""
        old = self._fsm.get(key)
        if old is None:
            return Growth(1, KEY_BYTES + len(key) + len(value))
        return Growth(0, max(0, len(value) - len(old.value)))

    def of_operations(self, operations: Iterable[Operation]) -> Growth:
        """Return the growth by a transaction."""
        # Its deletions are not subtracted: by the time it is applied, another command
        # may have deleted the same keys.
        keys = state_bytes = 0
        for operation in operations:
            if operation.kind in GROWS:
                added = self.of_put(operation.key, operation.value)
                keys += added.keys
                state_bytes += added.state_bytes
        return Growth(keys, state_bytes)

    def of_session(self, made: CreateSession) -> Growth:
        """Return the growth by a new session."""
        written = 0 if made.written is None else made.written.characters
        return Growth(0, SESSION_BYTES + len(made.name) + len(made.node) + written, 1)

    # Judging

    def begin(self, growth: Growth) -> None:
        """Count *growth* as under way, until `end` is called with it.

        Raises: HTTPRefusal if it would exceed a quota; then it is not counted
        """
        # A full store must still take commands that free something.
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
        """Count *growth* no longer as under way: its command has an outcome here."""
        # If another leader still commits it, the state counts it once it is applied.
        if growth != NOTHING:
            now = self._under_way
            self._under_way = Growth(*(a - b for a, b in zip(now, growth, strict=True)))

    def check_whole(self, keys: int, state_bytes: int, sessions: int) -> None:
        """Raise HTTPRefusal if a state of this size exceeds a quota."""
        whole = Growth(keys, state_bytes, sessions)
        for name, size, most in zip(Growth._fields, whole, self.most, strict=True):
            if size > most:
                raise self._refusal(name, 0, 0, size)

    def _refusal(self, name: str, now: int, coming: int, added: int) -> HTTPRefusal:
        way_out = _WAYS_OUT[name]
        setting, most = _SETTINGS[name], getattr(self.most, name)
        under_way = f" with {coming} under way" if coming else ""
        return HTTPRefusal(
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
