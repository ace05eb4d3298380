"""Measures commands and reads on followers, beside the same on the leader.

    python -m benchmarks forwarding [--rounds 3] [--seconds 2] [--readers 64]

One cluster of three processes, everything synced. Writes are proposed inside the
leader's process and inside a follower's, in turns, so that a change of the machine hits
both. Then both followers read at once, and the processor time of the leader is told for
each read, without what an idle leader uses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.children import answers, cpu_seconds
from benchmarks.figures import short
from benchmarks.options import add_load, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import Results, Sample, measured_load, summarise
from benchmarks.systems.txraft import TXRAFT_SYSTEMS, TxraftGroup
from benchmarks.tables import Table

LEADER, FOLLOWER, READS = "leader", "follower", "reads on followers"
LATENCY_TARGET, RATE_TARGET, READ_TARGET = 1.4, 0.7, 10.0
"""At most so many times the leader's latency, at least so much of its rate; and
microseconds of the leader's processor for a read."""


def write(
    group: TxraftGroup, number: int, in_flight: int, options: argparse.Namespace
) -> Sample:
    """Have one member make writes; it is the leader, or passes them on."""
    found = measured_load(group, number, in_flight, options, anywhere=True)
    group.wait_applied()
    return found | {"in_flight": in_flight}


def read(
    group: TxraftGroup, leader: int, followers: list[int], options: argparse.Namespace
) -> Sample:
    """Have all *followers* read at once; tell what that took of the leader."""
    pid = group.members[leader].pid
    before = cpu_seconds(pid)
    time.sleep(options.seconds)
    idle = (cpu_seconds(pid) - before) / options.seconds
    children = [group.members[number] for number in followers]
    before, began = cpu_seconds(pid), time.monotonic()
    for child in children:
        child.tell(do="read", readers=options.readers, seconds=options.seconds)
    found = list(answers(children))
    elapsed = time.monotonic() - began
    used = cpu_seconds(pid) - before - idle * elapsed
    reads = sum(answer["answered"] for answer in found)
    return {
        "in_flight": options.readers,
        "rate": sum(answer["rate"] for answer in found),
        "p50_ms": max(answer["p50_ms"] for answer in found),
        "p99_ms": max(answer["p99_ms"] for answer in found),
        "leader_us": max(0.0, used) / reads * 1e6,
    }


def measure(base: Path, options: argparse.Namespace) -> list[Sample]:
    """Measure all, as often as *options* say."""
    group = TxraftGroup(base / "members", 3)
    samples: list[Sample] = []
    try:
        group.start()
        leader = group.leader()
        group.wait_applied()
        followers = [number for number in group.members if number != leader]
        for _ in range(options.rounds):
            for in_flight in options.in_flight:
                for who, number in ((LEADER, leader), (FOLLOWER, followers[0])):
                    sample = write(group, number, in_flight, options)
                    samples.append(sample | {"system": who})
            sample = read(group, leader, followers, options)
            samples.append(sample | {"system": READS})
    finally:
        group.stop()
    return samples


def write_table(results: Results) -> Table:
    """Make a row for each number in flight, with the ratios of medians."""
    header = ["in flight", "leader, p50 ms", "follower, p50 ms", "ratio"]
    header += ["leader, commits/s", "follower, commits/s", "ratio"]
    table = Table("Commands on the leader and on a follower", header)
    for who, in_flight in results:
        if who == LEADER:
            ours, theirs = results[FOLLOWER, in_flight], results[LEADER, in_flight]
            table.add(
                str(in_flight),
                short(theirs["p50_ms"].median),
                short(ours["p50_ms"].median),
                short(ours["p50_ms"].median / theirs["p50_ms"].median),
                short(theirs["rate"].median),
                short(ours["rate"].median),
                short(ours["rate"].median / theirs["rate"].median),
            )
    table.notes = [
        f"Targets: at most {LATENCY_TARGET} times the latency with one in flight, at "
        f"least {RATE_TARGET} of the rate at 64."
    ]
    return table


def read_table(results: Results) -> Table:
    """Make the row of reads on both followers."""
    header = ["readers on each", "reads/s", "p50 ms", "p99 ms", "leader's CPU a read"]
    table = Table("Linearizable reads on two followers", header)
    for (who, readers), found in results.items():
        if who == READS:
            table.add(
                str(readers),
                short(found["rate"].median),
                short(found["p50_ms"].median),
                short(found["p99_ms"].median),
                short(found["leader_us"].median, "µs"),
            )
    table.notes = [f"Target: at most {READ_TARGET:.0f} µs of the leader for each."]
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print tables."""
    parser = make_parser("forwarding", __doc__)
    add_load(parser, [1, 64])
    parser.add_argument("--readers", type=int, default=64, help="on each follower")
    options: Any = parser.parse_args(arguments)
    report = Report("forwarding", options, TXRAFT_SYSTEMS[:1])
    with tempfile.TemporaryDirectory() as base:
        samples = measure(Path(base), options)
    report.data["samples"] = samples
    results = summarise(samples)
    table = write_table(results)
    table.notes += conditions([s for s in samples if s["system"] != READS])
    report.add(table)
    report.add(read_table(results))
    report.finish()


if __name__ == "__main__":
    main()
