"""Forwarded: what other members ask of this node while it leads.

    received ──> queued ──> appended ──> answered: its places, once all are committed
       │            │           └── leadership lost: unknown, it may still commit
       └── refused  └── not appended

All commands of one message are appended side by side, and answered in one message. They
count against the same limits as the proposals of this node. The answer tells places in
the log and no results: whoever asked applies these entries itself.

A place is told only for an entry that is committed *and still in the log*: a leader
that was cut off may learn from its successor that all up to an index is committed, and
have another entry there by then.

Whether somebody leads, and may ask, is for the shell to know.

Source: Raft dissertation §6.2, §6.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    LEADER_FULL,
    NOT_APPENDED,
    TOO_LARGE,
    UNKNOWN,
    ForwardRequest,
    ForwardResponse,
    Header,
    Place,
)
from txraft.errors import QueueFull
from txraft.interfaces import IncomingRPC
from txraft.node.pending import Pending

TermAt = Callable[[int], int | None]
"""The term of the entry at an index of the log, None if that is not known."""


class ForwardedCommands:
    """The commands of one message, with their entries once they are to be appended.

    One that is larger than *max_bytes* has no entry.
    """

    __slots__ = ("commands", "entries", "max_bytes", "rpc", "size")

    def __init__(
        self, rpc: IncomingRPC, request: ForwardRequest, max_bytes: int
    ) -> None:
        self.rpc = rpc
        self.commands = request.commands
        self.max_bytes = max_bytes
        fitting = [data for data in self.commands if len(data) <= max_bytes]
        self.entries = [Entry(0, 0, LogType.COMMAND, data) for data in fitting]
        self.size = sum(map(len, fitting))

    @property
    def last(self) -> int:
        """The index of the last entry, 0 if it is not appended."""
        return self.entries[-1].index

    def places(self, commit_index: int, term_at: TermAt) -> tuple[Place, ...]:
        """Return where each command stands when all up to *commit_index* is committed.

        Of what is appended behind that nobody knows; nor, where the log has an entry of
        another term by now, of the one before it.
        """
        of_entries = self._of_entries(commit_index, term_at)
        return tuple(
            next(of_entries) if len(data) <= self.max_bytes else TOO_LARGE
            for data in self.commands
        )

    def _of_entries(self, commit_index: int, term_at: TermAt) -> Iterator[Place]:
        for entry in self.entries:
            if not entry.index:
                yield NOT_APPENDED
            # The same index and term is the same entry (Log Matching). Whoever asked
            # may still have the entry that was replaced here: with the index alone it
            # would commit that.
            elif entry.index <= commit_index and term_at(entry.index) == entry.term:
                yield (entry.index, entry.term)
            else:
                yield UNKNOWN


class Forwarded:
    """What members have asked of one leader; each request is answered once.

    *pending* lends the room for commands, of which each has at most *max_entry_bytes*.
    Answers have *header*, and *term_at* looks into the log. `queued` are to be appended
    in the next turn, and `questions` are the reads that consensus was not asked about.
    """

    def __init__(
        self,
        pending: Pending,
        max_entry_bytes: int,
        header: Header,
        term_at: TermAt,
    ) -> None:
        self._pending = pending
        self._max_entry_bytes = max_entry_bytes
        self._header = header
        self._term_at = term_at
        self.queued: list[ForwardedCommands] = []
        self.questions: list[IncomingRPC] = []
        # In the order of their indexes, which is that of their answers.
        self._appended: deque[ForwardedCommands] = deque()
        self._asked: dict[IncomingRPC, None] = {}

    def take(self, rpc: IncomingRPC, request: ForwardRequest) -> None:
        """Queue what *rpc* asks for, or answer it at once when there is no room."""
        # How many there can be is bounded by the transport, which reads no connection
        # further that has too many requests without an answer, or too large ones.
        if not request.commands:
            self._asked[rpc] = None
            self.questions.append(rpc)
            return
        message = ForwardedCommands(rpc, request, self._max_entry_bytes)
        if not message.entries:
            self._answer(rpc, message.places(0, self._term_at))
            return
        try:
            self._pending.reserve(len(message.entries), message.size)
        except QueueFull:
            self._answer(rpc, (LEADER_FULL,) * len(request.commands))
        else:
            self.queued.append(message)

    def refuse(
        self, rpc: IncomingRPC, request: ForwardRequest, leader: str | None
    ) -> None:
        """Answer that nothing was done, as *leader* leads if anybody does."""
        self._answer(rpc, (NOT_APPENDED,) * (len(request.commands) or 1), leader)

    def keep(self, messages: Iterable[ForwardedCommands], leader: str | None) -> None:
        """Keep those that were appended until they are committed; refuse the others."""
        for message in messages:
            if message.last:
                self._appended.append(message)
            else:
                self._settle(message, 0, leader)

    def committed(self, commit_index: int) -> None:
        """Answer what is committed as a whole."""
        appended = self._appended
        while appended and appended[0].last <= commit_index:
            self._settle(appended.popleft(), commit_index)

    def take_questions(self) -> list[IncomingRPC]:
        """Take the reads that are new, to ask consensus for all of them together."""
        questions, self.questions = self.questions, []
        return questions

    def confirmed(
        self, questions: Iterable[IncomingRPC], index: int, term: int
    ) -> None:
        """Answer *questions* with the read index, where an entry of *term* is."""
        for rpc in questions:
            # Not one that was refused when leadership ended.
            if self._asked.pop(rpc, rpc) is None:
                self._answer(rpc, ((index, term),))

    def leadership_lost(self, commit_index: int, leader: str | None) -> None:
        """Answer all: what is appended behind *commit_index* may commit, or not."""
        # Taken out before any is answered, as more may come in meanwhile.
        appended, self._appended = self._appended, deque()
        queued, self.queued = self.queued, []
        asked, self._asked = self._asked, {}
        self.questions.clear()
        for message in (*appended, *queued):
            self._settle(message, commit_index, leader)
        for rpc in asked:
            self._answer(rpc, (NOT_APPENDED,), leader)

    def _settle(
        self,
        message: ForwardedCommands,
        commit_index: int,
        leader: str | None = None,
    ) -> None:
        self._pending.release(len(message.entries), message.size)
        places = message.places(commit_index, self._term_at)
        self._answer(message.rpc, places, leader)

    def _answer(
        self, rpc: IncomingRPC, places: tuple[Place, ...], leader: str | None = None
    ) -> None:
        rpc.respond(ForwardResponse(places, leader, self._header))
