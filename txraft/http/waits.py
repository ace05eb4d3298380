"""Blocking queries: a call waits for a change of its topic before it is served.

The change itself wakes the call; nothing polls. Until then a waiting call costs its
connection and one timer, and no time.

Source: Consul's HTTP API, "Blocking Queries".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFromThreads,
    IReactorTime,
)

from txraft.http.answers import RETRY_AFTER, HTTPRefusal, not_applied
from txraft.http.inflight import HTTPCall, parse_duration
from txraft.http.limits import HTTPLimits
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import Scope, Topic

RESUMED_TOGETHER = 32
RESUMED_SECONDS = 0.005
"""The most calls resumed in one turn, and the most seconds spent on them."""


class Waits:
    """The calls that wait, and the groups of calls that a change has just woken.

    The calls that wait for one topic form a group. A change wakes a group in one step,
    however many calls it has. The calls are then resumed, a few in each turn.
    """

    def __init__(
        self, fsm: KeyValueFSM, clock: IReactorTime, limits: HTTPLimits
    ) -> None:
        self._fsm = fsm
        self._clock = clock
        self._limits = limits
        self._waiting: dict[HTTPCall, _WaitingCall] = {}
        self._groups: dict[Topic, _WaitGroup] = {}
        self._woken: deque[_WaitGroup] = deque()
        self._timer: IDelayedCall | None = None
        self._known_at: tuple[int, Topic] | None = None
        self._known = 0
        fsm.on_restore = self._restored

    def __len__(self) -> int:
        """Return the number of calls that wait."""
        return len(self._waiting)

    def park(self, call: HTTPCall, topic: Topic, resume: Callable[[], object]) -> bool:
        """Let *call* wait until *topic* changes after its `?index=`; then *resume* it.

        Returns: False if it need not wait; *resume* is then never called
        Raises: HTTPRefusal
        """
        index = _index(call)
        seconds = self._seconds(call)
        call.parameters.pop("index", None)
        call.parameters.pop("wait", None)
        if not index:
            return False
        call.waited = True
        call.known_index = index
        if self._fsm.changed_at(topic) > index:
            return False
        if len(self._waiting) >= self._limits.max_waiting:
            raise not_applied("Too many queries wait at this node.", RETRY_AFTER)
        timer = self._clock.callLater(seconds, self._end, call)
        wait = self._waiting[call] = _WaitingCall(call, topic, index, resume, timer)
        # Nothing may lie between the check of the index above and this: a change
        # between the two would wake nobody.
        self._join(wait)
        return True

    def discard(self, call: HTTPCall) -> None:
        """Forget *call*, without resuming it; idempotent."""
        wait = self._waiting.pop(call, None)
        if wait is None:
            return
        if wait.timer.active():
            wait.timer.cancel()
        group, wait.group = wait.group, None
        if group is not None:
            del group.waits[call]
            # A group that was woken is not in the table: a new one of its topic may be.
            if not group.waits and self._groups.get(group.topic) is group:
                del self._groups[group.topic]
                self._fsm.watches.discard(group.topic, group.wake)

    def cut(self) -> None:
        """Close the connection of every call that waits."""
        # No answer is sent: a client that watches a lock takes an error for the loss of
        # the lock. After a broken connection it asks again, at another node if need be.
        for call in list(self._waiting):
            self.drop(call)

    def drop(self, call: HTTPCall) -> None:
        """Close the connection of *call*, which waits."""
        self.discard(call)
        call.answered = True
        call.request.loseConnection()

    def close(self) -> None:
        """Close all waiting connections, and resume nothing more."""
        self.cut()
        self._woken.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _seconds(self, call: HTTPCall) -> float:
        text = call.parameters.get("wait")
        seconds = parse_duration(text) if text else 0.0
        if seconds is None:
            raise HTTPRefusal(
                400, "Invalid wait time: it is a duration such as 30s or 5m."
            )
        if not seconds:
            return self._limits.default_wait
        return min(seconds, self._limits.max_wait)

    def _join(self, wait: _WaitingCall) -> None:
        """Add *wait* to the group of its topic, which the next change wakes."""
        group = self._groups.get(wait.topic)
        if group is None:
            group = self._groups[wait.topic] = _WaitGroup(wait.topic, self._wake)
            self._fsm.watches.add(wait.topic, group.wake)
        group.waits[wait.call] = wait
        wait.group = group

    def _wake(self, group: _WaitGroup) -> None:
        """Resume *group* in later turns, as this is called while applying."""
        # Out of the table: calls that come from now on wait for the change after this.
        del self._groups[group.topic]
        self._woken.append(group)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._timer = None
        until = self._clock.seconds() + RESUMED_SECONDS
        for _ in range(RESUMED_TOGETHER):
            while self._woken and not self._woken[0].waits:
                self._woken.popleft()
            if not self._woken:
                return
            self._look_at(self._woken[0].take())
            if self._clock.seconds() >= until:
                break
        self._timer = self._clock.callLater(0, self._resume)

    def _look_at(self, wait: _WaitingCall) -> None:
        """Resume *wait* if its topic has changed after its index; else wait again."""
        # On a node that lags, the change may be one that the client saw elsewhere.
        if self._changed_at(wait.topic) > wait.index:
            self._end(wait.call)
        else:
            self._join(wait)

    def _changed_at(self, topic: Topic) -> int:
        """Return the index of the last change of *topic*, remembered for prefixes."""
        # For speed: thousands of calls wake for one prefix, and only for prefixes the
        # index takes work to find. It holds until a key changes.
        if topic.scope is not Scope.PREFIX:
            return self._fsm.changed_at(topic)
        now = self._fsm.index, topic
        if self._known_at != now:
            self._known_at, self._known = now, self._fsm.changed_at(topic)
        return self._known

    def _end(self, call: HTTPCall) -> None:
        resume = self._waiting[call].resume
        self.discard(call)
        resume()

    def _restored(self) -> None:
        # The snapshot thread calls this: the waiters belong to the reactor.
        everything_changed = self._fsm.everything_changed
        if IReactorFromThreads.providedBy(self._clock):
            self._clock.callFromThread(everything_changed)
        else:
            everything_changed()


def _index(call: HTTPCall) -> int | None:
    """Return the `?index=` of *call*. Raises: HTTPRefusal, in Consul's words"""
    try:
        return call.number("index")
    except HTTPRefusal as error:
        raise HTTPRefusal(400, f"Invalid index: {error}") from error


