"""The simulated disk, with failures and power cuts that a test asks for by name."""

from __future__ import annotations

import os
from pathlib import Path

from txraft.testing.fullstack.disk import (
    Folder,
    Inode,
    Naming,
    PowerFailed,
    SimulatedDisk,
    SimulatedFile,
    Survival,
    Write,
)

__all__ = ["UNSYNCED", "Disk", "PowerFailed", "SimulatedFile"]


class Names(Survival):
    """Names are there, and content is not."""

    def of_namings(self, namings: list[Naming]) -> list[Naming]:
        return namings


class Kept(Names):
    """All is there."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        return writes


class Torn(Names):
    """All is there but half of the last write."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        *whole, last = writes or [Write(0, b"")]
        if last.data is None:
            return whole
        return [*whole, Write(last.offset, last.data[: (len(last.data) + 1) // 2])]


class Zeros(Names):
    """Zeros are where a file has grown."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        ends = [w.offset + len(w.data) for w in writes if w.data is not None]
        return [Write(max(ends, default=0), b"")]


UNSYNCED = {
    "lost": Survival(),
    "names": Names(),
    "kept": Kept(),
    "torn": Torn(),
    "zeros": Zeros(),
}
"""What becomes of that which is not synced, by name."""


class Disk(SimulatedDisk):
    """A disk whose power is cut behind the operation whose number is *cut_after*.

    *failures* maps the name of an operation to the error that its next call raises.
    """

    def __init__(self, root: Folder | None = None) -> None:
        super().__init__(root)
        self.before = self._before
        self.cut_after: int | None = None
        self.failures: dict[str, int] = {}

    def after_power_cut(self, unsynced: str) -> Disk:
        """Make the disk that is found when power is back."""
        return Disk(self.after_power_failure(UNSYNCED[unsynced]).root)

    def content(self, path: Path) -> Inode:
        """Find a file."""
        return self.file(path)

    def _before(self, operation: str) -> None:
        if self.cut_after is not None and len(self.operations) >= self.cut_after:
            raise PowerFailed
        number = self.failures.pop(operation, None)
        if number is not None:
            raise OSError(number, os.strerror(number))
