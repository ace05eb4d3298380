"""Named points in the simulator that do something legal but unlikely.

A seed arms some of them, and an armed one fires at random. They stand in the simulator
only: the code under test does not know them.

Source: FoundationDB's BUGGIFY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

POINTS = {
    "one entry in a message": 0.5,
    "half of the entries in a message": 0.5,
    "nothing in memory": 0.5,
    "inputs in batches": 0.3,
    "snapshot at once": 0.2,
    "log cut to nothing": 0.5,
    "slow sync": 0.05,
    "late tick": 0.05,
    "failed installation": 0.5,
    "slow installation": 0.3,
    "connection closed on a pre-vote": 0.3,
    "crash of a new leader": 0.4,
    "leader cut off after a change": 0.4,
    "leader cut off with entries of its own": 0.03,
    "crash after a vote": 0.05,
    "crash of a leader as the network mends": 0.5,
    "answer lost": 0.05,
}
"""The points, each with the chance that it fires if it is armed."""

HARMLESS = frozenset(
    {
        "one entry in a message",
        "half of the entries in a message",
        "nothing in memory",
        "inputs in batches",
        "snapshot at once",
        "log cut to nothing",
    }
)
"""Points that make a run unusual but count as no fault."""


class Buggify:
    """Decides at each of *points* whether it fires.

    A *share* of them, from 0 to 1, is armed. None fires any more once `calm` is set.
    """

    def __init__(
        self, random: Random, share: float, points: Mapping[str, float] = POINTS
    ) -> None:
        self._random = random
        self.calm = False
        self.fired: Counter[str] = Counter()
        # One draw for each point: one point more, or another order, changes all seeds.
        self.armed = {
            name: chance for name, chance in points.items() if random.random() < share
        }

    @property
    def faults(self) -> int:
        """The number of faults that the points have made."""
        return sum(n for point, n in self.fired.items() if point not in HARMLESS)

    def __call__(self, point: str) -> bool:
        """Tell whether *point* fires now."""
        chance = self.armed.get(point)
        if chance is None or self.calm or self._random.random() >= chance:
            return False
        self.fired[point] += 1
        return True
