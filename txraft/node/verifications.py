"""Those who wait for a quorum to confirm that this node leads."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred

from txraft.errors import RaftError


@dataclass(slots=True, eq=False)
class Verification:
    """A `verify` that somebody waits for; *applied*: until its index is applied."""

    deferred: Deferred[int]
    applied: bool


class Verifications:
    """The verifications of one node; each is answered once, or withdrawn."""

    def __init__(self) -> None:
        self._waiting: dict[Verification, None] = {}

    def add(self, verification: Verification) -> None:
        """Keep *verification* until it is answered."""
        self._waiting[verification] = None

    def withdraw(self, verification: Verification) -> None:
        """Forget one that nobody waits for any more."""
        self._waiting.pop(verification, None)

    def succeed(self, verification: Verification, index: int) -> None:
        """Answer with *index*, unless nobody waits any more."""
        if verification in self._waiting:
            del self._waiting[verification]
            verification.deferred.callback(index)

    def fail(self, error: RaftError) -> None:
        """Answer all that wait with *error*."""
        waiting, self._waiting = self._waiting, {}
        for verification in waiting:
            verification.deferred.errback(error)
