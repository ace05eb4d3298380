"""One run: storms, steps with a known end between them, and then the verdict.

It needs namespaces of its own for everything: see `__main__`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.api import ask
from tests.chaos.clients import AnyOf, Clients
from tests.chaos.commands import command
from tests.chaos.directories import Directories
from tests.chaos.faults import Faults
from tests.chaos.history import History
from tests.chaos.journal import Journal
from tests.chaos.line import Line
from tests.chaos.net import Net
from tests.chaos.node import Node, wait_until_ready
from tests.chaos.operators import Operators
from tests.chaos.verdict import agree, counts, judge, unexpected
from tests.chaos.workloads import Session
from txraft.testing.linearizability import by_key

SIZE = 5
RELAYED = 4
PLACE = Path("/run/chaos")
SERVES = "the cluster serves"
START_SECONDS = 120.0
RECOVERY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long there is trouble, which, how clients read, and where to leave logs."""

    seconds: float
    seed: int
    reads: str = "consistent"
    keep: Path | None = None
    loud: bool = False


class Run:
    """The nodes of one run, and all that happens to them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        random = Random(plan.seed)
        self._journal = Journal(plan.loud)
        self._history = History()
        self._net = Net(SIZE)
        self._nodes = [Node(n, SIZE, PLACE) for n in range(1, SIZE + 1)]
        relayed = random.sample(range(1, SIZE + 1), RELAYED)
        self._lines = [Line(self._net, number, PLACE) for number in relayed]
        self._operators = Operators(self._nodes, self._journal, random)
        self._directories = Directories(
            self._nodes, self._operators, self._journal, random
        )
        self._faults = Faults(
            self._net, self._nodes, self._lines, self._operators, self._journal, random
        )
        hosts = [node.host for node in self._nodes]
        self._clients = Clients(hosts, self._history, plan.seed, plan.reads)
        self._session = Session("last", self._history, AnyOf(hosts, random))

    def execute(self) -> dict[str, Any]:
        """Do all of it; return the figures, with what was found."""
        try:
            self._prepare()
            self._clients.start()
            self._trouble()
            self._recover()
            self._clients.stop()
            self._compare()
            self._faults.count_lines()
        except Exception as error:
            self._journal.find(f"{type(error).__name__}: {error}")
        self._look_for_tracebacks()
        judgement = judge(self._history)
        for problem in judgement.found:
            self._journal.find(problem)
        if self._plan.keep is not None and self._journal.findings:
            self._leave(self._plan.keep)
        return self._figures(judgement.undecided)

    def _prepare(self) -> None:
        command("mount", "-t", "tmpfs", "txraft", "/run")
        PLACE.mkdir()
        self._net.create()
        for line in self._lines:
            line.start()
        for node in self._nodes:
            node.prepare()
            node.start()
        late = wait_until_ready(self._nodes, START_SECONDS)
        assert late is None, f"n{late.number} knows no leader:\n{late.output}"
        self._journal.note(SERVES)

    def _trouble(self) -> None:
        """Alternate between storms, of equal length, and steps with a known end."""
        steps = [*self._directories.steps(), self._operators.restart_in_turn]
        for step in steps:
            self._storm(self._plan.seconds / len(steps))
            self._recover()
            self._journal.note(step.__name__)
            step()

    def _storm(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._journal.findings:
            self._faults.step()

    def _recover(self) -> None:
        """End all faults and wait until everybody serves again."""
        self._faults.heal()
        self._operators.readmit_all()
        self._faults.heal()
        late = wait_until_ready(self._nodes, RECOVERY_SECONDS)
        assert late is None, f"n{late.number} knows no leader:\n{late.output}"
        self._everybody_serves()

    def _everybody_serves(self) -> None:
        """Wait until every node does a write and a read."""
        end = time.monotonic() + RECOVERY_SECONDS
        for node in self._nodes:
            served = False
            while not served:
                written = ask(node.host, "PUT", "kv/recovered", node.host)
                read = ask(node.host, "GET", "kv/recovered?raw")
                served = written.is_done and read.body == node.host.encode()
                self._faults.inspect()
                assert not self._journal.findings, "a node is gone"
                assert time.monotonic() < end, f"n{node.number} does not serve"

    def _compare(self) -> None:
        """Read all keys once more, and compare the states of all nodes."""
        for key in sorted(by_key(self._history.operations)):
            found = self._session.read(key, is_list=key.startswith("l"))
            assert found is not None, f"{key} cannot be read"
        records = agree(self._nodes, RECOVERY_SECONDS)
        if isinstance(records, str):
            self._journal.find(records)

    def _look_for_tracebacks(self) -> None:
        for node in self._nodes:
            text = node.log.read_text(errors="replace") if node.log.exists() else ""
            for problem in unexpected(text):
                self._journal.find(f"n{node.number} has written:\n{problem}")

    def _figures(self, undecided: int) -> dict[str, Any]:
        tally: Counter[str] = Counter()
        for part in (self._faults, self._operators, self._directories):
            tally += part.tally
        operations = self._history.operations
        return {
            "seconds": self._plan.seconds,
            "seed": self._plan.seed,
            "operations": len(operations),
            "known": sum(operation.is_known for operation in operations),
            "undecided_keys": undecided,
            "kinds": counts(self._history),
            "faults": dict(sorted(tally.items())),
            "findings": self._journal.findings,
        }

    def _leave(self, directory: Path) -> None:
        """Leave what is needed to understand what was found."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "journal").write_text("\n".join(self._journal.lines))
        operations = "\n".join(str(o) for o in self._history.operations)
        (directory / "history").write_text(operations)
        for node in self._nodes:
            if node.log.exists():
                shutil.copy(node.log, directory)


def execute(plan: Plan) -> int:
    """Do a run in the namespaces of this process; print its figures; 1 on a finding."""
    figures = Run(plan).execute()
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if figures["findings"] else 0
