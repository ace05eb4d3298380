"""A clock for simulations: as `twisted.internet.task.Clock`, on a heap.

`task.Clock` sorts all its calls whenever one is added; with the hundreds of timers of
a whole cluster that is most of the time that a simulation takes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

MAX_CALLS_AT_ONCE = 1_000_000
"""Calls made in one `advance`: more than this is a loop without end."""


@implementer(IReactorTime)
class HeapClock:
    """An `IReactorTime` that moves only when it is told to.

    Calls of the same moment are made in the order in which they were scheduled.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._made = 0
        self._heap: list[tuple[float, int, DelayedCall]] = []

    def seconds(self) -> float:
        """Return the time, 0.0 in the beginning."""
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call *callable* when *delay* seconds have passed."""
        call = DelayedCall(
            self._now + delay, callable, args, kw, _forget, self._moved, self.seconds
        )
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """List the calls that are yet to be made, in their order."""
        return [
            call
            for time, _, call in sorted(self._heap)
            if not (call.cancelled or call.called) and time <= call.getTime()
        ]

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, making each call at its own moment."""
        until = self._now + seconds
        heap = self._heap
        for _ in range(MAX_CALLS_AT_ONCE):
            if not heap or heap[0][0] > until:
                self._now = until
                return
            time, _, call = heapq.heappop(heap)
            if call.cancelled or call.called:
                continue
            if call.getTime() > time:
                call.activate_delay()  # so that a move back is one to an earlier time
                self._push(call)
                continue
            self._now = max(self._now, time)
            call.called = 1
            call.func(*call.args, **call.kw)
        raise RuntimeError(f"over {MAX_CALLS_AT_ONCE} calls within {seconds} s")

    def jump(self, seconds: float) -> None:
        """Let *seconds* pass at once: what was due meanwhile is called late."""
        self._now += seconds
        self.advance(0)

    def _push(self, call: DelayedCall) -> None:
        self._made += 1
        heapq.heappush(self._heap, (call.getTime(), self._made, call))

    def _moved(self, call: DelayedCall) -> None:
        """Take a call that was moved to an earlier time; later ones come by."""
        self._push(call)


def _forget(call: DelayedCall) -> None:
    """Leave a cancelled call in the heap until its time comes."""
