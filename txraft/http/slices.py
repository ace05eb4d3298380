"""Work that may be long, in slices: the reactor has its turn in between.

A read of many keys is a generator of short steps. One that is soon through is done at
once. Of the others one is at work at a time, in the order in which they came, and each
turn of the reactor does as much of it as fits in `SLICE_SECONDS`: so heartbeats go, and
neither what is kept for the reads nor what they have made grows with their number. Each
newcomer has a short slice first, so that a short read never waits for a long one.

Those who ask for the same share the work, if it has not begun.
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
"""Steps of a newcomer: enough for most."""

TOLD_TOGETHER = 32
"""Of those who share a work, how many are told its result in one turn."""


class Slices:
    """Does work in slices, on *clock*."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._new: deque[_Job[Any]] = deque()
        self._long: deque[_Job[Any]] = deque()
        self._shared: dict[Hashable, _Job[Any]] = {}
        self._told: deque[Callable[[], object]] = deque()
        self._timer: IDelayedCall | None = None
        self._used = 0.0

    def __len__(self) -> int:
        """Return how much work is not through."""
        return len(self._new) + len(self._long) + len(self._told)

    def run(
        self,
        key: Hashable,
        make: Callable[[], Steps[T]],
        is_wanted: Callable[[], bool],
    ) -> Deferred[T]:
        """Take the steps that *make* makes, unless nobody wants the result any more.

        *make* is called when the work begins, and once more if it is put off then; what
        it makes is closed when it is given up. Works of equal *key* are the same.

        Returns: a Deferred that fires with what the steps return, or fails with what
            they raise; with a Refusal if it was not wanted any more.
        """
        waiter: _Waiter[T] = _Waiter(is_wanted)
        job = self._shared.get(key)
        if job is None:
            job = self._shared[key] = _Job(key, make)
            job.waiters.append(waiter)
            self._new.append(job)
            if len(self._new) == 1 and self._used < SLICE_SECONDS:
                self._begin_now(job)
        else:
            job.waiters.append(waiter)
        return waiter.fired

    def _begin_now(self, job: _Job[Any]) -> None:
        """Do the first slice of *job* in the turn of its caller, as it is likely short.

        All that is done so in one turn has the time of one slice.
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
            if self._shared.get(job.key) is job:
                del self._shared[job.key]
            # At least one step, or newcomers could keep it from its end.
            self._slice(self._long, max(steps, 1), until)
        if len(self):
            self._later()

    def _first_slice(self, until: float) -> None:
        """Begin the oldest newcomer; put it off if it is long, and another is at work.

        So only one at a time has anything kept for it.
        """
        job = self._new[0]
        del self._shared[job.key]
        if self._slice(self._new, FIRST_STEPS, until):
            return
        self._new.popleft()
        if not self._long:
            self._long.append(job)
            return
        job.close()
        other = self._shared.setdefault(job.key, job)
        if other is job:
            self._long.append(job)
        else:
            other.waiters += job.waiters

    def _slice(self, jobs: deque[_Job[Any]], steps: int, until: float) -> bool:
        """Work on the first of *jobs*; take it out and return True if it is through."""
        job = jobs[0]
        for _ in range(steps):
            if job.take_step():
                jobs.popleft()
                # Each is held by its own turn alone: to free thousands takes long.
                (first, *others), job.waiters = job.waiters, []
                self._told.extend(partial(job.tell, waiter) for waiter in others)
                job.tell(first)
                return True
            if self._clock.seconds() >= until:
                break
        return False


class _Waiter(Generic[T]):
    """One who waits for the end of a work."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self.is_wanted = is_wanted
        self.fired: Deferred[T] = Deferred()


class _Job(Generic[T]):
    """A work, and those who wait for its end."""

    def __init__(self, key: Hashable, make: Callable[[], Steps[T]]) -> None:
        self.key = key
        self.waiters: list[_Waiter[T]] = []
        self._make = make
        self._steps: Steps[T] | None = None
        self._result: T | Failure | None = None

    def take_step(self) -> bool:
        """Take a step; return whether there is nothing left to do."""
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
        """Drop what has been made; idempotent."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def tell(self, waiter: _Waiter[T]) -> None:
        """Tell *waiter* the result."""
        assert self._result is not None, "it is told when there is one"
        waiter.fired.callback(self._result)
