"""Runs every benchmark for a moment, with what is installed: a step of CI.

    python -m tests.benchmarks [COMMAND...]

It looks whether each ends well and writes what it should; never at a time or a rate.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
LONGEST = 300.0
MOMENTS = {
    "account": "--seconds 0.5",
    "disk": "--rounds 1 --count 50",
    "store": "--rounds 1 --keys 20000",
    "cluster": "--rounds 1 --seconds 0.5 --in-flight 1,64 --tls",
    "compare": "--rounds 1 --seconds 0.5 --in-flight 1,64"
    " --only txraft,hashicorp-64,hashicorp-inmem,etcd,pysyncobj-5ms,bare-*",
    "latency": "--rounds 1 --seconds 0.5 --in-flight 1 --only txraft,bare-thread --rst",
    "failover": "--runs 1",
    "memory": "--entries 1000 --more 1000"
    " --only txraft-kept,hashicorp-kept,etcd-kept,pysyncobj-5ms-kept",
    "http": "--rounds 1 --seconds 0.5 --keys 256",
    "scale": "--seconds 0.5 --entries 1000 --snapshot-mib 2 --members 3,5"
    " --only *,64*,a*,2*",
    "links": "--round-trips 4 --members 3,5 --links 10",
    "reads": "--rounds 1 --waiting 1,1000",
    "forwarding": "--rounds 1 --seconds 0.5 --readers 4",
    "turns": "--rounds 1 --keys 20000",
    "objects": "--rounds 1 --seconds 0.5 --in-flight 64",
    "heartbeats": "--snapshot-mib 2 --written-mib 2 --backlog 2000 --times 1",
}
TABLES_ONLY = {"account", "disk", "heartbeats", "store", "turns"}
"""What keeps no samples of runs, and is judged by its table."""
NO_SYSTEM = {"disk", "reads", "store", "turns"}
"""What measures the machine alone."""


def run(command: str, directory: Path) -> None:
    """Run one command for a moment.

    Raises: SystemExit, if it fails or does not write what it should.
    """
    written = directory / f"{command}.json"
    arguments = [*MOMENTS[command].split(), "--json", str(written)]
    plot = directory / "plot.png"
    if command == "compare" and find_spec("matplotlib") is not None:
        arguments += ["--plot", str(plot)]
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", command, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    print(finished.stdout)
    if finished.returncode:
        raise SystemExit(
            f"{command} ended with {finished.returncode}:\n{finished.stderr}"
        )
    problem = fault(command, json.loads(written.read_text()), finished.stdout)
    if problem is None and "--plot" in arguments and not plot.stat().st_size:
        problem = "the plot is empty"
    if problem is not None:
        raise SystemExit(f"{command}: {problem}")


def fault(command: str, data: dict[str, Any], output: str) -> str | None:
    """Say what is wrong with what a command has written, if anything is."""
    if data["command"] != command:
        return f"the file is of {data['command']}"
    if not all(data["machine"].values()) or not (
        data["systems"] or command in NO_SYSTEM
    ):
        return "it does not say what was measured"
    if "---" not in output and ".. list-table::" not in output:
        return "it prints no table"
    if command in TABLES_ONLY:
        return None
    values = list(numbers(data["samples"]))
    if not values or not all(math.isfinite(value) for value in values):
        return f"its samples are no numbers: {data['samples']}"
    return None


def numbers(samples: Any) -> Iterator[float]:
    """Find every number in *samples*, however deep."""
    if isinstance(samples, int | float):
        yield samples
    elif isinstance(samples, dict | list):
        for value in samples.values() if isinstance(samples, dict) else samples:
            yield from numbers(value)


def main() -> None:
    """Run the commands that are named, or all."""
    commands = sys.argv[1:] or list(MOMENTS)
    with tempfile.TemporaryDirectory() as directory:
        for command in commands:
            run(command, Path(directory))
    print(f"{len(commands)} benchmarks run")


if __name__ == "__main__":
    main()
