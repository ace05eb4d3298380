"""`python -m tests.mutants`: plant every bug and see it caught.

The last line is JSON: how many were planted, caught, and are equivalent. The status is
1 if one was missed, or if what catches a bug fails on the real code too.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.mutants.catalogue import MUTANTS, table
from tests.mutants.mutant import (
    Mutant,
    copy_of_package,
    failed_seeds,
    failed_tests,
    is_caught,
)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", default="", help="those whose name or file has this")
    parser.add_argument(
        "--find", type=int, default=0, metavar="N", help="first of N seeds to catch it"
    )
    parser.add_argument("--table", action="store_true", help="write the manual's page")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(table())
        return 0
    chosen = [m for m in MUTANTS if options.only in f"{m.name} {m.path}"]
    planted = [m for m in chosen if not m.equivalent]
    if options.find:
        _find_seeds(planted, options.find)
        return 0
    fails_anyway = _fails_anyway(planted)
    missed = [m.name for m in planted if not _caught(m)]
    verdict = {
        "planted": len(planted),
        "caught": len(planted) - len(missed),
        "equivalent": len(chosen) - len(planted),
        "missed": missed,
        "fails_without_a_bug": fails_anyway,
    }
    sys.stdout.write(json.dumps(verdict) + "\n")
    return 1 if missed or fails_anyway else 0


def _fails_anyway(planted: list[Mutant]) -> list[str]:
    """Run what catches bugs on the real code, and return what fails there."""
    catchers = dict.fromkeys(m.caught_by for m in planted)
    seeds = [c.removeprefix("seed ") for c in catchers if c.startswith("seed ")]
    tests = [c for c in catchers if not c.startswith("seed ")]
    with copy_of_package() as root:
        failed = [f"seed {s}" for s in failed_seeds(root, ",".join(seeds) or "0")]
        return failed + (failed_tests(root, tests) if tests else [])


def _find_seeds(planted: list[Mutant], seeds: int) -> None:
    """Write which of the first *seeds* seeds catch each bug."""
    for mutant in planted:
        with copy_of_package() as root:
            mutant.plant(root)
            found = failed_seeds(root, f"0-{seeds - 1}")
        sys.stdout.write(f"{mutant.name}: {found[:5] or 'none'}\n")
        sys.stdout.flush()


def _caught(mutant: Mutant) -> bool:
    with copy_of_package() as root:
        mutant.plant(root)
        caught = is_caught(root, mutant.caught_by)
    verdict = "caught by" if caught else "MISSED by"
    sys.stdout.write(f"{mutant.name}: {verdict} {mutant.caught_by}\n")
    sys.stdout.flush()
    return caught


if __name__ == "__main__":
    sys.exit(main())
