"""Measures the commits of txraft alone, everything synced, with and without TLS.

    python -m benchmarks cluster [--seconds 3] [--rounds 3] [--in-flight 1,64] [--tls]

For work on txraft itself: one cluster of three processes for all rounds, no peers. It
tells what the leader's process spends on each entry, apart from all three together.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import short
from benchmarks.options import add_load, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import Sample, measured_load, summarise
from benchmarks.systems.txraft import TXRAFT_SYSTEMS, TxraftGroup
from benchmarks.tables import Table
from txraft.cli.certificates import init_authority, issue_certificate


def make_certificates(directory: Path) -> Path:
    """Make an authority and the one certificate that all members show."""
    init_authority(directory)
    issue_certificate(directory, ["127.0.0.1"])
    return directory


def measure(base: Path, options: argparse.Namespace) -> list[Sample]:
    """Measure commits at each number in flight, as often as *options* say."""
    config = {
        "max_append_entries": options.max_append_entries,
        "max_inflight_requests": options.max_inflight_requests,
    }
    tls = make_certificates(base / "tls") if options.tls else None
    group = TxraftGroup(base / "members", 3, config, tls)
    samples = []
    try:
        group.start()
        leader = group.leader()
        for _ in range(options.rounds):
            for in_flight in options.in_flight:
                sample = measured_load(group, leader, in_flight, options)
                samples.append(sample | {"system": "txraft", "in_flight": in_flight})
                group.wait_applied()
    finally:
        group.stop()
    return samples


def make_table(samples: Sequence[Sample]) -> Table:
    """Make a row for each number in flight."""
    header = ["in flight", "commits/s", "least to most", "p50 ms", "p99 ms"]
    header += ["leader's CPU", "CPU of all", "of syncs/s"]
    table = Table("txraft, commits per second", header)
    for (_, in_flight), found in summarise(samples).items():
        rate = found["rate"]
        table.add(
            str(in_flight),
            short(rate.median),
            f"{short(rate.least)} to {short(rate.most)}",
            short(found["p50_ms"].median),
            short(found["p99_ms"].median),
            short(found["cpu_us_per_entry"].median, "µs"),
            short(found["cpu_us"].median, "µs"),
            short(rate.median / found["syncs"].median),
        )
    table.notes = conditions(samples)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = make_parser("cluster", __doc__)
    add_load(parser, [1, 64, 512], seconds=3.0)
    parser.add_argument("--max-append-entries", type=int, default=64)
    parser.add_argument("--max-inflight-requests", type=int, default=2)
    parser.add_argument("--tls", action="store_true", help="TLS among the members")
    options = parser.parse_args(arguments)
    report = Report("cluster", options, TXRAFT_SYSTEMS[:1])
    with tempfile.TemporaryDirectory() as base:
        samples = measure(Path(base), options)
    report.data["samples"] = samples
    report.add(make_table(samples))
    report.finish()


if __name__ == "__main__":
    main()
