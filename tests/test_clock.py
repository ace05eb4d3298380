"""Timers of the process do not follow the wall clock."""

from __future__ import annotations

import sys

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from txraft.clock import Ticker, use_monotonic_time


class TimersOnly(ReactorBase):
    """A reactor of timers without sockets; its time is a wall clock set by hand."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 50.0
        super().__init__()

    def seconds(self) -> float:
        return self.wall

    def installWaker(self) -> None:
        pass

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, then run what is due."""
        self.wall += seconds
        self.steady += seconds
        self.runUntilCurrent()


class MonotonicTime(SynchronousTestCase):
    """What `use_monotonic_time` promises."""

    def setUp(self) -> None:
        self.reactor = TimersOnly()
        self.calls: list[str] = []

    def use_monotonic_time(self) -> None:
        use_monotonic_time(self.reactor, lambda: self.reactor.steady)

    def test_wall_clock_set_back(self) -> None:
        """A ticking call ticks on when the wall clock is set back by an hour."""
        self.use_monotonic_time()
        ticks = LoopingCall(self.calls.append, "tick")
        ticks.clock = self.reactor
        ticks.start(0.1, now=False)
        self.reactor.pass_time(0.11)

        self.reactor.wall -= 3600
        self.reactor.pass_time(0.1)

        self.assertEqual(self.calls, ["tick", "tick"])

    def test_wall_clock_set_forward(self) -> None:
        """No timer is early when the wall clock jumps ahead."""
        self.use_monotonic_time()
        self.reactor.callLater(10, self.calls.append, "late")

        self.reactor.wall += 3600
        self.reactor.pass_time(9.5)

        self.assertEqual(self.calls, [])
        self.reactor.pass_time(0.6)
        self.assertEqual(self.calls, ["late"])

    def test_reset_after_wall_clock_set_back(self) -> None:
        """A timer that was pending before the change is reset by the new time."""
        call = self.reactor.callLater(5, self.calls.append, "reset")
        self.use_monotonic_time()

        self.reactor.wall -= 3600
        call.reset(2)
        self.reactor.pass_time(1.9)
        self.assertEqual(self.calls, [])
        self.reactor.pass_time(0.2)

        self.assertEqual(self.calls, ["reset"])

    def test_pending_calls_keep_their_time(self) -> None:
        """Timers made before are due after the time they had left, in order."""
        self.reactor.callLater(2, self.calls.append, "second")
        self.reactor.callLater(1, self.calls.append, "first")
        self.reactor.pass_time(0.5)

        self.use_monotonic_time()

        self.reactor.pass_time(0.4)
        self.assertEqual(self.calls, [])
        self.reactor.pass_time(0.2)
        self.assertEqual(self.calls, ["first"])
        self.reactor.pass_time(1.0)
        self.assertEqual(self.calls, ["first", "second"])

    def test_it_is_a_date_still(self) -> None:
        """What takes the reactor's time for the date, as an access log, gets one."""
        before = self.reactor.wall
        self.use_monotonic_time()
        self.assertEqual(self.reactor.seconds(), before)

        self.reactor.pass_time(86400.0)

        self.assertEqual(self.reactor.seconds(), before + 86400.0)

    def test_twice(self) -> None:
        """An application and a node in it may both ask for it."""
        self.reactor.callLater(2, self.calls.append, "call")
        self.use_monotonic_time()
        self.reactor.wall -= 3600
        self.use_monotonic_time()

        self.reactor.pass_time(1.9)
        self.assertEqual(self.calls, [])
        self.reactor.pass_time(0.2)

        self.assertEqual(self.calls, ["call"])

    def test_timeout_of_poll(self) -> None:
        """The reactor sleeps until the next timer, not until the wall clock says."""
        self.use_monotonic_time()
        self.reactor.callLater(3, self.calls.append, "call")

        self.reactor.wall -= 3600

        self.assertEqual(self.reactor.timeout(), 3)

    def test_other_clocks_are_left_alone(self) -> None:
        clock = Clock()

        use_monotonic_time(clock, lambda: 7.0)

        self.assertEqual(clock.seconds(), 0.0)


class Tickers(SynchronousTestCase):
    """`Ticker` is a `LoopingCall` on the clock that it is given."""

    def test_ticker_installs_no_reactor(self) -> None:
        """The application chooses its reactor, or has a loop of asyncio instead."""
        name = "twisted.internet.reactor"
        installed = sys.modules.pop(name, None)
        try:
            Ticker.withCount(lambda count: None)
            found = sys.modules.pop(name, None)
        finally:
            if installed is not None:
                sys.modules[name] = installed

        self.assertIsNone(found)

    def test_ticker_counts(self) -> None:
        """It tells how many calls were due, as a node whose clock jumps has to know."""
        clock, counts = Clock(), list[int]()
        ticker = Ticker.withCount(counts.append)
        ticker.clock = clock
        ticker.start(1.0, now=False)

        clock.advance(1.0)
        clock.advance(3.0)
        ticker.stop()

        self.assertEqual(counts, [1, 3])
