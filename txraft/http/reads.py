"""Reads of the state: linearizable at the leader, or stale here, with their headers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.http.answers import Answer, Header, HTTPRefusal
from txraft.http.backend import RaftNode
from txraft.http.inflight import HTTPCall, parse_duration
from txraft.http.leading import Leadership
from txraft.node.events import RaftState

MODES = frozenset({"stale", "consistent", "max_stale"})
BLOCKING = MODES | {"index", "wait"}


class Reads:
    """Serves reads: linearizable, stale, or after a wait."""

    def __init__(
        self, raft: RaftNode, leadership: Leadership, clock: IReactorTime
    ) -> None:
        self._raft = raft
        self._leadership = leadership
        self._clock = clock

    def run(
        self, call: HTTPCall, read: Callable[[HTTPCall], Answer | Deferred[Answer]]
    ) -> Answer | Deferred[Answer]:
        """Answer with the result of *read*, on the state that *call* asks for.

        By default *read* runs at the leader after a quorum has confirmed it. With
        `?stale`, and at the end of a blocking query, it runs here.
        Raises: HTTPRefusal
        """
        most = _max_stale(call)
        stale, consistent = call.flag("stale") or most > 0, call.flag("consistent")
        if stale and consistent:
            raise HTTPRefusal(400, "Cannot specify ?stale with ?consistent.")
        # Too old here: it becomes a default read, which is fresh, not an error.
        if stale and most > 0 and not self._is_within(most):
            stale = False
        # A blocking query that was woken here has to be answered here: the leader may
        # not be reachable, and thousands that wake at once would all go there.
        if stale or (call.waited and not consistent):
            return read(call)

        def linearizable(call: HTTPCall) -> Deferred[Answer]:
            confirmed = self._raft.linearizable()
            return confirmed.addCallback(lambda _index: read(call))

        return self._leadership.run(call, linearizable)

    def meta(self, index: int) -> tuple[Header, Header, Header]:
        """Make the headers with the *index* and the age of the state that was read."""
        known = b"false" if self._raft.leader is None else b"true"
        return (
            (b"X-Consul-Index", b"%d" % max(index, 1)),
            (b"X-Consul-KnownLeader", known),
            (b"X-Consul-LastContact", b"%d" % self._last_contact_ms()),
        )

    def _is_within(self, seconds: float) -> bool:
        """Return whether this node leads, or heard the leader in the last *seconds*."""
        if self._raft.state is RaftState.LEADER:
            return True
        contact = self._raft.last_contact
        return contact is not None and self._clock.seconds() - contact <= seconds

    def _last_contact_ms(self) -> int:
        """Return the milliseconds since the leader was heard; 0 on it, or if never."""
        contact = self._raft.last_contact
        if self._raft.state is RaftState.LEADER or contact is None:
            return 0
        return max(0, int((self._clock.seconds() - contact) * 1000))


def _max_stale(call: HTTPCall) -> float:
    """Return the most seconds that the state may be old, 0 without `max_stale`.

    Raises: HTTPRefusal
    """
    text = call.parameters.get("max_stale")
    seconds = parse_duration(text) if text else 0.0
    if seconds is None:
        raise HTTPRefusal(400, f"Invalid max_stale value {text!r}: it is a duration.")
    return seconds
