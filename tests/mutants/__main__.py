"""`python -m tests.mutants`: plant every bug and see it caught.

Each must be caught by its test, which must pass on the real code; a test that fails as
the planted code stumbles over a name or an attribute catches nothing. How many of those
that name a seed are seen by it too is only told: a seed is tied to what the code draws
at random, and `--find 100` looks for others.

The last line is JSON, and the status is 1 if a bug was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.catalogue import MUTANTS, table
from tests.mutants.mutant import (
    NO_END,
    ROOT,
    Mutant,
    copy_of_package,
    failed_seeds,
    failed_tests,
)
from tests.mutants.syntax import Package, Unplantable

TRIED_TOGETHER = 10
"""Seeds that are looked at in one run for one that sees a bug."""


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument(
        "--only", default="", help="those whose name, place or file has this"
    )
    parser.add_argument(
        "--find", type=int, default=0, metavar="N", help="first of N seeds to catch it"
    )
    parser.add_argument("--jobs", type=int, default=1, help="bugs tried side by side")
    parser.add_argument("--table", action="store_true", help="write the manual's page")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(table())
        return 0
    package = Package.read(ROOT / "txraft")
    chosen = [
        mutant
        for mutant in MUTANTS
        if options.only in mutant.name or options.only in _place(mutant, package)
    ]
    planted = [m for m in chosen if not m.equivalent]
    if options.find:
        _find_seeds(planted, options.find)
        return 0
    fails_anyway = _fails_anyway(planted)
    with ThreadPoolExecutor(options.jobs) as threads:
        tried = dict(threads.map(_try, planted))
    missed = [name for name, (caught, _) in tried.items() if not caught]
    with_seeds = [m.name for m in planted if m.seed is not None]
    seen = sum(tried[name][1] for name in with_seeds)
    verdict = {
        "planted": len(planted),
        "caught": len(planted) - len(missed),
        "equivalent": len(chosen) - len(planted),
        "with_a_seed": len(with_seeds),
        "seen_by_their_seed": seen,
        "missed": missed,
        "fails_without_a_bug": fails_anyway,
    }
    sys.stdout.write(json.dumps(verdict) + "\n")
    return 1 if missed or fails_anyway else 0


def _fails_anyway(planted: list[Mutant]) -> list[str]:
    """Run what catches bugs on the real code, and return what fails there."""
    tests = dict.fromkeys(m.caught_by for m in planted)
    seeds: dict[str, dict[int, None]] = {}
    for mutant in planted:
        if mutant.seed is not None:
            seeds.setdefault(mutant.level, {})[mutant.seed] = None
    with copy_of_package() as root:
        failed = [
            f"seed {seed} ({level})"
            for level, named in seeds.items()
            for seed in failed_seeds(root, named, level)
        ]
        return failed + list(failed_tests(root, tests))


def _find_seeds(planted: list[Mutant], seeds: int) -> None:
    """Write the first of *seeds* seeds that see each bug."""
    for mutant in planted:
        with copy_of_package() as root:
            mutant.plant(root)
            found: list[int] = []
            # A few at a time: all of them would not end within the time of one run.
            for first in range(0, seeds, TRIED_TOGETHER):
                few = range(first, min(first + TRIED_TOGETHER, seeds))
                found += failed_seeds(root, few, mutant.level)
                if found:
                    break
        sys.stdout.write(f"{mutant.name}: {found[:5] or 'none'}\n")
        sys.stdout.flush()


def _place(mutant: Mutant, package: Package) -> str:
    """Return the file and name where a bug belongs, as far as they are known."""
    try:
        return f"{mutant.find(package).path} {mutant.at}"
    except Unplantable:
        return mutant.at


def _try(mutant: Mutant) -> tuple[str, tuple[bool, bool]]:
    """Plant *mutant*; tell whether its test catches it, and whether its seed sees it."""
    caught = seen = False
    with copy_of_package() as root:
        try:
            mutant.plant(root)
            failed = failed_tests(root, [mutant.caught_by])
            caught = any(error in ("", NO_END) for error in failed.values())
            also = "".join(f"; {error}" for error in failed.values() if error)
            if mutant.seed is not None:
                seen = bool(failed_seeds(root, [mutant.seed], mutant.level))
        except (Unplantable, SyntaxError, AssertionError) as error:
            also = f": {error}"  # the others are tried all the same
    verdict = "caught by" if caught else "MISSED by"
    also += f", seen by seed {mutant.seed}" if seen else ""
    sys.stdout.write(f"{mutant.name}: {verdict} {mutant.caught_by}{also}\n")
    sys.stdout.flush()
    return mutant.name, (caught, seen)


if __name__ == "__main__":
    sys.exit(main())
