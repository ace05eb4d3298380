"""Work in slices: short work at once, long work one at a time, nothing for nobody."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.turns import take_turn
from txraft.http import slices as module
from txraft.http.answers import HTTPRefusal
from txraft.http.slices import Slices, Steps


class Works(SynchronousTestCase):
    """Works of a known number of steps, each of which takes `step_seconds`."""

    step_seconds = 0.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.slices = Slices(self.clock)
        self.taken: list[str] = []
        self.open: list[str] = []
        self.unwanted: set[str] = set()

    def work(self, name: str, steps: int, key: Hashable = None) -> Deferred[str]:
        def make() -> Steps[str]:
            self.open.append(name)
            try:
                for _ in range(steps - 1):
                    self.taken.append(name)
                    self.clock.rightNow += self.step_seconds
                    yield
                return name
            finally:
                self.open.remove(name)

        return self.slices.run(key or name, make, lambda: name not in self.unwanted)

    def turn(self) -> list[str]:
        """Run one turn of the reactor; return the steps that were taken."""
        self.taken.clear()
        due = self.clock.getDelayedCalls()
        self.assertLessEqual(len(due), 1)
        take_turn(self.clock)
        return list(self.taken)

    def turns(self) -> int:
        count = 0
        while self.clock.getDelayedCalls():
            self.turn()
            count += 1
        return count


class Order(Works):
    """What is short never waits for what is long."""

    def test_short_work_is_done_at_once(self) -> None:
        for _ in range(3):
            done = self.work("short", module.FIRST_STEPS)
            self.assertEqual(self.successResultOf(done), "short")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long_work_takes_turns(self) -> None:
        done = self.work("long", 5 * module.SLICE_STEPS)
        self.assertEqual(len(self.taken), module.FIRST_STEPS)

        self.assertEqual(len(self.turn()), module.SLICE_STEPS)
        self.assertNoResult(done)

        self.assertGreaterEqual(self.turns(), 4)
        self.assertEqual(self.successResultOf(done), "long")

    def test_newcomer_is_served_beside_long_work(self) -> None:
        long = self.work("long", 1000)
        self.turn()
        new = self.work("new", 2)
        self.turn()

        self.assertNoResult(long)
        self.assertEqual(self.successResultOf(new), "new")

    def test_one_long_work_is_open_at_a_time(self) -> None:
        """What the others had made is dropped, so that their number costs nothing."""
        works = [self.work(f"{number}", 100) for number in range(20)]
        self.assertEqual(self.open, ["0"])
        for _ in range(10):
            self.turn()
            self.assertLessEqual(len(self.open), 1)
        self.turns()

        for number, done in enumerate(works):
            self.assertEqual(self.successResultOf(done), f"{number}")

    def test_flood_of_newcomers_does_not_hold_long_work_up(self) -> None:
        done = self.work("long", 50)
        for number in range(200):
            self.work(f"{number}", 100)
            self.turn()

        self.assertEqual(self.successResultOf(done), "long")


class Time(Works):
    """A turn has its time, however long a step takes."""

    step_seconds = module.SLICE_SECONDS / 4

    def test_turn(self) -> None:
        self.work("long", 100)

        self.assertEqual(len(self.taken), 4)
        self.assertEqual(len(self.turn()), 4)

    def test_many_newcomers_in_one_turn_share_it(self) -> None:
        for number in range(50):
            self.work(f"{number}", 3)
        self.assertLessEqual(len(self.taken), 6)

        while self.clock.getDelayedCalls():
            self.assertLessEqual(len(self.turn()), 6)


class Sharing(Works):
    """Whoever asks for the same before it has begun shares it."""

    def test_same_key(self) -> None:
        self.work("other", 1000)
        first = [self.work("same", 20, "key") for _ in range(10)]
        self.turns()

        self.assertEqual([self.successResultOf(done) for done in first], ["same"] * 10)

    def test_work_that_has_begun_is_not_shared(self) -> None:
        """It shows a moment before the newcomer asked."""
        first = self.work("first", 1000, "key")
        second = self.work("second", 1000, "key")
        self.turns()

        self.assertEqual(self.successResultOf(first), "first")
        self.assertEqual(self.successResultOf(second), "second")

    def test_who_was_told_is_let_go_of(self) -> None:
        """In its own turn, and not with the last of them: to free many takes long."""
        self.patch(module, "TOLD_TOGETHER", 1)
        self.work("other", 100)
        asked = [IsWanted() for _ in range(3)]
        refs = [ref(each) for each in asked]

        def make() -> Steps[str]:
            for _ in range(20):
                yield
            return "made"

        for each in asked:
            self.slices.run("key", make, each)
        del asked, each
        left: dict[int, None] = {}
        while self.clock.getDelayedCalls():
            left[sum(each() is not None for each in refs)] = None
            take_turn(self.clock)

        self.assertEqual(list(left), [3, 2, 1])


class IsWanted:
    """Somebody who wants what was asked for."""

    def __call__(self) -> bool:
        return True


class Ends(Works):
    """Nothing is done for nobody, and all that waits is told."""

    def test_unwanted(self) -> None:
        done = self.work("long", 1000)
        self.unwanted.add("long")
        self.turns()

        self.failureResultOf(done, HTTPRefusal)
        self.assertEqual((self.open, len(self.slices)), ([], 0))

    def test_unwanted_by_one_of_two(self) -> None:
        self.work("other", 1000)
        gone, waits = self.work("gone", 20, "key"), self.work("waits", 20, "key")
        self.unwanted.add("gone")
        self.turns()

        self.assertEqual(self.successResultOf(waits), "gone")
        self.successResultOf(gone)

    def test_error(self) -> None:
        def make() -> Steps[str]:
            yield
            raise ValueError("broken")

        failed = self.slices.run("key", make, lambda: True)

        self.failureResultOf(failed, ValueError)
        self.assertEqual(len(self.slices), 0)
