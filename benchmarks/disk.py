"""Measures the cost of a synced append, and the gain by allocating ahead.

    python -m benchmarks disk [--rounds 3] [--count 500]

This is what the file log does for each write: `pwrite`, then `fdatasync`. Room is made
by `posix_fallocate`, or by writing zeros, as the file log does it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Spread, short, with_range
from benchmarks.options import make_parser, numbers
from benchmarks.report import Report
from benchmarks.tables import Table

Prepare = Callable[[int, int], object]


def leave(file: int, size: int) -> None:
    """Make no room."""


def allocate(file: int, size: int) -> None:
    """Make room that reads as zeros."""
    os.posix_fallocate(file, 0, size)


def write_zeros(file: int, size: int) -> None:
    """Make room of zeros."""
    os.pwrite(file, bytes(size), 0)


WAYS: dict[str, Prepare] = {
    "growing file": leave,
    "room allocated": allocate,
    "zeros written": write_zeros,
}


def synced_appends(path: Path, size: int, count: int, prepare: Prepare) -> Spread:
    """Append *count* blocks of *size* bytes; return microseconds for each."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    try:
        prepare(file, size * count)
        os.fsync(file)
        block, took = b"x" * size, []
        for number in range(count):
            began = time.perf_counter()
            os.pwrite(file, block, number * size)
            os.fdatasync(file)
            took.append((time.perf_counter() - began) * 1e6)
        return Spread.of(took)
    finally:
        os.close(file)
        path.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write what was asked for."""
    parser = make_parser("disk", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=500, help="appends of each run")
    parser.add_argument("--bytes", type=numbers, default=[300, 4096, 20_000, 65536])
    options = parser.parse_args(arguments)
    report = Report("disk", options, [])
    medians: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name:
        for _ in range(options.rounds):
            for size in options.bytes:
                for way, prepare in WAYS.items():
                    path = Path(name) / "file"
                    took = synced_appends(path, size, options.count, prepare)
                    medians.setdefault((size, way), []).append(took.median)
    report.data["microseconds"] = [
        {"bytes": size, "way": way, "medians": found}
        for (size, way), found in medians.items()
    ]
    report.add(_table(options.bytes, medians))
    report.finish()


def _table(sizes: Sequence[int], medians: dict[tuple[int, str], list[float]]) -> Table:
    header = ["bytes", *WAYS, "ratio of the last two"]
    table = Table("A synced append, in microseconds (p50)", header)
    for size in sizes:
        spreads = [Spread.of(medians[size, way]) for way in WAYS]
        share = spreads[2].median / spreads[1].median
        table.add(str(size), *map(with_range, spreads), short(share))
    return table


if __name__ == "__main__":
    main()
