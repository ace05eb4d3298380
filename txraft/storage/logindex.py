"""The index of the file log: the place of each entry, in twelve bytes an entry.

The writer thread changes the index while other threads read it. A reader uses one
immutable `IndexView`, which is replaced after the bytes that it refers to are durable.
The arrays of a view only grow, behind its *last*. A truncation or a new first index
puts new arrays in a new view. Under the interpreter's lock, a reader sees each of these
steps as a whole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from txraft.core.entry import Entry

_OFFSET_BITS = 32
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1


def position_of(sequence: int, offset: int) -> int:
    """Pack a segment and a byte offset in it into one number."""
    return sequence << _OFFSET_BITS | offset


def place_in(position: int) -> tuple[int, int]:
    """Unpack a position into segment and byte offset."""
    return position >> _OFFSET_BITS, position & _OFFSET_MASK


class IndexView(NamedTuple):
    """The entries *start* to *last*.

    The entry at index i is at i - *start* in both arrays, which may hold more.
    """

    start: int
    last: int
    positions: array[int]
    lengths: array[int]


class LogIndex:
    """The bounds of a log, the place of each entry, and the terms of all entries.

    While segments are scanned, entries from *first* up to `view.start` may be known to
    exist without being found yet; see `missing`.
    """

    __slots__ = ("first", "runs", "special", "view")

    def __init__(self) -> None:
        self.first = 1
        # (first index, term) of each run of entries of one term, oldest first.
        self.runs: list[tuple[int, int]] = []
        # Memberships and cluster identities: few, and kept so that a start reads no
        # log.
        self.special: list[Entry] = []
        self.view = _empty_view(1)

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and last index, (0, 0) when the log is empty."""
        view = self.view
        return (0, 0) if view.last < view.start else (view.start, view.last)

    @property
    def known_bounds(self) -> tuple[int, int]:
        """The bounds, including entries that are missing."""
        return (0, 0) if self.is_empty else (self.first, self.view.last)

    @property
    def is_empty(self) -> bool:
        """Whether the log has no entry, found or missing."""
        return self.view.last < self.first

    @property
    def missing(self) -> tuple[int, int] | None:
        """The range of entries that should be there and are not, None without any."""
        if self.is_empty or self.view.start <= self.first:
            return None
        return self.first, min(self.view.start - 1, self.view.last)

    def begin_behind(self, first: int, last: int) -> None:
        """Start with the entries *first* to *last* missing; (0, 0) for none."""
        self.first = first or 1
        self.view = _empty_view(last + 1)

    def append(
        self, first: int, positions: Iterable[int], lengths: Iterable[int]
    ) -> None:
        """Add entries from *first* on at the end; an empty log may begin anywhere."""
        view = self.view
        if view.last < self.first:
            self.first = first
            self.view = view = _empty_view(first)
        assert first == view.last + 1, "entries are consecutive"
        # Readers of the old view share these arrays, but look only up to its `last`.
        view.positions.extend(positions)
        view.lengths.extend(lengths)
        last = view.start + len(view.positions) - 1
        self.view = IndexView(view.start, last, view.positions, view.lengths)

    def note_term(self, index: int, term: int) -> None:
        """Record the term of the entry that is added at *index* next."""
        if not self.runs or self.runs[-1][1] != term:
            self.runs.append((index, term))

    def truncate(self, index: int) -> None:
        """Drop the entry at *index* and all after it."""
        # New arrays: a reader may still be in the old view, whose entries must stay.
        view = self.view
        keep = max(0, index - view.start)
        self.view = IndexView(
            min(view.start, index),
            min(view.last, index - 1),
            view.positions[:keep],
            view.lengths[:keep],
        )
        while self.runs and self.runs[-1][0] >= index:
            self.runs.pop()
        while self.special and self.special[-1].index >= index:
            self.special.pop()

    def advance(self, first: int) -> None:
        """Drop all entries before *first*."""
        # New arrays, as in `truncate`. While segments are scanned, *first* may be
        # beyond what was found so far.
        view = self.view
        drop = max(0, first - view.start)
        self.first = first
        self.view = IndexView(
            max(view.start, first),
            view.last,
            view.positions[drop:],
            view.lengths[drop:],
        )
        self.special = [entry for entry in self.special if entry.index >= first]
        self._advance_runs(first)

    def _advance_runs(self, first: int) -> None:
        # The run that *first* is in stays, beginning there now.
        if self.is_empty:
            self.runs = []
            return
        current = bisect_right(self.runs, first, key=lambda run: run[0]) - 1
        if current >= 0:
            self.runs = self.runs[current:]
            self.runs[0] = (first, self.runs[0][1])

    def oldest_segment(self) -> int | None:
        """Return the segment of the oldest entry, None when the log is empty."""
        view = self.view
        if view.last < view.start:
            return None
        return place_in(view.positions[0])[0]


def _empty_view(start: int) -> IndexView:
    return IndexView(start, start - 1, array("Q"), array("I"))
