"""The progress of one follower, as its leader knows it.

        a request is refused, or gets no response
      ┌───────────────────────────────┐
      v       a request is accepted   │
    PROBE ───────────────────────> REPLICATE
      │ ^                             │
      │ │ installed, or failed        │
      v │                             │
    SNAPSHOT <────────────────────────┘
              the entries that it needs next are compacted away

    Mode       `next`                        requests with entries on their way
    PROBE      goes back at each refusal     one at most
    REPLICATE  runs ahead of `match`         up to `CoreOptions.max_inflight_requests`
    SNAPSHOT   stays where it was            no new ones

These hold in every mode:

1. `match` < `next`, and `next` is at most one more than the last index of the leader.
2. `match` grows only when a response says so, and falls only when the follower has
   lost what it had acknowledged (`Leader._distrust`).
3. A response moves `match` and `next` only if its request is of the present `stream`.
4. Heartbeats are not counted among the requests on their way: they have a place of
   their own, so that a full window does not look like silence.

Source: etcd-io/raft `tracker/progress.go`; Raft dissertation §3.5, §10.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from txraft.core.ready import Heartbeat, Replicate, SendSnapshot

Announced = Heartbeat | Replicate | SendSnapshot

NO_LEVELS = -1
"""The level of a server that has never heard of levels: one of Go, or an old one."""

FULL_NEEDED_AT_FIRST = 8
"""Requests of `max_entries` that a follower accepts before that is doubled."""

FULL_NEEDED_AT_MOST = 4096
"""What that number grows to, doubling each time that more was too much."""

ALONE_BEFORE_UNDELIVERABLE = 3
"""How often in a row one entry alone gets no response before it is reported."""


class Mode(Enum):
    """The way in which a follower is sent entries."""

    PROBE = "one request at a time, until one is accepted"
    REPLICATE = "as many requests as the window allows"
    SNAPSHOT = "a snapshot is on its way, and no entries"


@dataclass(slots=True)
class Progress:
    """One follower, as its leader sees it.

    A field whose name ends in `_until`, `_due`, `_at` or `_deadline`, and `contact`,
    is a tick of the leader's `now`; all others count entries, requests or failures.
    """

    # Position: what the follower has, and what it is sent next ----------------------

    # The index of the first entry in the next request. In REPLICATE the entries between
    # `match` and `next` are on their way.
    next: int

    # The number of the present stream: the run of requests since the last one that was
    # refused or lost. `Leader` gives a new one then, and ignores what is still answered
    # to the old one: its entries are sent again, and its requests are not `inflight`.
    stream: int

    # The tick at which the newest request that it has answered was sent. The lease
    # counts from there: when the answer was given is not known, only that it was later.
    contact: int

    # The stream in which it became a member. What was asked before that says nothing
    # about it: it may be another process under the same address.
    first_stream: int = 0

    # The highest index up to which it has this leader's log on its disk. Quorums are
    # counted with this, so it is never a guess.
    match: int = 0

    # PROBE, REPLICATE or SNAPSHOT: the diagram above has what changes it.
    mode: Mode = Mode.PROBE

    # PROBE: by how many entries `next` goes back at the next refusal.
    step_back: int = 1

    # Where its log ended when it last answered a heartbeat. That is only a hint: the
    # entries there may be of another leader.
    last_log: int = 0

    # The window, and waits after failures ------------------------------------------

    # Requests with entries, or with a commit index alone, that have no response yet.
    inflight: int = 0

    # Whether the last request that was read from the disk held fewer entries than it
    # asked for. Requests behind such a one would leave a gap, so the next goes alone.
    short_read: bool = False

    # How often in a row sending has failed, and the tick before which no entries are
    # sent. Heartbeats go on.
    failures: int = 0
    wait_until: int = 0

    # The commit index that it was sent last, and the one that it has acknowledged; and
    # the tick from which it may be sent again in a request without entries.
    commit_sent: int = 0
    commit_known: int = 0
    commit_due: int = 0

    # Heartbeats ---------------------------------------------------------------------

    # The one on its way, None if there is none; when the next is due; and how many in
    # a row got no response.
    heartbeat_inflight: Heartbeat | None = None
    heartbeat_due: int = 0
    heartbeat_failures: int = 0

    # The newest round of heartbeats that it was sent, and that it has answered. Only
    # the second one confirms a verification.
    round_sent: int = 0
    round_answered: int = 0

    # Large entries ------------------------------------------------------------------

    # How many entries one request may hold, because larger ones got no response while
    # heartbeats did; 0 if `CoreOptions.max_append_entries` is the only limit. Then how
    # many requests of that size it has accepted in a row, and how many it has to accept
    # before the limit is doubled.
    max_entries: int = 0
    full_accepted: int = 0
    full_needed: int = FULL_NEEDED_AT_FIRST

    # How often in a row one entry alone got no response; and the index of an entry to
    # which that happened too often, 0 if there is none.
    lone_failures: int = 0
    undeliverable: int = 0

    # Snapshots ----------------------------------------------------------------------

    # Whether it is installing a snapshot, of this leader or another: so it said in its
    # last response to a heartbeat. It takes neither entries nor another one then.
    installing: bool = False

    # The index of the snapshot that it was sent last, 0 once it has caught up. Until
    # then the log behind it is kept, or it would need another snapshot at once.
    snapshot_sent: int = 0

    # The tick at which sending or installing one failed last. The next one waits for a
    # response to a heartbeat that was sent later.
    snapshot_failed_at: int = -1

    # The value of `last_log` that was tried before a snapshot was sent: once each.
    tried_end: int = 0

    # Membership and level -----------------------------------------------------------

    # The index of the entry that removed it, None for a member: it gets that entry and
    # none after it. And the tick at which it is given up, whether it knows or not.
    removal_index: int | None = None
    removal_deadline: int | None = None

    # The level of the state machine that it announced last: None while that is not
    # known, NO_LEVELS if it announces none.
    level: int | None = None

    @property
    def may_misjudge(self) -> bool:
        """Whether it may apply entries whose level it does not understand.

        A server that announces a level stops by itself where it is not enough.
        """
        return self.level is None or self.level < 0

    def announces(self, level: int, request: Announced) -> None:
        """Note the *level* that the response to *request* announced.

        Only the response to the newest request counts: one that was overtaken may be of
        a process that has been replaced since. Which of two came first that were asked
        in one tick is not known, so the lower level counts.
        """
        if request.stream < self.first_stream or request.sent < self.contact:
            return
        if request.sent == self.contact and self.level is not None:
            level = min(level, self.level)
        self.level = level

    def accepted(self, last: int) -> None:
        """Count entries up to *last* as durable on the follower."""
        # Responses may overtake each other: an older one must not take back a newer.
        self.match = max(self.match, last)
        self.next = max(self.next, self.match + 1)
        self.failures = 0
        self.step_back = 1
        self.mode = Mode.REPLICATE
        self.lone_failures = self.undeliverable = 0

    def refused(self, last_log: int) -> None:
        """Look further back: twice as far at each refusal, never below what it has.

        A step of one each time would cost a round trip for every entry in which the
        logs differ. Its *last_log* tells where to look at the latest.
        """
        self.next = max(
            self.match + 1, 1, min(self.next - self.step_back, last_log + 1)
        )
        self.step_back *= 2
        self.mode = Mode.PROBE

    def restart(self, stream: int, unanswered: int) -> None:
        """Begin a new stream of requests at *unanswered*, the first index lost."""
        self.stream = stream
        self.inflight = 0
        self.next = max(self.match + 1, min(self.next, unanswered))
        self.mode = Mode.PROBE

    def failed(self, now: int, longest_wait: int, first_wait: int = 1) -> None:
        """Wait before the next request: twice as long at each failure in a row."""
        # The shift is bounded because numbers are not: failures may go on for years.
        wait = first_wait << min(self.failures, 16)
        self.wait_until = now + min(wait, longest_wait)
        self.failures += 1

    def send_less(self, first: int, entries: int) -> bool:
        """Halve the size of requests: one of *entries* from *first* got no response.

        It was too large for the follower, or to get there in the time of a call; the
        same request once more would fail like this one. `accepted_full` doubles the
        size again.

        Returns: whether the entry at *first* is to be reported as undeliverable now,
            because it has failed alone too often.
        """
        if entries > 1:
            self.max_entries = entries // 2
            self.full_accepted = 0
            longer = 2 * self.full_needed
            self.full_needed = min(longer, FULL_NEEDED_AT_MOST)
            return False
        self.lone_failures += 1
        if self.lone_failures < ALONE_BEFORE_UNDELIVERABLE:
            return False
        is_new = self.undeliverable != first
        self.undeliverable = first
        return is_new

    def accepted_full(self, limit: int) -> None:
        """Try twice as many entries once enough requests of `most` were accepted.

        At each time that this fails it takes twice as many, so that a follower whose
        limits stay as they are is seldom asked for too much.
        """
        self.full_accepted += 1
        if self.full_accepted >= self.full_needed:
            self.full_accepted = 0
            self.max_entries = (
                2 * self.max_entries if 2 * self.max_entries < limit else 0
            )
