"""Options that the commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def numbers(text: str) -> list[int]:
    """Read numbers that are separated by commas."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not numbers: {text!r}") from None
    if min(found) < 1:
        raise argparse.ArgumentTypeError("numbers begin at 1")
    return found


def names(text: str) -> list[str]:
    """Read names that are separated by commas."""
    return [part for part in text.split(",") if part]


def make_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Make a parser for *command* with what every command takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=(description or "").partition("\n")[0],
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    parser.add_argument(
        "--rst", action="store_true", help="print tables as reStructuredText"
    )
    return parser


def add_systems(parser: argparse.ArgumentParser) -> None:
    """Add the choice of what is measured."""
    parser.add_argument(
        "--only", type=names, metavar="NAME,...", help="systems; * fits any name"
    )


def add_load(
    parser: argparse.ArgumentParser,
    in_flight: Sequence[int],
    rounds: int = 3,
    seconds: float = 2.0,
) -> None:
    """Add how long and how hard is measured."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of each run")
    parser.add_argument(
        "--in-flight", type=numbers, default=list(in_flight), metavar="N,..."
    )
    parser.add_argument("--bytes", type=int, default=256, help="of a value")
    parser.add_argument("--keys", type=int, default=50_000, help="that differ")
