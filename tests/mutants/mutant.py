"""One planted bug, planted in a copy of the package and never in the package itself."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from os import environ, utime
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.syntax import Found, Package, Unplantable

ROOT = Path(__file__).resolve().parents[2]

LONGEST = 90
"""Seconds that one attempt to catch a bug may take; one that does not end is caught."""

NO_END = f"it did not end within {LONGEST} seconds"


@dataclass(frozen=True)
class Mutant:
    """A defect: *old* in what is called *at* becomes *new*.

    *at* is the qualified name of a function, class or constant of the package, behind
    "file:" where several have the name; *old* and *new* are syntax, see `syntax`.

    *caught_by* is the dotted name of a test. *seed* is one of the simulation of *level*,
    core or full, that sees it as well, until the simulator draws otherwise.
    *equivalent*, instead, says why nothing can tell it from the real code.
    """

    name: str
    at: str
    old: str
    new: str
    caught_by: str = ""
    seed: int | None = None
    equivalent: str = ""
    level: str = "core"

    def find(self, package: Package) -> Found:
        """Find where it belongs.

        Raises: Unplantable if that is nowhere, or in several places.
        """
        try:
            return package.find(self.at, self.old, self.new)
        except Unplantable as error:
            raise Unplantable(f"{self.name}: {error}") from None

    def plant(self, root: Path) -> None:
        """Change the package below *root*."""
        package = root / "txraft"
        found = self.find(Package.read(package))
        path, time = package / found.path, next(_planting_times)
        path.write_text(found.planted())
        utime(path, (time, time))


_idle: list[TemporaryDirectory[str]] = []
"""Copies of the package that nobody uses now."""

_planting_times = count(1)
"""For each planted file another time: Python knows a file by its time and its size."""


@contextmanager
def copy_of_package() -> Iterator[Path]:
    """Lend a copy of the package, beside these tests, and mend it afterwards.

    It is lent again: Python compiles what no bug was planted in only once.
    """
    try:
        copy = _idle.pop()
    except IndexError:
        copy = TemporaryDirectory()
        atexit.register(copy.cleanup)
        for name in ("tests", "twisted", "examples", "docs", "README.rst"):
            (Path(copy.name) / name).symlink_to(ROOT / name)
    root = Path(copy.name)
    _mend(root)
    try:
        yield root
    finally:
        _idle.append(copy)


def _mend(root: Path) -> None:
    """Copy each file of the package that differs below *root*."""
    for original in (ROOT / "txraft").rglob("*"):
        if original.is_dir() or "__pycache__" in original.parts:
            continue
        copied = root / original.relative_to(ROOT)
        is_there = copied.exists()
        if not is_there or copied.stat().st_mtime_ns != original.stat().st_mtime_ns:
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(original, copied)


def run(root: Path, *arguments: str, seconds: int = LONGEST) -> str | None:
    """Run Python on the package below *root*.

    Returns: the last line that it writes, None if it does not end in *seconds*.
    """
    environment = {**environ, "PYTHONPATH": str(root)}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    assert lines, f"nothing came of {arguments}: {done.stderr[-2000:]}"
    return lines[-1]


def failed_seeds(root: Path, seeds: Iterable[int], level: str = "core") -> list[int]:
    """Run *seeds* of the simulation of *level* and return those that fail."""
    chosen = list(seeds)
    named = ",".join(map(str, chosen))
    simulate = ("-m", "txraft.testing", "simulate", "--level", level)
    last = run(root, *simulate, "--seeds", named)
    if last is None:
        return chosen[:1]
    found: list[int] = json.loads(last)["failed_seeds"]
    return found


def failed_tests(root: Path, names: Collection[str]) -> dict[str, str]:
    """Run tests and return those that fail.

    Each has the errors that are no catch, "" if there were none, or `NO_END`.
    """
    seconds = LONGEST * len(names)
    last = run(root, "-m", "tests.mutants.runner", *names, seconds=seconds)
    if last is None:
        return dict.fromkeys(names, NO_END)
    found: dict[str, str] = json.loads(last)
    return found
