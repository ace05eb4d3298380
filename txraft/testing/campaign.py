"""Campaigns: run many seeds, add their figures up, and replay those that failed."""

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
class SeedOutcome:
    """The result of one seed; *finding* says what was wrong, None if nothing was."""

    seed: int
    events: int
    faults: int
    seconds: float
    operations: int
    undecided: int
    fingerprint: int
    finding: str | None = None


@dataclass(slots=True)
class CampaignSummary:
    """The results of all seeds of a campaign, added up."""

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

    def add(self, outcome: SeedOutcome) -> None:
        """Add the result of one seed."""
        self.seeds += 1
        self.events += outcome.events
        self.faults += outcome.faults
        self.simulated_seconds += outcome.seconds
        self.operations_checked += outcome.operations
        self.undecided_keys += outcome.undecided
        # The order of seeds counts: equal fingerprints mean equal runs, one by one.
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


Level = Callable[[int, Conversation | None], SeedOutcome]
"""A function that runs one seed, and writes into a conversation if there is one."""


def run_core(seed: int, conversation: Conversation | None = None) -> SeedOutcome:
    """Run one seed of the core simulation."""
    return _run(Simulation(seed, conversation))


def run_full(seed: int, conversation: Conversation | None = None) -> SeedOutcome:
    """Run one seed of the simulation of whole nodes."""
    return _run(FullSimulation(seed, conversation))


def _run(simulation: Simulation | FullSimulation) -> SeedOutcome:
    finding = None
    try:
        simulation.run()
    # Not only AssertionError: whatever a run raises, it should not have.
    except Exception as error:
        finding = _name(error)
    return SeedOutcome(
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
    """Describe an error and its place: any error in a run is a finding."""
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
) -> CampaignSummary:
    """Run *seeds*, showing how to replay those that fail, and return a summary.

    With *talk* every line of every run is written; with *trace* the fingerprint
    covers all of them.
    """
    summary = CampaignSummary(level)
    began = time.process_time()
    for seed in seeds:
        conversation = _conversation(write, talk) if talk or trace else None
        outcome = LEVELS[level](seed, conversation)
        if conversation is not None:
            outcome.fingerprint ^= conversation.digest
        summary.add(outcome)
        if outcome.finding is not None and summary.failures <= MAX_SHOWN:
            _show(level, outcome, write)
    summary.cpu_seconds = time.process_time() - began
    summary.events_per_second = int(summary.events / max(summary.cpu_seconds, 1e-9))
    return summary


def _conversation(write: Callable[[str], object], talk: bool) -> Conversation:
    return Conversation(LAST_LINES, (lambda line: write(line + "\n")) if talk else None)


def _show(level: str, outcome: SeedOutcome, write: Callable[[str], object]) -> None:
    """Replay a seed that failed, and write its last lines and its finding."""
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
