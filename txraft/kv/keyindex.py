"""The keys in order, and when deleted ones went: what reads of a prefix need.

It is derived from the records and never replicated. The order is built by the first
read that needs it, so that a node which only serves single keys pays next to nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from txraft.kv.records import Row

MAX_TOMBSTONES = 1024
_SLACK = 4096


class KeyIndex:
    """An index over *rows*, the dict of all records, which others change.

    *floor* is the index up to which it is not known what was deleted when.
    """

    def __init__(self, rows: Mapping[str, Row], floor: int) -> None:
        self.rows = rows
        self._floor = floor
        self._ordered: list[str] | None = None
        self._new: list[str] = []
        self._tombstones: dict[str, int] = {}

    def added(self, key: str) -> None:
        """Note that *key* is new."""
        if self._ordered is not None:
            self._new.append(key)
            if len(self._new) > len(self.rows) + _SLACK:
                self._ordered = None

    def removed(self, key: str, index: int) -> None:
        """Note that *key* was deleted at *index*."""
        tombstones = self._tombstones
        tombstones.pop(key, None)
        tombstones[key] = index
        if len(tombstones) > MAX_TOMBSTONES:
            self._floor = tombstones.pop(next(iter(tombstones)))

    def candidates(self, prefix: str) -> list[str]:
        """List the keys that begin with *prefix*, in no order that means anything.

        Some may be in it twice, or be gone: to ask for each takes as long as to delete
        it. The order of all keys is not made for it, which would take longer still.
        """
        if self._ordered is None:
            return [key for key in self.rows if key.startswith(prefix)]
        ordered = self._order()
        first, end = _range(ordered, prefix)
        return ordered[first:end]

    def removed_many(
        self, prefix: str, keys: Sequence[str], kept: Iterable[str], index: int
    ) -> None:
        """Note that *keys* were deleted at *index*: all under *prefix* but *kept*."""
        if len(keys) > MAX_TOMBSTONES:
            # As if each had been noted, and had pushed out the one before.
            self._floor = index
            self._tombstones.clear()
        else:
            for key in keys:
                self.removed(key, index)
        if self._ordered is not None:
            # What stayed behind here would be passed by each later reading.
            ordered = self._order()
            first, end = _range(ordered, prefix)
            ordered[first:end] = sorted(kept)

    def removed_at(self, key: str) -> int:
        """Return an index at which or before which *key* was last deleted."""
        return self._tombstones.get(key, self._floor)

    def removed_under(self, prefix: str) -> int:
        """Return an index at which or before which a key under *prefix* last went."""
        return max(
            (i for key, i in self._tombstones.items() if key.startswith(prefix)),
            default=self._floor,
        )

    def under(self, prefix: str) -> Iterator[str]:
        """Iterate over the keys that begin with *prefix*, in the order of their text.

        The rows must not change meanwhile.
        """
        ordered = self._order()
        last = None
        for position in range(bisect_left(ordered, prefix), len(ordered)):
            key = ordered[position]
            if not key.startswith(prefix):
                return
            if key != last and key in self.rows:
                yield key
            last = key

    def _order(self) -> list[str]:
        ordered = self._ordered
        if ordered is None or len(ordered) > 2 * len(self.rows) + _SLACK:
            ordered = sorted(self.rows)
        elif self._new:
            ordered += self._new
            ordered.sort()
        self._ordered, self._new = ordered, []
        return ordered


def _range(ordered: list[str], prefix: str) -> tuple[int, int]:
    """Return where the keys that begin with *prefix* begin and end."""
    first = bisect_left(ordered, prefix)
    end = bisect_left(ordered, True, first, key=lambda key: not key.startswith(prefix))
    return first, end
