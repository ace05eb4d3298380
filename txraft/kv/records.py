"""What the key-value state consists of, and what its verbs answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from txraft.kv.once import Results

Row = tuple[bytes, int, int, int, int, str]
"""A record without its key: value, flags, create, modify, lock index, session.

An exact tuple, which the garbage collector does not follow.
"""


class Record(NamedTuple):
    """One key as clients see it. Indexes are those of log entries.

    *session* holds the lock on the key, nobody does when it is "".
    """

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int
    session: str = ""


class Written(NamedTuple):
    """What the maker of a session wrote, for those who read it back.

    The TTL as a text, "" for none; the ids of checks, None where there was no list.
    """

    ttl: str
    lock_delay_ns: int
    checks: tuple[str, ...] | None
    node_checks: tuple[str, ...] | None
    service_checks: tuple[str, ...] | None

    @property
    def characters(self) -> int:
        """How long all its texts are together."""
        lists = (self.checks, self.node_checks, self.service_checks)
        return len(self.ttl) + sum(len(text) for each in lists for text in each or ())


class Session(NamedTuple):
    """Who may hold locks. Durations are milliseconds, a TTL of 0 is none.

    Its keys are deleted with it if *deletes*, and else released. What was *written* is
    kept from level 1 on.
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
"""The version of UUIDs that is for whoever makes them, by RFC 9562."""

_VERSION_AT = 14


def exact_id(uuid: str) -> str:
    """Make of *uuid* the id of a session that ends after its TTL, and not after two.

    The id is the mark because every release keeps it, in entries, snapshots and
    backups: one that knows nothing of it ends all sessions so.
    """
    return f"{uuid[:_VERSION_AT]}{EXACT_VERSION}{uuid[_VERSION_AT + 1 :]}"


def lifetime_ms(id: str, session: Session) -> int:
    """Return after how many milliseconds without a renewal the session *id* ends.

    That is twice its TTL, as Consul's sessions do end, unless it was made with an
    `exact_id`; 0 if it has no TTL.
    """
    is_exact = id[_VERSION_AT : _VERSION_AT + 1] == EXACT_VERSION
    return session.ttl_ms if is_exact else 2 * session.ttl_ms


class Delay(NamedTuple):
    """A key cannot be locked until this delay, begun at index *begun*, has ended."""

    begun: int
    milliseconds: int


class Staged(NamedTuple):
    """The pieces of a backup that came so far; *size* is their sum in bytes."""

    id: str
    total: int
    size: int
    pieces: tuple[bytes, ...]


class OperationError(NamedTuple):
    """The operation at *position* failed; an *invalid* one can never succeed."""

    position: int
    sentence: str
    invalid: bool


class Outcome(NamedTuple):
    """What a transaction answers: records if all went well, else what did not.

    The records were not made where *told* is false: nobody waits for them, or they
    are more than can be answered.
    """

    records: list[Record]
    errors: list[OperationError]
    told: bool = True


@dataclass(slots=True)
class State:
    """The whole replicated state.

    *index* is that of the last change of a key, *session_index* of a session; *level*
    is the level of the state machine that was activated last. *names* are those of
    nodes, by address, as far as they differ from that.
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
        """Return a copy of all but the keys, of references only."""
        return State(
            {},
            self.urls.copy(),
            self.index,
            self.session_index,
            self.sessions.copy(),
            self.delays.copy(),
            self.results.copy(),
            self.staged,
            self.level,
            self.names.copy(),
        )
