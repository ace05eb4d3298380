"""Campaigns: many seeds, one line of figures, and how to replay what failed."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from txraft.testing.fullstack.simulation import FullSimulation
from txraft.testing.simulation.conversation import Conversation
from txraft.testing.simulation.simulation import Simulation

LAST_LINES = 40
"""Lines of the conversation that are shown of a seed that failed."""

MAX_SHOWN = 5
"""Seeds that failed and are shown; all are counted."""


@dataclass(slots=True)
class Outcome:
    """What one seed came to; *finding* says what was wrong, if anything."""

    seed: int
    events: int
    faults: int
    seconds: float
    operations: int
    undecided: int
    fingerprint: int
    finding: str | None = None


@dataclass(slots=True)
class Figures:
    """What a campaign came to."""

    level: str
    seeds: int = 0
    failures: int = 0
    failed_seeds: list[int] = field(default_factory=list)
    events: int = 0
    faults: int = 0
    simulated_seconds: float = 0.0
    operations_checked: int = 0
    undecided_keys: int = 0
    cpu_seconds: float = 0.0
    events_per_second: int = 0
    fingerprint: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one seed."""
        self.seeds += 1
        self.events += outcome.events
        self.faults += outcome.faults
        self.simulated_seconds += outcome.seconds
        self.operations_checked += outcome.operations
        self.undecided_keys += outcome.undecided
        self.fingerprint = (self.fingerprint * 31 + outcome.fingerprint) % (1 << 32)
        if outcome.finding is not None:
            self.failures += 1
            self.failed_seeds.append(outcome.seed)

    def line(self) -> str:
        """Return all figures as one line of JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["simulated_seconds"] = round(self.simulated_seconds, 1)
        values["cpu_seconds"] = round(self.cpu_seconds, 2)
        return json.dumps(values)


Level = Callable[[int, Conversation | None], Outcome]
"""Runs one seed, writing into a conversation if there is one."""


def run_core(seed: int, conversation: Conversation | None = None) -> Outcome:
    """Run one seed of the core simulation."""
    return _run(Simulation(seed, conversation))


def run_full(seed: int, conversation: Conversation | None = None) -> Outcome:
    """Run one seed of the simulation of whole nodes."""
    return _run(FullSimulation(seed, conversation))


def _run(simulation: Simulation | FullSimulation) -> Outcome:
    finding = None
    try:
        simulation.run()
    except Exception as error:
        finding = _name(error)
    return Outcome(
        seed=simulation.seed,
        events=simulation.schedule.events,
        faults=simulation.faults,
        seconds=simulation.schedule.now / 1e6,
        operations=len(simulation.workload.history),
        undecided=simulation.undecided,
        fingerprint=simulation.fingerprint,
        finding=finding,
    )


def _name(error: Exception) -> str:
    """Say what went wrong and where: any error in a run is a finding."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"


LEVELS: dict[str, Level] = {"core": run_core, "full": run_full}
"""The simulations that can be run by name."""


def campaign(
    level: str,
    seeds: Iterable[int],
    write: Callable[[str], object] = sys.stdout.write,
    talk: bool = False,
    trace: bool = False,
) -> Figures:
    """Run *seeds*, showing how to replay those that fail, and return the figures.

    With *talk* every line of every run is written; with *trace* the fingerprint
    covers all of them.
    """
    figures = Figures(level)
    began = time.process_time()
    for seed in seeds:
        conversation = _conversation(write, talk) if talk or trace else None
        outcome = LEVELS[level](seed, conversation)
        if conversation is not None:
            outcome.fingerprint ^= conversation.digest
        figures.add(outcome)
        if outcome.finding is not None and figures.failures <= MAX_SHOWN:
            _show(level, outcome, write)
    figures.cpu_seconds = time.process_time() - began
    figures.events_per_second = int(figures.events / max(figures.cpu_seconds, 1e-9))
    return figures


def _conversation(write: Callable[[str], object], talk: bool) -> Conversation:
    return Conversation(LAST_LINES, (lambda line: write(line + "\n")) if talk else None)


def _show(level: str, outcome: Outcome, write: Callable[[str], object]) -> None:
    """Replay a seed that failed, and write down how it ended."""
    seed = outcome.seed
    conversation = Conversation(LAST_LINES)
    LEVELS[level](seed, conversation)
    for line in conversation.lines:
        write(line + "\n")
    write(f"seed {seed}: {outcome.finding}\n")
    write(
        f"replay: python -m txraft.testing simulate --level {level} "
        f"--seeds {seed}-{seed} --talk\n\n"
    )
