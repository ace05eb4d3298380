"""The lines of the README that embed a node run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

from twisted.trial.unittest import SynchronousTestCase

from tests.support.twistd import free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(
    r"\.\. the example\n\n\.\. code-block:: python\n\n(.+?)\n\.\. its end\n", re.DOTALL
)
PORT = "8400"

PROGRAM = """\
from txraft import *

async def main():
{example}

run(main())
"""


def example() -> str:
    """Return the lines."""
    match = EXAMPLE.search((ROOT / "README.rst").read_text())
    assert match is not None, "the README has lost the marks around its example"
    return match[1]


class Readme(SynchronousTestCase):
    def test_example_is_short(self) -> None:
        """It has ten lines at most, besides empty ones."""
        lines = [line for line in example().splitlines() if line.strip()]
        self.assertLessEqual(len(lines), 10)

    def test_example_runs(self) -> None:
        """It runs, and what it says is true."""
        port = str(free_port())
        lines = indent(re.sub("^    ", "", example(), flags=re.MULTILINE), "    ")
        program = PROGRAM.format(port=port, example=lines.replace(PORT, port))
        with TemporaryDirectory() as directory:
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=directory,
                env={"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        self.assertEqual((done.stdout, done.stderr), ("1\n", ""))
