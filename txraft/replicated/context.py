"""The context of a command: the entry that it is in, the time, and random numbers.

All of it is the same on every member, and again whenever the entry is replayed.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from txraft.errors import OnlyInCommands

T = TypeVar("T")


class SharedRandom:
    """Random numbers that all members draw alike, made of `random.Random.random` alone.

    That is the only method whose numbers Python keeps from version to version. Who
    knows the log can tell them in advance: make secrets where a command is called, and
    pass them to it.
    """

    def __init__(self, seed: int) -> None:
        # No secret is made of it, and it has to be the same everywhere.
        self.random = Random(seed).random  # noqa: S311
        """Return the next float from 0 to, not including, 1."""

    def randrange(self, first: int, end: int | None = None) -> int:
        """Return an integer from *first* to *end* - 1; from 0 to *first* - 1 without.

        Raises: ValueError, if there is none, or more than 2**53 are between.
        """
        low, high = (0, first) if end is None else (first, end)
        if not 0 < high - low <= 1 << 53:
            raise ValueError(f"there is no range of at most 2**53 from {low} to {high}")
        return low + int(self.random() * (high - low))

    def randint(self, first: int, last: int) -> int:
        """Return an integer from *first* to *last*. Raises: ValueError"""
        return self.randrange(first, last + 1)

    def uniform(self, first: float, last: float) -> float:
        """Return a float between *first* and *last*."""
        return first + (last - first) * self.random()

    def choice(self, items: Sequence[T]) -> T:
        """Return one of *items*. Raises: IndexError, if there are none."""
        if not items:
            raise IndexError("there is nothing to choose from")
        return items[self.randrange(len(items))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Put *items* in a random order."""
        for last in range(len(items) - 1, 0, -1):
            other = self.randrange(last + 1)
            items[last], items[other] = items[other], items[last]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return *count* different ones of *items*. Raises: ValueError"""
        if not 0 <= count <= len(items):
            raise ValueError(f"there are {len(items)}, of which {count} are asked for")
        left = list(items)
        for place in range(count):
            other = self.randrange(place, len(left))
            left[place], left[other] = left[other], left[place]
        return left[:count]


class Context:
    """Where in the log a command runs. In a query it is that of the last command.

    `index` and `term` are those of the entry. `version` is the version of the state
    machine that is active.
    """

    __slots__ = ("_random", "in_command", "index", "microseconds", "term", "version")

    def __init__(self) -> None:
        self.index = 0
        self.term = 0
        self.version = 1
        self.microseconds = 0
        self.in_command = False
        self._random: tuple[int, SharedRandom] | None = None

    @property
    def time(self) -> float:
        """The time of the entry: seconds since 1970, in UTC.

        It is the leader's, from when it put the entry into its log. It never goes back,
        and each command has a later one than the command before. It goes on when a
        leader with a slower clock takes over, at nine tenths of its pace at least. In a
        query it is the time of the last command: an idle cluster has an old one.
        """
        return self.microseconds / 1e6

    @property
    def now(self) -> datetime:
        """`time` as a datetime in UTC."""
        return datetime.fromtimestamp(self.time, UTC)

    @property
    def random(self) -> SharedRandom:
        """Random numbers, others in each command.

        Raises: OnlyInCommands
        """
        if not self.in_command:
            raise OnlyInCommands(
                "context.random is for commands: what draws in a query draws here alone"
            )
        if self._random is None or self._random[0] != self.index:
            seed = self.index << 64 | self.microseconds
            self._random = self.index, SharedRandom(seed)
        return self._random[1]
