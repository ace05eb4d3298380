"""The bare data path: the same work of wire and disk, and no Raft around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.children import Child
from benchmarks.machine import package_version
from benchmarks.systems.group import Group, System


class BareGroup(Group):
    """Member 0 leads, the others follow."""

    def __init__(self, base: Path, size: int, sync: str) -> None:
        super().__init__(base, size)
        self._sync = sync

    def start_member(self, number: int) -> float | None:
        """Start followers before the leader; see `start`."""
        role = "follower" if number else "leader"
        command = [sys.executable, "-m", "benchmarks.members.bare", role]
        command += [str(self.base / f"{number}.file"), self._sync]
        self.members[number] = Child(command, self.base / f"{number}.log")
        return None

    def start(self, count: int | None = None) -> list[float | None]:
        """Start everything and connect the leader to its followers."""
        for number in range(self.size):
            self.start_member(number)
        greetings = {n: child.read() for n, child in self.members.items()}
        ports = [greetings[n]["port"] for n in range(1, self.size)]
        self.ask(0, do="connect", ports=ports)
        return [None] * self.size

    def ask(self, number: int, **command: Any) -> dict[str, Any]:
        """Give a command to a member."""
        return self.members[number].ask(**command)

    def leader(self) -> int:
        """Return the one that leads."""
        return 0

    def wait_applied(self) -> float:
        """Have nothing to wait for: a load ends with all its answers."""
        return 0.0

    def first_commit(self, killed: int) -> Callable[[], object]:
        """Refuse: nobody would take over."""
        raise SystemExit("the bare data path has no elections")


def _system(sync: str, note: str) -> System:
    return System(
        f"bare-{sync}",
        "fdatasync",
        partial(BareGroup, sync=sync),
        lambda: None,
        lambda: f"Twisted {package_version('twisted')}",
        note=note,
    )


BARE_SYSTEMS = [
    _system("inline", "no Raft: synced in the reactor's thread"),
    _system("thread", "no Raft: synced in a thread of its own"),
]
