"""txraft with more members, larger values, followers that lag, and large snapshots.

    python -m benchmarks scale [--seconds 3] [--snapshot-mib 200] [--only '* members*']

Each line is a cluster of its own on loopback, loaded inside the leader's process. The
longest silence is the longest time that any follower was without a message of its
leader; a quarter of the election timeout is 250 ms. What each commit costs the leader
and a follower in processor time is measured for 3, 5 and 7 members and continued to 15.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.figures import line, short
from benchmarks.machine import Meter, syncs_per_second
from benchmarks.options import make_parser, names, numbers
from benchmarks.report import Report, conditions
from benchmarks.rounds import WARM_UP, Sample, tell
from benchmarks.systems.txraft import NEVER, TXRAFT_SYSTEMS, TxraftGroup
from benchmarks.tables import Table

KEPT = {"snapshot_interval": NEVER}
CUT_SHORT = KEPT | {"trailing_logs": 1000}
STATE_VALUE_BYTES = 4096
LARGEST_MEMBERS = 15
SMALLEST, LARGEST = 64, 65536
SETTLING_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """What the leader is told to do."""

    in_flight: int
    bytes: int
    keys: int
    seconds: float


@contextmanager
def cluster(
    size: int, config: dict[str, Any], count: int | None = None
) -> Iterator[Any]:
    """Start *count* of *size* members; yield the group and its leader's number."""
    with tempfile.TemporaryDirectory() as base:
        group = TxraftGroup(Path(base), size, config)
        try:
            group.start(count)
            leader = group.leader()
            group.wait_applied()
            yield group, leader
        finally:
            group.stop()


def loaded(
    group: TxraftGroup,
    leader: int,
    load: Load,
    meanwhile: Callable[[], object] = lambda: None,
) -> Sample:
    """Load *group* and do something *meanwhile*; measure rate, costs and silences."""
    followers = [number for number in group.members if number != leader]
    syncs = syncs_per_second(group.base)
    for number in followers:
        group.ask(number, do="silence")
    meter = Meter(group.members[number].pid for number in [leader, *followers])
    group.members[leader].tell(
        do="load",
        inflight=load.in_flight,
        seconds=load.seconds,
        bytes=load.bytes,
        keys=load.keys,
        warm_up=WARM_UP,
    )
    time.sleep(WARM_UP + SETTLING_SECONDS)
    meanwhile()
    answers = [group.members[leader].read()]
    while "rate" not in answers[-1]:
        answers.append(group.members[leader].read())
    found, used, each = answers[-1], meter.read(), meter.each()
    silences = [
        group.ask(number, do="silence")["seconds"]
        for number in group.members
        if number != leader
    ]
    return found | {
        "mib": found["rate"] * load.bytes / 2**20,
        "leader_us": each[0] / found["answered"] * 1e6,
        "follower_us": max(each[1:]) / found["answered"] * 1e6,
        "silence_ms": max(silences) * 1e3,
        "syncs": syncs,
        "foreign_cores": used.foreign_cores,
    }


def with_members(size: int, load: Load) -> Sample:
    """Measure a healthy cluster of *size*."""
    with cluster(size, {}) as (group, leader):
        return loaded(group, leader, load)


def with_follower_down(load: Load) -> Sample:
    """Measure two of three."""
    with cluster(3, {}) as (group, leader):
        group.kill((leader + 1) % 3)
        return loaded(group, leader, load)


def with_laggard(load: Load, entries: int) -> Sample:
    """Measure while an empty follower catches up with *entries* from the log."""
    with cluster(3, KEPT, count=2) as (group, leader):
        group.ask(leader, do="fill", entries=entries, bytes=256, keys=50_000)
        return loaded(group, leader, load, lambda: group.start_member(2))


@contextmanager
def large_state(mib: int, count: int) -> Iterator[Any]:
    """Start *count* of three members that hold *mib* MiB."""
    with cluster(3, CUT_SHORT, count) as (group, leader):
        keys = mib * 2**20 // STATE_VALUE_BYTES
        group.ask(
            leader,
            do="fill",
            entries=keys,
            bytes=STATE_VALUE_BYTES,
            keys=keys,
            inflight=64,
        )
        group.wait_applied()
        yield group, leader


def with_large_state(load: Load, mib: int) -> Sample:
    """Measure beside a large state, which nothing is done with."""
    with large_state(mib, 3) as (group, leader):
        return loaded(group, leader, load)


def with_snapshot_taken(load: Load, mib: int) -> Sample:
    """Measure while the leader takes a snapshot."""
    with large_state(mib, 3) as (group, leader):
        member = group.members[leader]
        return loaded(group, leader, load, lambda: member.tell(do="snapshot"))


