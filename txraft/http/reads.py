"""Reads of the state: from where, how fresh, and the headers that say so."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.http.answers import Answer, Header, Refusal
from txraft.http.backend import Node
from txraft.http.inflight import Call, parse_duration
from txraft.http.leading import Leadership
from txraft.node.events import RaftState

MODES = frozenset({"stale", "consistent", "max_stale"})
BLOCKING = MODES | {"index", "wait"}


class Reads:
    """Serves reads: linearizable, stale, or after a wait."""

    def __init__(self, raft: Node, leadership: Leadership, clock: IReactorTime) -> None:
        self._raft = raft
        self._leadership = leadership
        self._clock = clock

    def run(
        self, call: Call, read: Callable[[Call], Answer | Deferred[Answer]]
    ) -> Answer | Deferred[Answer]:
        """Answer with what *read* makes of the state that *call* is to see.

        That is the leader's, confirmed by a quorum; with `?stale`, and at the end of
        a blocking query, it is the state of this node.
        Raises: Refusal
        """
        most = _max_stale(call)
        stale, consistent = call.flag("stale") or most > 0, call.flag("consistent")
        if stale and consistent:
            raise Refusal(400, "Cannot specify ?stale with ?consistent.")
        if stale and most > 0 and not self._is_within(most):
            stale = False
        if stale or (call.waited and not consistent):
            return read(call)

        def linearizable(call: Call) -> Deferred[Answer]:
            confirmed = self._raft.linearizable()
            return confirmed.addCallback(lambda _index: read(call))

        return self._leadership.run(call, linearizable)

    def meta(self, index: int) -> tuple[Header, Header, Header]:
        """Make the headers that tell the *index* and age of what was read."""
        known = b"false" if self._raft.leader is None else b"true"
        return (
            (b"X-Consul-Index", b"%d" % max(index, 1)),
            (b"X-Consul-KnownLeader", known),
            (b"X-Consul-LastContact", b"%d" % self._last_contact_ms()),
        )

    def _is_within(self, seconds: float) -> bool:
        """Tell whether the leader was heard in the last *seconds*, or is this node."""
        if self._raft.state is RaftState.LEADER:
            return True
        contact = self._raft.last_contact
        return contact is not None and self._clock.seconds() - contact <= seconds

    def _last_contact_ms(self) -> int:
        """Count milliseconds since the leader was heard: 0 on it, or when never."""
        contact = self._raft.last_contact
        if self._raft.state is RaftState.LEADER or contact is None:
            return 0
        return max(0, int((self._clock.seconds() - contact) * 1000))


def _max_stale(call: Call) -> float:
    """Return how many seconds old an answer may be, 0 if nothing is said of that.

    Raises: Refusal
    """
    text = call.parameters.get("max_stale")
    seconds = parse_duration(text) if text else 0.0
    if seconds is None:
        raise Refusal(400, f"Invalid max_stale value {text!r}: it is a duration.")
    return seconds
