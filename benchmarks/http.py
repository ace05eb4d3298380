"""Requests per second over HTTP, of txraft and of etcd's gateway.

    python -m benchmarks http [--rounds 3] [--seconds 2] [--connections 64]

Three servers on loopback, and the load from a process of its own, over connections to
the leader that are kept alive. Values are read after they were written. etcd's own
protocol is gRPC, over which `compare` measures it: its gateway turns JSON into that,
and costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from benchmarks.children import Child
from benchmarks.figures import ratio, short, with_range
from benchmarks.machine import Meter, syncs_per_second
from benchmarks.options import add_systems, make_parser
from benchmarks.report import Report, conditions
from benchmarks.rounds import WARM_UP, Results, Sample, summarise, tell
from benchmarks.systems import choose_from
from benchmarks.systems.http import KINDS, OPERATIONS, WEB_SYSTEMS, Site, WebSystem
from benchmarks.tables import Table


def measure_site(
    site: Site, loader: Child, base: Path, options: argparse.Namespace
) -> list[Sample]:
    """Measure every kind of request."""
    address = site.leader()
    keys = [f"key-{number:06d}" for number in range(options.keys)]
    value = b"v" * options.bytes
    samples = []
    for kind in KINDS:
        requests = site.requests(kind, keys, value)
        syncs = syncs_per_second(base)
        servers = Meter(child.pid for child in site.processes())
        generator = Meter([loader.pid])
        found = loader.ask(
            do="load",
            address=address,
            connections=options.connections,
            requests=[b64encode(request).decode() for request in requests],
            seconds=options.seconds,
            warm_up=WARM_UP,
        )
        used, generated = servers.read(), generator.read()
        found["cpu_us"] = used.own / found["answered"] * 1e6
        found["load_us"] = generated.own / found["answered"] * 1e6
        foreign = max(0.0, used.foreign_cores - generated.cores)
        samples.append(found | {"kind": kind, "syncs": syncs, "foreign_cores": foreign})
    return samples


def run_system(
    system: WebSystem, base: Path, options: argparse.Namespace
) -> list[Sample]:
    """Start servers and the load, and measure."""
    site = system.make(base)
    loader = Child(
        [sys.executable, "-m", "benchmarks.members.http_load"], base / "load.log"
    )
    try:
        loader.read()
        site.start()
        found = measure_site(site, loader, base, options)
    finally:
        site.stop()
        loader.stop()
    return [
        sample | {"system": system.name, "in_flight": KINDS.index(sample["kind"])}
        for sample in found
    ]


def make_table(systems: Sequence[WebSystem], results: Results) -> Table:
    """Make a row for each kind of request and system, with the ratio to the last."""
    header = ["request", "system", "per second", "p50 ms", "p99 ms"]
    header += ["servers' CPU", "txraft to it"]
    table = Table("Requests per second over HTTP (least to most)", header)
    for number, kind in enumerate(KINDS):
        ours = results.get(("txraft", number))
        for system in systems:
            found = results[system.name, number]
            table.add(
                kind,
                system.name,
                with_range(found["rate"]),
                short(found["p50_ms"].median),
                short(found["p99_ms"].median),
                short(found["cpu_us"].median, "µs"),
                short(ratio(ours and ours["rate"].median, found["rate"].median)),
            )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = make_parser("http", __doc__)
    add_systems(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--bytes", type=int, default=256, help="of a value")
    parser.add_argument("--keys", type=int, default=1024, help="that differ")
    options = parser.parse_args(arguments)
    if options.keys < OPERATIONS:
        parser.error(f"a transaction needs {OPERATIONS} keys")
    systems = choose_from(WEB_SYSTEMS, options.only or ["*"])
    report = Report("http", options, systems)
    samples: list[Sample] = []
    for number in range(options.rounds):
        for system in systems:
            tell(f"round {number + 1} of {options.rounds}: {system.name}")
            with tempfile.TemporaryDirectory() as base:
                samples += run_system(system, Path(base), options)
    report.data["samples"] = samples
    table = make_table(systems, summarise(samples))
    each = [sample["load_us"] for sample in samples]
    table.notes = conditions(samples)
    table.notes.append(
        f"The load itself took {short(min(each))} to {short(max(each))} µs of "
        "processor time for each request."
    )
    report.add(table)
    report.finish()


if __name__ == "__main__":
    main()
