"""Election timers: three ways to draw one, each within its bounds."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.options import CoreOptions
from txraft.core.role import ElectionTimer

LEAST = 10
LONGEST_SHORT_WAIT = 6
OPTIONS = CoreOptions(heartbeat_timeout_ticks=5 * LONGEST_SHORT_WAIT)


def timer(seed: int = 0) -> ElectionTimer:
    """Begin a full wait."""
    return ElectionTimer(Random(seed), OPTIONS, least=LEAST)


def ticks_left(waiting: ElectionTimer) -> int:
    """Return after how many ticks the wait is over."""
    ticks = 1
    while not waiting.has_ended_after(1):
        ticks += 1
    return ticks


class Timer(SynchronousTestCase):
    """A full wait, a short one, and a full one that is shortened.

    Source: Raft dissertation §3.4, §9.2.
    """

    def test_restart_draws_once_to_twice_the_least(self) -> None:
        """Servers that wait equally long would split the vote for ever."""
        waits = {ticks_left(timer(seed)) for seed in range(200)}

        self.assertEqual(waits, set(range(LEAST, 2 * LEAST)))

    def test_restart_begins_anew(self) -> None:
        """What has passed counts for the wait that was given up."""
        waiting = timer()
        waiting.has_ended_after(LEAST - 1)

        waiting.restart()

        self.assertFalse(waiting.least_has_passed)
        self.assertGreaterEqual(ticks_left(waiting), LEAST)

    def test_restart_short_begins_anew(self) -> None:
        """However long was waited before, servers do not campaign at once together."""
        waits = set()
        for seed in range(100):
            waiting = timer(seed)
            waiting.has_ended_after(LEAST)
            waiting.restart_short()
            waits.add(ticks_left(waiting))

        self.assertEqual(waits, set(range(1, LONGEST_SHORT_WAIT + 1)))

    def test_restart_short_of_short_timeouts(self) -> None:
        """There always is a tick to wait for."""
        waiting = ElectionTimer(
            Random(0), CoreOptions(heartbeat_timeout_ticks=2), least=2
        )

        waiting.restart_short()

        self.assertEqual(ticks_left(waiting), 1)

    def test_shorten_ends_it_soon(self) -> None:
        """A round that cannot be won makes room for another."""
        waits = set()
        for seed in range(100):
            waiting = timer(seed)
            waiting.has_ended_after(3)
            waiting.shorten()
            waits.add(ticks_left(waiting))

        self.assertEqual(waits, set(range(1, LONGEST_SHORT_WAIT + 1)))

    def test_shorten_never_makes_it_longer(self) -> None:
        """A wait that is all but over ends when it would have."""
        for seed in range(50):
            waiting, same = timer(seed), timer(seed)
            before = ticks_left(same)
            waiting.has_ended_after(before - 1)

            waiting.shorten()

            self.assertEqual(ticks_left(waiting), 1)

    def test_end_with_next_tick(self) -> None:
        """A server that need not wait still takes what came with its start first."""
        waiting = timer()

        waiting.end_with_next_tick()

        self.assertEqual(ticks_left(waiting), 1)

    def test_each_draw_takes_one_number(self) -> None:
        """Seeds of the simulations stay what they are only as long as it is so."""
        random, other = Random(5), Random(5)
        waiting = ElectionTimer(random, OPTIONS, least=LEAST)
        waiting.restart_short()
        waiting.shorten()
        waiting.end_with_next_tick()
        waiting.restart()

        other.randrange(LEAST)
        other.randint(1, LONGEST_SHORT_WAIT)
        other.randint(1, LONGEST_SHORT_WAIT)
        other.randrange(LEAST)
        self.assertEqual(random.random(), other.random())
