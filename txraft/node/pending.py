"""Proposals and membership changes whose callers wait for an outcome.

    proposed ──> appended ──> applied
       │            │            └── the FSM's response
       │            └── leadership lost: unknown, it may still commit
       └── refused, too late, withdrawn: it was never in a log

Every Deferred that is handed out here fires exactly once, with the truth: *not
applied* before an entry is appended, *unknown* from then until it is committed. A
membership change waits here, too, until the one before it is committed.

Source: Raft dissertation §6.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.errors import LeadershipLost, QueueFull, RaftError
from txraft.node.metrics import Timer

_ERRORS = (RaftError, Failure)


@dataclass(slots=True)
class ApplyResult:
    """The outcome of `Raft.apply`: where the entry stands, and the FSM's response."""

    index: int
    term: int
    response: object


class Proposal:
    """An entry that somebody waits for; *deadline* bounds the wait to be appended.

    Cancelling before that withdraws it, cancelling later only detaches the waiter:
    the entry may still commit. *size* is the bytes it counts for while it waits.
    """

    __slots__ = ("deadline", "deferred", "entry", "size", "withdrawn")

    def __init__(self, entry: Entry, deadline: float | None, size: int = 0) -> None:
        self.entry = entry
        self.deadline = deadline
        self.size = size
        self.withdrawn = False
        self.deferred: Deferred[ApplyResult] = Deferred(self._cancelled)

    def _cancelled(self, _: Deferred[ApplyResult]) -> None:
        self.withdrawn = True

    def succeed(self, response: object) -> None:
        """Answer with the FSM's *response*, or fail with it if it is an error."""
        if self.withdrawn:
            return
        if isinstance(response, _ERRORS):
            self.deferred.errback(response)
        else:
            entry = self.entry
            self.deferred.callback(ApplyResult(entry.index, entry.term, response))

    def fail(self, error: RaftError) -> None:
        """Answer with *error*."""
        if not self.withdrawn:
            self.deferred.errback(error)


class Pending:
    """The proposals of one node, bounded in number and bytes.

    `queued` are to be appended at the next turn; those that are `appended`, by their
    indexes, wait to be applied. `appended_count` counts all that ever were. `commits`
    times one of them after the other, from there to its outcome.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.queued: list[Proposal] = []
        self.appended: dict[int, Proposal] = {}
        # Of data, in both of them and in what is reserved for others. The index whose
        # commit is being timed, since when.
        self._bytes = 0
        self._reserved = 0
        self._timed_index = 0
        self._timed_since = 0.0
        self.appended_count = 0
        self.commits = Timer()

    def __len__(self) -> int:
        return len(self.queued) + len(self.appended)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of data wait for an outcome."""
        return self._bytes

    def queue(self, entry: Entry, deadline: float | None) -> Proposal:
        """Queue *entry* to be appended at the next turn.

        Raises: QueueFull, if too much waits for an outcome already.
        """
        size = len(entry.data) if entry.data else 0
        waiting = len(self.queued) + len(self.appended) + self._reserved
        # Refused at once, and not queued without a bound: so the caller can slow down.
        if waiting >= self._max_entries or self._bytes + size > self._max_bytes:
            raise self._full(waiting, size)
        self._bytes += size
        proposal = Proposal(entry, deadline, size)
        self.queued.append(proposal)
        return proposal

    def reserve(self, entries: int, size: int) -> None:
        """Make room for *entries* of *size* bytes together, which others wait for.

        Raises: QueueFull
        """
        waiting = len(self.queued) + len(self.appended) + self._reserved
        too_many = waiting + entries > self._max_entries
        if too_many or self._bytes + size > self._max_bytes:
            raise self._full(waiting, size)
        self._reserved += entries
        self._bytes += size

    def release(self, entries: int, size: int) -> None:
        """Give back the room of *entries* that was reserved."""
        self._reserved -= entries
        self._bytes -= size

    def _full(self, waiting: int, size: int) -> QueueFull:
        return QueueFull(
            f"{waiting} entries of {self._bytes} bytes wait for an outcome, and "
            f"{size} bytes more are too much: max_pending_entries is "
            f"{self._max_entries}, max_pending_bytes {self._max_bytes}"
        )

    def take(self, now: float) -> tuple[list[Proposal], list[Proposal]]:
        """Take all that is queued: what may be appended, and what is too late.

        What was withdrawn is forgotten. It is for the caller to fail the late ones.
        """
        queued, self.queued = self.queued, []
        taken, late = [], []
        for proposal in queued:
            if proposal.withdrawn:
                self._forget(proposal)
            elif proposal.deadline is not None and proposal.deadline < now:
                self._forget(proposal)
                late.append(proposal)
            else:
                taken.append(proposal)
        return taken, late

    def keep(self, proposals: Iterable[Proposal]) -> list[Proposal]:
        """Keep those whose entry got an index; return the others, refused."""
        refused = []
        # Counted by the size of the dict, not once for each proposal: for speed.
        before = self.appended_count - len(self.appended)
        for proposal in proposals:
            if proposal.entry.index:
                self.appended[proposal.entry.index] = proposal
            else:
                self._forget(proposal)
                refused.append(proposal)
        self.appended_count = before + len(self.appended)
        # One proposal at a time is timed, from its append to its outcome: to read the
        # clock for each would be work for each entry.
        if self._timed_index not in self.appended and self.appended:
            self._timed_index = next(reversed(self.appended))
            self._timed_since = perf_counter()
        return refused

    def applied(self, entries: Sequence[Entry], responses: Sequence[object]) -> None:
        """Answer the callers that wait for *entries*, which have these *responses*.

        The entry at an index may be another one than that of the proposal: a later
        leader may have replaced it. Such a caller gets LeadershipLost.
        """
        if not self.appended:
            return  # for speed: on a follower nobody waits
        for entry, response in zip(entries, responses, strict=True):
            proposal = self.appended.pop(entry.index, None)
            if proposal is None:
                continue
            if entry.index == self._timed_index:
                self.commits.add(perf_counter() - self._timed_since)
            self._bytes -= proposal.size
            # The same term and index is the same entry, by the log matching property.
            if proposal.entry.term == entry.term:
                proposal.succeed(response)
            else:
                proposal.fail(LeadershipLost())

    def fail_appended_after(self, index: int, error: RaftError) -> None:
        """Fail all that is appended but may not be committed: above *index*."""
        for proposal in self._remove(i for i in self.appended if i > index):
            proposal.fail(error)

    def take_appended(self, last: int) -> list[Proposal]:
        """Take what is appended up to *last*, which will not be applied here."""
        return self._remove(i for i in self.appended if i <= last)

    def _remove(self, indexes: Iterable[int]) -> list[Proposal]:
        # All are taken out before any is failed: its caller may propose again at once.
        proposals = [self.appended.pop(index) for index in list(indexes)]
        for proposal in proposals:
            self._forget(proposal)
        return proposals

    def fail_queued(self, error: RaftError) -> None:
        """Fail all that is not appended."""
        queued, self.queued = self.queued, []
        for proposal in queued:
            self._forget(proposal)
            proposal.fail(error)

    def _forget(self, proposal: Proposal) -> None:
        self._bytes -= proposal.size


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


T = TypeVar("T")


def waiter_for(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred of *work*'s outcome that can be cancelled without harm to it.

    Nobody else may wait for *work*.
    """
    waiter: Deferred[T] = Deferred()
    work.addCallbacks(waiter.callback, waiter.errback)
    return waiter
