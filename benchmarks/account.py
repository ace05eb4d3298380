"""Accounts for the processor time of a commit, on the leader and on a follower.

    python -m benchmarks account [--in-flight 64] [--seconds 3]

Each number in flight is measured twice: once as it is, for the processor time of the
reactor thread and of the others, which write to the disk; and once under a profiler,
for what share of the former each piece of the program has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import short
from benchmarks.members.account import OTHER, PIECES
from benchmarks.options import add_load, make_parser
from benchmarks.report import Report
from benchmarks.systems import choose
from benchmarks.systems.group import Group, running
from benchmarks.tables import Table

Costs = dict[str, float]
"""Microseconds for each entry, by piece."""


def load(group: Group, leader: int, in_flight: int, options: Any) -> float:
    """Load the cluster, and return how many entries were committed."""
    found = group.ask(
        leader,
        do="load",
        inflight=in_flight,
        seconds=options.seconds,
        bytes=options.bytes,
        keys=options.keys,
        warm_up=0.0,
    )
    group.wait_applied()
    return float(found["answered"])


def measure(group: Group, members: Sequence[int], in_flight: int, options: Any) -> Any:
    """Return the costs of each of *members*, of which the first leads."""
    leader = members[0]
    before = [group.ask(member, do="processor_time") for member in members]
    answered = load(group, leader, in_flight, options)
    after = [group.ask(member, do="processor_time") for member in members]
    for member in members:
        group.ask(member, do="start_account")
    load(group, leader, in_flight, options)
    spent = [group.ask(member, do="stop_account") for member in members]
    return [
        costs(first, last, account, answered)
        for first, last, account in zip(before, after, spent, strict=True)
    ]


def costs(before: Costs, after: Costs, spent: Costs, answered: float) -> Costs:
    """Share out what the reactor thread used; the rest is other threads'."""
    reactor = (after["reactor"] - before["reactor"]) / answered * 1e6
    others = (after["process"] - before["process"]) / answered * 1e6 - reactor
    whole = sum(spent.values())
    found = {name: seconds / whole * reactor for name, seconds in spent.items()}
    return found | {"writer and other threads": others}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write what was asked for."""
    parser = make_parser("account", __doc__)
    add_load(parser, [64], rounds=1, seconds=3.0)
    options = parser.parse_args(arguments)
    [system] = choose(["txraft"], [])
    report = Report("account", options, [system])
    with (
        tempfile.TemporaryDirectory() as base,
        running(system, Path(base), 3) as group,
    ):
        group.start()
        leader = group.leader()
        group.wait_applied()
        follower = next(number for number in range(3) if number != leader)
        for in_flight in options.in_flight:
            found = measure(group, (leader, follower), in_flight, options)
            report.data[str(in_flight)] = found
            report.add(_table(in_flight, found))
    report.finish()


def _table(in_flight: int, found: Sequence[Costs]) -> Table:
    title = f"Processor time for each entry, {in_flight} in flight, in microseconds"
    table = Table(title, ["piece", "leader", "follower"])
    names = [*(name for _, name in PIECES), OTHER, "writer and other threads"]
    for name in names:
        table.add(name, *(short(costs.get(name, 0.0)) for costs in found))
    table.add("together", *(short(sum(costs.values())) for costs in found))
    return table


if __name__ == "__main__":
    main()
