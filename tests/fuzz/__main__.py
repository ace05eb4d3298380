"""`python -m tests.fuzz`: the longer job.

Without `--coverage` inputs are random mutations of good ones, replayed by a seed; with
it, atheris finds them, where that is installed. The last line is JSON, and the status
is 1 if anything was found; `--target X --input HEX` replays that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.coverage import MAX_BYTES, run_guided
from tests.fuzz.targets import TARGETS, samples

MAX_MUTATIONS = 6

MAX_FINDINGS = 3
"""Findings after which a target is fed no more."""


def mutated(data: bytes, random: Random) -> bytes:
    """Change *data* in a few places."""
    content = bytearray(data)
    for _ in range(random.randint(1, MAX_MUTATIONS)):
        at = random.randint(0, len(content))
        match random.randint(0, 5):
            case 0:
                content[at : at + 1] = bytes([random.randint(0, 255)])
            case 1:
                content[at:at] = random.randbytes(random.randint(1, 9))
            case 2:
                del content[at : at + random.randint(1, 20)]
            case 3:
                start = random.randint(0, len(content))
                content[at:at] = content[start : start + random.randint(1, 40)]
            case 4:
                interesting = (0, 1, 0x7F, 0x80, 0xC0, 0xCF, 0xDB, 0xDD, 0xDF, 0xFF)
                content[at : at + 1] = bytes([random.choice(interesting)])
            case _:
                del content[at:]
    return bytes(content[:MAX_BYTES])


def run(target: str, runs: int, seed: int) -> tuple[int, list[str]]:
    """Feed *target* and return how often, and what was found, as hexadecimal inputs."""
    random, good, findings = Random(f"{seed} {target}"), samples(target), []
    for number in range(runs):
        data = mutated(random.choice(good), random)
        try:
            TARGETS[target](data)
        except Exception:
            findings.append(data.hex())
            sys.stdout.write(f"{target}: {data.hex()}\n{traceback.format_exc()}\n")
            if len(findings) == MAX_FINDINGS:
                return number + 1, findings
    return runs, findings


def feed(target: str, options: argparse.Namespace) -> dict[str, int]:
    """Feed one target as the command line says, and return its figures."""
    began = time.monotonic()
    covered: dict[str, int] = {}
    if options.coverage:
        corpus = options.corpus / target if options.corpus else None
        guided = run_guided(target, options.runs, options.seconds, options.seed, corpus)
        executions, findings = guided.executions, guided.findings
        covered = {"covered": guided.covered}
        for data in findings:
            sys.stdout.write(f"{target}: {data}\n")
    else:
        executions, findings = run(target, options.runs, options.seed)
    seconds = round(time.monotonic() - began, 1)
    figures = {"executions": executions, **covered, "findings": len(findings)}
    sys.stdout.write(f"{target}: {figures} in {seconds} s\n")
    sys.stdout.flush()
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Fuzz one target or all of them; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", choices=sorted(TARGETS))
    parser.add_argument("--runs", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", help="one input, as it was printed")
    parser.add_argument("--coverage", action="store_true", help="use atheris")
    parser.add_argument(
        "--seconds", type=int, default=600, help="for each target, with --coverage"
    )
    parser.add_argument(
        "--corpus", type=Path, help="where atheris keeps inputs that reach new code"
    )
    options = parser.parse_args(arguments)
    targets = [options.target] if options.target else sorted(TARGETS)
    if options.input is not None:
        TARGETS[targets[0]](bytes.fromhex(options.input))
        return 0
    began = time.monotonic()
    told = {target: feed(target, options) for target in targets}
    findings = _sum(told, "findings")
    figures = {
        "targets": len(targets),
        "executions": _sum(told, "executions"),
        "findings": findings,
        "seconds": round(time.monotonic() - began, 1),
        "by_target": told,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if findings else 0


def _sum(told: dict[str, dict[str, int]], name: str) -> int:
    return sum(figures[name] for figures in told.values())


if __name__ == "__main__":
    sys.exit(main())
