"""The tail: the newest entries, in memory, for followers that keep up and for the FSM.

Older entries are read from the log store, by `read_range`. Entries that are not synced
are always here, as they may be nowhere else. Entries that are synced but not applied
are here as long as there is room: a state machine that is slow, or hangs, must not fill
the memory.

    first                             last
      │  synced and applied  │ synced │ not synced │
      └── trimmed first ─────┴─ then ─┴── never ───┘
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, islice

from txraft.core.entry import Entry
from txraft.interfaces import LogStore, RangeLogStore

ENTRY_OVERHEAD_BYTES = 300
"""What an entry costs beside its bytes, about."""


class Tail:
    """Consecutive entries from `first` to `last`, bounded by *max_bytes* on trimming.

    `first` is the index of the oldest entry here, or of the next one to come.
    *max_append_bytes* bounds what `fit` puts into one message.
    """

    def __init__(self, last_index: int, max_bytes: int, max_append_bytes: int) -> None:
        self.first = last_index + 1
        self._entries: list[Entry] = []
        self._ends: list[int] = []
        self._trimmed_bytes = 0
        self._max_bytes = max_bytes
        self._max_append_bytes = max_append_bytes

    @property
    def last(self) -> int:
        """The index of the newest entry here, or `first` - 1."""
        return self.first + len(self._entries) - 1

    def append(self, entries: list[Entry]) -> None:
        """Add *entries*, which follow on the last one."""
        # Running sums, so that `fit` needs no loop: a message of 512 entries is sized
        # by one binary search.
        end = self._ends[-1] if self._ends else self._trimmed_bytes
        sizes = [len(entry.encoded) for entry in entries]
        self._ends += islice(accumulate(sizes, initial=end), 1, None)
        self._entries += entries

    def truncate_from(self, index: int) -> None:
        """Drop the entry at *index* and all after it."""
        keep = max(0, index - self.first)  # *index* may be below the first entry here
        del self._entries[keep:], self._ends[keep:]
        if index < self.first:
            self.first = index

    def restart_at(self, index: int) -> None:
        """Drop everything; the next entry comes after *index*."""
        self._entries.clear()
        self._ends.clear()
        self.first = index + 1

    def slice(self, first: int, last: int) -> list[Entry] | None:
        """Return entries *first* to *last*, or None if they are not all here."""
        if first < self.first:
            return None
        return self._entries[first - self.first : last - self.first + 1]

    def fit(self, first: int, last: int) -> int:
        """Return the last index up to *last* that one message from *first* holds."""
        position = first - self.first
        before = self._ends[position - 1] if position else self._trimmed_bytes
        most = bisect_right(self._ends, before + self._max_append_bytes, lo=position)
        # At least one, however large: else it would never be sent.
        return min(last, max(first, self.first + most - 1))

    def trim(self, synced: int, applied: int) -> None:
        """Forget the oldest synced entries while there is more than is allowed.

        First those that are *applied* too, as the others would be read back.
        """
        if self._cost <= self._max_bytes:
            return
        self._drop(min(synced, applied))
        if self._cost > self._max_bytes:
            self._drop(synced)

    @property
    def _cost(self) -> int:
        held = (self._ends[-1] if self._ends else 0) - self._trimmed_bytes
        # Twice, as an entry holds its data and the bytes it is encoded as.
        return 2 * held + ENTRY_OVERHEAD_BYTES * len(self._entries)

    def _drop(self, last: int) -> None:
        """Forget entries up to *last*, but no more than leaves half of what may be."""
        # Down to a half and not just below the limit: each trim moves all that stays,
        # and so they are rare.
        share = 1 - self._max_bytes / (2 * self._cost)
        drop = min(int(len(self._entries) * share), last - self.first + 1)
        if drop > 0:
            self._trimmed_bytes = self._ends[drop - 1]
            del self._entries[:drop], self._ends[:drop]
            self.first += drop


def read_range(
    log_store: LogStore, first: int, last: int, max_bytes: int
) -> list[Entry]:
    """Read entries from *first* to at most *last*, about *max_bytes* of them."""
    if isinstance(log_store, RangeLogStore):
        return log_store.get_logs(first, last, max_bytes)
    entries = []
    size = 0
    for index in range(first, last + 1):
        entry = log_store.get_log(index)
        entries.append(entry)
        size += len(entry.encoded)
        if size >= max_bytes:
            break
    return entries


def up_to(max_bytes: int, entries: list[Entry]) -> list[Entry]:
    """Return the first of *entries* that have *max_bytes* together, at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.encoded)
        if size > max_bytes and count:
            return entries[:count]
    return entries
