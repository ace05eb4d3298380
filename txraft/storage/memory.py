"""Stores in memory, for tests and for nodes that may lose their state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.errors import LogNotFound, StorageError
from txraft.interfaces import SnapshotMeta
from txraft.storage.recovery import special_among
from txraft.storage.stable import from_uint64, to_uint64


class InmemStore:
    """A `LogStore`, `RangeLogStore` and `StableStore` in memory.

    Entries are kept as they are given, not copied.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._values: dict[bytes, bytes] = {}

    # Log -----------------------------------------------------------------------

    def first_index(self) -> int:
        """Return the index of the oldest entry, 0 when empty. Thread: any."""
        entries = self._entries
        return entries[0].index if entries else 0

    def last_index(self) -> int:
        """Return the index of the newest entry, 0 when empty. Thread: any."""
        entries = self._entries
        return entries[-1].index if entries else 0

    def term_runs(self) -> list[tuple[int, int]]:
        """List runs of entries of one term, as (first index, term)."""
        runs: list[tuple[int, int]] = []
        for entry in self._entries:
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
        return runs

    def special_entries(self) -> list[Entry]:
        """List the entries of a membership type or with a cluster's identity."""
        return special_among(self._entries)

    def get_log(self, index: int) -> Entry:
        """Read one entry. Raises: LogNotFound"""
        return self.get_logs(index, index, 0)[0]

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Read entries *first* to *last*, stopping after *max_bytes* of encoding.

        At least one entry is returned.
        Raises: LogNotFound for *first*.
        """
        # A write extends this list or replaces it, so a slice of it is consistent
        # although writes run beside this.
        entries = self._entries
        begin = first - entries[0].index if entries else -1
        if not 0 <= begin < len(entries):
            raise LogNotFound(first)
        found = entries[begin : begin + max(1, last - first + 1)]
        total = len(found[0].encoded)
        for number in range(1, len(found)):
            total += len(found[number].encoded)
            if total > max_bytes:
                return found[:number]
        return found

    def store_log(self, entry: Entry) -> None:
        """Store one entry; as `store_logs`."""
        self.store_logs([entry])

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries.

        An entry at an index that is in the log replaces it and all after it.
        Raises: ValueError for entries that leave a gap, and nothing is done.
        """
        if not entries:
            return
        first = entries[0].index
        if [entry.index for entry in entries] != [*range(first, first + len(entries))]:
            raise ValueError("the entries are not consecutive")
        low, high = self.first_index(), self.last_index()
        if first < 1 or (low and not low <= first <= high + 1):
            raise ValueError(f"entry {first} leaves a gap to entries {low} to {high}")
        # In place: a copy for each append would make a long log quadratic.
        if low and first == high + 1:
            self._entries.extend(entries)
            return
        self._entries = [*(self._entries[: first - low] if low else ()), *entries]

    def delete_range(self, first: int, last: int) -> None:
        """Delete a prefix or a suffix of the log.

        Raises: ValueError for a range that leaves entries on both sides.
        """
        low, high = self.first_index(), self.last_index()
        first, last = max(first, low), min(last, high)
        if low == 0 or first > last:
            return
        if low < first and last < high:
            raise ValueError(f"entries {first} to {last} are within {low} to {high}")
        # A new list, not `del`: a reader may be in the middle of the old one.
        if first == low:
            self._entries = self._entries[last - low + 1 :]
        else:
            self._entries = self._entries[: first - low]

    # Stable --------------------------------------------------------------------

    def get(self, key: bytes) -> bytes:
        """Return the value of *key*, b"" when there is none."""
        return self._values.get(key, b"")

    def get_uint64(self, key: bytes) -> int:
        """Return the integer at *key*, 0 when there is none."""
        return to_uint64(key, self.get(key))

    def set(self, key: bytes, value: bytes) -> None:
        """Store *value*."""
        self._values[key] = value

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store an unsigned 64-bit integer."""
        self._values[key] = from_uint64(value)

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store several keys."""
        self._values.update(values)


class InmemSnapshotStore:
    """A `SnapshotStore` that keeps the newest snapshot in memory."""

    def __init__(self) -> None:
        self._latest: tuple[SnapshotMeta, bytes] | None = None
        self._made = 0

    def create(
        self,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> InmemSnapshotSink:
        """Begin a snapshot of the log up to (*index*, *term*)."""
        return self.create_for(b"", index, term, configuration, configuration_index)

    def create_for(
        self,
        cluster: bytes,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> InmemSnapshotSink:
        """Begin a snapshot of *cluster*, b"" if that is not known."""
        self._made += 1
        name = f"{term}-{index}-{self._made}"
        meta = SnapshotMeta(
            name, index, term, configuration, configuration_index, 0, cluster=cluster
        )
        return InmemSnapshotSink(self, meta)

    def list(self) -> list[SnapshotMeta]:
        """List the newest finished snapshot, if there is one."""
        return [self._latest[0]] if self._latest else []

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """Open the snapshot *id*. Raises: StorageError when it is not kept."""
        if self._latest is None or self._latest[0].id != id:
            raise StorageError(f"there is no snapshot {id!r} in memory")
        meta, data = self._latest
        return meta, io.BytesIO(data)

    def keep(self, meta: SnapshotMeta, data: bytes) -> None:
        """Store a finished snapshot, if it is the newest."""
        latest = self._latest[0] if self._latest else None
        if latest is None or (meta.term, meta.index) >= (latest.term, latest.index):
            self._latest = (meta, data)


class InmemSnapshotSink:
    """A snapshot being written to memory."""

    def __init__(self, store: InmemSnapshotStore, meta: SnapshotMeta) -> None:
        self._store = store
        self._meta = meta
        self._data = bytearray()
        self._staged = self._ended = False

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self._meta.id

    def write(self, data: bytes) -> int:
        """Append *data*; return its length. Raises: ValueError after the end."""
        if self._ended or self._staged:
            raise ValueError(f"snapshot {self.id} is closed")
        self._data += data
        return len(data)

    def stage(self) -> BinaryIO:
        """Refuse further writes and open what was written. Raises: ValueError"""
        if self._ended or self._staged:
            raise ValueError(f"snapshot {self.id} is closed")
        self._staged = True
        return io.BytesIO(bytes(self._data))

    def set_aside(self) -> str:
        """Abandon the snapshot."""
        self.cancel()
        return ""

    def close(self) -> None:
        """Finish the snapshot, unless it was ended before."""
        if self._ended:
            return
        self._ended = True
        meta = replace(self._meta, size=len(self._data))
        self._store.keep(meta, bytes(self._data))

    def cancel(self) -> None:
        """Abandon the snapshot, unless it was ended before."""
        self._ended = True
        self._data.clear()
