"""The requests and responses that servers exchange, free of their encoding.

Field for field they are hashicorp/raft's RPC records, in snake_case, plus the two that
later versions of the protocol added, and one of ours that forwards to the leader.
Addresses are text; the wire turns them into bytes and back without loss. A response
means nothing without the request it answers: the wire has no request numbers, so
whoever delivers a response hands in its request.

None of them ever changes. Those that are made for each commit say so to mypy alone, by
`Final`: a frozen dataclass takes three times as long to make (1.0 us instead of 0.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry


@dataclass(slots=True, unsafe_hash=True)
class Header:
    """The sender of a message, and its protocol version.

    None stands for a key that is absent on the wire: version 0 sends none of them,
    versions 1 to 3 send *protocol_version*, newer Go peers the first three. The others
    are keys of ours, which Go peers skip.
    """

    protocol_version: Final[int | None] = None

    # The sender's id, and the address at which others dial it.
    id: Final[str | None] = None
    address: Final[str | None] = None

    # The identity of the sender's cluster, once it knows that it is committed.
    cluster: Final[bytes | None] = None

    # The sender's incarnation, and the incarnations of members that a leader knows.
    # They mean nothing to the core.
    incarnation: Final[bytes | None] = None
    known: Final[bytes | None] = None

    # The level up to which the sender understands the replicated state machine.
    level: Final[int | None] = None

    # The version of `ForwardRequest` that the sender takes while it leads. Who does not
    # announce one never gets such a request.
    forwards: Final[int | None] = None


NO_HEADER = Header()


@dataclass(slots=True)
class AppendEntriesRequest:
    """Replicate *entries*, or with nothing but *term* and *leader* say who leads.

    Term 0, of which there is no leader, asks who is there.
    Source: Raft dissertation, figure 3.1.
    """

    term: Final[int]
    leader: Final[str]

    # The entry before the first of *entries*: if the follower has it, the logs agree up
    # to there, and only then it takes what follows.
    prev_log_index: Final[int] = 0
    prev_log_term: Final[int] = 0

    entries: Final[Sequence[Entry]] = ()

    # The leader's commit index. A follower takes of it what this request proves.
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
    """The response to AppendEntries."""

    term: Final[int]

    # The follower's last index before it took the entries: what it has acknowledged is
    # told by the request, not by this.
    last_log: Final[int]

    success: Final[bool]

    # That the previous entry did not match: older ones may be tried at once. To a
    # heartbeat, which asks for no entry, it says that a snapshot is being installed, so
    # that neither entries nor another snapshot are of use. Go peers never set it there,
    # and do not look at it.
    no_retry_backoff: Final[bool] = False
    header: Final[Header] = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestVoteRequest:
    """Ask for a vote in *term*.

    The candidate's log ends with (*last_log_index*, *last_log_term*).
    *leadership_transfer* tells that the leader itself has asked for this election: then
    servers that hear the leader vote as well.
    """

    term: int
    candidate: str
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestVoteResponse:
    """The response to RequestVote; *peers* are the voters (protocol 0 and 1)."""

    term: int
    granted: bool
    peers: tuple[str, ...] | None = None
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class RequestPreVoteRequest:
    """Ask whether a vote would be granted in *term*, which nobody adopts.

    On the wire the candidate is named only in the header. A *transfer*, which is a key
    of ours, makes it another question, to the leader alone: is the leadership transfer
    with that number still under way?
    """

    term: int
    candidate: str
    last_log_index: int
    last_log_term: int
    header: Header = NO_HEADER
    transfer: int | None = None


@dataclass(frozen=True, slots=True)
class RequestPreVoteResponse:
    """The response to RequestPreVote.

    When *granted*, *term* is that of the request, in which nobody is yet.
    """

    term: int
    granted: bool
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class InstallSnapshotRequest:
    """Announce a snapshot of *size* bytes that follow it on the connection."""

    term: int
    leader: str

    # The last entry whose effect is in the snapshot.
    last_log_index: int
    last_log_term: int

    size: int

    # The membership there, and the index of the entry that made it. With
    # *snapshot_version* 0 it travels in *peers*.
    configuration: Configuration
    configuration_index: int
    peers: tuple[str, ...] = ()
    snapshot_version: int = 1

    header: Header = NO_HEADER

    # Which entries were skipped on the way to this state, in bytes that mean nothing
    # here; b"" for none, nearly always. Go peers skip that key.
    skipped: bytes = b""

    # The name of the application whose state it is, "" if that has none. A key of ours.
    application: str = ""

    @property
    def fault(self) -> str | None:
        """A text that tells what is wrong with it, None if nothing is."""
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
    """The response to InstallSnapshot, once the snapshot is durable and restored."""

    term: int
    success: bool
    header: Header = NO_HEADER


@dataclass(frozen=True, slots=True)
class TimeoutNowRequest:
    """Tell the target of a leadership transfer to campaign at once.

    With the number of a *transfer*, which is a key of ours, the target first asks the
    leader whether that transfer is still under way. Go peers write none, and skip it.
    """

    header: Header = NO_HEADER
    transfer: int | None = None


@dataclass(frozen=True, slots=True)
class TimeoutNowResponse:
    """The response to TimeoutNow, sent before the election starts."""

    # It names none on the wire; as 0 it never is newer than a server's own.
    term: ClassVar[int] = 0
    header: Header = NO_HEADER


@dataclass(slots=True)
class ForwardRequest:
    """Ask the leader to commit *commands*, or without any for a read index.

    The sender is a member that does not lead. It is a request of ours, and none of
    consensus: it goes only to a leader that has announced that it takes it.
    Source: Raft dissertation §6.2, §6.4.
    """

    commands: Final[Sequence[bytes]]
    header: Final[Header] = NO_HEADER


Place = tuple[int, int]
"""Index and term of a committed entry; with index 0, why there is none."""

NOT_APPENDED: Final[Place] = (0, 0)
"""It was not appended: whoever asks may ask again, here or elsewhere."""

UNKNOWN: Final[Place] = (0, 1)
"""It was appended, and may commit or not."""

LEADER_FULL: Final[Place] = (0, 2)
"""It was not appended, as too much waits at the leader."""

TOO_LARGE: Final[Place] = (0, 3)
"""It was not appended, as the leader takes no command of that size."""


@dataclass(slots=True)
class ForwardResponse:
    """The response to ForwardRequest, once all its commands are settled.

    It has a place for each command, in their order. Without commands there is one: the
    read index, and the term of the entry there. *leader* is the sender's, if it is not
    the leader itself.
    """

    places: Final[Sequence[Place]]
    leader: Final[str | None] = None
    header: Final[Header] = NO_HEADER


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
AnyRequest = Request | ForwardRequest
"""What a peer may send: a request of consensus, or one that its shell answers."""

AnyResponse = Response | ForwardResponse
