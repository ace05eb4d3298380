"""Membership changes that wait for the one before them to be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.errors import QueueFull, RaftError
from txraft.node.pending import Proposal

MAX_WAITING = 64


@dataclass(slots=True, eq=False)
class Change:
    """A membership change; *make* builds its entry from what the members are then.

    *newcomer* is the server that it may add. While *asking* that one which level of the
    state machine it understands, the change waits; *level* is what it answered, None
    without an answer. It is judged when the change is appended, as a level may become
    active meanwhile.
    """

    make: Callable[[Configuration], Entry]
    proposal: Proposal
    newcomer: str | None = None
    asking: bool = False
    level: int | None = None


class Changes:
    """The changes of one node; `waiting` has them in the order in which they came."""

    def __init__(self) -> None:
        self.waiting: deque[Change] = deque()

    def add(self, change: Change) -> None:
        """Queue *change*. Raises: QueueFull"""
        if len(self.waiting) >= MAX_WAITING:
            # Those that nobody waits for any more must not keep others out.
            left = (c for c in self.waiting if not c.proposal.withdrawn)
            self.waiting = deque(left)
        if len(self.waiting) >= MAX_WAITING:
            raise QueueFull(f"{len(self.waiting)} membership changes wait already")
        self.waiting.append(change)

    def take(self) -> Change | None:
        """Take the next one that was not withdrawn, unless it has to wait."""
        while self.waiting and not self.waiting[0].asking:
            change = self.waiting.popleft()
            if not change.proposal.withdrawn:
                return change
        return None

    def fail(self, error: RaftError) -> None:
        """Answer all that wait with *error*."""
        waiting, self.waiting = self.waiting, deque()
        for change in waiting:
            change.proposal.fail(error)
