"""`python -m tests.fuzz`: the longer job.

Without `--coverage` inputs are random mutations of good ones, replayed by a seed; with
it, atheris finds them, where that is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from random import Random

from tests.fuzz.targets import TARGETS, samples

MAX_BYTES = 4_096
MAX_MUTATIONS = 6


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


def run(target: str, runs: int, seed: int) -> list[str]:
    """Feed *target* and return what was found, as hexadecimal inputs."""
    random, good, findings = Random(seed), samples(target), []
    for _ in range(runs):
        data = mutated(random.choice(good), random)
        try:
            TARGETS[target](data)
        except Exception:
            findings.append(data.hex())
            sys.stdout.write(f"{target}: {data.hex()}\n{traceback.format_exc()}\n")
            if len(findings) == 3:
                break
    return findings


def run_with_coverage(target: str, arguments: list[str]) -> None:
    """Hand *target* to atheris, which ends the process."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(["tests.fuzz", *arguments], TARGETS[target])
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    """Fuzz one target or all of them; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", choices=sorted(TARGETS))
    parser.add_argument("--runs", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", help="one input, as it was printed")
    parser.add_argument("--coverage", action="store_true", help="use atheris")
    options, rest = parser.parse_known_args(arguments)
    targets = [options.target] if options.target else sorted(TARGETS)
    if options.input is not None:
        TARGETS[targets[0]](bytes.fromhex(options.input))
        return 0
    if options.coverage:
        run_with_coverage(targets[0], rest)
    began = time.process_time()
    findings = {target: run(target, options.runs, options.seed) for target in targets}
    count = sum(map(len, findings.values()))
    figures = {
        "targets": len(targets),
        "executions": options.runs * len(targets),
        "findings": count,
        "cpu_seconds": round(time.process_time() - began, 2),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
