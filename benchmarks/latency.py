"""Measures the latency of a commit, of txraft and its peers, in interleaved rounds.

    python -m benchmarks latency [--rounds 3] [--seconds 2] [--in-flight 1,64]

The same runs as `compare`, told by their latencies; --of FILE takes those that were
made already, for `compare --json FILE`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import DEFAULT, OURS
from benchmarks.figures import ratio, short, with_range
from benchmarks.options import add_load, add_systems, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import Results, Sample, run_rounds, summarise
from benchmarks.systems import System, choose
from benchmarks.tables import Table

BASES = ["bare-thread", "hashicorp-64", "hashicorp-1024", "etcd"]


def latency_table(
    systems: Sequence[System], results: Results, value: str, title: str
) -> Table:
    """Make the table of one percentile."""
    points = sorted({in_flight for _, in_flight in results})
    table = Table(title, ["system", "synced", *(f"{n} in flight" for n in points)])
    for system in systems:
        cells = [with_range(results[system.name, n][value]) for n in points]
        table.add(system.name, "yes" if system.is_synced else "no", *cells)
    return table


def ratio_table(results: Results) -> Table:
    """Make the table of how much longer txraft takes, of medians; below 1 is less."""
    points = sorted({in_flight for _, in_flight in results})
    shares = ["p50_ms", "p99_ms"]
    columns = [(n, share) for n in points for share in shares]
    table = Table(
        "Ratios of medians, txraft to others",
        ["compared with", *(f"{share[:3]}, {n} in flight" for n, share in columns)],
    )
    for base in BASES:
        for ours in OURS:
            if (base, points[0]) in results and (ours, points[0]) in results:
                rows = [
                    ratio(
                        results[ours, n][share].median, results[base, n][share].median
                    )
                    for n, share in columns
                ]
                table.add(f"{ours} : {base}", *(short(row) for row in rows))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write what was asked for."""
    parser = make_parser("latency", __doc__)
    add_systems(parser)
    add_load(parser, [1, 64])
    parser.add_argument(
        "--of", type=Path, metavar="FILE", help="take the runs that compare has written"
    )
    options = parser.parse_args(arguments)
    made = {"samples": []} if options.of is None else json.loads(options.of.read_text())
    samples: list[Sample] = made["samples"]
    measured = sorted({sample["system"] for sample in samples})
    systems = choose(measured or options.only, DEFAULT)
    report = Report("latency", options, systems)
    report.data["machine"] = made.get("machine", report.data["machine"])
    samples = samples or run_rounds(systems, options)
    report.data["samples"] = samples
    results = summarise(samples)
    table = latency_table(systems, results, "p50_ms", "Latency in ms, p50")
    table.notes = conditions(samples)
    report.add(table)
    report.add(latency_table(systems, results, "p99_ms", "Latency in ms, p99"))
    report.add(ratio_table(results))
    report.finish()


if __name__ == "__main__":
    main()
