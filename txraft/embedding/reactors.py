"""`borrow_reactor`: for a node Twisted's own reactor, or one in somebody's loop.

Where a loop of asyncio runs, nodes share a reactor in that loop. Nothing is installed
as the global one. With its last node it ends: its threads, timers and pipes are gone
then, and the loop runs on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, succeed

from txraft._twisted import leave_loop, loop_of
from txraft.clock import use_monotonic_time


class EmbeddedReactor(AsyncioSelectorReactor):
    """A reactor inside a *loop* that is not its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        use_monotonic_time(self)
        # Signals are the loop's, and its owner's.
        self.startRunning(installSignalHandlers=False)

    def crash(self) -> None:
        """Stop running, and let the loop go on; Twisted's own method stops it."""
        ReactorBase.crash(self)

    def close(self) -> Deferred[None]:
        """End threads, timers and pipes. Nobody may use this reactor afterwards."""
        closed: Deferred[None] = Deferred()
        # "during" ends the threads, and closes what is still connected.
        self.addSystemEventTrigger("after", "shutdown", closed.callback, None)
        self.fireSystemEvent("shutdown")
        return closed.addCallback(lambda _: leave_loop(self))


@dataclass(frozen=True, slots=True)
class BorrowedReactor:
    """A reactor, and what to call once it is not needed any more."""

    reactor: Any
    give_back: Callable[[], Deferred[None]]


@dataclass(slots=True)
class _Shared:
    reactor: EmbeddedReactor
    borrowers: int = 0


_shared: dict[asyncio.AbstractEventLoop, _Shared] = {}
"""The reactors of running loops. An entry goes with the last borrower in its loop."""


def borrow_reactor() -> BorrowedReactor:
    """Return the reactor for the thread that calls, with monotonic timers."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return BorrowedReactor(_global_reactor(), _nothing)
    installed = sys.modules.get("twisted.internet.reactor")
    if isinstance(installed, AsyncioSelectorReactor) and loop_of(installed) is loop:
        return BorrowedReactor(_global_reactor(), _nothing)
    shared = _shared.get(loop)
    if shared is None:
        shared = _shared[loop] = _Shared(EmbeddedReactor(loop))
    shared.borrowers += 1
    return BorrowedReactor(shared.reactor, lambda: _give_back(loop))


def _give_back(loop: asyncio.AbstractEventLoop) -> Deferred[None]:
    shared = _shared[loop]
    shared.borrowers -= 1
    if shared.borrowers:
        return succeed(None)
    # Forgotten first: a node that starts while this one closes gets another.
    del _shared[loop]
    return shared.reactor.close()


def _global_reactor() -> Any:
    from twisted.internet import reactor

    use_monotonic_time(reactor)
    return reactor


def _nothing() -> Deferred[None]:
    return succeed(None)
