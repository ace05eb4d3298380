"""Timers that are independent of the wall clock, and of the global reactor.

Twisted's reactor reads the wall clock for its timers: set it back by an hour, and no
timer runs for an hour. A node that misses its ticks for so long is a dead node.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from txraft._twisted import set_seconds


def use_monotonic_time(
    reactor: IReactorTime, seconds: Callable[[], float] = time.monotonic
) -> None:
    """Let all timers of *reactor* go by *seconds* from now on, not by the wall clock.

    `reactor.seconds()` stays a date that goes on evenly from its present value. Code
    that uses it as a date, such as the access log of twisted.web, is off by as much as
    the wall clock is set after this call. Pending timers keep their time. A second
    call changes nothing. A reactor that is not built on `ReactorBase` is left alone.
    """
    if not isinstance(reactor, ReactorBase):
        return
    epoch = reactor.seconds() - seconds()

    def even() -> float:
        return epoch + seconds()

    set_seconds(reactor, even)


class Ticker(LoopingCall):
    """A `LoopingCall` that gets its clock afterwards, by its attribute, and no other.

    One of Twisted's own first takes the global reactor, and so installs one. In a
    process whose loop is asyncio's that holds descriptors for nothing, and no reactor
    of the application's choice can be installed any more.
    """

    def __init__(self, call: Callable[..., object]) -> None:
        self.f, self.a, self.kw = call, (), {}
