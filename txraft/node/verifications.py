"""Verifications: have a quorum confirm that this node leads, for all that ask.

    new ──> asked ──> confirmed ──> its index is applied ──> answered
     │        │           └── for those that do not read: answered at once
     └────────┴── leadership lost: failed

All that are new in one turn are one batch, for which consensus is asked once. A batch
that is confirmed is answered in one pass: what one read costs does not depend on how
many wait. A pass is done in slices, so that heartbeats leave in time. Nothing here ever
looks at all that wait in one go.

Source: Raft dissertation §6.4.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.errors import RaftError
from txraft.interfaces import IncomingRPC
from txraft.node.applier import Applier

LEAST_WITHDRAWN = 64
"""From so many withdrawn ones on it pays to look for them among those that wait."""


@dataclass(slots=True, eq=False)
class Verification:
    """A `verify` that somebody waits for; *applied*: until its index is applied."""

    deferred: Deferred[int]
    applied: bool


@dataclass(slots=True, eq=False)
class Batch:
    """The verifications of one turn, which consensus is asked for together.

    *readers* also wait until their index is applied, *others* do not. They are kept
    apart from the start, as to sort a hundred thousand later takes longer than a turn
    may. *questions* are of other members, which wait there until their index is
    applied.
    """

    readers: deque[Verification] = field(default_factory=deque)
    others: deque[Verification] = field(default_factory=deque)
    questions: list[IncomingRPC] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.readers or self.others)


class Verifications:
    """The verifications of one node; each is answered once, or withdrawn.

    `new` are those that consensus has not been asked for. What is confirmed is
    answered with the index that *applier* has reached, at most *slice_seconds* in a
    row.
    """

    def __init__(
        self, applier: Applier, clock: IReactorTime, slice_seconds: float
    ) -> None:
        self._applier = applier
        self._clock = clock
        self._slice_seconds = slice_seconds
        self._waiting: dict[Verification, None] = {}
        self._withdrawn = 0
        self._unapplied: deque[tuple[int, deque[Verification]]] = deque()
        self._expecting = False
        self._settled: deque[tuple[deque[Verification], RaftError | None]] = deque()
        self._settling = False
        self.new = Batch()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, verification: Verification) -> None:
        """Keep *verification* until it is answered."""
        self._waiting[verification] = None
        new = self.new
        (new.readers if verification.applied else new.others).append(verification)

    def take(self) -> Batch:
        """Take all that are new, to ask for them together."""
        new, self.new = self.new, Batch()
        return new

    def take_back(self, batch: Batch) -> list[Verification]:
        """Take those of *batch* that still wait, to ask for them again."""
        readers, batch.readers = batch.readers, deque()
        return [v for v in readers if self._waiting.pop(v, v) is None]

    def withdraw(self, verification: Verification) -> None:
        """Forget one that nobody waits for any more."""
        if self._waiting.pop(verification, verification) is None:
            self._withdrawn += 1
            # While the state machine hangs nothing else would ever empty these.
            if self._withdrawn > max(LEAST_WITHDRAWN, len(self._waiting)):
                self._forget_withdrawn()

    def _forget_withdrawn(self) -> None:
        self._withdrawn = 0
        kept = (
            (index, deque(v for v in verifications if v in self._waiting))
            for index, verifications in self._unapplied
        )
        self._unapplied = deque(batch for batch in kept if batch[1])

    def confirmed(self, batch: Batch, index: int) -> None:
        """Answer *batch*, which a quorum has confirmed: some of them at once, and those
        that read once *index* is applied."""
        if batch.others:
            self._settle(batch.others)
        if not batch.readers:
            return
        if self._applier.applied_index >= index:
            self._settle(batch.readers)
            return
        self._unapplied.append((index, batch.readers))
        if not self._expecting:
            self._expect(index)

    def _expect(self, index: int) -> None:
        """Have `_applied` called when *index* is applied: one call for all that wait.

        It stays even if nobody waits any more. Otherwise each read that comes and goes
        while the state machine hangs would leave one more call behind.
        """
        self._expecting = True
        self._applier.call_when_applied(index, self._applied)

    def _applied(self, applied_index: int) -> None:
        """Answer those whose index is applied; have this called for the next ones.

        They are in the order of their indexes, as a commit index never falls.
        """
        self._expecting = False
        unapplied = self._unapplied
        while unapplied and unapplied[0][0] <= applied_index:
            self._settle(unapplied.popleft()[1])
        if unapplied and not self._expecting:
            self._expect(unapplied[0][0])

    def _settle(
        self, verifications: deque[Verification], error: RaftError | None = None
    ) -> None:
        """Answer *verifications*, or fail them with *error*, in slices."""
        self._settled.append((verifications, error))
        # Whoever is answered may cause more to be settled. Those are answered after
        # what is settled already, and not from within.
        if not self._settling:
            self._settling = True
            self._go_on()

    def _go_on(self) -> None:
        """Answer what is settled until a slice is over, and the rest after it.

        A read that is answered later than it was confirmed sees what is committed by
        then: more than it has to, never less.
        """
        clock, settled = self._clock, self._settled
        until = clock.seconds() + self._slice_seconds
        while settled:
            # Looked at anew each time: whoever is answered may have all others failed.
            batch, error = settled[0]
            if not batch:
                settled.popleft()
                continue
            # Taken out one by one: to free a whole batch at once would take long, too.
            if self._answer(batch.popleft(), error) and clock.seconds() >= until:
                clock.callLater(0, self._go_on)
                return
        self._settling = False

    def _answer(self, verification: Verification, error: RaftError | None) -> bool:
        """Answer *verification*, unless it was withdrawn; tell whether it was there."""
        if self._waiting.pop(verification, verification) is not None:
            return False
        if error is None:
            verification.deferred.callback(self._applier.applied_index)
        else:
            verification.deferred.errback(error)
        return True

    def fail(self, error: RaftError) -> None:
        """Answer all that wait with *error*, in slices; those that come later wait."""
        failed = self._forget_all()
        if failed:
            self._settle(failed, error)

    def fail_now(self, error: RaftError) -> None:
        """Answer all that wait with *error*: there may be no other turn."""
        for verification in self._forget_all():
            self._answer(verification, error)

    def _forget_all(self) -> deque[Verification]:
        """Return all that wait, which nothing but an error will reach any more."""
        self._unapplied.clear()
        self._settled.clear()
        self.new = Batch()
        return deque(self._waiting)
