"""The progress of one follower, as its leader knows it.

        unreachable, refused
      ┌──────────────────────┐
      v        accepted      │
    PROBE ──────────────> REPLICATE
      │ ^                    │
      │ │ installed, failed  │ entries are compacted
      v │                    │
    SNAPSHOT <───────────────┘

Source: etcd-io/raft `tracker/progress.go`; Raft dissertation §3.5, §10.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from txraft.core.ready import Heartbeat, Replicate, SendSnapshot

Announced = Heartbeat | Replicate | SendSnapshot

NO_LEVELS = -1
"""The level of a server that has never heard of levels: one of Go, or an old one."""

FEWEST_BEFORE_MORE = 8
"""Full requests that a follower which was sent less accepts before it gets more."""

MOST_BEFORE_MORE = 4096
"""What that number grows to, doubling each time that more was too much."""

ALONE_BEFORE_UNDELIVERABLE = 3
"""How often in a row one entry alone gets no response before it is named."""


class Mode(Enum):
    """The way in which a follower is sent entries."""

    PROBE = "one request at a time, until one is accepted"
    REPLICATE = "as many requests as the window allows"
    SNAPSHOT = "a snapshot is on its way, and no entries"


@dataclass(slots=True)
class Progress:
    """One follower, as its leader sees it.

    `match` < `next` always, and `next` is at most one behind the leader's log. In PROBE
    one request at a time looks for where the logs agree; in REPLICATE requests leave
    one behind the other, and `next` runs ahead of `match`; in SNAPSHOT none leaves.
    """

    # The index of the first entry that it is sent next.
    next: int

    # The number of the stream of requests on their way. A new stream begins when one of
    # them got lost or was refused; a response to an older one tells only its term, as
    # its requests would count twice, or for entries that are sent again.
    stream: int

    # The tick at which the newest request that it has answered was sent. The lease
    # counts from there: when it answered is not known, only that it was later.
    contact: int

    # The stream in which it became a member. What was asked before that says nothing
    # about it: it may be another process under the same address.
    first_stream: int = 0

    # The level of the state machine that it has announced: None while that is not
    # known, NO_LEVELS if it announces none.
    level: int | None = None

    # The highest index up to which it is known to have this leader's log on its disk.
    match: int = 0

    # How it is sent entries; the diagram above shows what changes that.
    mode: Mode = Mode.PROBE

    # How many requests with entries are on their way, at most
    # `Options.max_inflight_requests`: the window of the pipeline.
    inflight: int = 0

    # Whether the last request that was read from the disk held fewer entries than
    # asked for. Those behind it would leave a gap then, so the next goes alone.
    cut_short: bool = False

    # The commit index that it was sent last, and that it has acknowledged; and the tick
    # from which it may be sent without entries.
    commit_sent: int = 0
    commit_known: int = 0
    commit_due: int = 0

    # How far `next` goes back at the next refusal.
    step: int = 1

    # How often in a row sending has failed, and the tick before which it is not tried.
    failures: int = 0
    wait_until: int = 0

    # The heartbeat on its way, if one is: there is one at a time, outside the window of
    # entries, so that a full window does not look like silence. Then the tick at which
    # the next is due, and how many in a row got no response.
    heartbeat_inflight: Heartbeat | None = None
    heartbeat_due: int = 0
    heartbeat_failures: int = 0

    # The newest round of heartbeats that was sent to it, and that it has answered.
    # Verifications count the second.
    round_sent: int = 0
    round_answered: int = 0

    # How many entries one request may hold, because larger ones got no response while
    # heartbeats did; 0 is no limit of its own. Then how many requests of that size it
    # took in a row, and how many it has to take before it is sent more.
    most: int = 0
    full: int = 0
    full_before_more: int = FEWEST_BEFORE_MORE

    # How often in a row one entry alone got no response, and the index of an entry to
    # which that happened too often; 0 for none.
    cut_off_alone: int = 0
    undeliverable: int = 0

    # What it said in its last response to a heartbeat: whether it installs a snapshot,
    # from whomever, and where its log ends.
    installing: bool = False
    last_log: int = 0

    # The end of its log that was tried before a snapshot was sent: each is tried once.
    looked_at: int = 0

    # The end of the snapshot that it was sent last, 0 once it has what follows. Until
    # then the log after it is not compacted, or it would need another snapshot.
    recovering: int = 0

    # The tick at which sending or installing a snapshot failed last.
    not_installed: int = -1

    # The index of the entry that removed it, if one did; and the tick from which it is
    # told no more, whether it knows or not.
    leaving: int | None = None
    leaving_until: int | None = None

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
        self.step = 1
        self.mode = Mode.REPLICATE
        self.cut_off_alone = self.undeliverable = 0

    def refused(self, last_log: int) -> None:
        """Step back: by twice as much at each refusal, never past what it has.

        Twice as much, so that a log which differs in many entries is not gone through
        one by one, each at the cost of a round trip.
        """
        self.next = max(self.match + 1, 1, min(self.next - self.step, last_log + 1))
        self.step *= 2
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

    def cut_off(self, first: int, entries: int) -> bool:
        """Send less at once after a request of *entries* from *first* got no response.

        Half as many: what is too large for the follower, or for the way there in the
        time of a call, is not sent again unchanged. More come back as `took_most`
        says.
        Returns: whether the entry *first* has now failed alone as often as it takes
            to call it undeliverable.
        """
        if entries > 1:
            self.most = entries // 2
            self.full = 0
            longer = 2 * self.full_before_more
            self.full_before_more = min(longer, MOST_BEFORE_MORE)
            return False
        self.cut_off_alone += 1
        if self.cut_off_alone < ALONE_BEFORE_UNDELIVERABLE:
            return False
        is_new = self.undeliverable != first
        self.undeliverable = first
        return is_new

    def took_most(self, limit: int) -> None:
        """Try twice as many entries once enough requests of `most` were accepted.

        At each time that this fails it takes twice as many, so that a follower whose
        limits stay as they are is seldom asked for too much.
        """
        self.full += 1
        if self.full >= self.full_before_more:
            self.full = 0
            self.most = 2 * self.most if 2 * self.most < limit else 0
