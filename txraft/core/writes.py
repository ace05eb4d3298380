"""The writes on their way to the disk, known by number.

An index may be written twice, when what stood there was truncated in between, and
only one of the two is on disk; a number never is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from txraft.core.ready import HardState, Ready


@dataclass(slots=True)
class _Write:
    """One write: when it was issued, in ticks, and what is on disk once it is done."""

    number: Final[int]
    issued: Final[int]
    last_index: Final[int]
    state: Final[HardState]


class Writes:
    """Numbers each write, and knows what is durable; *state* was found on disk.

    Writes finish in the order in which they were issued. How many there may be at
    once is the shell's limit, in bytes.
    """

    def __init__(self, state: HardState) -> None:
        self.durable_state = self._issued_state = state
        self._unfinished: deque[_Write] = deque()
        self._last_number = 0

    def issue(self, ready: Ready, state: HardState, last_index: int, now: int) -> None:
        """Put into *ready* what has to be written, and its number."""
        if state is not self._issued_state and state != self._issued_state:
            ready.hard_state = self._issued_state = state
        ready.has_write = ready.changes_log or ready.hard_state is not None
        if ready.has_write:
            self._last_number += 1
            self._unfinished.append(_Write(self._last_number, now, last_index, state))
        ready.write_number = self._last_number

    def synced(self, number: int) -> int:
        """Learn that all writes up to *number* are durable.

        Returns: the last index of the log as the newest of them left it, 0 if
            none of them is news.
        """
        last_index = 0
        while self._unfinished and self._unfinished[0].number <= number:
            write = self._unfinished.popleft()
            last_index, self.durable_state = write.last_index, write.state
        return last_index

    def oldest_age(self, now: int) -> int:
        """Return for how many ticks the oldest unfinished write has waited."""
        return now - self._unfinished[0].issued if self._unfinished else 0
