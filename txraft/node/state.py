"""What a node is doing, as its users see it."""

from __future__ import annotations

from enum import IntEnum


class RaftState(IntEnum):
    """The states of a node; a pre-candidate counts as a candidate."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    SHUTDOWN = 3

    def __str__(self) -> str:
        return self.name.capitalize()
