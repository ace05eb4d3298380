"""From the death of a leader to the first commit of another, with default settings.

    python -m benchmarks failover [--runs 20] [--only txraft,etcd]

The leader's process gets SIGKILL while nothing is under way; from that moment on the
survivors are watched every 5 ms, inside their processes (etcd's by its client), and
whichever leads writes at once. The time is up when that write is committed. Then the
dead one is started again, and once all are equal the next leader dies. Systems take
turns, a few kills each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, ratio, short
from benchmarks.machine import Meter, syncs_per_second
from benchmarks.options import add_systems, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import tell
from benchmarks.systems import Group, System, choose
from benchmarks.systems.group import running
from benchmarks.tables import Table

DEFAULT = ["txraft", "hashicorp-64", "etcd", "pysyncobj"]
KILLS_OF_A_TURN = 5
SYNCS_FOR = 0.1
REST = 0.3
"""Seconds before each kill, in which nothing happens but heartbeats."""


def kill_once(group: Group) -> dict[str, float]:
    """Kill the leader, and measure until another one has committed."""
    leader = group.leader()
    group.wait_applied()
    syncs = syncs_per_second(group.base, SYNCS_FOR)
    meter = Meter(child.pid for child in group.processes())
    time.sleep(REST)
    foreign = meter.read().foreign_cores
    began = time.perf_counter()
    group.kill(leader)
    settle = group.first_commit(leader)
    took = time.perf_counter() - began
    settle()
    group.start_member(leader)
    return {"seconds": took, "syncs": syncs, "foreign_cores": foreign}


def take_turn(system: System, base: Path, kills: int) -> list[dict[str, Any]]:
    """Start a cluster of *system* and kill its leader a few times."""
    samples = []
    with running(system, base) as group:
        group.start()
        for _ in range(kills):
            samples.append(kill_once(group) | {"system": system.name})
    return samples


def make_table(samples: Sequence[dict[str, Any]]) -> Table:
    """Make a row for each system."""
    grouped: dict[str, list[float]] = {}
    for sample in samples:
        grouped.setdefault(sample["system"], []).append(sample["seconds"])
    header = ["system", "runs", "median", "least", "most", "txraft's median to it"]
    table = Table("Seconds from SIGKILL of the leader to the next commit", header)
    ours = Spread.of(grouped["txraft"]).median if "txraft" in grouped else None
    for name, found in grouped.items():
        spread = Spread.of(found)
        table.add(
            name,
            str(spread.count),
            *(short(value) for value in (spread.median, spread.least, spread.most)),
            short(ratio(ours, spread.median)),
        )
    table.notes = conditions(samples)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, and print a table."""
    parser = make_parser("failover", __doc__)
    add_systems(parser)
    parser.add_argument("--runs", type=int, default=20, help="of each system")
    options = parser.parse_args(arguments)
    systems = choose(options.only, DEFAULT)
    report = Report("failover", options, systems)
    samples = []
    for begun in range(0, options.runs, KILLS_OF_A_TURN):
        kills = min(KILLS_OF_A_TURN, options.runs - begun)
        for system in systems:
            tell(f"kills {begun + 1} to {begun + kills}: {system.name}")
            with tempfile.TemporaryDirectory() as base:
                samples += take_turn(system, Path(base), kills)
    report.data["samples"] = samples
    report.add(make_table(samples))
    report.finish()


if __name__ == "__main__":
    main()
