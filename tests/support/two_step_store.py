"""A store in memory that writes entries in two steps and lists what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from txraft.core.entry import Entry
from txraft.interfaces import Syncable
from txraft.storage.memory import InmemStore


class TwoStepStore(InmemStore):
    """Writes in two steps if it *has_room*, and lists what it does, in `events`.

    With a *write_error* or a *sync_error* that step fails, and so does setting values
    with a *set_error*.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.has_room = True
        self.write_error: Exception | None = None
        self.sync_error: Exception | None = None
        self.set_error: Exception | None = None
        self._written: list[Entry] = []

    def write_logs(self, entries: Sequence[Entry]) -> Syncable | None:
        assert not self._written, "one write at a time"
        if self.write_error is not None:
            raise self.write_error
        if not self.has_room:
            return None
        self._note("write", entries)
        self._written = list(entries)
        return self

    def sync_data(self) -> None:
        self.events.append("sync")
        if self.sync_error is not None:
            raise self.sync_error

    def logs_synced(self, error: BaseException | None = None) -> None:
        written, self._written = self._written, []
        self.events.append("logs_synced" if error is None else f"failed: {error}")
        if error is None:
            super().store_logs(written)

    def store_logs(self, entries: Sequence[Entry]) -> None:
        self._note("store", entries)
        super().store_logs(entries)

    def delete_range(self, first: int, last: int) -> None:
        self.events.append(f"delete {first}-{last}")
        super().delete_range(first, last)

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        self.events.append("set")
        if self.set_error is not None:
            raise self.set_error
        super().set_many(values)

    def synced(self, number: int) -> None:
        self.events.append(f"synced {number}")

    def _note(self, what: str, entries: Sequence[Entry]) -> None:
        self.events.append(f"{what} {entries[0].index}-{entries[-1].index}")
