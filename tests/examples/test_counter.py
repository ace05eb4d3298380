"""The example that the documentation shows works, and goes on after a restart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import TestCase

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "counter.py"


class CounterExample(TestCase):
    """A Twisted application with its own state machine, as a user runs it."""

    def count(self, directory: str, steps: int) -> list[str]:
        """Run the example and return what it says, line by line."""
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), directory, str(steps)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        return done.stdout.splitlines()

    def test_count_survives_restart(self) -> None:
        """What was applied before a restart is there after it."""
        with TemporaryDirectory() as directory:
            first = self.count(directory, 2)
            second = self.count(directory, 1)

        self.assertEqual(
            [line.split(" at ")[0] for line in first + second],
            [
                "the counter is 1",
                "the counter is 2",
                "the counter is 3",
            ],
        )
