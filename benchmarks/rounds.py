"""Interleaved rounds: A B C, A B C, so that a change of the machine hits all alike."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, spreads
from benchmarks.machine import Meter, syncs_per_second
from benchmarks.systems import Group, System
from benchmarks.systems.group import running

WARM_UP = 0.5

Sample = dict[str, Any]
Results = dict[tuple[str, int], dict[str, Spread]]


def measured_load(
    group: Group,
    leader: int,
    in_flight: int,
    arguments: argparse.Namespace,
    **more: object,
) -> Sample:
    """Load a group that runs, and measure what it took; *more* is asked of the load."""
    syncs = syncs_per_second(group.base)
    meter = Meter(child.pid for child in group.processes())
    found = group.ask(
        leader,
        do="load",
        inflight=in_flight,
        seconds=arguments.seconds,
        bytes=arguments.bytes,
        keys=arguments.keys,
        warm_up=WARM_UP,
        **more,
    )
    used = meter.read()
    found["cpu_us"] = used.own / found["answered"] * 1e6
    return found | {"syncs": syncs, "foreign_cores": used.foreign_cores}


def run_system(
    system: System, base: Path, arguments: argparse.Namespace, size: int = 3
) -> list[Sample]:
    """Start a fresh cluster of *system* and measure it at each number in flight."""
    samples = []
    with running(system, base, size) as group:
        group.start()
        leader = group.leader()
        group.wait_applied()
        for in_flight in arguments.in_flight:
            sample = measured_load(group, leader, in_flight, arguments)
            samples.append(sample | {"system": system.name, "in_flight": in_flight})
            group.wait_applied()
    return samples


def run_rounds(
    systems: Sequence[System], arguments: argparse.Namespace
) -> list[Sample]:
    """Measure all *systems* in turns, as often as *arguments* say."""
    samples: list[Sample] = []
    for number in range(arguments.rounds):
        for system in systems:
            tell(f"round {number + 1} of {arguments.rounds}: {system.name}")
            with tempfile.TemporaryDirectory() as base:
                for sample in run_system(system, Path(base), arguments):
                    samples.append(sample | {"round": number})
    return samples


def summarise(samples: Sequence[Sample]) -> Results:
    """Return the spreads of each value, by system and number in flight."""
    grouped: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        key = sample["system"], sample["in_flight"]
        values = {
            name: value
            for name, value in sample.items()
            if isinstance(value, int | float)
        }
        grouped.setdefault(key, []).append(values)
    return {key: spreads(found) for key, found in grouped.items()}


def tell(text: str) -> None:
    """Say what is going on, beside the output."""
    print(text, file=sys.stderr, flush=True)
