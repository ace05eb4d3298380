"""Faults of data directories: they are swapped, copied, set back or emptied.

Each step is taken by the book: how it must end is known and asserted. Clients go on
meanwhile, as a majority runs.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from tests.chaos.api import ask
from tests.chaos.journal import Journal
from tests.chaos.node import Node, wait_until_ready
from tests.chaos.operators import PATIENCE, Operators

REFUSAL_SECONDS = 60.0


class Directories:
    """Mishaps with the data directories of *nodes*, which all run and are well."""

    def __init__(
        self,
        nodes: Sequence[Node],
        operators: Operators,
        journal: Journal,
        random: Random,
    ) -> None:
        self.tally: Counter[str] = Counter()
        self._nodes = nodes
        self._operators = operators
        self._journal = journal
        self._random = random
        self._news = 0

    def steps(self) -> list[Callable[[], None]]:
        """List all mishaps."""
        return [self.swap, self.copy, self.set_back, self.empty]

    def swap(self) -> None:
        """Two nodes that find each other's directory do not start, and say whose it is.

        With their own directories they go on.
        """
        one, other = self._random.sample(self._nodes, 2)
        for node in (one, other):
            node.kill()
        _exchange(one, other)
        for node, owner in ((one, other), (other, one)):
            self._must_refuse(node, owner)
        _exchange(one, other)
        self._go_on("directories swapped", one, other)

    def copy(self) -> None:
        """A node with a copy of another's directory does not start, and says so."""
        node, owner = self._random.sample(self._nodes, 2)
        aside = node.directory / "aside"
        node.kill()
        owner.kill()
        node.data.rename(aside)
        shutil.copytree(owner.data, node.data)
        owner.start()
        self._must_refuse(node, owner)
        node.wipe()
        aside.rename(node.data)
        self._go_on("directories copied", node)
        self._wait_ready(owner)

    def set_back(self) -> None:
        """A follower with an older copy of its own directory does no harm.

        It has forgotten entries that it has acknowledged, and nothing in it tells. Its
        leader notices when it denies one, and has everybody refuse it until it was
        removed and added. A new leader cannot know, nor one who has to send a snapshot
        anyway: then it just catches up, and the others have what it has forgotten.
        """
        leader = ask(self._nodes[0].host, "GET", "status/leader").body.decode()
        followers = [node for node in self._nodes if node.address not in leader]
        node = self._random.choice(followers)
        copy = node.directory / "copy"
        node.kill()
        shutil.copytree(node.data, copy)
        node.start()
        self._wait_until(lambda: self._has_news(node), f"n{node.number} has news")
        node.kill()
        node.wipe()
        copy.rename(node.data)
        node.start()
        self._wait_until(
            lambda: self._is_refused(node) or self._has_news(node),
            f"n{node.number} is refused or catches up",
        )
        self._count("directories set back", node)
        if self._is_refused(node):
            self._operators.readmit(node)
            self._count("set back and refused", node)

    def empty(self) -> None:
        """A node without its directory is refused until it was removed and added."""
        node = self._random.choice(self._nodes)
        node.kill()
        node.wipe()
        node.configure_as_founder()
        node.start()
        self._wait_until(lambda: self._is_refused(node), f"n{node.number} is refused")
        assert not self._holds_keys(node), f"n{node.number} got keys, though refused"
        self._operators.readmit(node)
        self._count("directories emptied", node)

    def _must_refuse(self, node: Node, owner: Node) -> None:
        """Start *node*, which must end at once: the files are those of *owner*."""
        node.excuses = {f"belongs to node '{owner.address}'"}
        node.start()
        status = node.wait_end(REFUSAL_SECONDS)
        assert status is not None, f"n{node.number} runs with files of n{owner.number}"
        problem = node.unexplained()
        assert problem is None, problem
        node.excuses.clear()

    def _is_refused(self, node: Node) -> bool:
        """Tell whether another node says that it refuses *node*."""
        for each in self._nodes:
            answer = ask(each.host, "GET", "agent/self")
            if each is not node and answer.is_done:
                refused = answer.json["Stats"]["raft"].get("refused_peers", "")
                if node.address in refused.split(", "):
                    return True
        return False

    def _has_news(self, node: Node) -> bool:
        """Write something new, and tell whether *node* itself has it soon after."""
        self._news += 1
        ask(node.host, "PUT", "kv/news", str(self._news))
        time.sleep(0.5)
        found = ask(node.host, "GET", "kv/news?raw&stale")
        return found.body == str(self._news).encode()

    def _holds_keys(self, node: Node) -> bool:
        answer = ask(node.host, "GET", "kv/?keys&stale")
        return answer.is_done and bool(answer.json)

    def _go_on(self, kind: str, *nodes: Node) -> None:
        for node in nodes:
            if not node.runs:
                node.start()
            self._wait_ready(node)
            self._count(kind, node)

    def _wait_ready(self, node: Node) -> None:
        late = wait_until_ready([node], PATIENCE)
        assert late is None, f"n{node.number} is not ready:\n{node.output}"

    def _wait_until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"it takes too long until {what}"
            time.sleep(0.2)

    def _count(self, kind: str, node: Node) -> None:
        self.tally[kind] += 1
        self._journal.note(f"{kind}: n{node.number}")


def _exchange(one: Node, other: Node) -> None:
    """Swap two directories, which lie on disks of their own."""
    aside = one.directory / "aside"
    one.data.rename(aside)
    shutil.copytree(other.data, one.data)
    other.wipe()
    shutil.copytree(aside, other.data)
    shutil.rmtree(aside)
