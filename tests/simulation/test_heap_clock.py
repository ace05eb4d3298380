"""`HeapClock` against `task.Clock`, which it replaces."""

from __future__ import annotations

from random import Random

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txraft.testing import HeapClock
from txraft.testing.schedule import Schedule


def played(clock: Clock | HeapClock, seed: int) -> list[tuple[float, int]]:
    """Schedule, move and cancel calls at random; list which were made, and when."""
    random = Random(seed)
    made: list[tuple[float, int]] = []
    calls = []

    def call(number: int) -> None:
        made.append((round(clock.seconds(), 6), number))

    for number in range(200):
        delay = random.randint(1, 40) / 8 + number / 4096
        calls.append(clock.callLater(delay, call, number))
        chosen = random.choice(calls)
        if chosen.active() and random.random() < 0.5:
            moved = random.randint(1, 40) / 8 + (number + 0.3) / 4096
            random.choice((chosen.reset, chosen.delay))(moved)
        elif chosen.active() and random.random() < 0.2:
            chosen.cancel()
        if random.random() < 0.3:
            clock.advance(0.125)
    for _ in range(200):
        clock.advance(0.125)
    return made


class HeapClockTests(SynchronousTestCase):
    """A clock that moves only when told to."""

    def test_provides_reactor_time(self) -> None:
        """It can stand for a reactor's time."""
        verifyObject(IReactorTime, HeapClock())

    def test_calls_as_the_other_clock(self) -> None:
        """The same calls are made in the same order, moved and cancelled ones too."""
        for seed in range(30):
            mine = [number for _, number in played(HeapClock(), seed)]
            theirs = [number for _, number in played(Clock(), seed)]

            self.assertEqual(mine, theirs)

    def test_advance_makes_each_call_at_its_moment(self) -> None:
        """A call sees the time that it was scheduled for."""
        clock = HeapClock()
        seen: list[float] = []
        for delay in (3.0, 1.0, 2.0):
            clock.callLater(delay, lambda: seen.append(clock.seconds()))

        clock.advance(5)

        self.assertEqual(seen, [1.0, 2.0, 3.0])
        self.assertEqual(clock.seconds(), 5.0)

    def test_jump_makes_calls_late(self) -> None:
        """After a stall a looping call learns how many of its calls it has missed."""
        clock = HeapClock()
        counts: list[int] = []
        loop = LoopingCall.withCount(counts.append)
        loop.clock = clock
        loop.start(1.0, now=False)

        clock.jump(5.5)

        self.assertEqual(counts, [5])

    def test_get_delayed_calls(self) -> None:
        """What is yet to be called is listed once, whatever was done to it."""
        clock = HeapClock()
        first, second = clock.callLater(5, print), clock.callLater(6, print)
        clock.callLater(7, print).cancel()
        second.reset(1)

        self.assertEqual(clock.getDelayedCalls(), [second, first])


class ClockOfANode(SynchronousTestCase):
    """Timers of one of many nodes, on a schedule that all share."""

    def test_looping_call_runs_once_an_interval(self) -> None:
        """Rounding makes no timer come too early, and so twice."""
        schedule = Schedule()
        clock = HeapClock(schedule, lambda call, *arguments: call(*arguments), 0.97)
        counts: list[int] = []
        loop = LoopingCall.withCount(counts.append)
        loop.clock = clock
        loop.start(0.05, now=False)

        schedule.run_until(10_000_000)

        self.assertEqual(set(counts), {1})
        self.assertIn(sum(counts), (193, 194))

    def test_stopped_clock_runs_nothing(self) -> None:
        """Timers of a killed process are gone."""
        schedule = Schedule()
        clock = HeapClock(schedule, lambda call, *arguments: call(*arguments))
        calls: list[str] = []
        clock.callLater(1.0, calls.append, "late")

        clock.stop()
        schedule.run_until(2_000_000)

        self.assertEqual((calls, clock.getDelayedCalls()), ([], []))

    def test_moved_to_an_earlier_time(self) -> None:
        """A timer that is reset to an earlier moment is called then, once."""
        schedule = Schedule()
        clock = HeapClock(schedule)
        calls: list[float] = []
        timer = clock.callLater(3.0, lambda: calls.append(clock.seconds()))

        timer.reset(1.0)
        schedule.run_until(5_000_000)

        self.assertEqual(calls, [1.0])

    def test_moved_while_its_node_hangs(self) -> None:
        """A timer that was due while its node hung may be moved by what comes first."""
        schedule, waiting = Schedule(), []
        clock = HeapClock(schedule, lambda *call: waiting.append(call))
        calls: list[float] = []
        timer = clock.callLater(1.0, lambda: calls.append(clock.seconds()))
        schedule.run_until(1_500_000)

        timer.reset(1.0)
        for function, *arguments in list(waiting):
            function(*arguments)

        self.assertEqual(calls, [])
        self.assertEqual(clock.getDelayedCalls(), [timer])
        schedule.run_until(2_500_000)
        function, *arguments = waiting[-1]
        function(*arguments)
        self.assertEqual(calls, [2.5])

    def test_calls_without_end(self) -> None:
        """A call that makes itself again at once is found out."""
        clock = HeapClock(Schedule(max_events=100))

        def again() -> None:
            clock.callLater(0, again)

        again()
        self.assertRaises(AssertionError, clock.advance, 1)
