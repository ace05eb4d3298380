"""A clock for simulations: as `twisted.internet.task.Clock`, on a heap.

`task.Clock` sorts all its calls whenever one is added; with the hundreds of timers of
a whole cluster that is most of the time that a simulation takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from txraft.testing.schedule import Schedule

MAX_CALLS_AT_ONCE = 1_000_000
"""Calls made in one `advance`: more than this is a loop without end."""

MICROSECONDS = 1_000_000

ROUNDING = 1e-9
"""Seconds that sums of seconds may be off by: far less than a microsecond."""

Act = Callable[..., object]
"""Makes a call, now or later: it is given a function and its arguments."""


def _at_once(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def _never(*_: object) -> None:
    """Do nothing, as the dead do."""


@implementer(IReactorTime)
class HeapClock:
    """An `IReactorTime` that moves only when it is told to, by microseconds.

    Calls of the same moment are made in the order in which they were scheduled. Many
    clocks may share one *schedule*, which then moves them all, each at its own *pace*
    of seconds to a second; *act* makes the calls of this one, or keeps them waiting.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        act: Act = _at_once,
        pace: float = 1.0,
    ) -> None:
        self._schedule = schedule or Schedule(MAX_CALLS_AT_ONCE)
        self._act = act
        self._pace = pace
        self._born = self._schedule.now
        self._latest = 0.0
        self._calls: dict[DelayedCall, None] = {}

    def seconds(self) -> float:
        """Return the time since this clock was made."""
        now = (self._schedule.now - self._born) * self._pace / MICROSECONDS
        return now if now > self._latest else self._latest

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call *callable* when *delay* seconds have passed."""
        assert delay >= 0, "a timer lies in the future"
        call = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            self._forget,
            self._wait,
            self.seconds,
        )
        self._calls[call] = None
        self._wait(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List the calls that are yet to be made, in their order."""
        return sorted(self._calls, key=lambda call: call.getTime())

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, making each call at its own moment.

        Raises: AssertionError, if calls make calls without end.
        """
        schedule = self._schedule
        schedule.events = 0
        schedule.run_until(schedule.now + round(seconds * MICROSECONDS))

    def jump(self, seconds: float) -> None:
        """Let *seconds* pass at once: what was due meanwhile is called late."""
        self._schedule.now += round(seconds * MICROSECONDS)
        self.advance(0)

    def stop(self) -> None:
        """Forget every call, for ever, as when a process is killed."""
        self._calls.clear()
        self._act = _never

    def _wait(self, call: DelayedCall) -> None:
        """Come back when *call* is due, which may meanwhile be moved to later."""
        left = max(0.0, call.getTime() - self.seconds() - ROUNDING)
        delay = math.ceil(left * MICROSECONDS / self._pace)
        self._schedule.after(delay, self._due, call)

    def _forget(self, call: DelayedCall) -> None:
        self._calls.pop(call, None)

    def _due(self, call: DelayedCall) -> None:
        if self._is_due(call):
            self._act(self._make, call)

    def _is_due(self, call: DelayedCall) -> bool:
        """Tell whether it is time for *call*; if it was moved, come back then."""
        if call not in self._calls:
            return False
        if call.getTime() <= self.seconds() + ROUNDING:
            return True
        call.activate_delay()  # so that a move back is one to an earlier time
        self._wait(call)
        return False

    def _make(self, call: DelayedCall) -> None:
        if not self._is_due(call):  # it was moved while it waited
            return
        del self._calls[call]
        # A call never sees a time before its own: it would be made again at once.
        self._latest = max(self._latest, call.getTime())
        call.called = 1
        call.func(*call.args, **call.kw)
