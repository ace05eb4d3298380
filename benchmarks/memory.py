"""Memory, restart and catching up with 100 000 entries of 256 bytes over 50 000 keys.

    python -m benchmarks memory [--entries 100000] [--more 1000000] [--only txraft*]

Two of three members start and are filled; what the larger one then holds above what it
held when idle is its growth. Then the third one starts, empty, and catches up. Then one
of the followers is killed and started again: opening is what its process says from
opening the data directory to taking part; being equal is from then until it has applied
all that the leader has. With --more, that many more entries are written, and memory
should stay. Nothing is compacted, except by systems that are named without "kept".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import short
from benchmarks.options import add_systems, make_parser
from benchmarks.report import Report
from benchmarks.rounds import tell
from benchmarks.systems import Group, System, choose
from benchmarks.systems.group import running
from benchmarks.tables import Table

DEFAULT = [
    "txraft-kept",
    "txraft",
    "hashicorp-kept",
    "hashicorp-inmem-kept",
    "etcd-kept",
    "pysyncobj-5ms-kept",
]
POLL_SECONDS = 0.01
LAST = 2
"""The member that starts late."""


def wait_equal(group: Group, number: int, leader: int) -> float:
    """Wait until a member has applied what the leader has; return the seconds."""
    began = time.perf_counter()
    wanted = group.ask(leader, do="status")["applied"]
    while group.ask(number, do="status")["applied"] < wanted:
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def fill(group: Group, leader: int, entries: int, options: argparse.Namespace) -> float:
    """Write a number of entries; return the seconds."""
    seconds: float = group.ask(
        leader,
        do="fill",
        entries=entries,
        bytes=options.bytes,
        keys=options.keys,
        inflight=options.in_flight,
    )["seconds"]
    return seconds


def measure(system: System, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Take one system through everything."""
    with running(system, base) as group:
        group.start(LAST)
        leader = group.leader()
        group.wait_applied()
        idle = group.resident_mib()
        filled = fill(group, leader, options.entries, options)
        group.wait_applied()
        grown = group.resident_mib()
        group.start_member(LAST)
        caught_up = wait_equal(group, LAST, leader)
        late = group.resident_mib()[LAST]
        follower = 1 - leader
        group.kill(follower)
        opened = group.start_member(follower)
        equal = wait_equal(group, follower, leader)
        found = {
            "system": system.name,
            "idle_mib": max(idle),
            "grown_mib": max(g - i for g, i in zip(grown, idle, strict=True)),
            "late_mib": late,
            "fill_rate": options.entries / filled,
            "catch_up_rate": options.entries / caught_up,
            "opened_seconds": opened if system.is_synced else None,
            "equal_seconds": equal,
            "more_mib": None,
        }
        if options.more:
            before = group.resident_mib()
            fill(group, leader, options.more, options)
            group.wait_applied()
            after = group.resident_mib()
            found["more_mib"] = after[leader] - before[leader]
        return found


def make_table(found: Sequence[dict[str, Any]], options: argparse.Namespace) -> Table:
    """Make a row for each system."""
    header = ["system", "idle, MiB", f"growth by {options.entries} entries, MiB"]
    header += [f"by {options.more} more, MiB", "filled, entries/s"]
    header += ["an empty follower catches up, entries/s"]
    header += ["restart: open, s", "then equal, s"]
    table = Table("Memory, catching up and restart", header)
    names = ["idle_mib", "grown_mib", "more_mib", "fill_rate", "catch_up_rate"]
    names += ["opened_seconds", "equal_seconds"]
    for row in found:
        table.add(row["system"], *(short(row[name]) for name in names))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = make_parser("memory", __doc__)
    add_systems(parser)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--more", type=int, default=0, help="entries after that")
    parser.add_argument("--bytes", type=int, default=256, help="of a value")
    parser.add_argument("--keys", type=int, default=50_000, help="that differ")
    parser.add_argument("--in-flight", type=int, default=512)
    options = parser.parse_args(arguments)
    systems = choose(options.only, DEFAULT)
    report = Report("memory", options, systems)
    found = []
    for system in systems:
        tell(system.name)
        with tempfile.TemporaryDirectory() as base:
            found.append(measure(system, Path(base), options))
    report.data["samples"] = found
    report.add(make_table(found, options))
    report.finish()


if __name__ == "__main__":
    main()
