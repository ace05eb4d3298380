"""What is measured: txraft and its peers, each behind the same few methods."""

from __future__ import annotations

from fnmatch import fnmatch

from benchmarks.systems.bare import BARE_SYSTEMS
from benchmarks.systems.etcd import ETCD_SYSTEMS
from benchmarks.systems.group import Group, System
from benchmarks.systems.hashicorp import HASHICORP_SYSTEMS
from benchmarks.systems.pysyncobj import PYSYNCOBJ_SYSTEMS
from benchmarks.systems.txraft import TXRAFT_SYSTEMS

__all__ = ["SYSTEMS", "Group", "System", "choose"]

SYSTEMS: list[System] = [
    *TXRAFT_SYSTEMS,
    *HASHICORP_SYSTEMS,
    *ETCD_SYSTEMS,
    *PYSYNCOBJ_SYSTEMS,
    *BARE_SYSTEMS,
]


def choose(only: list[str] | None, default: list[str]) -> list[System]:
    """Return the systems whose names match one of *only*, or those of *default*.

    What is not installed is left out, with a message that says what to install.
    Raises: SystemExit, if a name fits none or nothing is left.
    """
    wanted = only or default
    for pattern in wanted:
        if not any(fnmatch(system.name, pattern) for system in SYSTEMS):
            names = ", ".join(system.name for system in SYSTEMS)
            raise SystemExit(f"{pattern!r} fits none of: {names}")
    found = [s for s in SYSTEMS if any(fnmatch(s.name, w) for w in wanted)]
    left = []
    for system in found:
        problem = system.missing()
        if problem is None:
            left.append(system)
        else:
            print(f"{system.name} is left out: {problem}", flush=True)
    if not left:
        raise SystemExit("nothing that could be measured is installed")
    return left