def with_snapshot_sent(load: Load, mib: int) -> Sample:
    """Measure while an empty follower gets a snapshot."""
    with large_state(mib, 2) as (group, leader):
        group.ask(leader, do="snapshot")
        return loaded(group, leader, load, lambda: group.start_member(2))


def scenarios(options: argparse.Namespace) -> dict[str, Callable[[], Sample]]:
    """Name everything that is measured, in its order."""
    seconds, mib = options.seconds, options.snapshot_mib
    made: dict[str, Callable[[], Sample]] = {}
    for size in options.members:
        for in_flight in (64, 512):
            load = Load(in_flight, 256, 50_000, seconds)
            made[f"{size} members, {in_flight} in flight"] = (
                lambda size=size, load=load: with_members(size, load)
            )
    size = SMALLEST
    while size <= LARGEST:
        load = Load(64, size, 1_000, seconds)
        made[f"values of {size} bytes"] = lambda load=load: with_members(3, load)
        size *= 4
    usual = Load(64, 256, 50_000, seconds)
    one_key = Load(64, 256, 1, 2 * seconds)
    return made | {
        "a follower is down": lambda: with_follower_down(usual),
        f"a follower catches up with {options.entries} entries": lambda: with_laggard(
            usual, options.entries
        ),
        f"{mib} MiB of state": lambda: with_large_state(one_key, mib),
        f"a snapshot of {mib} MiB is taken": lambda: with_snapshot_taken(one_key, mib),
        f"a snapshot of {mib} MiB is sent": lambda: with_snapshot_sent(one_key, mib),
    }


def make_table(found: dict[str, Sample]) -> Table:
    """Make a row for each scenario."""
    header = ["scenario", "commits/s", "MiB/s", "p50 ms", "p99 ms", "leader's CPU"]
    header += ["a follower's", "longest silence, ms"]
    table = Table("Scale: 64 in flight and values of 256 bytes unless named", header)
    for name, sample in found.items():
        table.add(
            name,
            short(sample["rate"]),
            short(sample["mib"]),
            short(sample["p50_ms"]),
            short(sample["p99_ms"]),
            short(sample["leader_us"], "µs"),
            short(sample["follower_us"], "µs"),
            short(sample["silence_ms"]),
        )
    table.notes = conditions(list(found.values()))
    return table


def model_table(points: dict[int, list[tuple[int, float]]]) -> Table:
    """Continue the leader's cost for each commit to more members, by a line.

    *points* are numbers of members and microseconds, by the number in flight.
    """
    header = ["in flight", "members", "leader's CPU for a commit", "saturates at"]
    table = Table(
        "Where the leader saturates one core, by a line through these", header
    )
    for in_flight, measured in points.items():
        start, slope = line(measured)
        sizes = sorted({size for size, _ in measured} | {9, LARGEST_MEMBERS})
        for size in sizes:
            cost = start + slope * size
            rate = 1e6 / cost if cost > 0 else None
            table.add(str(in_flight), str(size), short(cost, "µs"), short(rate))
    table.notes = ["What is saturated is commits/s; more in flight make each cheaper."]
    return table


def model_points(
    found: dict[str, Sample], members: Sequence[int]
) -> dict[int, list[tuple[int, float]]]:
    """Collect what the model rests on: at least two sizes for a number in flight."""
    points: dict[int, list[tuple[int, float]]] = {}
    for in_flight in (64, 512):
        for size in members:
            sample = found.get(f"{size} members, {in_flight} in flight")
            if sample is not None:
                points.setdefault(in_flight, []).append((size, sample["leader_us"]))
    return {n: each for n, each in points.items() if len(each) > 1}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print tables."""
    parser = make_parser("scale", __doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--members", type=numbers, default=[3, 5, 7], metavar="N,...")
    parser.add_argument("--entries", type=int, default=100_000, help="to catch up with")
    parser.add_argument("--snapshot-mib", type=int, default=200)
    parser.add_argument(
        "--only", type=names, metavar="NAME,...", help="scenarios; * fits anything"
    )
    options = parser.parse_args(arguments)
    report = Report("scale", options, TXRAFT_SYSTEMS[:1])
    found: dict[str, Sample] = {}
    for name, measure in scenarios(options).items():
        if any(fnmatch(name, pattern) for pattern in options.only or ["*"]):
            tell(name)
            found[name] = measure()
    if not found:
        parser.error(f"{options.only} fits none of: {', '.join(scenarios(options))}")
    report.data["samples"] = found
    report.add(make_table(found))
    points = model_points(found, options.members)
    if points:
        report.add(model_table(points))
    report.finish()


if __name__ == "__main__":
    main()
