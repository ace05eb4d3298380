"""`Ready`: what the shell has to do, and the only way anything leaves the core.

Rules for whoever drives a `Consensus`:

1. Call its inputs in any order, then `ready` once; nothing happens until then.
2. Carry out each `Ready` before the next one is asked for, field by field as they stand
   below. To queue a write counts as carrying it out; its end is reported with `synced`.
3. Let writes finish in the order in which they were handed out, one by one or several
   together.
4. When a write fails, stop the server. No write is tried again.
5. Give each request that leaves exactly one outcome, by `response`, `unreachable` or
   `unsupported`. The window to a follower is counted by these.
6. Send the entries for one follower in the order in which they are handed out.
   Heartbeats and requests for votes may overtake them.
7. Send each response to the *reply_to* of its request, or to nobody if that is gone.

Also here: what a server starts from (`HardState`, `SnapshotMark`), and the numbers of
its writes.
"""

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
    """Send a heartbeat.

    *round* and *sent*, a tick, tell what its response proves: that this leader still
    led then, to every verification of that round or before. *stream* is the follower's.
    """

    term: int
    round: int
    sent: int
    stream: int


@dataclass(slots=True)
class Replicate:
    """Send the entries after *prev_index* up to *last*; none when they are equal.

    The shell fills in the entries. When *may_shorten* is set they are read from the
    disk; the shell may send fewer then, and hands in the request that it really sent
    with the response. *commit* is never above *last*: behind that the follower may have
    entries of an older leader, and a Go follower would apply them. *sent* is a tick,
    *stream* the follower's.
    """

    # `Final` tells mypy alone that it never changes. Frozen, one would take 1.5 us to
    # make instead of 0.3, and one is made for each follower and commit.

    term: Final[int]
    prev_index: Final[int]
    prev_term: Final[int]
    last: Final[int]
    commit: Final[int]
    sent: Final[int]
    stream: Final[int]
    may_shorten: Final[bool] = False


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Send the newest snapshot, which covers at least *index*.

    It may be a newer one by the time it is sent: the shell hands in its index with the
    response.
    """

    term: int
    index: int
    sent: int
    stream: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refuse a request with an error text instead of a response."""

    error: str


@dataclass(frozen=True, slots=True)
class Install:
    """Take the snapshot that follows *request*, then call `Consensus.installed`."""

    request: InstallSnapshotRequest
    reply_to: object


@dataclass(frozen=True, slots=True)
class ResetLog:
    """Drop the log up to *index*, and unless *keep_suffix* all that follows it.

    What follows is kept only if the log has the very entry that the snapshot ends with.
    Otherwise it was written by another leader, and may contradict this one's.
    """

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
"""(destination, message): an address for a request, *reply_to* for a response."""


@dataclass(slots=True)
class Ready:
    """What has to be done after a batch of inputs, field by field, in this order.

    A message stands in *send* if it promises nothing that a crash could undo, and else
    in *after_sync*:

        send        AppendEntries and heartbeats of a leader, whose own copy counts only
                    once it is synced; snapshots; pre-votes and responses to them;
                    refusals of entries and votes; responses to heartbeats while term
                    and vote are on the disk
        after_sync  votes; requests for votes; every other success

    A success waits even if all its entries were in the log before: they may be on their
    way to the disk.

    Source: etcd-io/raft `Ready`; Raft dissertation §10.2.1.
    """

    # 1. Messages that may leave at once: nothing in them depends on the write below.
    #    Before the write, so that followers write while this leader does (§10.2.1).
    send: list[Outgoing] = field(default_factory=list)

    # 2. One write, of the fields 2a to 2d, if *has_write*. When it is durable, call
    #    `Consensus.synced(write_number)`. Without a write this is the number of the
    #    last one that was handed out: what *after_sync* promises may be in that.
    write_number: int = 0
    has_write: bool = False

    # 2a. Drop the log up to a snapshot, which is durable already; None: keep it. Before
    #     all else: the entries of 2d may begin right behind the snapshot.
    reset_log: ResetLog | None = None

    # 2b. Store term, vote and cluster in one atomic step; None: they are unchanged.
    #     Before any entry: after a crash in between, a log with an entry of a term that
    #     the server has not heard of would be refused as damaged.
    hard_state: HardState | None = None

    # 2c. Drop the entry at this index and all after it; None: drop none. Before the
    #     append, whose entries take their places.
    truncate_from: int | None = None

    # 2d. Append these behind what is then the end of the log; often none.
    append: list[Entry] = field(default_factory=list)

    # 3. Messages that may leave once write *write_number*, and so every write before
    #    it, is durable: each promises something that a crash must not undo.
    after_sync: list[Outgoing] = field(default_factory=list)

    # 4. Apply entries up to here, whether they are synced on this server or not: a
    #    quorum has them. It never falls, and mostly it is the one of the last `Ready`.
    commit_index: int = 0

    # 5. Receive this snapshot, then call `Consensus.installed`, also if that failed.
    #    Until then no entries are accepted and none are to be written, as the whole log
    #    may be replaced.
    install: Install | None = None

    # 6. The (token, read index) of each `verify` that a quorum has confirmed. A read is
    #    linearizable once the state machine has applied the entries up to that index.
    verified: list[tuple[object, int]] = field(default_factory=list)

    # 7. To be reported, as consensus cannot mend it. *contradiction*: the address of a
    #    leader whose log denies what is committed here. *forgetful*: followers that
    #    deny what they have acknowledged, so that no promise of theirs counts any more.
    #    *undeliverable*: (follower, index) of entries that a follower does not take.
    contradiction: str | None = None
    forgetful: list[str] = field(default_factory=list)
    undeliverable: list[tuple[str, int]] = field(default_factory=list)

    @property
    def changes_log(self) -> bool:
        """Whether the log is to change."""
        return bool(self.append or self.reset_log) or self.truncate_from is not None


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """The end of the newest durable snapshot, and the membership there.

    *configuration* was made by the entry at *configuration_index*.
    """

    index: int = 0
    term: int = 0
    configuration: Configuration = field(default_factory=Configuration)
    configuration_index: int = 0


@dataclass(slots=True)
class _NumberedWrite:
    """One write, issued at that tick; and what is on disk once it is done."""

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
        # By identity first: it is the same object nearly always, and a comparison of
        # equal states takes 0.3 us of every `ready`.
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
