"""Awaited entries: the outcomes, here, of commands that another node appended.

The leader tells that a command of this node is committed at an index, in a term. This
node applies it as well, and has its response then. It may have applied it before the
answer came: so while a command is on its way the responses of all entries are kept that
may be its own, those from where this node stood when it was sent.

Source: Raft dissertation, figure 3.2 (Log Matching: the same index and term is the same
entry).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from txraft.core.entry import Entry
from txraft.node.applier import Applier


class Awaiting(Protocol):
    """Whoever waits for the response to one entry; one of these is called, once."""

    def applied(self, index: int, term: int, response: object) -> None:
        """Take the *response* to the entry at *index* of *term*."""

    def overtaken(self, index: int) -> None:
        """Learn that the response to the entry at *index* is not known here."""


class AwaitedEntries:
    """The entries that are awaited on one node, by index, and recent responses.

    *max_kept* responses are kept at most. As long as nothing is on its way and awaited,
    *applier* does not even call this.
    """

    def __init__(self, applier: Applier, max_kept: int) -> None:
        self._applier = applier
        self._settled_before = applier.settled
        self._max_kept = max_kept
        self._awaited: dict[int, tuple[int, Awaiting]] = {}
        # By index, rising: the term and the response.
        self._kept: dict[int, tuple[int, object]] = {}
        # Where this node stood when each message left that is on its way.
        self._sent_at: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._awaited)

    def sent(self) -> int:
        """Keep responses from here on, for commands that leave now.

        Returns: the index up to which no entry can be one of them; for `settled`.
        """
        index = self._applier.applied_index
        if not self._sent_at and not self._awaited:
            self._applier.settled = self._settled
        if not self._sent_at:
            self._kept.clear()
        self._sent_at.append(index)
        return index

    def answered(self, sent_at: int) -> None:
        """Keep nothing any more for commands that left when *sent_at* was applied."""
        self._sent_at.remove(sent_at)
        kept = self._kept
        oldest = min(self._sent_at, default=None)
        if oldest is None:
            kept.clear()
        # Each response is dropped once, so this is no more work than to keep it.
        while kept and (first := next(iter(kept))) <= (oldest or 0):
            del kept[first]
        self._rest()

    def wait(self, index: int, term: int, awaiting: Awaiting) -> None:
        """Have *awaiting* called with the response to the entry at *index* of *term*.

        That entry is committed. It is called at once if the entry is applied already.
        """
        if index > self._applier.applied_index:
            self._awaited[index] = (term, awaiting)
            return
        kept = self._kept.get(index)
        # Of another term, or not kept: a snapshot has it, or it was long ago.
        if kept is None or kept[0] != term:
            awaiting.overtaken(index)
        else:
            awaiting.applied(index, term, kept[1])

    def forget(self, index: int) -> None:
        """Wait no more for the entry at *index*."""
        self._awaited.pop(index, None)
        self._rest()

    def installed(self, last: int) -> None:
        """Learn that a snapshot has taken the place of the entries up to *last*."""
        overtaken = [index for index in self._awaited if index <= last]
        for index in overtaken:
            awaited = self._awaited.pop(index, None)
            if awaited is not None:
                awaited[1].overtaken(index)
        self._rest()

    def _settled(self, entries: Sequence[Entry], responses: Sequence[object]) -> None:
        self._settled_before(entries, responses)
        keep = bool(self._sent_at)
        for entry, response in zip(entries, responses, strict=True):
            index, term = entry.index, entry.term
            awaited = self._awaited.pop(index, None)
            if awaited is not None:
                # The place is committed, so an entry of another term there is a fault
                # of the leader. Its response is not this command's, in any case.
                if awaited[0] == term:
                    awaited[1].applied(index, term, response)
                else:
                    awaited[1].overtaken(index)
            elif keep:
                self._kept[index] = (term, response)
        while len(self._kept) > self._max_kept:
            del self._kept[next(iter(self._kept))]
        self._rest()

    def _rest(self) -> None:
        if not self._sent_at and not self._awaited:
            self._applier.settled = self._settled_before
