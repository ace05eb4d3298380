"""A group of processes that form one cluster, whatever they run."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import Child, answers, cpu_seconds, resident_mib

LEADER_SECONDS = 30.0
CONVERGE_SECONDS = 120.0
POLL_SECONDS = 0.02
NOT_DURABLE = "no"


@dataclass(frozen=True)
class System:
    """Something that can be measured.

    *durable* tells how a majority has synced a write before it counts; *make* makes a
    group in a directory, of a number of members; *missing* says what to install, or
    None; *version* names what runs, and *note* how it is set up.
    """

    name: str
    durable: str
    make: Callable[[Path, int], Group]
    missing: Callable[[], str | None]
    version: Callable[[], str]
    note: str = ""

    @property
    def is_synced(self) -> bool:
        """Whether a write waits until it is on disk."""
        return self.durable != NOT_DURABLE


class Group(ABC):
    """Members by number, each of which can be started, killed and asked."""

    def __init__(self, base: Path, size: int) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.base = base
        self.size = size
        self.members: dict[int, Child] = {}

    @abstractmethod
    def start_member(self, number: int) -> float | None:
        """Start one member; return the seconds it says that opening took."""

    @abstractmethod
    def ask(self, number: int, **command: Any) -> dict[str, Any]:
        """Give a command to a member, or to a client of it, and return the answer."""

    @abstractmethod
    def first_commit(self, killed: int) -> Callable[[], object]:
        """Wait until a write is committed by a member other than *killed*.

        Returns: what waits until this has left nothing under way.
        """

    def start(self, count: int | None = None) -> list[float | None]:
        """Start all members, or the first *count*; return what opening them took."""
        return [self.start_member(n) for n in range(count or self.size)]

    def processes(self) -> list[Child]:
        """Return everything whose processor time counts."""
        return list(self.members.values())

    def kill(self, number: int) -> None:
        """End a member as SIGKILL does."""
        self.members.pop(number).kill()

    def stop(self) -> None:
        """Stop every member that runs."""
        for child in self.members.values():
            child.stop()
        self.members.clear()

    def leader(self) -> int:
        """Wait for a leader and return its number."""
        until = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < until:
            for number in list(self.members):
                if self.ask(number, do="status")["leads"]:
                    return number
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"no leader within {LEADER_SECONDS:.0f} s")

    def wait_applied(self) -> float:
        """Wait until all that run have applied the same; return the seconds it took."""
        began = time.monotonic()
        while time.monotonic() < began + CONVERGE_SECONDS:
            found = {self.ask(n, do="status")["applied"] for n in self.members}
            if len(found) == 1:
                return time.monotonic() - began
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"not converged after {CONVERGE_SECONDS:.0f} s")

    def resident_mib(self) -> list[float]:
        """Return the memory of each member, in their order."""
        return [resident_mib(self.members[n].pid) for n in sorted(self.members)]

    def cpu_seconds(self) -> float:
        """Return the processor time of everything that runs, in seconds."""
        return sum(cpu_seconds(child.pid) for child in self.processes())


class TalkingGroup(Group):
    """Members that take commands themselves; *addresses* are for their peers."""

    def __init__(self, base: Path, addresses: list[str]) -> None:
        super().__init__(base, len(addresses))
        self.addresses = addresses

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """Return what starts a member."""

    def start(self, count: int | None = None) -> list[float | None]:
        """Start members at the same time; see `Group`."""
        numbers = range(count or self.size)
        for number in numbers:
            self._launch(number)
        return [self.members[number].read().get("opened") for number in numbers]

    def start_member(self, number: int) -> float | None:
        """Start one member; see `Group`."""
        self._launch(number)
        return self.members[number].read().get("opened")

    def _launch(self, number: int) -> None:
        log = self.base / f"{number}.log"
        self.members[number] = Child(self.command(number), log)

    def ask(self, number: int, **command: Any) -> dict[str, Any]:
        """Give a command to a member."""
        return self.members[number].ask(**command)

    def first_commit(self, killed: int) -> Callable[[], object]:
        """Ask all members, and wait until one says so."""
        children = list(self.members.values())
        for child in children:
            child.tell(do="commit", killed=self.addresses[killed])
        found = answers(children)
        if not any(answer["committed"] for answer in found):
            raise SystemExit("no member committed a write")
        return lambda: list(found)


@contextmanager
def running(system: System, base: Path, size: int = 3) -> Iterator[Group]:
    """Make a group of *system* that is stopped at the end, and not yet started."""
    group = system.make(base, size)
    try:
        yield group
    finally:
        group.stop()
