"""Workers: one thread each, for blocking work, in the order in which it was given.

A `Worker` is the only seam between the reactor and blocking code. `ThreadWorker`
is the real one; `MemoryWorker` does the work when a test says so.

No thread of the reactor's own pool is used: that one is shared with name look-ups, and
two of its threads could write the log at the same time.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from txraft.errors import RaftShutdown, ThreadRefused
from txraft.interfaces import Syncable
from txraft.node.kernel_sync import KernelSync

T = TypeVar("T")

SWITCH_INTERVAL = 0.0005
"""Seconds that a worker may keep the reactor thread waiting for the interpreter.

With Python's own 5 ms, a writer that frames a batch of entries stalls every send:
commits per second were a third at 64 in flight (`benchmarks.cluster`).
"""


class Worker(Protocol):
    """Runs functions one after the other, elsewhere."""

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Run *function* after all that were given before.

        Returns: a Deferred of its result, fired on the reactor thread. It fails
            with what the function raised, or with RaftShutdown after `stop`.
        """

    def sync(self, file: Syncable) -> Deferred[None]:
        """Call `sync_data` of *file*, or do what comes to the same.

        What `run` was given before need not be done first.
        """

    def stop(self) -> Deferred[None]:
        """Finish what was given, then end; idempotent."""


class ThreadWorker:
    """A worker with a thread of its own, which lives until `stop`.

    It leaves to *kernel* the syncs that it can make.
    """

    def __init__(
        self, reactor: IReactorFromThreads, name: str, kernel: KernelSync | None = None
    ) -> None:
        self._call_from_thread = reactor.callFromThread
        self._kernel = kernel
        self._name = name
        self._queue: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = (
            SimpleQueue()
        )
        self._started = False
        self._stopping = False
        self._waiting: list[Deferred[None]] = []
        self._has_stopped = False

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Run *function* on the thread, which the first call starts.

        It fails with ThreadRefused, and nothing was run, if there can be none.
        """
        if self._stopping:
            return fail(RaftShutdown())
        if not self._started:
            try:
                Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError as error:  # Python's for what the system refuses
                return fail(
                    ThreadRefused(
                        f"the thread {self._name} was not started: {error}. Raise the "
                        "limit of processes and threads (ulimit -u, systemd's "
                        "TasksMax, the control group's pids.max) or free memory"
                    )
                )
            # Only now: to stop a worker whose thread never began, nobody is waited for.
            self._started = True
        result: Deferred[T] = Deferred()
        self._queue.put((function, result))
        return result

    def sync(self, file: Syncable) -> Deferred[None]:
        """Have the kernel sync *file*, or else the thread."""
        fileno = getattr(file, "fileno", None)  # files in memory have none
        if self._kernel is None or fileno is None:
            return self.run(file.sync_data)
        return self._kernel.sync_data(fileno()) or self.run(file.sync_data)

    def stop(self) -> Deferred[None]:
        """End the thread after what was given; every call fires when it has."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if self._has_stopped:
            self._ended()
        elif not self._stopping:
            # The kernel first: what it has under way ends before the thread does.
            self._stopping = True
            closed = succeed(None) if self._kernel is None else self._kernel.close()
            closed.addCallback(lambda _: self._end_thread())
        return waiter

    def _end_thread(self) -> None:
        if self._started:
            self._queue.put(None)
        else:
            self._ended()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            function, result = job
            outcome: Any
            try:
                outcome = function()
            except BaseException:
                outcome = Failure()
            self._call_from_thread(result.callback, outcome)
            # Else the last job, and all that it holds, would live until the next one.
            del job, function, result, outcome
        self._call_from_thread(self._ended)

    def _ended(self) -> None:
        self._has_stopped = True
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)


class MemoryWorker:
    """A worker that does its work in `perform`, for tests.

    With *at_once*, work is done as soon as it is given and its result is delivered
    by *later* (a `callLater(0, ...)`), so that order is as with a thread.
    """

    def __init__(self, later: Callable[[Callable[[], bool]], object] | None = None):
        self._later = later
        self._jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._stopped = False

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Queue *function* for `perform`."""
        if self._stopped:
            return fail(RaftShutdown())
        result: Deferred[T] = Deferred()
        self._jobs.append((function, result))
        if self._later is not None:
            self._later(self.perform)
        return result

    def sync(self, file: Syncable) -> Deferred[None]:
        """Queue the sync of *file* for `perform`."""
        return self.run(file.sync_data)

    def perform(self) -> bool:
        """Do the oldest piece of work; tell whether there was one."""
        if not self._jobs:
            return False
        function, result = self._jobs.popleft()
        outcome: Any
        try:
            outcome = function()
        except BaseException:
            outcome = Failure()
        result.callback(outcome)
        return True

    def discard(self) -> None:
        """Forget all work that was not done, as a crash does."""
        self._jobs.clear()
        self._stopped = True

    def stop(self) -> Deferred[None]:
        """Do what is left, then refuse more."""
        while self.perform():
            pass
        self._stopped = True
        stopped: Deferred[None] = Deferred()
        stopped.callback(None)
        return stopped


@dataclass(frozen=True, slots=True)
class Workers:
    """The four workers of a node.

    *writer* does all that changes log, term and vote, so disk order is consensus
    order; *reader* fetches old entries beside it; *snapshot* runs the FSM's
    `persist` and `restore`; *sender* reads the snapshots that followers are sent,
    which wait neither for those nor entries for them: to open one is to check it
    from end to end.
    """

    writer: Worker
    reader: Worker
    snapshot: Worker
    sender: Worker

    @property
    def each(self) -> tuple[Worker, ...]:
        """All of them."""
        return (self.writer, self.reader, self.snapshot, self.sender)

    @classmethod
    def threaded(cls, reactor: IReactorFromThreads) -> Workers:
        """Make the workers of a real node: four threads, and the kernel for syncs.

        A thread begins with its first work; most nodes never have the fourth.

        Python lets a thread run for `sys.getswitchinterval()` before another gets
        its turn, and the reactor thread asks for one after every system call. This
        makes that time `SWITCH_INTERVAL`, for the whole process, if it is longer.
        """
        if sys.getswitchinterval() > SWITCH_INTERVAL:
            sys.setswitchinterval(SWITCH_INTERVAL)
        return cls(
            ThreadWorker(reactor, "txraft-writer", KernelSync(reactor)),
            ThreadWorker(reactor, "txraft-reader"),
            ThreadWorker(reactor, "txraft-snapshot"),
            ThreadWorker(reactor, "txraft-sender"),
        )

    def stop(self) -> Deferred[list[None]]:
        """Finish all work and end."""
        return gatherResults([worker.stop() for worker in self.each])
