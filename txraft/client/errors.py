"""How a call of the client can end, other than well.

What matters to a caller is what became of the request. `Refused` and `Unavailable` say
that it has no effect; `OutcomeUnknown` says that it may have one, or may yet.
"""

from __future__ import annotations

from dataclasses import dataclass


class ClientError(Exception):
    """The base of every error of the client."""


class Refused(ClientError):
    """The cluster refuses the request as it is: *status* and *sentence* say why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"{sentence} (HTTP {status})")
        self.status = status
        self.sentence = sentence


class Unavailable(ClientError):
    """No node took the request in time; it certainly has no effect."""


class OutcomeUnknown(ClientError):
    """A write got no answer that tells its fate: it may be applied, or may yet be.

    Read what it should have changed before you decide to repeat it.
    """


class MalformedAnswer(ClientError):
    """A node answered something that the API does not: is it one of this cluster?"""


@dataclass(frozen=True, slots=True)
class OperationError:
    """Why the operation at place *index* of a transaction was refused."""

    index: int
    sentence: str


class TransactionFailed(ClientError):
    """A transaction was rolled back: nothing of it is applied; `errors` say why."""

    def __init__(self, errors: list[OperationError]) -> None:
        sentences = [f"operation {e.index}: {e.sentence}" for e in errors]
        super().__init__("; ".join(sentences) or "the transaction was rolled back")
        self.errors = errors


class LockNotFree(ClientError):
    """The lock could not be had in the time that was given for it."""


class SessionLost(ClientError):
    """The session is over, or may be: nothing it held is certain any more."""


class LockLost(SessionLost):
    """The lock is no longer held, or may be no longer."""
