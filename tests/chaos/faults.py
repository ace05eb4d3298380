"""Faults of processes, cables, lines and disks, as a seed decides.

Each kind is counted when it has happened, not when it was meant to.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from random import Random

from tests.chaos.api import TIMEOUT, ask
from tests.chaos.calls import CHANGES, SYNCS, fail_syncs, kill_at
from tests.chaos.journal import Journal
from tests.chaos.line import Line
from tests.chaos.net import Net
from tests.chaos.node import Node
from tests.chaos.operators import Operators
from tests.chaos.relay import Conditions

NO_SPACE = "No space left on device"
GOOD = Conditions()
BAD = (
    Conditions(delay=0.05, spread=0.3, jitter=0.1),
    Conditions(spread=1.5),
    Conditions(jitter=0.6),
    Conditions(rate=4_000),
    Conditions(resets=0.05),
    Conditions(spread=0.2, jitter=0.1, resets=0.02),
)


class Faults:
    """Faults at *nodes*, on their cables in *net* and on the *lines* that some have."""

    def __init__(
        self,
        net: Net,
        nodes: Sequence[Node],
        lines: Sequence[Line],
        operators: Operators,
        journal: Journal,
        random: Random,
    ) -> None:
        self.tally: Counter[str] = Counter()
        self._net = net
        self._nodes = nodes
        self._lines = lines
        self._operators = operators
        self._journal = journal
        self._random = random

    def step(self) -> None:
        """Do one thing, wait a while, and often undo all of it."""
        fault = self._random.choice(self._kinds())
        fault(self._random.choice(self._nodes))
        time.sleep(self._random.uniform(0.3, 2.5))
        self.inspect()
        if self._random.random() < 0.6:
            self.heal()

    def _kinds(self) -> tuple[Callable[[Node], None], ...]:
        return (
            self._kill,
            self._kill_two,
            self._kill_leader,
            self._kill_leader,
            self._kill_all,
            self._hang,
            self._hang_leader,
            self._hang_leader,
            self._unplug,
            self._split,
            self._split,
            self._silence,
            self._lose,
            self._reject,
            self._spoil_line,
            self._spoil_line,
            self._fill,
            self._fail_syncs,
            self._kill_at_change,
            self._kill_at_change,
            self._operators.transfer,
            self._operators.remove,
        )

    def inspect(self) -> None:
        """Look for processes that have ended by themselves without an excuse."""
        for node in self._nodes:
            problem = node.unexplained()
            if problem:
                self._journal.find(problem)

    def heal(self) -> None:
        """End all faults, and start what does not run."""
        self._net.mend()
        for line in self._lines:
            line.become(GOOD)
        for node in self._nodes:
            node.free_disk()
            node.signal(signal.SIGCONT)
        self.inspect()
        for node in self._nodes:
            if not node.runs and not node.may_leave:
                node.excuses.clear()
                node.start()
        self._journal.note("healed")

    def count_lines(self) -> None:
        """Count what has happened on the lines, at the end."""
        for line in self._lines:
            for kind, count in asdict(line.become(GOOD)).items():
                self.tally[f"line: {kind}"] += count

    # Processes ------------------------------------------------------------------

    def _count(self, kind: str, node: Node, happened: bool = True) -> None:
        if happened:
            self.tally[kind] += 1
            self._journal.note(f"{kind}: n{node.number}")

    def _kill(self, node: Node) -> None:
        self._count("kills", node, node.kill())

    def _kill_two(self, node: Node) -> None:
        for each in self._random.sample(self._nodes, 2):
            self._kill(each)

    def _kill_leader(self, node: Node) -> None:
        leader = self._leader_of(node)
        if leader is not None:
            self._count("leader kills", leader, leader.runs)
            self._kill(leader)

    def _leader_of(self, node: Node) -> Node | None:
        """Return the leader that *node* knows."""
        address = ask(node.host, "GET", "status/leader").body.decode().strip('"\n')
        leaders = [each for each in self._nodes if each.address == address]
        return leaders[0] if leaders else None

    def _kill_all(self, node: Node) -> None:
        self._count("restarts of all", node)
        for each in self._nodes:
            self._kill(each)
        self.heal()

    def _hang(self, node: Node) -> None:
        self._count("pauses", node, node.signal(signal.SIGSTOP))

    def _hang_leader(self, node: Node) -> None:
        """Stop the leader until there is another one, and let both go on.

        What it is asked meanwhile it may not answer from what it knew.
        """
        leader = self._leader_of(node)
        if leader is None or not leader.signal(signal.SIGSTOP):
            return
        time.sleep(self._random.uniform(1.5, TIMEOUT))
        leader.signal(signal.SIGCONT)
        self._count("leader pauses", leader)

    # Cables and lines -----------------------------------------------------------

    def _unplug(self, node: Node) -> None:
        self._net.unplug(node.number)
        self._count("partitions", node)

    def _split(self, node: Node) -> None:
        """Leave the leader with one or two others, where clients still reach it."""
        leader = self._leader_of(node) or node
        others = [each for each in self._nodes if each is not leader]
        followers = self._random.sample(others, self._random.randint(1, 2))
        self._net.split({leader.number, *(each.number for each in followers)})
        self._count("splits", leader)
        time.sleep(self._random.uniform(1.0, TIMEOUT))

    def _silence(self, node: Node) -> None:
        others = [each.number for each in self._nodes if each is not node]
        for other in self._random.sample(others, 2):
            self._net.silence(node.number, other)
            self._count("one-way cuts", node)

    def _lose(self, node: Node) -> None:
        self._net.lose(node.number, self._random.choice((5, 15, 30)))
        self._count("losses", node)

    def _reject(self, node: Node) -> None:
        self._net.reject(node.number)
        self._count("rejections", node)

    def _spoil_line(self, node: Node) -> None:
        conditions = self._random.choice(BAD)
        number = self._random.randint(2, len(self._lines))
        for line in self._random.sample(self._lines, number):
            line.become(conditions)
        self._count("bad lines", node)
        time.sleep(self._random.uniform(1.0, 3.0))

    # Disks ----------------------------------------------------------------------

    def _fill(self, node: Node) -> None:
        node.excuses.add(NO_SPACE)
        node.fill_disk()
        self._count("disks full", node)

    def _fail_syncs(self, node: Node) -> None:
        if node.runs:
            syncs, times = self._random.choice(SYNCS), self._random.choice(("1", "1+"))
            happened, problem = fail_syncs(node, syncs, times)
            self._count("failed syncs", node, happened)
            if problem:
                self._journal.find(problem)

    def _kill_at_change(self, node: Node) -> None:
        change, when = self._random.choice(CHANGES), self._random.randint(1, 4)
        if node.runs and kill_at(node, change, when):
            node.was_killed()
            self._count(f"kills at {change}", node)
            self._count("kills", node)
