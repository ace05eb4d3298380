"""A clock for simulations: `twisted.internet.task.Clock` with a heap.

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
"""Calls that one `advance` makes at most; more are a loop without end."""

MICROSECONDS = 1_000_000

ROUNDING = 1e-9
"""Seconds that a sum of floats may be wrong by: far less than a microsecond."""

Act = Callable[..., object]
"""A function that is given a function and its arguments, and calls it now or later."""


def _at_once(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def _never(*_: object) -> None:
    """Ignore a call: its process is dead."""


@implementer(IReactorTime)
class HeapClock:
    """An `IReactorTime` that moves only by `advance`, in steps of a microsecond.

    .. code-block:: python

        clock = HeapClock()
        clock.callLater(0.5, print, "half a second")
        clock.advance(1.0)

    Calls of the same moment are made in the order in which they were scheduled. Several
    clocks may share one *schedule*, which then moves all of them. *pace* is how many
    seconds pass here in a second of the schedule: 1.01 is a clock that is fast. *act*
    makes each call; it may hold calls back, as for a process that hangs.
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
        """Return the seconds since this clock was made."""
        now = (self._schedule.now - self._born) * self._pace / MICROSECONDS
        return now if now > self._latest else self._latest

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call *callable* in *delay* seconds; the call can be moved and cancelled."""
        assert delay >= 0, "a timer lies in the future"
        call = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            cancel=self._forget,
            reset=self._wait,
            seconds=self.seconds,
        )
        self._calls[call] = None
        self._wait(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List the calls that are still to be made, the earliest first."""
        return sorted(self._calls, key=lambda call: call.getTime())

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass; make each call that is due at its own time.

        Raises: AssertionError, after a million calls: they schedule each other for
        ever.
        """
        schedule = self._schedule
        schedule.events = 0
        schedule.run_until(schedule.now + round(seconds * MICROSECONDS))

    def jump(self, seconds: float) -> None:
        """Let *seconds* pass at once: calls that were due meanwhile are late."""
        self._schedule.now += round(seconds * MICROSECONDS)
        self.advance(0)

    def stop(self) -> None:
        """Drop all calls and refuse new ones, as when the process is killed."""
        self._calls.clear()
        self._act = _never

    def _wait(self, call: DelayedCall) -> None:
        """Schedule a look at *call* when it is due; it may be moved meanwhile."""
        # Rounded up: a look that comes a microsecond early would be made again at the
        # same moment, without end.
        left = max(0.0, call.getTime() - self.seconds() - ROUNDING)
        delay = math.ceil(left * MICROSECONDS / self._pace)
        self._schedule.after(delay, self._due, call)

    def _forget(self, call: DelayedCall) -> None:
        self._calls.pop(call, None)

    def _due(self, call: DelayedCall) -> None:
        if self._is_due(call):
            self._act(self._make, call)

    def _is_due(self, call: DelayedCall) -> bool:
        """Tell whether *call* is due; if it was moved to later, look again then."""
        if call not in self._calls:
            return False
        if call.getTime() <= self.seconds() + ROUNDING:
            return True
        call.activate_delay()  # so that a `reset` to earlier than that is seen
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
