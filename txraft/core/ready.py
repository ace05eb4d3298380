"""What consensus wants done: the only way anything leaves the core."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.core.messages import (
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    Response,
    TimeoutNowRequest,
)


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a restart beside the log, in one atomic durable write."""

    term: int = 0
    voted_for: str | None = None
    cluster: bytes | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Send a heartbeat; *round* and *sent* (a tick) pair its answer with the cause."""

    term: int
    round: int
    sent: int
    life: int


@dataclass(slots=True)
class Replicate:
    """Send the entries after *prev_index* up to *last*; none when they are equal.

    The shell fills in the bodies. It may stop early when *may_shorten* is set, and
    then answers with the request it really sent.
    """

    term: Final[int]
    prev_index: Final[int]
    prev_term: Final[int]
    last: Final[int]
    commit: Final[int]
    sent: Final[int]
    life: Final[int]
    may_shorten: Final[bool] = False


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Send the newest snapshot, which covers at least *index*.

    The shell answers with the index of the one it really sent.
    """

    term: int
    index: int
    sent: int
    life: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer a request with an error text instead of a response."""

    error: str


@dataclass(frozen=True, slots=True)
class Install:
    """Take the snapshot that follows *request*, then call `Consensus.installed`."""

    request: InstallSnapshotRequest
    reply_to: object


@dataclass(frozen=True, slots=True)
class ResetLog:
    """Drop the log up to *index*; unless *keep_suffix*, what follows it too."""

    index: int
    keep_suffix: bool


OutgoingRequest = (
    Heartbeat
    | Replicate
    | SendSnapshot
    | RequestVoteRequest
    | RequestPreVoteRequest
    | TimeoutNowRequest
)
Outgoing = tuple[object, OutgoingRequest | Response | Refusal]
"""(destination, message): an address for a request, the *reply_to* for an answer."""


@dataclass(slots=True)
class Ready:
    """What has to be done after a batch of inputs. Honour it field by field.

    1. *send* may leave at once: nothing in it depends on the write below.
    2. *reset_log*, *hard_state*, *truncate_from*, *append* are one write, in this
       order, though a crash may fall between any two. When it is durable, call
       `Consensus.synced(write_number)`. *has_write* tells whether there is one.
    3. *after_sync* may leave once write *write_number*, and so every write before
       it, is durable. A Ready without a write of its own carries the number of the
       last one, because what it promises may still be on its way to the disk.
    4. Entries up to *commit_index* may be applied, whether synced here or not: a
       quorum has them.
    5. *install* is a snapshot to receive; *verified* are (token, read index) of
       `verify` calls that a quorum has confirmed; *contradiction* names a leader
       whose log denies what is committed here; *forgetful* are followers that deny
       what they have acknowledged, so that their promises are worth nothing;
       *undeliverable* are (follower, index) of entries that do not get there.

    What may overtake the disk, and so stands in *send*: a leader's own
    AppendEntries and heartbeats (its own copy counts only once synced), pre-votes
    and their answers, rejections, and heartbeat answers while term and vote are
    clean. A vote, a vote request and any other success waits in *after_sync*, even
    when all it speaks of was already in the log: already in the log is not already
    on disk.

    Source: etcd-io/raft `Ready`; Raft dissertation §10.2.1.
    """

    send: list[Outgoing] = field(default_factory=list)
    write_number: int = 0
    has_write: bool = False
    reset_log: ResetLog | None = None
    hard_state: HardState | None = None
    truncate_from: int | None = None
    append: list[Entry] = field(default_factory=list)
    after_sync: list[Outgoing] = field(default_factory=list)
    commit_index: int = 0
    install: Install | None = None
    verified: list[tuple[object, int]] = field(default_factory=list)
    contradiction: str | None = None
    forgetful: list[str] = field(default_factory=list)
    undeliverable: list[tuple[str, int]] = field(default_factory=list)

    @property
    def changes_log(self) -> bool:
        """Whether the log is to change."""
        return bool(self.append or self.reset_log) or self.truncate_from is not None


@dataclass(frozen=True, slots=True)
class Options:
    """The tunables of consensus, in ticks and entries.

    *opening_entry_lists_members* is protocol version 0's habit of opening a
    leadership with the whole membership instead of a no-op. *level* is the highest
    level of the replicated state machine that this server understands.
    """

    heartbeat_timeout_ticks: int = 20
    election_timeout_ticks: int = 20
    heartbeat_interval_ticks: int = 2
    commit_interval_ticks: int = 1
    lease_ticks: int = 10
    max_append_entries: int = 64
    max_inflight_requests: int = 2
    max_kept_entries: int = 1 << 17
    pre_vote: bool = True
    check_quorum: bool = True
    campaign_at_once: bool = False
    opening_entry_lists_members: bool = False
    tags_cluster: bool = True
    level: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """Where the newest durable snapshot ends, and the membership there."""

    index: int = 0
    term: int = 0
    configuration: Configuration = field(default_factory=Configuration)
    configuration_index: int = 0


@dataclass(slots=True)
class _NumberedWrite:
    """One write: when it was issued, in ticks, and what is on disk once it is done."""

    number: Final[int]
    issued: Final[int]
    last_index: Final[int]
    state: Final[HardState]


class WriteNumbers:
    """Numbers each write, and knows what is durable; *state* was found on disk.

    By number and not by index: an index may be written twice, when what stood there
    was truncated in between, and only one of the two is on disk.

    Writes finish in the order in which they were issued. How many there may be at
    once is the shell's limit, in bytes.
    """

    def __init__(self, state: HardState) -> None:
        self.durable_state = self._issued_state = state
        self._unfinished: deque[_NumberedWrite] = deque()
        self._last_number = 0

    def issue(self, ready: Ready, state: HardState, last_index: int, now: int) -> None:
        """Put into *ready* what has to be written, and its number."""
        if state is not self._issued_state and state != self._issued_state:
            ready.hard_state = self._issued_state = state
        ready.has_write = ready.changes_log or ready.hard_state is not None
        if ready.has_write:
            self._last_number += 1
            self._unfinished.append(
                _NumberedWrite(self._last_number, now, last_index, state)
            )
        ready.write_number = self._last_number

    def synced(self, number: int) -> int:
        """Learn that all writes up to *number* are durable.

        Returns: the last index of the log as the newest of them left it, 0 if
            none of them is news.
        """
        last_index = 0
        while self._unfinished and self._unfinished[0].number <= number:
            write = self._unfinished.popleft()
            last_index, self.durable_state = write.last_index, write.state
        return last_index

    def oldest_age(self, now: int) -> int:
        """Return for how many ticks the oldest unfinished write has waited."""
        return now - self._unfinished[0].issued if self._unfinished else 0
