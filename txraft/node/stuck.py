"""A state machine that does not get on, though committed entries wait for it.

It only tells. Nothing else here depends on it: entries are still written, and the
leadership is not handed round, as the next state machine may hang at the same entry.
"""

from __future__ import annotations

from twisted.logger import Logger

LONGEST_STEP = 1.0
"""Seconds that one look adds at most: a process that was paused is not stuck."""

REPEAT_SECONDS = 60.0
"""The first wait before it is said again; each further one is twice as long."""


class StuckWatch:
    """Looks at each tick whether the applied index moves, for the server *node*.

    `seconds` is for how long it has not, though there is what could be applied, once
    that is longer than *limit*; 0.0 otherwise.
    """

    log = Logger()

    def __init__(self, node: str, limit: float) -> None:
        self._node = node
        self._limit = limit
        self._index = -1
        self._looked = 0.0
        self._waited = 0.0
        self._told = 0
        self._next = limit
        self.seconds = 0.0

    def look(self, now: float, applied: int, backlog: int) -> None:
        """Take note that *backlog* entries wait behind the index that is *applied*."""
        if not backlog or applied != self._index:
            if self._told:
                self.log.info(
                    "{node} applies entries again, after {waited:.0f} s at {index}",
                    node=self._node,
                    waited=self._waited,
                    index=self._index + 1,
                )
            self._index, self._waited, self._told = applied, 0.0, 0
            self._next = self._limit
        else:
            self._waited += min(now - self._looked, LONGEST_STEP)
        self._looked = now
        self.seconds = self._waited if self._waited >= self._limit else 0.0
        if self._waited >= self._next:
            self._tell(backlog)

    def _tell(self, backlog: int) -> None:
        self._next = self._waited + REPEAT_SECONDS * (1 << min(self._told, 6))
        self._told += 1
        self.log.warn(
            "the state machine of {node} has not finished entry {index} for "
            "{waited:.0f} s, and {backlog} committed ones wait: what it has returned "
            "does not fire. Until it does nothing is applied or read here",
            node=self._node,
            index=self._index + 1,
            waited=self._waited,
            backlog=backlog,
        )
