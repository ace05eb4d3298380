"""Make one turn of a reactor on a `Clock`, and count the work in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from twisted.internet.task import Clock

import txraft

_HERE = str(Path(txraft.__file__).parent)


class WorkingClock(Clock):
    """A clock on which time passes whenever it is looked at, as where work is done."""

    def seconds(self) -> float:
        self.rightNow += 0.0005
        return self.rightNow


def take_turn(clock: Clock) -> bool:
    """Make the calls that are due now, but not those that they add; False for none."""
    due = [c for c in clock.getDelayedCalls() if c.getTime() <= clock.seconds()]
    for call in due:
        if call.active():
            function, args, named = call.func, call.args, call.kw
            call.cancel()
            function(*args, **named)
    return bool(due)


def steps_of(work: Callable[[], object]) -> int:
    """Count the functions of the package that *work* calls, and what those call."""
    count = 0

    def called(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(_HERE):
            count += 1

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def most_steps(clock: Clock, *works: Callable[[], object]) -> int:
    """Do *works*, then turn after turn until nothing is due; return the longest."""
    most = max(map(steps_of, works))
    while any(c.getTime() <= clock.seconds() for c in clock.getDelayedCalls()):
        most = max(most, steps_of(lambda: take_turn(clock)))
    return most
