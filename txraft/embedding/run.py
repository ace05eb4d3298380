"""`run`: what `asyncio.run` is, for Twisted.

`twisted.internet.task.react` does not wait when a signal comes: an `async with` would
never get to its end, and a node would neither transfer its leadership nor close.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

R = TypeVar("R")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(main: Coroutine[Deferred[Any], Any, R], *, reactor: Any = None) -> R:
    """Run the reactor until the coroutine *main* has ended, and return its result.

    SIGTERM and SIGINT, or `reactor.stop`, cancel what *main* waits for; the reactor
    stops when it has ended. A second signal stops it at once.

    Raises: what *main* raises, which ends a program with status 1; SystemExit with
        status 0 when it was stopped from outside and has ended in order.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise RuntimeError("a loop of asyncio runs here: await it instead")
    if reactor is None:
        from twisted.internet import reactor
    return cast(R, _Run(main, reactor).run())


class _Run:
    """One run of *main* on *reactor*."""

    def __init__(self, main: Coroutine[Deferred[Any], Any, Any], reactor: Any) -> None:
        self._main = main
        self._reactor = reactor
        self._work: Deferred[Any] | None = None
        self._result: Any = None
        self._has_ended = False
        self._was_stopped = False

    def run(self) -> Any:
        """Run it; see `run`."""
        reactor = self._reactor
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        reactor.callWhenRunning(self._begin)
        try:
            reactor.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if not self._has_ended:  # the second signal
            raise SystemExit(1)
        if not isinstance(self._result, Failure):
            return self._result
        if self._was_stopped and self._result.check(CancelledError):
            raise SystemExit(0)
        self._result.raiseException()
        raise AssertionError("a failure raises")

    def _begin(self) -> None:
        # Before anything else of a shutdown: connections and threads are there as long
        # as what is returned has not fired.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._work = Deferred.fromCoroutine(self._main)
        self._work.addBoth(self._end)

    def _end(self, result: Any) -> None:
        self._result, self._has_ended = result, True
        with suppress(ReactorNotRunning):  # it is being stopped already
            self._reactor.stop()

    def _stop(self) -> Deferred[None] | None:
        if self._has_ended or self._work is None:
            return None
        self._was_stopped = True
        self._handle_signals()
        ended: Deferred[None] = Deferred()
        self._work.addBoth(lambda _: ended.callback(None))
        self._work.cancel()
        return ended

    def _handle_signals(self) -> None:
        """Stop at once at the next signal: a disk may hang, and the reactor waits."""
        for number in _SIGNALS:
            signal.signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: object) -> None:
        # A handler may run in the middle of any bytecode: only the reactor may act.
        self._reactor.callFromThread(self._reactor.crash)
