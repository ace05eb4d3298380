"""The records of the key-value state, and the results of its commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from txraft.kv.once import Results

Row = tuple[bytes, int, int, int, int, str]
"""A record without its key. Its fields have the names below.

It is an exact tuple, no NamedTuple: only such tuples the garbage collector leaves
alone. It would else visit every record of the store in each full collection.
"""

VALUE: Final = 0
FLAGS: Final = 1
CREATE_INDEX: Final = 2
MODIFY_INDEX: Final = 3
LOCK_INDEX: Final = 4
HOLDER: Final = 5
"""The session that holds the lock on the key, "" for none."""


class Record(NamedTuple):
    """One key as clients see it. Indexes are those of log entries.

    The session *session* holds the lock on the key; "" means that nobody does.
    """

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int
    session: str = ""


class Written(NamedTuple):
    """A session in the spelling of its maker, for those who read it back.

    *ttl* is "" for none. Lists of checks hold their ids; None means no list was given.
    """

    ttl: str
    lock_delay_ns: int
    checks: tuple[str, ...] | None
    node_checks: tuple[str, ...] | None
    service_checks: tuple[str, ...] | None

    @property
    def characters(self) -> int:
        """The length of all its texts together."""
        lists = (self.checks, self.node_checks, self.service_checks)
        return len(self.ttl) + sum(len(text) for each in lists for text in each or ())


class Session(NamedTuple):
    """A session, which may hold locks. Durations are milliseconds, a TTL of 0 is none.

    When it ends, the keys that it holds are deleted if *deletes*, and else released.
    *written* is kept from level 1 on.
    """

    name: str
    node: str
    lock_delay_ms: int
    deletes: bool
    ttl_ms: int
    create_index: int
    modify_index: int
    written: Written | None = None


EXACT_VERSION = "8"
"""The UUID version that RFC 9562 leaves to each application."""

_VERSION_AT = 14


def exact_id(uuid: str) -> str:
    """Turn *uuid* into the id of a session that ends after one TTL, not after two.

    The mark is in the id because every release keeps ids, in entries, snapshots and
    backups. Releases that do not know the mark end every session after one TTL.
    """
    return f"{uuid[:_VERSION_AT]}{EXACT_VERSION}{uuid[_VERSION_AT + 1 :]}"


def lifetime_ms(id: str, session: Session) -> int:
    """Return the milliseconds without a renewal after which the session *id* ends.

    That is twice its TTL, as in Consul, or one TTL for an `exact_id`; 0 without a TTL.
    """
    is_exact = id[_VERSION_AT : _VERSION_AT + 1] == EXACT_VERSION
    return session.ttl_ms if is_exact else 2 * session.ttl_ms


class Delay(NamedTuple):
    """A lock delay, begun at index *begun*: its key cannot be locked until it ends."""

    begun: int
    milliseconds: int


class Staged(NamedTuple):
    """The pieces of a backup that have come so far; *size* is their sum in bytes."""

    id: str
    total: int
    size: int
    pieces: tuple[bytes, ...]


class OperationError(NamedTuple):
    """The failure of the operation at *position*; *invalid* if it can never succeed."""

    position: int
    sentence: str
    invalid: bool


class TransactionResult(NamedTuple):
    """The result of a transaction: its records if all succeeded, else the errors.

    If *told* is false the records were not made: nobody waits for them, or they exceed
    the bounds of an answer.
    """

    records: list[Record]
    errors: list[OperationError]
    told: bool = True


@dataclass(slots=True)
class State:
    """The whole replicated state.

    *index* is the index of the last change of a key, *session_index* of a session.
    *level* is the active level of the state machine. *urls* and *names* are those of
    nodes, by address; a node without a name goes by its address.
    """

    rows: dict[str, Row]
    urls: dict[str, str]
    index: int
    session_index: int = 0
    sessions: dict[str, Session] = field(default_factory=dict)
    delays: dict[str, Delay] = field(default_factory=dict)
    results: Results = field(default_factory=Results)
    staged: Staged | None = None
    level: int = 0
    names: dict[str, str] = field(default_factory=dict)

    def copy_without_rows(self) -> State:
        """Return a copy of all but the keys; it copies references only."""
        # Dicts are copied, as commands change them in place; what is in them is
        # immutable.
        return State(
            rows={},
            urls=self.urls.copy(),
            index=self.index,
            session_index=self.session_index,
            sessions=self.sessions.copy(),
            delays=self.delays.copy(),
            results=self.results.copy(),
            staged=self.staged,
            level=self.level,
            names=self.names.copy(),
        )
