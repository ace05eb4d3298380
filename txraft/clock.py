"""A reactor whose timers do not see the wall clock.

Twisted's reactor reads the wall clock for its timers: set it back by an hour, and no
timer runs for an hour. A node that misses its ticks for so long is a dead node.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import IReactorTime


def use_monotonic_time(
    reactor: IReactorTime, seconds: Callable[[], float] = time.monotonic
) -> None:
    """Let *reactor* and all of its timers follow *seconds* from now on.

    Timers that are pending keep the time they have left. A reactor that is not built
    on `ReactorBase` is left alone.

    What else reads `reactor.seconds()`, such as the dates in an access log of
    twisted.web, no longer gets a date.
    """
    if not isinstance(reactor, ReactorBase):
        return
    shift = seconds() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        assert isinstance(call, DelayedCall)
        call.time += shift
        call.seconds = seconds
    reactor.seconds = seconds
