"""The time of entries: stamped by the leader, never back, and never still.

A leader stamps each command with the larger of

- its wall clock, and
- the time of the newest entry that it has stamped or applied, and nine tenths of the
  monotonic time since then.

With the wall clock alone time would jump back as leadership moves to a member whose
clock is behind. With the larger of wall clock and last time it would stand still there,
for as long as the clocks differ, and no lease would end. Nine tenths, so that the time
of the log cannot run away from all clocks.

A stamp counts as one microsecond more than the last one at least, when it is applied.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

OFF = 1_000_000
"""Microseconds that a clock may be off before it is logged."""

SAY_AGAIN = 3600.0
"""Seconds after which it is logged again."""


class EntryTime:
    """Stamps entries, and follows the stamps of others.

    *wall* returns seconds since 1970, and *steady* seconds that only ever grow. `last`
    is the time of the last entry that was applied, in microseconds.
    """

    log = Logger()

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self.last = 0
        # The newest time that was stamped or applied, and when that was.
        self._base = 0
        self._since = 0.0
        self._said: float | None = None

    def stamp(self) -> int:
        """Return the time of an entry that a leader puts into its log now."""
        steady, wall = self._steady(), int(self._wall() * 1e6)
        if self.last > self._base:
            self._base, self._since = self.last, steady
        told = self._base + int(0.9e6 * (steady - self._since))
        if told - wall > OFF:
            self._say(told - wall, steady)
        if told < wall:
            told = wall
        self._base, self._since = told, steady
        return told

    def applied(self, stamp: int) -> int:
        """Return the time of an entry that was stamped so, and is the next to apply."""
        last = self.last
        self.last = stamp = stamp if stamp > last else last + 1
        return stamp

    def settle(self) -> None:
        """Take note of when the entries of this batch were applied."""
        steady = self._steady()
        if self.last > self._base:
            self._base, self._since = self.last, steady
            behind = self.last - int(self._wall() * 1e6)
            # What is replayed is of the past, so it never looks like this.
            if behind > OFF:
                self._say(behind, steady)

    def restored(self, last: int) -> None:
        """Go on from a state whose last entry has the time *last*."""
        self.last, self._base = last, 0

    def _say(self, behind: int, steady: float) -> None:
        if self._said is not None and steady - self._said < SAY_AGAIN:
            return
        self._said = steady
        self.log.warn(
            "the clock of this node is {seconds:.1f} s behind the time of the log: "
            "it is off, or that of a member which led is. Set both by NTP; until then "
            "leases may last as much longer",
            seconds=behind / 1e6,
        )
