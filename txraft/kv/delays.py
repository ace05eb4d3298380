"""Lock delays by when they began: those of one session end together.

It is derived from the state and never replicated. A leader has to follow what began
together, not each key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from txraft.kv.records import Delay


class Begun(NamedTuple):
    """Delays that began with the entry at the same index, and last as long."""

    begun: int
    milliseconds: int


class _Group:
    """Keys in the order in which they came; *left* of them are still delayed."""

    __slots__ = ("keys", "left")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.left = 0


class DelaysBegun:
    """The groups of *delays*, the dict of all, which others change and tell of."""

    def __init__(self, delays: Mapping[str, Delay]) -> None:
        self._delays = delays
        self._groups: dict[Begun, _Group] = {}
        for key, delay in delays.items():
            self.added(key, delay)

    def __contains__(self, begun: Begun) -> bool:
        return begun in self._groups

    def __iter__(self) -> Iterator[Begun]:
        return iter(self._groups)

    def added(self, key: str, delay: Delay) -> bool:
        """Note that *delay* has begun for *key*; tell whether it is the first such."""
        return self.added_many((key,), delay)

    def added_many(self, keys: Sequence[str], delay: Delay) -> bool:
        """Note that *delay* has begun for *keys*; tell whether they are the first."""
        begun = Begun(*delay)
        is_first = begun not in self._groups
        group = self._groups.setdefault(begun, _Group())
        group.keys += keys
        group.left += len(keys)
        return is_first

    def removed(self, delay: Delay) -> None:
        """Note that *delay* of some key is over."""
        begun = Begun(*delay)
        group = self._groups[begun]
        group.left -= 1
        if not group.left:
            del self._groups[begun]

    def some(
        self, begun: Begun, start: int, most: int
    ) -> tuple[list[tuple[str, int]], int | None]:
        """Return *most* of the keys, from the one at *start* on, each with its index.

        Returns: and where to go on, None at the end.
        """
        group = self._groups.get(begun)
        if group is None:
            return [], None
        keys = group.keys[start : start + most]
        following = start + most if start + most < len(group.keys) else None
        at = begun.begun
        delays = self._delays
        there = [key for key in keys if (d := delays.get(key)) and d.begun == at]
        return [(key, at) for key in there], following
