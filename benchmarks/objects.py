"""Measures a command of a replicated object, beside ready bytes and PySyncObj.

    python -m benchmarks objects [--rounds 3] [--in-flight 64,512]

First within one node in memory, by its processor time: a command of an object, and
`apply` of bytes that are ready, each with an Outcome as a `Node` has. Then how long the
capture of a snapshot holds the reactor. Last, three processes: the object, the
key-value store and PySyncObj's replicated method, in interleaved rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from benchmarks.compare import rates_table
from benchmarks.figures import Spread, ratio, short, with_range
from benchmarks.members.txraft import Map
from benchmarks.options import add_load, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import Results, run_rounds, summarise
from benchmarks.systems import choose
from benchmarks.tables import Table
from txraft import Log, Replicated, value
from txraft.embedding.outcome import Outcome
from txraft.replicated.machine import Machine
from txraft.testing.cluster import FAST, Cluster
from txraft.testing.heap_clock import HeapClock

COMMANDS = 20_000
VALUES = 100_000
SYSTEMS = ["txraft", "txraft-objects", "pysyncobj-nobatch"]

Send = Callable[[str, bytes], Deferred[Any]]


class ReadyBytes:
    """A state machine of the same map, whose commands come encoded."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, log: Log) -> object:
        """Set one value."""
        key, _, value = (log.data or b"").partition(b"\0")
        self.values[key] = value
        return None

    def apply_batch(self, logs: Sequence[Log]) -> Sequence[object]:
        """Set many."""
        return [self.apply(log) for log in logs]

    def snapshot(self) -> Any:
        """Refuse: this takes none."""
        raise NotImplementedError

    def restore(self, source: object) -> None:
        """Refuse, too."""
        raise NotImplementedError


def bytes_of(cluster: Cluster) -> Send:
    """Return what applies bytes, as `Node.apply` does."""
    raft = cluster.leader.raft
    return lambda key, value: Outcome.of(raft.apply(key.encode() + b"\0" + value))


def object_of(cluster: Cluster) -> Send:
    """Return a command of the object."""
    return cluster.replicated(Map).put


def microseconds(make: Any, of: Callable[[Cluster], Send], in_flight: int) -> float:
    """Return the processor time of a command at one node, with so many in flight."""
    cluster = Cluster(1, FAST, make_fsm=make, clock=HeapClock())
    cluster.start()
    send, content = of(cluster), b"v" * 256
    sent = answered = 0

    def next_one(_: object = None) -> None:
        nonlocal sent
        if sent < COMMANDS:
            sent += 1
            send(f"key-{sent:06d}", content).addCallback(done)

    def done(_: object) -> None:
        nonlocal answered
        answered += 1
        next_one()

    began = time.process_time()
    for _ in range(in_flight):
        next_one()
    while answered < COMMANDS:
        cluster.clock.advance(0)
    took = time.process_time() - began
    cluster.shutdown()
    return took / COMMANDS * 1e6


@value
class Record:
    """A value as applications have them."""

    name: str
    body: str
    until: float = 0.0


class Full(Replicated):
    """Holds many."""

    def __init__(self) -> None:
        self.records = {n: Record(f"name {n}", "body", n / 7) for n in range(VALUES)}


def capture() -> float:
    """Return the milliseconds that a capture holds the reactor."""
    machine = Machine({"": Full()})
    began = time.process_time()
    machine.snapshot()
    return (time.process_time() - began) * 1e3


def at_the_node(report: Report, options: Any) -> None:
    """Measure within one process."""
    table = Table(
        "Processor time of a command at one node in memory, in microseconds",
        ["in flight", "ready bytes", "an object", "more"],
    )
    found: dict[str, Any] = {}
    for in_flight in options.in_flight:
        ready, objects = [], []
        for _ in range(options.rounds):
            ready.append(microseconds(ReadyBytes, bytes_of, in_flight))
            objects.append(microseconds(Map, object_of, in_flight))
        found[str(in_flight)] = {"ready": ready, "objects": objects}
        # What else runs on the machine only ever adds to it.
        more = min(objects) - min(ready)
        spreads = [with_range(Spread.of(each)) for each in (ready, objects)]
        table.add(str(in_flight), *spreads, short(more))
    captures = [capture() for _ in range(options.rounds)]
    table.notes = [
        f"A capture of {VALUES} values holds the reactor for {short(min(captures))} ms."
    ]
    report.data["at_the_node"] = found | {"capture_ms": captures}
    report.add(table)


def ratios(results: Results) -> Table:
    """Make the table of how many times as fast an object is, of medians."""
    points = sorted({in_flight for _, in_flight in results})
    table = Table(
        "Ratios of medians, commands of an object to others",
        ["compared with", *(f"{n} in flight" for n in points)],
    )
    for name in ("txraft", "pysyncobj-nobatch"):
        row = [
            ratio(
                results["txraft-objects", n]["rate"].median,
                results[name, n]["rate"].median if (name, n) in results else None,
            )
            for n in points
        ]
        table.add(name, *map(short, row))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write what was asked for."""
    parser = make_parser("objects", __doc__)
    add_load(parser, [64, 512])
    parser.add_argument("--alone", action="store_true", help="within one process only")
    options = parser.parse_args(arguments)
    systems = choose(SYSTEMS, []) if not options.alone else []
    report = Report("objects", options, systems)
    at_the_node(report, options)
    if systems:
        samples = run_rounds(systems, options)
        report.data["samples"] = samples
        results = summarise(samples)
        table = rates_table(systems, results)
        table.notes = conditions(samples)
        report.add(table)
        report.add(ratios(results))
    report.finish()


if __name__ == "__main__":
    main()
