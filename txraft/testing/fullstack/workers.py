"""The worker threads of a simulated node: jobs take time, and a crash may halve one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txraft.errors import RaftShutdown
from txraft.interfaces import Syncable
from txraft.testing.fullstack.disk import READS, PowerFailed, SimulatedDisk
from txraft.testing.schedule import Schedule

T = TypeVar("T")

MOST_OPERATIONS_OF_HALF_A_JOB = 8
"""Operations on the disk that a job still does at most when its process dies."""


class DiskWorker:
    """A `Worker` whose jobs on *disk* take as many microseconds as *delays* returns.

    *act* runs the callbacks as a part of the process, which may hang.
    """

    def __init__(
        self,
        schedule: Schedule,
        act: Callable[..., object],
        random: Random,
        delays: Callable[[], int],
        disk: SimulatedDisk,
    ) -> None:
        self._schedule = schedule
        self._act = act
        self._random = random
        self._delays = delays
        self._disk = disk
        self._jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._stopping: list[Deferred[None]] | None = None
        self._dead = False

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Run *function* after all earlier jobs.

        Returns: a Deferred that fires with its result or failure, or fails with
        RaftShutdown after `stop`.
        """
        if self._stopping is not None:
            return fail(RaftShutdown())
        result: Deferred[T] = Deferred()
        self._jobs.append((function, result))
        if len(self._jobs) == 1:
            self._wait()
        return result

    def sync(self, file: Syncable) -> Deferred[None]:
        """Sync *file* after all earlier jobs."""
        return self.run(file.sync_data)

    def stop(self) -> Deferred[None]:
        """Refuse more jobs; the Deferred fires when those there are have been done."""
        stopped: Deferred[None] = Deferred()
        if self._stopping is None:
            self._stopping = []
        self._stopping.append(stopped)
        self._end_if_done()
        return stopped

    def die(self) -> None:
        """End at once; a part of the job under way may reach the disk."""
        self._dead = True
        if self._jobs and self._random.random() < 0.7:
            left = self._random.randint(0, MOST_OPERATIONS_OF_HALF_A_JOB)
            self._disk.before = _fails_after(left)
            with suppress(PowerFailed, Exception):
                self._jobs[0][0]()
        self._jobs.clear()

    def _wait(self) -> None:
        self._schedule.after(self._delays(), self._due)

    def _due(self) -> None:
        if self._jobs and not self._dead:
            function, result = self._jobs[0]
            try:
                outcome = function()
            except Exception:
                outcome = Failure()
            # The work is done even if the process hangs; only its callback waits.
            self._act(self._done, result, outcome)

    def _done(self, result: Deferred[Any], outcome: Any) -> None:
        self._jobs.popleft()
        if self._jobs:
            self._wait()
        result.callback(outcome)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._stopping and not self._jobs:
            stopping, self._stopping = self._stopping, []
            for waiter in stopping:
                waiter.callback(None)


def _fails_after(left: int) -> Callable[[str], None]:
    """Make a hook that lets *left* more changes and syncs pass, then cuts the power."""

    def before(operation: str) -> None:
        nonlocal left
        if operation not in READS:
            left -= 1
            if left < 0:
                raise PowerFailed

    return before
