"""Lock delays in groups: those that began with one entry end together.

The groups are derived from the state and never replicated. With them a leader watches
one item for all keys that a session held, not one for each key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from txraft.kv.records import Delay


class Begun(NamedTuple):
    """The delays that began with the entry at index *begun* and last equally long."""

    begun: int
    milliseconds: int


class _DelayGroup:
    """Keys in the order in which their delays began; *left* of them still run."""

    __slots__ = ("keys", "left")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.left = 0


class DelaysBegun:
    """The groups of *delays*, a dict of all delays by key.

    The owner of the dict reports each change of it here.
    """

    def __init__(self, delays: Mapping[str, Delay]) -> None:
        self._delays = delays
        self._groups: dict[Begun, _DelayGroup] = {}
        for key, delay in delays.items():
            self.added(key, delay)

    def __contains__(self, begun: Begun) -> bool:
        return begun in self._groups

    def __iter__(self) -> Iterator[Begun]:
        return iter(self._groups)

    def added(self, key: str, delay: Delay) -> bool:
        """Note that *delay* has begun for *key*; return whether its group is new."""
        return self.added_many((key,), delay)

    def added_many(self, keys: Sequence[str], delay: Delay) -> bool:
        """Note that *delay* has begun for *keys*; return whether its group is new."""
        begun = Begun(*delay)
        is_first = begun not in self._groups
        group = self._groups.setdefault(begun, _DelayGroup())
        group.keys += keys
        group.left += len(keys)
        return is_first

    def removed(self, delay: Delay) -> None:
        """Note that *delay* of some key is over."""
        # The key stays in its group: to search for it would take time for each key of
        # the group. `some` skips it.
        begun = Begun(*delay)
        group = self._groups[begun]
        group.left -= 1
        if not group.left:
            del self._groups[begun]

    def some(
        self, begun: Begun, start: int, most: int
    ) -> tuple[list[tuple[str, int]], int | None]:
        """Return some delays of the group *begun*: look at *most* keys from *start* on.

        Returns: keys with the index of the begin; and where to go on, None at the end
        """
        group = self._groups.get(begun)
        if group is None:
            return [], None
        keys = group.keys[start : start + most]
        following = start + most if start + most < len(group.keys) else None
        # A key that was locked and released again may have a younger delay, which is
        # of another group and must not end with this one.
        at = begun.begun
        delays = self._delays
        there = [key for key in keys if (d := delays.get(key)) and d.begun == at]
        return [(key, at) for key in there], following
