"""Prints the tables of a file that another command wrote with --json.

python -m benchmarks show FILE [--rst]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import written


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks show")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--rst", action="store_true", help="print tables as reStructuredText"
    )
    options = parser.parse_args(arguments)
    print(written(json.loads(options.file.read_text()), options.rst))


if __name__ == "__main__":
    main()
