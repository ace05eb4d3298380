"""Fuzzing that coverage guides: atheris looks for inputs that reach what is new."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import samples

ROOT = Path(__file__).resolve().parents[2]

MAX_BYTES = 4_096

GRACE_SECONDS = 120
"""How long a process may take to begin and to end, beside its time."""

_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True, slots=True)
class Guided:
    """What a run came to; *findings* are inputs, in hexadecimal."""

    executions: int
    covered: int
    findings: list[str]


def run_guided(
    target: str, runs: int, seconds: int, seed: int, corpus: Path | None
) -> Guided:
    """Let atheris feed *target*, for so many runs or seconds, whichever ends first.

    It begins with captured inputs and with what is in *corpus*, where it leaves
    whatever reached something new.
    Raises: RuntimeError, if it did not run.
    """
    with TemporaryDirectory(prefix="txraft-fuzz-") as directory:
        found = corpus or Path(directory, "corpus")
        captured, artifacts = Path(directory, "captured"), Path(directory, "findings")
        for path in (found, captured, artifacts):
            path.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(samples(target)):
            (captured / str(number)).write_bytes(sample)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.guided", target),
                *(f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}"),
                *(f"-max_len={MAX_BYTES}", f"-artifact_prefix={artifacts}/"),
                *("-print_final_stats=1", "-rss_limit_mb=1024", "-timeout=10"),
                *(str(found), str(captured)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
        findings = [path.read_bytes().hex() for path in sorted(artifacts.iterdir())]
    told = done.stdout + done.stderr
    if done.returncode:
        if not findings:
            raise RuntimeError(f"nothing fed {target}: {told[-2000:]}")
        sys.stdout.write(told[-4000:] + "\n")
    return Guided(_last(_EXECUTED, told), _last(_COVERED, told), findings)


def _last(pattern: re.Pattern[str], text: str) -> int:
    numbers = pattern.findall(text)
    return int(numbers[-1]) if numbers else 0
