"""`python -m tests.chaos --seconds 60`: trouble for five nodes, and the verdict.

It needs root. Processes, namespaces, cables and mounts are those of a process
namespace whose first process is killed by the kernel when this one ends, however it
does, so that nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.commands import CHECKOUT, missing, python
from tests.chaos.run import Plan, execute

LONGEST_RUN = 3_600.0
PATIENCE = 1_200.0
"""Seconds for starts, recoveries and the verdict, at the very most."""


def main(arguments: list[str]) -> int:
    """Run inside namespaces, or make them first."""
    options = _options(arguments)
    seconds = min(options.seconds, LONGEST_RUN)
    if options.inside:
        keep = options.keep and options.keep.absolute()
        reads = "stale" if options.lie else "consistent"
        return execute(Plan(seconds, options.seed, reads, keep, options.verbose))
    problem = _problem()
    if problem:
        sys.stderr.write(f"tests.chaos: {problem}\n")
        return 2
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net"]
    words += ["--fork", "--kill-child", "--mount-proc"]
    words += python("-m", "tests.chaos", "--inside", *arguments)
    return subprocess.run(
        words, cwd=CHECKOUT, check=False, timeout=seconds + PATIENCE
    ).returncode


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60.0, help="of trouble")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave logs of a finding")
    parser.add_argument("--verbose", action="store_true", help="tell what is done")
    parser.add_argument(
        "--lie",
        action="store_true",
        help="let clients take stale reads for consistent ones: must be found",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _problem() -> str | None:
    packages = missing()
    if packages:
        return f"it needs more tools: apt-get install {' '.join(packages)}"
    if os.geteuid() != 0:
        return "it needs root, for namespaces of its own"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
