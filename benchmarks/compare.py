"""Commits per second of txraft and its peers, in interleaved rounds.

    python -m benchmarks compare [--rounds 3] [--seconds 2] [--in-flight 1,64,512]

Three processes on loopback. Writes are made inside the leader's process where the peer
allows it; etcd's come over gRPC from a process of their own, whose processor time
counts. Each run begins with a fresh cluster and half a second of warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import ratio, short, with_range
from benchmarks.options import add_load, add_systems, make_parser
from benchmarks.plot import plot_rates
from benchmarks.report import Report, conditions
from benchmarks.rounds import Results, run_rounds, summarise
from benchmarks.systems import System, choose
from benchmarks.tables import Table

DEFAULT = [
    "txraft",
    "txraft-1024",
    "hashicorp-64",
    "hashicorp-1024",
    "hashicorp-inmem",
    "etcd",
    "pysyncobj",
    "pysyncobj-nobatch",
    "pysyncobj-5ms",
    "bare-inline",
    "bare-thread",
]
NO_COMPACTION = ["pysyncobj-kept", "pysyncobj-nobatch-kept", "pysyncobj-5ms-kept"]
OURS = ["txraft", "txraft-1024"]
BASES = {
    "the best durable peer": ["hashicorp-64", "hashicorp-1024", "etcd"],
    "hashicorp/raft, BoltDB, 1024": ["hashicorp-1024"],
    "hashicorp/raft in memory": ["hashicorp-inmem"],
    "etcd": ["etcd"],
    "PySyncObj's best, compacting": [
        "pysyncobj",
        "pysyncobj-nobatch",
        "pysyncobj-5ms",
    ],
    "PySyncObj's best, not compacting": NO_COMPACTION,
    "the bare data path, inline": ["bare-inline"],
    "the bare data path, thread": ["bare-thread"],
}


def rates_table(systems: Sequence[System], results: Results) -> Table:
    """Make the table of rates, with their spreads."""
    points = sorted({in_flight for _, in_flight in results})
    table = Table(
        "Commits per second (least to most)",
        ["system", "synced", *(f"{n} in flight" for n in points)],
    )
    for system in systems:
        cells = [with_range(results[system.name, n]["rate"]) for n in points]
        table.add(system.name, "yes" if system.is_synced else "no", *cells)
    return table


def detail_table(systems: Sequence[System], results: Results) -> Table:
    """Make the table of latencies and of processor time."""
    points = sorted({in_flight for _, in_flight in results})
    table = Table(
        "Latency, p50 / p99 in ms, and processor time of all processes for each commit",
        ["system", *(f"{n} in flight" for n in points)],
    )
    for system in systems:
        cells = []
        for n in points:
            found = results[system.name, n]
            p50, p99 = found["p50_ms"].median, found["p99_ms"].median
            cpu = found["cpu_us"].median
            cells.append(f"{short(p50)} / {short(p99)}, {short(cpu, 'µs')}")
        table.add(system.name, *cells)
    return table


def best(names: Sequence[str], results: Results, in_flight: int) -> float | None:
    """Return the highest median rate of those of *names* that were measured."""
    found = [
        results[name, in_flight]["rate"].median
        for name in names
        if (name, in_flight) in results
    ]
    return max(found, default=None)


def ratio_table(results: Results) -> Table:
    """Make the table of how many times as fast txraft is, of medians."""
    points = sorted({in_flight for _, in_flight in results})
    table = Table(
        "Ratios of medians, txraft to others",
        ["compared with", *(f"{n} in flight" for n in points)],
    )
    for title, bases in BASES.items():
        for ours in OURS:
            rows = [
                ratio(best([ours], results, n), best(bases, results, n)) for n in points
            ]
            if any(row is not None for row in rows):
                table.add(f"{ours} : {title}", *(short(row) for row in rows))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write what was asked for."""
    parser = make_parser("compare", __doc__)
    add_systems(parser)
    add_load(parser, [1, 64, 512])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a PNG")
    parser.add_argument(
        "--no-compaction", action="store_true", help="PySyncObj without it, too"
    )
    options = parser.parse_args(arguments)
    extra = NO_COMPACTION if options.no_compaction else []
    systems = choose(options.only, DEFAULT + extra)
    report = Report("compare", options, systems)
    samples = run_rounds(systems, options)
    report.data["samples"] = samples
    results = summarise(samples)
    table = rates_table(systems, results)
    table.notes = conditions(samples)
    report.add(table)
    report.add(detail_table(systems, results))
    report.add(ratio_table(results))
    report.finish()
    if options.plot is not None:
        plot_rates(systems, results, options.plot)


if __name__ == "__main__":
    main()
