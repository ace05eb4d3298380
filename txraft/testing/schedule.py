"""A schedule of calls in simulated time: the earliest is made next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

MAX_EVENTS = 400_000
"""Events in one run: more than this is a loop without end."""


class Schedule:
    """Calls to make, by time in microseconds; of the same time, the older first.

    More than *max_events* of them are a loop without end.
    """

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self.now = 0
        self.events = 0
        self.max_events = max_events
        self._made = 0
        self._heap: list[
            tuple[int, int, Callable[..., object], tuple[object, ...]]
        ] = []

    def after(
        self, delay: int, function: Callable[..., object], *arguments: object
    ) -> None:
        """Call *function* in *delay* microseconds."""
        self._made += 1
        # The number breaks ties: calls of one moment are made in the order in which
        # they were scheduled, and functions are never compared.
        entry = (self.now + delay, self._made, function, arguments)
        heapq.heappush(self._heap, entry)

    def run_until(self, time: int) -> None:
        """Make all calls that are due up to *time*, in order.

        Raises: AssertionError, if there are too many.
        """
        heap = self._heap
        while heap and heap[0][0] <= time:
            due, _, function, arguments = heapq.heappop(heap)
            if due > self.now:  # `HeapClock.jump` may have left it behind
                self.now = due
            self.events += 1
            assert self.events <= self.max_events, (
                f"over {self.max_events} events: messages or timers make each other "
                "without end"
            )
            function(*arguments)
        self.now = max(self.now, time)
