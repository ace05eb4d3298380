"""Blocking queries: calls that wait for a change before they are served.

Each is woken by the change itself. While nothing changes, a call that waits costs its
connection and one entry in the reactor's list of timers, and no time.

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

from txraft.http.answers import Refusal, not_applied
from txraft.http.calls import Call, parse_duration
from txraft.http.limits import HTTPLimits
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import Topic

RESUMED_TOGETHER = 128


class Waits:
    """The calls that wait, and those that a change has woken just now."""

    def __init__(
        self, fsm: KeyValueFSM, clock: IReactorTime, limits: HTTPLimits
    ) -> None:
        self._fsm = fsm
        self._clock = clock
        self._limits = limits
        self._waiting: dict[Call, _Wait] = {}
        self._woken: deque[_Wait] = deque()
        self._timer: IDelayedCall | None = None
        fsm.on_restore = self._restored

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    def park(self, call: Call, topic: Topic, resume: Callable[[], object]) -> bool:
        """Let *call* wait for a change of *topic* after the index it names.

        Returns: False when it need not wait; *resume* is then never called.
        Raises: Refusal
        """
        index = call.number("index")
        seconds = self._seconds(call)
        call.parameters.pop("index", None)
        call.parameters.pop("wait", None)
        if not index:
            return False
        call.waited = True
        if self._fsm.changed_at(topic) > index:
            return False
        if len(self._waiting) >= self._limits.max_waiting:
            raise not_applied("Too many queries wait at this node.")
        timer = self._clock.callLater(seconds, self._end, call)
        wait = _Wait(call, topic, index, resume, timer, self._wake)
        self._waiting[call] = wait
        self._fsm.watches.add(topic, wait.wake)
        return True

    def discard(self, call: Call) -> None:
        """Let *call* wait no longer, nor be resumed; idempotent."""
        wait = self._waiting.pop(call, None)
        if wait is not None:
            self._fsm.watches.discard(wait.topic, wait.wake)
            if wait.timer.active():
                wait.timer.cancel()

    def close(self) -> None:
        """Resume everything that waits, now."""
        for call in list(self._waiting):
            self._end(call)
        self._woken.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _seconds(self, call: Call) -> float:
        text = call.parameters.get("wait")
        seconds = parse_duration(text) if text else 0.0
        if seconds is None:
            raise Refusal(400, "The parameter 'wait' is a duration such as 30s or 5m.")
        if not seconds:
            return self._limits.default_wait
        return min(seconds, self._limits.max_wait)

    def _wake(self, wait: _Wait) -> None:
        """Look at *wait* soon: commands are being applied right now."""
        self._woken.append(wait)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._timer = None
        for _ in range(min(len(self._woken), RESUMED_TOGETHER)):
            wait = self._woken.popleft()
            if wait.call not in self._waiting:
                continue
            # A node that lags meets the change that its client has seen elsewhere.
            if self._fsm.changed_at(wait.topic) > wait.index:
                self._end(wait.call)
            else:
                self._fsm.watches.add(wait.topic, wait.wake)
        if self._woken and self._timer is None:
            self._timer = self._clock.callLater(0, self._resume)

    def _end(self, call: Call) -> None:
        resume = self._waiting[call].resume
        self.discard(call)
        resume()

    def _restored(self) -> None:
        everything_changed = self._fsm.watches.everything_changed
        if IReactorFromThreads.providedBy(self._clock):
            self._clock.callFromThread(everything_changed)
        else:
            everything_changed()


class _Wait:
    """One call that waits for a change of *topic* after *index*."""

    __slots__ = ("_wake", "call", "index", "resume", "timer", "topic")

    def __init__(
        self,
        call: Call,
        topic: Topic,
        index: int,
        resume: Callable[[], object],
        timer: IDelayedCall,
        wake: Callable[[_Wait], object],
    ) -> None:
        self.call = call
        self.topic = topic
        self.index = index
        self.resume = resume
        self.timer = timer
        self._wake = wake

    def wake(self) -> None:
        self._wake(self)
