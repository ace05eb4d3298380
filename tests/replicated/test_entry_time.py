"""The time of entries never goes back, and never stands still."""

from __future__ import annotations

from random import Random

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txraft.replicated.entry_time import EntryTime


class Member:
    """A member whose wall clock is *off*; the true time is in `World`."""

    def __init__(self, world: World, off: float) -> None:
        self.world, self.off = world, off
        self.time = EntryTime(lambda: world.now + self.off, lambda: world.now % 1e6)

    def lead(self) -> int:
        """Stamp an entry, which all apply."""
        stamp = self.time.stamp()
        for member in self.world.members:
            found = member.time.applied(stamp)
            member.time.settle()
        return found


class World:
    """Members with clocks that are off."""

    def __init__(self, *off: float) -> None:
        self.now = 1_000_000.0
        self.members = [Member(self, each) for each in off]


class Time(SynchronousTestCase):
    """Whoever leads, time goes on."""

    def test_wall_clock_is_the_time(self) -> None:
        """While no other clock was ahead of it."""
        world = World(0.0)

        self.assertEqual(world.members[0].lead(), 1_000_000_000_000)
        world.now += 100.0
        self.assertEqual(world.members[0].lead(), 1_000_100_000_000)

    def test_it_goes_on_under_a_leader_whose_clock_is_behind(self) -> None:
        """At nine tenths of its pace at least, so that leases end."""
        world = World(3600.0, 0.0, -3600.0)
        before = world.members[0].lead()

        for number in (1, 2, 1, 2):
            world.now += 10.0
            now = world.members[number].lead()
            self.assertGreaterEqual(now - before, 9_000_000)
            self.assertLessEqual(now - before, 10_000_000)
            before = now

    def test_it_goes_on_within_one_leadership(self) -> None:
        """Entry after entry."""
        world = World(3600.0, 0.0)
        before = world.members[0].lead()

        for _ in range(20):
            world.now += 0.1
            now = world.members[1].lead()
            self.assertIn(now - before, range(89_000, 100_001))
            before = now

    def test_time_without_entries_counts(self) -> None:
        """A new leader has heard of the last entry long before its first one."""
        world = World(3600.0, 0.0)
        before = world.members[0].lead()

        world.now += 600.0

        self.assertGreaterEqual(world.members[1].lead() - before, 540_000_000)

    def test_it_never_goes_back_or_stands_still(self) -> None:
        """Whatever clocks do, and whatever was stamped before another leader's."""
        for seed in range(20):
            random = Random(seed)
            world = World(*(random.uniform(-5, 5) for _ in range(3)))
            last, began = 0, world.now
            for _ in range(100):
                member = random.choice(world.members)
                if random.random() < 0.1:
                    member.off += random.uniform(-3, 3)
                world.now += random.choice([0.0, 0.001, 0.5])
                now = member.lead()
                self.assertGreater(now, last)
                last = now
            self.assertGreater(last / 1e6 - began, 0.9 * (world.now - began) - 10)

    def test_entry_without_a_stamp_has_a_later_time(self) -> None:
        """As one that was stamped by a leader that knew less."""
        time = EntryTime(lambda: 5.0, lambda: 0.0)

        self.assertEqual([time.applied(s) for s in (7, 0, 3, 9)], [7, 8, 9, 10])

    def test_restored_time_goes_on(self) -> None:
        """From that of the snapshot, forwards or back to it."""
        world = World(0.0)
        time = world.members[0].time
        time.restored(2_000_000_000_000)
        self.assertEqual(time.stamp(), 2_000_000_000_000)
        world.now += 1.0
        self.assertEqual(time.stamp(), 2_000_000_900_000)


class ClocksThatAreOff(SynchronousTestCase):
    """Leases last longer then, so it is said."""

    def said(self, world: World, leader: int) -> list[str]:
        """Return the warnings while a member leads once."""
        events: list[str] = []

        def observe(event: object) -> None:
            events.append(f"{event['seconds']:.1f}")  # type: ignore[index]

        globalLogPublisher.addObserver(observe)
        try:
            world.members[leader].lead()
        finally:
            globalLogPublisher.removeObserver(observe)
        return events

    def test_more_than_a_second_is_logged(self) -> None:
        """By the followers whose clocks are behind, at once."""
        self.assertEqual(self.said(World(0.0, 0.5, -0.9), 0), [])
        self.assertEqual(self.said(World(5.0, 0.0), 0), ["5.0"])

    def test_leader_whose_clock_is_behind_says_so(self) -> None:
        """It has not heard of the log's time until it leads."""
        world = World(0.0)
        world.members[0].time.restored(1_000_010_000_000)

        self.assertEqual(self.said(world, 0), ["10.0"])

    def test_it_is_said_once_an_hour(self) -> None:
        """Not with each entry."""
        world = World(5.0, 0.0)
        self.said(world, 0)

        self.assertEqual([self.said(world, number) for number in (0, 1)], [[], []])
        world.now += 3601.0
        self.assertEqual(len(self.said(world, 0)), 1)

    def test_old_entries_say_nothing(self) -> None:
        """What is replayed is of the past."""
        time = EntryTime(lambda: 1e6, lambda: 0.0)
        events: list[object] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        time.applied(5)
        time.settle()

        self.assertEqual(events, [])
