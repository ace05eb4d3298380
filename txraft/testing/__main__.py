"""`python -m txraft.testing simulate`: run campaigns from the command line."""

from __future__ import annotations

import argparse
import sys

from twisted.logger import globalLogBeginner

from txraft.testing.campaign import LEVELS, campaign


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign that *arguments* describe, and print its figures as JSON.

    Returns: the exit status, 1 if a seed failed.
    """
    parser = argparse.ArgumentParser(prog="python -m txraft.testing")
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("simulate", help="run simulated clusters")
    simulate.add_argument("--level", choices=sorted(LEVELS), default="core")
    simulate.add_argument(
        "--seeds", type=seed_list, default=range(100), help="as in 0-99 or 3,5"
    )
    simulate.add_argument(
        "--talk", action="store_true", help="write every event of every run"
    )
    simulate.add_argument(
        "--trace",
        action="store_true",
        help="let the fingerprint cover every event",
    )
    options = parser.parse_args(arguments)
    # Faults are made on purpose here, so what nodes log of them is no news.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    summary = campaign(
        options.level, options.seeds, talk=options.talk, trace=options.trace
    )
    sys.stdout.write(summary.line() + "\n")
    return 1 if summary.failures else 0


def seed_list(text: str) -> list[int]:
    """Read seeds and ranges of them: `7`, `0-99`, `3,5,10-12`."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


if __name__ == "__main__":
    sys.exit(main())
