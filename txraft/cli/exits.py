"""The exit statuses of the `txraft` command, which scripts may rely on."""

from __future__ import annotations

from enum import IntEnum

from txraft.client import (
    ClientError,
    LockNotFree,
    MalformedAnswer,
    OutcomeUnknown,
    Refused,
    SessionLost,
    TransactionFailed,
    Unavailable,
)


class Exit(IntEnum):
    """An exit status of the command; the numbers never change their meaning."""

    OK = 0
    NO = 1
    """The answer is no: no such key, an index that has passed, a fault was found."""
    USAGE = 2
    UNAVAILABLE = 3
    """No node took the request. Nothing was changed; try again."""
    UNKNOWN = 4
    """The outcome of a write is unknown: it may be applied, now or later."""
    REFUSED = 5
    """The request is wrong, or the file or directory that it names."""
    LOST = 6
    """The lock was lost while the command ran."""
    INTERRUPTED = 130


def exit_of(error: ClientError) -> Exit:
    """Return the exit status for *error*."""
    match error:
        case TransactionFailed() | LockNotFree():
            return Exit.NO
        case Unavailable():
            return Exit.UNAVAILABLE
        case OutcomeUnknown():
            return Exit.UNKNOWN
        case SessionLost():
            return Exit.LOST
        case Refused() | MalformedAnswer():
            return Exit.REFUSED
        case _:
            return Exit.REFUSED
