"""The disk of a simulated server, as entries and marks; it survives a crash.

The server applies the parts of a write one by one. If it crashes meanwhile, some of
them have reached the disk: always the first ones, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.entry import Entry
from txraft.core.ready import HardState, SnapshotMark
from txraft.core.term_index import TermIndex
from txraft.testing.simulation.registers import Registers


@dataclass(slots=True)
class Disk:
    """Term and vote, the entries after `base`, and the newest snapshot.

    `base` is the index and term of the entry before the first one.
    """

    state: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict)
    base: tuple[int, int] = (0, 0)
    last_index: int = 0
    mark: SnapshotMark = field(default_factory=SnapshotMark)
    snapshot: Registers = field(default_factory=Registers)

    def save_state(self, state: HardState) -> None:
        """Replace term and vote together; a crash leaves both old or both new."""
        self.state = state

    def store(self, entry: Entry) -> None:
        """Append one entry."""
        if entry.index > self.base[0]:
            assert entry.index == self.last_index + 1, "the log on disk has no gap"
            self.entries[entry.index] = entry
            self.last_index = entry.index

    def drop_from(self, index: int) -> None:
        """Delete the entry at *index* and all after it."""
        while self.last_index >= max(index, self.base[0] + 1):
            del self.entries[self.last_index]
            self.last_index -= 1

    def compact_to(self, index: int, term: int) -> None:
        """Delete the entries up to *index*, whose term is *term*."""
        if index <= self.base[0]:
            return
        self.entries = {i: e for i, e in self.entries.items() if i > index}
        self.base = (index, term)
        self.last_index = max(self.last_index, index)

    def save_snapshot(self, mark: SnapshotMark, state: Registers) -> None:
        """Make a snapshot durable, unless there is a newer one."""
        if mark.index > self.mark.index:
            self.mark, self.snapshot = mark, state

    def recover(self) -> None:
        """Drop the log if it ends before the snapshot or disagrees with it.

        A crash between saving a leader's snapshot and resetting the log leaves such.
        """
        mark = self.mark
        if mark.index > self.base[0] and self.term_at(mark.index) != mark.term:
            self.entries = {}
            self.base = (mark.index, mark.term)
            self.last_index = mark.index

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at *index*, None if it is not here."""
        if index == self.base[0]:
            return self.base[1]
        entry = self.entries.get(index)
        return entry.term if entry is not None else None

    def log(self) -> TermIndex:
        """Return the terms of the log, as consensus keeps them."""
        runs: list[tuple[int, int]] = []
        for index in sorted(self.entries):
            term = self.entries[index].term
            if not runs or runs[-1][1] != term:
                runs.append((index, term))
        return TermIndex(runs, self.last_index, *self.base)

    def configurations(self, bootstrap: Configuration) -> ConfigurationHistory:
        """Return the configurations in the snapshot and in the log behind it."""
        if self.mark.index:
            history = ConfigurationHistory(
                self.mark.configuration_index, self.mark.configuration
            )
        else:
            history = ConfigurationHistory(0, bootstrap)
        for index in sorted(self.entries):
            made = self.entries[index].configuration
            if made is not None and index > history.latest_index:
                history.append(index, made)
        return history
