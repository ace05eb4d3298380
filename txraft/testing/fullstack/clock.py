"""The clock of one node: Twisted's timers on a heap, at a pace of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from txraft.testing.simulation.schedule import Schedule

MICROSECONDS = 1_000_000


def _ignore(_: DelayedCall) -> None:
    """Leave a changed call where it is: it looks at its time when it comes up."""


@implementer(IReactorTime)
class NodeClock:
    """Timers that run by *act*, at *pace* seconds to each second of *schedule*.

    After `stop` no timer ever runs again, as when a process is killed.
    """

    def __init__(
        self,
        schedule: Schedule,
        act: Callable[..., object],
        pace: float = 1.0,
    ) -> None:
        self._schedule = schedule
        self._act = act
        self._pace = pace
        self._born = schedule.now
        self._calls: dict[int, DelayedCall] = {}
        self._numbers = 0

    def seconds(self) -> float:
        """Return the time since this clock was made."""
        return (self._schedule.now - self._born) * self._pace / MICROSECONDS

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """Call *callable* in *delay* seconds of this clock."""
        assert delay >= 0, "a timer lies in the future"
        self._numbers += 1
        number = self._numbers
        call = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            lambda _: self._forget(number),
            _ignore,
            self.seconds,
        )
        self._calls[number] = call
        self._wait(number, call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """List what is still to be called."""
        return list(self._calls.values())

    def stop(self) -> None:
        """Forget every timer, for ever."""
        self._calls.clear()
        self._act = _never

    def _wait(self, number: int, call: DelayedCall) -> None:
        left = max(0.0, call.getTime() - self.seconds())
        # A timer that runs too early by a rounding error would come again at once.
        delay = math.ceil(left * MICROSECONDS / self._pace)
        self._schedule.after(delay, self._due, number)

    def _forget(self, number: int) -> None:
        self._calls.pop(number, None)

    def _due(self, number: int) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        if call.getTime() > self.seconds() + 1e-9:
            self._wait(number, call)
            return
        self._act(self._run, number)

    def _run(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None and not call.cancelled:
            call.called = 1
            call.func(*call.args, **call.kw)


def _never(*_: object) -> None:
    """Do nothing, as the dead do."""
