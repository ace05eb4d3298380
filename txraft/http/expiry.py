"""The end of sessions and of lock delays, which the leader decides by its clock.

It proposes that they end, and they do when that is committed: all replicas agree, and a
leader that was deposed decides nothing. Everything errs on the late side. A new leader
lets every TTL and delay begin anew; a leader that was stopped for a while, and may
have renewals unread in its sockets, grants that while to everybody.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.errors import RaftError
from txraft.http.node import Node
from txraft.kv.commands import MAX_BATCH, encode_destroy_sessions, encode_end_delays
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import SESSIONS
from txraft.node.observers import Observation, Observer
from txraft.node.state import RaftState

INTERVAL = 0.5
STALL = 1.0
ENQUEUE_TIMEOUT = 5.0


class Expiry:
    """Ends what has lived long enough, while this node leads.

    It looks every `INTERVAL` seconds, and only while something can end.
    """

    log = Logger()

    def __init__(self, raft: Node, fsm: KeyValueFSM, clock: IReactorTime) -> None:
        self._raft = raft
        self._fsm = fsm
        self._clock = clock
        self._deadlines: dict[str, float] = {}
        self._delays: dict[tuple[str, int], float] = {}
        self._ending: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._last = 0.0
        self._watching = False
        self._closed = False
        self._observer = Observer(self._observed)
        raft.register_observer(self._observer)
        self._look_later()

    def close(self) -> None:
        """Decide nothing any more; idempotent."""
        self._closed = True
        self._raft.deregister_observer(self._observer)
        self._fsm.watches.discard(SESSIONS, self._changed)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def renew(self, id: str) -> Deferred[bool]:
        """Let the TTL of the session *id* begin anew; leader only.

        Returns: a Deferred of whether there is such a session; it fails as
            `Raft.linearizable` does.
        """
        # An end that is on its way would overtake a read, but not an entry.
        known: Deferred[int]
        self._begin_anew(id)
        if id in self._ending:
            known = self._raft.barrier(ENQUEUE_TIMEOUT)
        else:
            known = self._raft.linearizable()
        return known.addCallback(lambda _: self._begin_anew(id))

    def _begin_anew(self, id: str) -> bool:
        session = self._fsm.sessions.get(id)
        if session is not None and session.ttl_ms:
            self._deadlines[id] = self._clock.seconds() + session.ttl_ms / 1000
        return session is not None

    # When to look

    def _observed(self, observation: Observation) -> None:
        if isinstance(observation.data, RaftState):
            self._deadlines.clear()
            self._delays.clear()
            self._look_later()

    def _changed(self) -> None:
        self._watching = False
        self._look_later()

    def _look_later(self) -> None:
        """Look in a while, or when a session changes if nothing can end."""
        if self._closed:
            return
        if not self._watching:
            self._watching = True
            self._fsm.watches.add(SESSIONS, self._changed)
        idle = not self._fsm.sessions and not self._fsm.delays
        if not idle and self._timer is None and self._raft.state is RaftState.LEADER:
            self._last = self._clock.seconds()
            self._timer = self._clock.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._raft.state is not RaftState.LEADER:
            return
        self._forgive(now - self._last - INTERVAL)
        self._follow_sessions(now)
        self._follow_delays(now)
        if self._deadlines or self._delays:
            self._look_later()

    def _forgive(self, stalled: float) -> None:
        if stalled > STALL:
            self._deadlines = {i: d + stalled for i, d in self._deadlines.items()}
            self._delays = {k: d + stalled for k, d in self._delays.items()}

    # What ends

    def _follow_sessions(self, now: float) -> None:
        """Note new sessions, forget those that are gone, end those that are due."""
        known, self._deadlines = self._deadlines, {}
        for id, session in self._fsm.sessions.items():
            if session.ttl_ms:
                self._deadlines[id] = known.get(id, now + session.ttl_ms / 1000)
        due = [
            id
            for id, deadline in self._deadlines.items()
            if deadline <= now and id not in self._ending
        ]
        if due:
            batch = due[:MAX_BATCH]
            self._ending.update(batch)
            ended = self._raft.apply(encode_destroy_sessions(batch), ENQUEUE_TIMEOUT)
            ended.addErrback(self._not_ended)
            ended.addCallback(lambda _: self._ending.difference_update(batch))

    def _follow_delays(self, now: float) -> None:
        known, self._delays = self._delays, {}
        for key, delay in self._fsm.delays.items():
            each = (key, delay.begun)
            self._delays[each] = known.get(each, now + delay.milliseconds / 1000)
        due = [each for each, deadline in self._delays.items() if deadline <= now]
        if due:
            ended = self._raft.apply(
                encode_end_delays(due[:MAX_BATCH]), ENQUEUE_TIMEOUT
            )
            ended.addErrback(self._not_ended)

    def _not_ended(self, failure: Failure) -> None:
        """Leave it to the next look, or to the next leader."""
        failure.trap(RaftError)
        self.log.debug("not ended yet: {error}", error=failure.value)
