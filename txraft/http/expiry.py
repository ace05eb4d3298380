"""Expiry: the leader ends sessions and lock delays by its clock.

The leader proposes their end, and they end when that command is applied. So all
replicas agree, and a deposed leader decides nothing.

Everything errs on the late side. A session ends after twice its TTL, as holders of
locks rely on in Consul, or after one TTL if its maker asked for that. At a new leader,
all TTLs and delays begin again. A leader that stood still for a while may have
renewals unread in its sockets, so it adds that while to all times.

However many sessions end at once, each turn of the reactor looks at a few of them. The
next command is proposed before the last one is committed, so that thousands end within
a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count, islice

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.errors import RaftError
from txraft.http.backend import RaftNode
from txraft.kv.commands import MAX_BATCH, encode_destroy_sessions, encode_end_delays
from txraft.kv.delays import Begun
from txraft.kv.records import lifetime_ms
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import SESSIONS
from txraft.node.events import Observation, Observer, RaftState

INTERVAL = 0.5
STALL = 1.0
ENQUEUE_TIMEOUT = 5.0

TURN_ITEMS = 500
"""The most items looked at in one turn, or ended by one command: a millisecond or two.

A session counts one more for each lock that it holds.
"""

MAX_PROPOSED = 32
"""The most commands proposed and not yet applied."""

_SLACK = 1024

Item = str | Begun
"""The id of a session, or a group of lock delays that began together."""


class Agenda:
    """Items with the times when they are due; the earliest comes first.

    To move an item to a later time is one dict operation. Its old place in the heap is
    corrected when it comes up there: each renewal of a session depends on that speed.
    """

    def __init__(self) -> None:
        self._due: dict[Item, float] = {}
        self._heap: list[tuple[float, int, Item]] = []
        self._count = count()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: Item) -> bool:
        return item in self._due

    def put(self, item: Item, due: float) -> None:
        """Set the time of *item* to *due*, which is never earlier than before."""
        if item not in self._due:
            self._push(item, due)
        self._due[item] = due

    def keep_only(self, is_there: Callable[[Item], bool]) -> None:
        """Remove all items for which *is_there* is false."""
        self._due = {i: due for i, due in self._due.items() if is_there(i)}
        self._heap = [(due, next(self._count), i) for i, due in self._due.items()]
        heapify(self._heap)

    def clear(self) -> None:
        """Remove all items."""
        self._due.clear()
        self._heap.clear()

    def is_due(self, now: float) -> bool:
        """Return whether `take` has an item to look at."""
        return bool(self._heap) and self._heap[0][0] <= now

    def take(self, now: float) -> Item | None:
        """Take the first item if it is due at *now*, else None; only if `is_due`."""
        _, _, item = heappop(self._heap)
        due = self._due.get(item)
        if due is None:
            return None
        if due > now:  # moved since it was pushed
            self._push(item, due)
            return None
        del self._due[item]
        return item

    def _push(self, item: Item, due: float) -> None:
        heappush(self._heap, (due, next(self._count), item))


class Expiry:
    """Ends sessions and lock delays whose time is over, while this node leads.

    It looks every `INTERVAL` seconds, and only while there are any.
    """

    log = Logger()

    def __init__(self, raft: RaftNode, fsm: KeyValueFSM, clock: IReactorTime) -> None:
        self._raft = raft
        self._fsm = fsm
        self._clock = clock
        self._agenda = Agenda()
        self._ending: set[str] = set()
        self._proposed = 0
        self._noting: Iterator[Item] | None = None
        self._reached: dict[Begun, int] = {}
        self._timer: IDelayedCall | None = None
        self._expected = 0.0
        self._stalled = 0.0
        self._known = fsm.sessions
        self._closed = False
        self._observer = Observer(self._observed)
        raft.register_observer(self._observer)
        fsm.on_begun = self._begun
        fsm.watches.add(SESSIONS, self._changed)
        self._begin_all_anew()

    def close(self) -> None:
        """Stop ending anything; idempotent."""
        self._closed = True
        self._raft.deregister_observer(self._observer)
        self._fsm.watches.discard(SESSIONS, self._changed)
        self._forget()

    def renew(self, id: str) -> Deferred[bool]:
        """Start the TTL of the session *id* again; leader only.

        Returns: a Deferred of whether the session exists; it fails as
            `Raft.linearizable` does
        """
        # If the end of the session is proposed, a read could still see the session, and
        # its holder would believe in a lock that ends right after. A barrier is an
        # entry behind that end, so it tells for sure.
        known: Deferred[int]
        # Begun now, not only with the answer: it must not end while a quorum confirms.
        self._begin_anew(id)
        if id in self._ending:
            known = self._raft.barrier(ENQUEUE_TIMEOUT)
        else:
            known = self._raft.linearizable()
        return known.addCallback(lambda _: self._begin_anew(id))

    def _begin_anew(self, id: str) -> bool:
        session = self._fsm.sessions.get(id)
        if session is None:
            return False
        if session.ttl_ms and id not in self._ending:
            self._put(id, lifetime_ms(id, session))
        return True

    # What can end

    def _observed(self, observation: Observation) -> None:
        if isinstance(observation.data, RaftState):
            self._begin_all_anew()

    def _changed(self) -> None:
        """Start again if a backup has replaced all sessions; called in mid-apply."""
        if not self._closed:
            self._fsm.watches.add(SESSIONS, self._changed)
        if self._fsm.sessions is not self._known:
            self._begin_all_anew()

    def _begun(self, item: Item) -> None:
        """Note a session or lock delays that were just made; called in mid-apply."""
        if self._raft.state is RaftState.LEADER:
            self._note(item)

    def _note(self, item: Item) -> None:
        if isinstance(item, str):
            self._begin_anew(item)
        else:
            self._put(item, item.milliseconds)

    def _put(self, item: Item, milliseconds: int) -> None:
        if self._closed:
            return
        self._agenda.put(item, self._now() + milliseconds / 1000)
        self._look_later(INTERVAL)
        there = len(self._fsm.sessions) + len(self._fsm.delays)
        if len(self._agenda) > 2 * there + _SLACK:
            # Most items are gone from the state, long before they were due: without
            # this the agenda would grow with every short session.
            self._agenda.keep_only(self._is_there)

    def _is_there(self, item: Item) -> bool:
        if isinstance(item, str):
            return item in self._fsm.sessions
        return item in self._fsm.delays_begun

    def _begin_all_anew(self) -> None:
        """Start all TTLs and delays now, if this node leads."""
        self._forget()
        self._known = self._fsm.sessions
        if not self._closed and self._raft.state is RaftState.LEADER:
            items: list[Item] = [*self._known, *self._fsm.delays_begun]
            if items:
                self._noting = iter(items)
                self._look_later(INTERVAL)

    def _forget(self) -> None:
        """Drop all items and the timer."""
        self._agenda.clear()
        self._reached.clear()
        self._noting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # When to look

    def _now(self) -> float:
        """Return the time of a clock that stood still whenever this node did."""
        return self._clock.seconds() - self._stalled

    def _look_later(self, seconds: float) -> None:
        """Look in *seconds*, or earlier if that is planned already."""
        when = self._clock.seconds() + seconds
        if self._timer is not None:
            if self._expected <= when:
                return
            self._timer.cancel()
        self._expected = when
        self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        """Do the work of one turn; come back at once if there is more."""
        # A timer far behind its time shows that the process was stopped: suspended, or
        # blocked by a full disk. Nothing may end because of that.
        self._timer = None
        late = self._clock.seconds() - self._expected
        if late > STALL:
            self._stalled += late
        if self._note_some() or self._end_due():
            self._look_later(0)
        elif self._agenda or self._proposed:
            self._look_later(INTERVAL)

    def _note_some(self) -> bool:
        """Note some items that existed at the start; return whether more are left.

        Items that came later have called `_begun`.
        """
        if self._noting is None:
            return False
        some = list(islice(self._noting, TURN_ITEMS))
        for item in some:
            if self._is_there(item):
                self._note(item)
        if len(some) < TURN_ITEMS:
            self._noting = None
        return self._noting is not None

    # What ends

    def _end_due(self) -> bool:
        """Propose the end of some due items; return whether to go on at once."""
        # What is taken is proposed in the same turn. A renewal between the two would be
        # answered as in time, and its session would end all the same.
        now = self._now()
        sessions: list[str] = []
        left = TURN_ITEMS
        while left > 0 and self._agenda.is_due(now) and self._proposed < MAX_PROPOSED:
            item = self._agenda.take(now)
            left -= 1
            if isinstance(item, str):
                if item in self._fsm.sessions:
                    sessions.append(item)
                    left -= self._fsm.locks_held(item)
            elif item is not None:
                self._end_delays(item, now)
                left = 0
        if sessions:
            self._ending.update(sessions)
            ended = self._propose(encode_destroy_sessions(sessions))
            ended.addCallback(lambda _: self._sessions_ended(sessions))
        return self._agenda.is_due(now) and self._proposed < MAX_PROPOSED

    def _propose(self, command: bytes) -> Deferred[object]:
        """Propose *command*; fires when the outcome is known, good or bad."""
        self._proposed += 1
        applied = self._raft.apply(command, ENQUEUE_TIMEOUT)
        settled: Deferred[object] = applied.addErrback(self._not_ended)
        return settled.addCallback(self._settled)

    def _not_ended(self, failure: Failure) -> None:
        """Ignore a failure: a later look, or the next leader, tries again."""
        failure.trap(RaftError)
        self.log.debug("not ended yet: {error}", error=failure.value)

    def _settled(self, _result: object) -> None:
        self._proposed -= 1
        if self._timer is not None and self._agenda.is_due(self._now()):
            self._look_later(0)

    def _sessions_ended(self, ids: list[str]) -> None:
        self._ending.difference_update(ids)
        for id in ids:
            if id in self._fsm.sessions:
                self._try_again(id)

    def _end_delays(self, begun: Begun, now: float) -> None:
        """Propose the end of some of the lock delays in the group *begun*."""
        # The rest is due at *now*, the time of this look. At a later time it would not
        # count as due when this look ends, and would wait for a whole interval.
        start = self._reached.get(begun, 0)
        due, following = self._fsm.delays_begun.some(begun, start, MAX_BATCH)
        if following is not None:
            self._reached[begun] = following
            self._agenda.put(begun, now)
        else:
            self._reached.pop(begun, None)
        if due:
            ended = self._propose(encode_end_delays(due))
            ended.addCallback(lambda _: self._delays_ended(begun))

    def _delays_ended(self, begun: Begun) -> None:
        if begun in self._fsm.delays_begun and begun not in self._agenda:
            self._try_again(begun)

    def _try_again(self, item: Item) -> None:
        if self._raft.state is RaftState.LEADER:
            self._put(item, int(INTERVAL * 1000))
