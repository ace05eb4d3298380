"""`python -m txraft.testing simulate`: campaigns from the command line."""

from __future__ import annotations

import argparse
import sys

from txraft.testing.campaign import LEVELS, campaign


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m txraft.testing")
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("simulate", help="run simulated clusters")
    simulate.add_argument("--level", choices=sorted(LEVELS), default="core")
    simulate.add_argument(
        "--seeds", type=seed_range, default=range(100), help="first-last, or one"
    )
    simulate.add_argument(
        "--talk", action="store_true", help="write down all that happens"
    )
    simulate.add_argument(
        "--trace",
        action="store_true",
        help="let the fingerprint cover all that happens",
    )
    options = parser.parse_args(arguments)
    figures = campaign(
        options.level, options.seeds, talk=options.talk, trace=options.trace
    )
    sys.stdout.write(figures.line() + "\n")
    return 1 if figures.failures else 0


def seed_range(text: str) -> range:
    """Read `first-last`, or a single seed."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main())
