"""The systems under measurement: txraft and its peers, behind the same methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Protocol, TypeVar

from benchmarks.systems.bare import BARE_SYSTEMS
from benchmarks.systems.etcd import ETCD_SYSTEMS
from benchmarks.systems.group import Group, System
from benchmarks.systems.hashicorp import HASHICORP_SYSTEMS
from benchmarks.systems.pysyncobj import PYSYNCOBJ_SYSTEMS
from benchmarks.systems.txraft import TXRAFT_SYSTEMS

__all__ = ["SYSTEMS", "Described", "Group", "System", "choose", "choose_from"]

SYSTEMS: list[System] = [
    *TXRAFT_SYSTEMS,
    *HASHICORP_SYSTEMS,
    *ETCD_SYSTEMS,
    *PYSYNCOBJ_SYSTEMS,
    *BARE_SYSTEMS,
]


class Described(Protocol):
    """What every system tells of itself."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def durable(self) -> str:
        """How a write is synced."""

    @property
    def note(self) -> str:
        """How it is set up."""

    @property
    def missing(self) -> Callable[[], str | None]:
        """What says what to install."""

    @property
    def version(self) -> Callable[[], str]:
        """What names what runs."""


S = TypeVar("S", bound=Described)


def choose(only: list[str] | None, default: list[str]) -> list[System]:
    """Return the systems whose names match one of *only*, or those of *default*."""
    return choose_from(SYSTEMS, only or default)


def choose_from(systems: Sequence[S], wanted: list[str]) -> list[S]:
    """Return the *systems* whose names match one of *wanted*.

    What is not installed is left out, with a message that says what to install.
    Raises: SystemExit, if a pattern fits none or nothing is left.
    """
    for pattern in wanted:
        if not any(fnmatch(system.name, pattern) for system in systems):
            names = ", ".join(system.name for system in systems)
            raise SystemExit(f"{pattern!r} fits none of: {names}")
    left = []
    for system in systems:
        if not any(fnmatch(system.name, pattern) for pattern in wanted):
            continue
        problem = system.missing()
        if problem is None:
            left.append(system)
        else:
            print(f"{system.name} is left out: {problem}", flush=True)
    if not left:
        raise SystemExit("nothing that could be measured is installed")
    return left