class _WaitGroup:
    """The calls that wait for the same change."""

    __slots__ = ("_in_order", "_woken", "topic", "waits")

    def __init__(self, topic: Topic, woken: Callable[[_WaitGroup], object]) -> None:
        self.topic = topic
        self.waits: dict[HTTPCall, _WaitingCall] = {}
        self._in_order: list[_WaitingCall] | None = None
        self._woken = woken

    def wake(self) -> None:
        self._woken(self)

    def take(self) -> _WaitingCall:
        """Remove and return the call that came first; only once the group is woken."""
        # For speed, a list: the first item of a dict is found by passing all places of
        # deleted ones, which would make this quadratic.
        if self._in_order is None:
            self._in_order = list(reversed(self.waits.values()))
        # Popped one by one: to free a list of thousands at once is a long turn, too.
        while (wait := self._in_order.pop()).group is not self:
            pass
        del self.waits[wait.call]
        wait.group = None
        return wait


class _WaitingCall:
    """One call that waits for a change of *topic* after *index*."""

    __slots__ = ("call", "group", "index", "resume", "timer", "topic")

    def __init__(
        self,
        call: HTTPCall,
        topic: Topic,
        index: int,
        resume: Callable[[], object],
        timer: IDelayedCall,
    ) -> None:
        self.call = call
        self.topic = topic
        self.index = index
        self.resume = resume
        self.timer = timer
        self.group: _WaitGroup | None = None
