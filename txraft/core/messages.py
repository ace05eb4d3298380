"""The requests and responses that servers exchange, free of their encoding.

Field for field the seed's RPC records, in snake_case, plus the two that later
versions of the protocol added. Addresses are text; the wire turns them into bytes
and back without loss. A response means nothing without the request it answers: the
wire has no request numbers, so whoever delivers a response hands in its request.

None of them ever changes. Those that are made for each commit say so to mypy alone, by
`Final`: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry


@dataclass(slots=True, unsafe_hash=True)
class Header:
    """Who sent a message, and in which protocol version.

    None stands for a key that is absent on the wire: version 0 sends none of them,
    versions 1 to 3 send *protocol_version*, newer Go peers all three. *cluster*,
    *incarnation*, *known*, the incarnations that a leader knows, and *level*, up to
    which the sender understands the replicated state machine, are extra keys of ours,
    which Go peers skip.
    """

    protocol_version: Final[int | None] = None
    id: Final[str | None] = None
    address: Final[str | None] = None
    cluster: Final[bytes | None] = None
    incarnation: Final[bytes | None] = None
    known: Final[bytes | None] = None
    level: Final[int | None] = None


NO_HEADER = Header()


@dataclass(slots=True)
class AppendEntriesRequest:
    """Replicate *entries* after (*prev_log_index*, *prev_log_term*).

    Source: Raft paper, figure 2.
    """

    term: Final[int]
    leader: Final[str]
    prev_log_index: Final[int] = 0
    prev_log_term: Final[int] = 0
    entries: Final[Sequence[Entry]] = ()
    leader_commit: Final[int] = 0
    header: Final[Header] = NO_HEADER

    @property
    def is_heartbeat(self) -> bool:
        """Tell whether this has the exact shape that peers treat as a heartbeat."""
        return not (
            self.prev_log_index
            or self.prev_log_term
            or self.entries
            or self.leader_commit
        ) and bool(self.term and self.leader)


@dataclass(slots=True)
class AppendEntriesResponse:
    """Answer to AppendEntries; *last_log* is the follower's last index before it.

    *no_retry_backoff* says that the previous entry did not match: try older ones at
    once. In the answer to a heartbeat, of which no entry is asked, it says that a
    snapshot is being installed: neither entries nor another snapshot are of use. Go
    peers never set it there and do not look at it.
    """

    term: Final[int]
    last_log: Final[int]
    success: Final[bool]
    no_retry_backoff: Final[bool] = False
    header: Final[Header] = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestVoteRequest:
    """Ask for a vote in *term*; *leadership_transfer* overrides a known leader."""

    term: int
    candidate: str
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestVoteResponse:
    """Answer to RequestVote; *peers* are the voter's peers (protocol 0 and 1)."""

    term: int
    granted: bool
    peers: tuple[str, ...] | None = None
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestPreVoteRequest:
    """Ask whether a vote would be granted in *term*, which nobody adopts.

    The wire names the candidate only in its header. With a *transfer* it asks the
    leader alone whether that transfer of its leadership, by its number, still is under
    way; the key is one of ours.
    """

    term: int
    candidate: str
    last_log_index: int
    last_log_term: int
    header: Header = NO_HEADER
    transfer: int | None = None


@dataclass(frozen=True, slots=True)
class RequestPreVoteResponse:
    """Answer to RequestPreVote."""

    term: int
    granted: bool
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class InstallSnapshotRequest:
    """Announce a snapshot of *size* bytes that follow it on the connection.

    *snapshot_version* 0 carries the membership in *peers*, 1 in *configuration*.
    *skipped* tells which entries were skipped on the way to this state, in bytes that
    mean nothing here; b"" for none, nearly always. Go peers skip that key.
    """

    term: int
    leader: str
    last_log_index: int
    last_log_term: int
    size: int
    configuration: Configuration
    configuration_index: int
    peers: tuple[str, ...] = ()
    snapshot_version: int = 1
    header: Header = NO_HEADER
    skipped: bytes = b""

    @property
    def fault(self) -> str | None:
        """What is wrong with it, if anything is."""
        if (
            self.last_log_term > self.term
            or self.configuration_index > self.last_log_index
        ):
            return "the snapshot ends before what it holds"
        if not self.configuration.voters:
            return "the snapshot has a membership without a voter"
        return None


@dataclass(frozen=True, slots=True)
class InstallSnapshotResponse:
    """Answer to InstallSnapshot, sent once the snapshot is durable and restored."""

    term: int
    success: bool
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class TimeoutNowRequest:
    """Tell the target of a leadership transfer to campaign at once.

    With a number of the *transfer*, which is a key of ours, once the leader says that
    this transfer still is under way; Go peers write none, and skip it.
    """

    header: Header = NO_HEADER
    transfer: int | None = None


@dataclass(frozen=True, slots=True)
class TimeoutNowResponse:
    """Answer to TimeoutNow, sent before the election starts. It names no term."""

    term: ClassVar[int] = 0
    header: Header = NO_HEADER


Request = (
    AppendEntriesRequest
    | RequestVoteRequest
    | RequestPreVoteRequest
    | InstallSnapshotRequest
    | TimeoutNowRequest
)
Response = (
    AppendEntriesResponse
    | RequestVoteResponse
    | RequestPreVoteResponse
    | InstallSnapshotResponse
    | TimeoutNowResponse
)
