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
    """Let all timers of *reactor* go by *seconds* from now on, not by the wall clock.

    `reactor.seconds()` stays a date: it goes on evenly from what it is now, so that
    what takes it for the date, as the access log of twisted.web does, is off by no more
    than the wall clock is set from here on. Timers that are pending keep their time;
    to call this again changes nothing. A reactor that is not built on `ReactorBase` is
    left alone.
    """
    if not isinstance(reactor, ReactorBase):
        return
    epoch = reactor.seconds() - seconds()

    def even() -> float:
        return epoch + seconds()

    # A pending call asks the clock by itself when it is reset.
    for call in reactor.getDelayedCalls():
        assert isinstance(call, DelayedCall)
        call.seconds = even
    reactor.seconds = even
