"""Operators change leadership and membership by HTTP, and restart nodes in turn."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from tests.chaos.api import Answer, ask
from tests.chaos.journal import Journal
from tests.chaos.node import Node, wait_until_ready

PATIENCE = 90.0
ASK_SECONDS = 8.0


class Operators:
    """An operator of *nodes*, who removes at most one of them at a time."""

    def __init__(self, nodes: Sequence[Node], journal: Journal, random: Random) -> None:
        self.tally: Counter[str] = Counter()
        self._nodes = nodes
        self._journal = journal
        self._random = random

    def transfer(self, node: Node) -> None:
        """Hand leadership to *node*, or to whomever the leader chooses."""
        target = self._random.choice((f"?id={node.address}", ""))
        path = f"operator/raft/transfer-leader{target}"
        answer = self._ask_any("POST", path)
        self._count("transfers", node, answer.is_done)

    def remove(self, node: Node) -> None:
        """Remove *node*, whatever else is wrong, if all others are members.

        What became of it is found out by `readmit`.
        """
        if any(each.may_leave for each in self._nodes):
            return
        node.may_leave = True
        answer = self._ask_any("DELETE", f"operator/raft/peer?address={node.address}")
        self._count("removals", node, answer.is_done)

    def readmit(self, node: Node) -> None:
        """Remove *node* for certain, empty its directory, and add it again."""
        others = [each for each in self._nodes if each is not node]
        self._insist(lambda: self._is_removed(node, others), f"n{node.number} leaves")
        node.kill()
        node.unexplained()
        if node.data.exists():
            node.wipe()
        node.configure("join: true")
        node.start()
        self._insist(lambda: self._is_added(node), f"n{node.number} is added")
        node.may_leave = False
        self._count("readmissions", node)

    def readmit_all(self) -> None:
        """Readmit whoever was removed, or may have been."""
        for node in self._nodes:
            if node.may_leave:
                self.readmit(node)

    def restart_in_turn(self) -> None:
        """Restart one node after the other, as for an upgrade."""
        for node in self._nodes:
            node.terminate()
            node.start()
            late = wait_until_ready([node], PATIENCE)
            assert late is None, f"n{node.number} is not ready after a restart"
            self._count("restarts in turn", node)

    def _is_removed(self, node: Node, others: Sequence[Node]) -> bool:
        """Ask for the removal, and tell whether all *others* know of it."""
        path = f"operator/raft/peer?address={node.address}"
        answer = ask(
            self._random.choice(others).host, "DELETE", path, timeout=ASK_SECONDS
        )
        if answer.status not in (200, 404):
            return False
        lists = [ask(each.host, "GET", "status/peers") for each in others]
        return all(each.is_done and node.address not in each.json for each in lists)

    def _is_added(self, node: Node) -> bool:
        path = f"operator/raft/peer?address={node.address}"
        return self._ask_any("PUT", path).is_done and node.is_ready()

    def _ask_any(self, method: str, path: str) -> Answer:
        host = self._random.choice(self._nodes).host
        return ask(host, method, path, timeout=ASK_SECONDS)

    def _insist(self, attempt: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not attempt():
            assert time.monotonic() < end, f"it takes too long until {what}"
            time.sleep(0.3)

    def _count(self, kind: str, node: Node, happened: bool = True) -> None:
        if happened:
            self.tally[kind] += 1
            self._journal.note(f"{kind}: n{node.number}")
