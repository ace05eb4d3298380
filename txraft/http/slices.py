"""Slices: do long reads in short steps, so that the reactor has turns in between.

A read of many keys is a generator of short steps. A short read is done at once. Of the
long ones only one is at work at a time, in the order of their arrival. Each turn of the
reactor does as much of it as fits in `SLICE_SECONDS`. So heartbeats go out in time, and
the memory for reads does not grow with their number. A new read gets a short slice
first, so that a short read never waits for a long one.

Equal reads that have not begun share their work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txraft.http.answers import not_applied

T = TypeVar("T")

Steps = Generator[None, None, T]

SLICE_SECONDS = 0.005
SLICE_STEPS = 16
"""The most steps in one turn, for clocks that do not see how long a step takes."""

FIRST_STEPS = 8
"""The most steps in the first slice of a new read: enough for nearly all."""

TOLD_TOGETHER = 32
"""The most waiters of shared work that get its result in one turn."""


class Slices:
    """Does work in slices, on *clock*."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._new: deque[_Work[Any]] = deque()
        self._long: deque[_Work[Any]] = deque()
        self._shared: dict[Hashable, _Work[Any]] = {}
        self._told: deque[Callable[[], object]] = deque()
        self._timer: IDelayedCall | None = None
        self._used = 0.0

    def __len__(self) -> int:
        """Return how many works and waiters are not done."""
        return len(self._new) + len(self._long) + len(self._told)

    def run(
        self,
        key: Hashable,
        make: Callable[[], Steps[T]],
        is_wanted: Callable[[], bool],
    ) -> Deferred[T]:
        """Take all steps of the generator that *make* returns, while it *is_wanted*.

        *make* is called when the work begins, and again if the work was put off then. A
        generator that is given up is closed. Works with equal *key* are shared.

        Returns: a Deferred of what the generator returns; it fails with what the
            generator raises, or with a Refusal if nobody wants the result any more
        """
        waiter: _Waiter[T] = _Waiter(is_wanted)
        job = self._shared.get(key)
        if job is None:
            job = self._shared[key] = _Work(key, make)
            job.waiters.append(waiter)
            self._new.append(job)
            # For speed: alone, it is done in this turn. Behind others it waits for its
            # own, or a flood of short reads would make one long turn.
            if len(self._new) == 1 and self._used < SLICE_SECONDS:
                self._begin_now(job)
        else:
            job.waiters.append(waiter)
        return waiter.fired

    def _begin_now(self, job: _Work[Any]) -> None:
        """Do the first slice of *job* in the turn of its caller, as it is likely short.

        All first slices in one turn together have the time of one slice.
        """
        began = self._clock.seconds()
        self._first_slice(began + SLICE_SECONDS - self._used)
        self._used += self._clock.seconds() - began
        if self._used or len(self):
            self._later()

    def _later(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._used = 0.0
        until = self._clock.seconds() + SLICE_SECONDS
        for _ in range(min(TOLD_TOGETHER, len(self._told))):
            self._told.popleft()()
            if self._clock.seconds() >= until:
                break
        steps = SLICE_STEPS
        while self._new and steps > 0 and self._clock.seconds() < until:
            self._first_slice(until)
            steps -= FIRST_STEPS
        if self._long:
            job = self._long[0]
            # From its first step on it shows one moment, so nobody may join it: a read
            # that came later could miss a write that came before it.
            if self._shared.get(job.key) is job:
                del self._shared[job.key]
            # At least one step, or a stream of new reads would hold it up for ever.
            self._slice(self._long, max(steps, 1), until)
        if len(self):
            self._later()

    def _first_slice(self, until: float) -> None:
        """Begin the oldest new read; put it off if it is long, behind another."""
        job = self._new[0]
        # Before its first step: nobody may join a read that has begun, see `_turn`.
        del self._shared[job.key]
        if self._slice(self._new, FIRST_STEPS, until):
            return
        self._new.popleft()
        if not self._long:
            self._long.append(job)
            return
        # Its moment is dropped and it begins again later: only one long read at a time
        # keeps old records. So others may join it again.
        job.close()
        other = self._shared.setdefault(job.key, job)
        if other is job:
            self._long.append(job)
        else:
            other.waiters += job.waiters

    def _slice(self, jobs: deque[_Work[Any]], steps: int, until: float) -> bool:
        """Work on the first of *jobs*; if it is done, remove it and return True."""
        job = jobs[0]
        for _ in range(steps):
            if job.take_step():
                jobs.popleft()
                # The others get the result in turns of their own. No list holds them
                # all, as to free thousands at once takes long, too.
                (first, *others), job.waiters = job.waiters, []
                self._told.extend(partial(job.tell, waiter) for waiter in others)
                job.tell(first)
                return True
            if self._clock.seconds() >= until:
                break
        return False


class _Waiter(Generic[T]):
    """A call that waits for the result of work."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self.is_wanted = is_wanted
        self.fired: Deferred[T] = Deferred()


class _Work(Generic[T]):
    """Work in steps, and its waiters."""

    def __init__(self, key: Hashable, make: Callable[[], Steps[T]]) -> None:
        self.key = key
        self.waiters: list[_Waiter[T]] = []
        self._make = make
        self._steps: Steps[T] | None = None
        self._result: T | Failure | None = None

    def take_step(self) -> bool:
        """Take one step; return whether the work is done."""
        if not any(waiter.is_wanted() for waiter in self.waiters):
            self.close()
            refusal = not_applied("Nobody waits for this answer any more.")
            self._result = Failure(refusal)
            return True
        if self._steps is None:
            self._steps = self._make()
        try:
            next(self._steps)
        except StopIteration as end:
            self._result = end.value
            return True
        except Exception:
            self._result = Failure()
            return True
        return False

    def close(self) -> None:
        """Close the generator; idempotent."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def tell(self, waiter: _Waiter[T]) -> None:
        """Fire *waiter* with the result."""
        assert self._result is not None, "the work is done before it is told"
        waiter.fired.callback(self._result)
