"""A cache of recent entries in front of any log store.

A node itself keeps the entries that its followers and its state machine still need. Use
this cache for a log store of your own that is slow to read, when members lag behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from txraft.core.entry import Entry
from txraft.errors import LogNotFound
from txraft.interfaces import LogStore, RangeLogStore


class LogCache:
    """A `LogStore` and `RangeLogStore` that keeps the newest *capacity* entries.

    Entries are cached only once *store* has them on disk: nothing of a failed write is
    cached.
    Raises: ValueError, if *capacity* is not positive.
    """

    def __init__(self, capacity: int, store: LogStore) -> None:
        if capacity <= 0:
            raise ValueError(f"capacity is {capacity}, it must be positive")
        self._store = store
        self._ring: list[Entry | None] = [None] * capacity

    def first_index(self) -> int:
        """Return the index of the oldest entry, 0 when empty. Thread: any."""
        return self._store.first_index()

    def last_index(self) -> int:
        """Return the index of the newest entry, 0 when empty. Thread: any."""
        return self._store.last_index()

    def get_log(self, index: int) -> Entry:
        """Read one entry, from the cache if it has it.

        Raises: LogNotFound
        Thread: reader, beside writes.
        """
        entry = self._cached(index)
        return entry if entry is not None else self._store.get_log(index)

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Read entries *first* to *last*, stopping after *max_bytes* of encoding.

        At least one entry is returned.
        Raises: LogNotFound for *first*.
        Thread: reader, beside writes.
        """
        store = self._store
        if self._cached(first) is None and isinstance(store, RangeLogStore):
            return store.get_logs(first, last, max_bytes)
        entries = [self.get_log(first)]
        size = len(entries[0].encoded)
        for index in range(first + 1, min(last, self.last_index()) + 1):
            try:
                entry = self.get_log(index)
            except LogNotFound:
                # The writer has truncated the log meanwhile: what was read is enough.
                break
            size += len(entry.encoded)
            if size > max_bytes:
                break
            entries.append(entry)
        return entries

    def store_log(self, entry: Entry) -> None:
        """Store one entry; as `store_logs`. Thread: writer."""
        self.store_logs([entry])

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries to the store, then cache the newest.

        Thread: writer.
        Durable: as the store says.
        """
        # Entries are replaced: drop the old ones before, because a reader that runs
        # beside this must not get an entry that the store has no more.
        if entries and entries[0].index <= self.last_index():
            self._forget()
        self._store.store_logs(entries)
        for entry in entries[-len(self._ring) :]:
            self._ring[entry.index % len(self._ring)] = entry

    def delete_range(self, first: int, last: int) -> None:
        """Delete a prefix or a suffix of the log, and empty the cache.

        Thread: writer.
        Durable: as the store says.
        """
        self._forget()
        self._store.delete_range(first, last)

    def _cached(self, index: int) -> Entry | None:
        entry = self._ring[index % len(self._ring)]
        # A slot may hold an older entry of the same place in the ring.
        return entry if entry is not None and entry.index == index else None

    def _forget(self) -> None:
        """Empty the cache, before the store changes: readers run beside this."""
        self._ring = [None] * len(self._ring)
