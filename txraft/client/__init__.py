"""A client of the key-value store for Twisted applications, on treq.

It follows the leader, repeats only requests that are safe to repeat, and says when the
outcome of a write is unknown.
"""

from txraft.client.client import Client
from txraft.client.errors import (
    ClientError,
    LockLost,
    LockNotFree,
    MalformedAnswer,
    OperationError,
    OutcomeUnknown,
    Refused,
    SessionLost,
    TransactionFailed,
    Unavailable,
)
from txraft.client.limits import ClientLimits
from txraft.client.lock import Election, Lock
from txraft.client.results import KeyValue, Operation
from txraft.client.session import Session
from txraft.client.tls import ClientTLS
from txraft.client.watch import Watch

__all__ = [
    "Client",
    "ClientError",
    "ClientLimits",
    "ClientTLS",
    "Election",
    "KeyValue",
    "Lock",
    "LockLost",
    "LockNotFree",
    "MalformedAnswer",
    "Operation",
    "OperationError",
    "OutcomeUnknown",
    "Refused",
    "Session",
    "SessionLost",
    "TransactionFailed",
    "Unavailable",
    "Watch",
]
