"""`Outcome`: a Deferred that coroutines of Twisted and of asyncio can await.

Who runs a coroutine is not known when it awaits: one of Twisted may run inside a task
of asyncio. So what is yielded is both. Twisted takes it for a Deferred, by its class,
and asyncio for a Future, by an attribute; whichever it is then calls it by its own
methods, and so makes itself known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

R = TypeVar("R")


class Outcome(Deferred[R]):
    """A Deferred that can be awaited in both worlds, as often as one likes.

    Cancelling a task of asyncio that waits cancels it, too; the task gets asyncio's
    CancelledError once it has fired. One who cancels it directly lets all who wait have
    Twisted's CancelledError, in both worlds.
    Thread: reactor; with asyncio that is the thread of the loop.
    """

    _failed: Failure | None = None
    _work: Deferred[Any] | None = None

    @classmethod
    def of(cls, work: Deferred[R]) -> Outcome[R]:
        """Return an Outcome of what *work* fires with; cancelling it cancels *work*.

        It then fires when *work* does. Nobody else may wait for *work*.
        """
        outcome = cls()
        outcome._work = work
        # Not chained to it, which would cost three times as much for each command.
        work.addBoth(outcome.callback)
        return outcome

    @classmethod
    def run(cls, coroutine: Coroutine[Deferred[Any], Any, R]) -> Outcome[R]:
        """Run a *coroutine* of Twisted; cancelling the Outcome cancels it."""
        return cls.of(Deferred.fromCoroutine(coroutine))

    def cancel(self) -> None:
        """Cancel it, as any Deferred; one of other work fires when that has ended."""
        # No canceller, after which a Deferred fires at once: a work that takes time to
        # end when it is cancelled, as it closes what it opened, is waited for.
        if self._work is None or self.called:
            super().cancel()
        else:
            self._work.cancel()

    def __await__(self) -> Generator[Deferred[Any], Any, R]:
        """Wait until it has fired. Raises: what it failed with, again at each await."""
        if self._failed is not None:
            self._failed.raiseException()
        if self.called and not self.paused:
            return (yield from super().__await__())
        wait = _Wait(self)
        result: R = yield wait
        return result if wait.callers is None else wait.answered()


class Uninterrupted(Outcome[R]):
    """An Outcome that nobody can cancel: all who wait for it wait until it has fired.

    For what must be finished, such as the closing of files.
    """

    def cancel(self) -> None:
        """Change nothing."""


class _Wait(Deferred[Any]):
    """One await of *outcome*: a Deferred to Twisted, a Future to asyncio.

    `callers` are those of asyncio, None while none has come: then Twisted waits.
    """

    # Its presence makes it a Future (`asyncio.isfuture`); True says that it was yielded
    # by an await, and the task sets it to False.
    _asyncio_future_blocking = True

    def __init__(self, outcome: Outcome[Any]) -> None:
        super().__init__()
        self.callers: list[tuple[Callable[[_Wait], object], Context | None]] | None
        self.callers = None
        self._outcome = outcome
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answer: Any = None
        self._has_answer = False
        self._cancelled = False
        outcome.addBoth(self._fired)

    def _fired(self, result: object) -> object:
        outcome = self._outcome
        # The failure is taken off the Deferred, which would log it as one that nobody
        # has seen. It is kept for whoever else waits: to them it is no success.
        if isinstance(result, Failure):
            outcome._failed = result
        self._answer = outcome._failed or result
        self._has_answer = True
        if self.callers is None:
            self.callback(self._answer)
        else:
            self._tell()
        return None if isinstance(result, Failure) else result

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        """Cancel the outcome; both worlds then wait until it has fired.

        Returns: whether asyncio need not do any more about it.
        """
        if self._has_answer:
            return False  # told, but the task has not run yet: it cancels by itself
        self._cancelled = self.callers is not None
        self._outcome.cancel()
        return self._cancelled

    # What a task of asyncio calls of a Future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task that asks."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def add_done_callback(
        self, call: Callable[[_Wait], object], *, context: Context | None = None
    ) -> None:
        """Have the loop call *call* when there is an answer."""
        self.callers = [*(self.callers or ()), (call, context)]
        if self._has_answer:
            self._tell()

    def remove_done_callback(self, call: Callable[[_Wait], object]) -> int:
        """Do not call *call*; return how often it would have been."""
        before = self.callers or []
        self.callers = [caller for caller in before if caller[0] != call]
        return len(before) - len(self.callers)

    def done(self) -> bool:
        """Tell whether there is an answer."""
        return self._has_answer

    def cancelled(self) -> bool:
        """Tell whether a task was cancelled while it waited, and that has ended."""
        return self._has_answer and self._cancelled

    # `Deferred.result` is an attribute, which a Deferred has once it has fired; one
    # that asyncio waits for never does, so nothing hides the method.
    def result(self) -> None:  # type: ignore[override]
        """Return nothing: the await has the answer. Raises: CancelledError"""
        if self._cancelled:
            raise asyncio.CancelledError

    def answered(self) -> Any:
        """Return the answer, or raise it with the traceback of where it failed."""
        if isinstance(self._answer, Failure):
            self._answer.raiseException()
        return self._answer

    def _tell(self) -> None:
        assert self._loop is not None, "asyncio asks for the loop before it waits"
        callers, self.callers = self.callers or [], []
        for call, context in callers:
            self._loop.call_soon(call, self, context=context)
