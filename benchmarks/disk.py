"""What a synced append costs, with and without room that was allocated ahead.

    python -m benchmarks disk [--rounds 3] [--count 500]

This is what the file log does for each write: `pwrite`, then `fdatasync`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Spread, short, with_range
from benchmarks.options import make_parser, numbers
from benchmarks.report import Report
from benchmarks.tables import Table

ROOM_BYTES = 64 << 20


def synced_appends(path: Path, size: int, count: int, is_allocated: bool) -> Spread:
    """Append *count* blocks of *size* bytes; return microseconds for each."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    try:
        if is_allocated:
            os.posix_fallocate(file, 0, max(ROOM_BYTES, size * count))
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
    parser.add_argument("--bytes", type=numbers, default=[300, 4096, 65536])
    options = parser.parse_args(arguments)
    report = Report("disk", options, [])
    medians: dict[tuple[int, bool], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name:
        for _ in range(options.rounds):
            for size in options.bytes:
                for is_allocated in (False, True):
                    path = Path(name) / "file"
                    took = synced_appends(path, size, options.count, is_allocated)
                    medians.setdefault((size, is_allocated), []).append(took.median)
    report.data["microseconds"] = [
        {"bytes": size, "allocated": is_allocated, "medians": found}
        for (size, is_allocated), found in medians.items()
    ]
    report.add(_table(options.bytes, medians))
    report.finish()


def _table(sizes: Sequence[int], medians: dict[tuple[int, bool], list[float]]) -> Table:
    header = ["bytes", "growing file", "allocated ahead", "ratio"]
    table = Table("A synced append, in microseconds (p50)", header)
    for size in sizes:
        growing, allocated = (Spread.of(medians[size, how]) for how in (False, True))
        share = allocated.median / growing.median
        table.add(str(size), with_range(growing), with_range(allocated), short(share))
    return table


if __name__ == "__main__":
    main()
