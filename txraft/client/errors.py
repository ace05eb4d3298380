"""The errors of the client, by what they say about the effect of a request.

`Refused` and `Unavailable` say that the request has no effect. `OutcomeUnknown` says
that it may have been applied, or may still be.
"""

from __future__ import annotations

from dataclasses import dataclass


class ClientError(Exception):
    """The base of every error of the client."""


class Refused(ClientError):
    """The cluster refused the request; `status` and `sentence` say why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"{sentence} (HTTP {status})")
        self.status = status
        self.sentence = sentence


class Unavailable(ClientError):
    """No node took the request in time; it has no effect."""


class OutcomeUnknown(ClientError):
    """A write has no certain outcome: it may be applied, now or later, or not at all.

    Read what it should have changed before you decide to repeat it.
    """


class MalformedAnswer(ClientError):
    """An answer is not of the form of the API; it may not come from a txraft node."""


@dataclass(frozen=True, slots=True)
class OperationError:
    """The reason why the operation at position *index* of a transaction was refused."""

    index: int
    sentence: str


class TransactionFailed(ClientError):
    """A transaction was rolled back as a whole; `errors` say why."""

    def __init__(self, errors: list[OperationError]) -> None:
        sentences = [f"operation {e.index}: {e.sentence}" for e in errors]
        super().__init__("; ".join(sentences) or "the transaction was rolled back")
        self.errors = errors


class LockNotFree(ClientError):
    """The lock did not become free in the time given."""


class SessionLost(ClientError):
    """The session has ended, or may have: its locks may belong to others."""


class LockLost(SessionLost):
    """The lock is no longer held for certain: another client may hold it."""
