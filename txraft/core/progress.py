"""What a leader knows of one follower.

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
"""Full requests that are accepted before a follower that was sent less gets more."""

MOST_BEFORE_MORE = 4096
"""What that number grows to, doubling each time that more was too much."""

ALONE_BEFORE_UNDELIVERABLE = 3
"""How often in a row one entry alone gets no answer before it is named."""


class Mode(Enum):
    """How entries are sent to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """One follower: what it has (*match*), what it gets next, and who answers when.

    *life* numbers the stream of requests: an answer to an earlier life tells only
    its term. *contact* is the tick at which the newest answered request was sent.
    *leaving* is the index of the entry that removed this server, if one did.
    *cut_short* tells whether the last request that was read from the disk held fewer
    entries than it should have. *level* is the level of the state machine that this
    server has announced, None while it is not known, NO_LEVELS where it announces none;
    and *born* the life in which it became a member: what was asked before that says
    nothing about it.

    *most* is how many entries one request may hold, because larger ones got no answer
    while heartbeats did; 0 is no limit of its own. *undeliverable* is the index of an
    entry that got none even alone, 0 for none.

    *installing* is what the follower said in its last answer to a heartbeat: it
    installs a snapshot, from whomever. *last_log* is the end of its log as it said
    there, and *looked_at* the one that was tried before a snapshot is sent.
    *recovering* is the end of the snapshot that it was sent last, 0 once it has what
    followed: the log after it is kept for it. *not_installed* is the tick at which one
    failed last.
    """

    next: int
    life: int
    contact: int
    born: int = 0
    level: int | None = None
    match: int = 0
    mode: Mode = Mode.PROBE
    inflight: int = 0
    cut_short: bool = False
    commit_sent: int = 0
    commit_known: int = 0
    commit_due: int = 0
    step: int = 1
    failures: int = 0
    wait_until: int = 0
    heartbeat_inflight: Heartbeat | None = None
    heartbeat_due: int = 0
    heartbeat_failures: int = 0
    round_sent: int = 0
    round_answered: int = 0
    most: int = 0
    full: int = 0
    full_before_more: int = FEWEST_BEFORE_MORE
    cut_off_alone: int = 0
    undeliverable: int = 0
    installing: bool = False
    last_log: int = 0
    looked_at: int = 0
    recovering: int = 0
    not_installed: int = -1
    leaving: int | None = None
    leaving_until: int | None = None

    @property
    def may_misjudge(self) -> bool:
        """Whether it may apply entries whose level it does not understand.

        A server that announces a level stops by itself where it is not enough.
        """
        return self.level is None or self.level < 0

    def announces(self, level: int, request: Announced) -> None:
        """Note the *level* that the answer to *request* announced.

        Only what answers the newest request counts: an answer that was overtaken may
        be of a process that has been replaced since. Of two that were asked in one
        tick, which came first is not known, so the lower one does.
        """
        if request.life < self.born or request.sent < self.contact:
            return
        if request.sent == self.contact and self.level is not None:
            level = min(level, self.level)
        self.level = level

    def accepted(self, last: int) -> None:
        """Count entries up to *last* as durable on the follower."""
        self.match = max(self.match, last)
        self.next = max(self.next, self.match + 1)
        self.failures = 0
        self.step = 1
        self.mode = Mode.REPLICATE
        self.cut_off_alone = self.undeliverable = 0

    def refused(self, last_log: int) -> None:
        """Step back: by twice as much at each refusal, never past what it has."""
        self.next = max(self.match + 1, 1, min(self.next - self.step, last_log + 1))
        self.step *= 2
        self.mode = Mode.PROBE

    def restart(self, life: int, unanswered: int) -> None:
        """Begin a new stream of requests at *unanswered*, the first index lost."""
        self.life = life
        self.inflight = 0
        self.next = max(self.match + 1, min(self.next, unanswered))
        self.mode = Mode.PROBE

    def failed(self, now: int, longest_wait: int, first_wait: int = 1) -> None:
        """Wait before the next request: twice as long at each failure in a row."""
        wait = first_wait << min(self.failures, 16)
        self.wait_until = now + min(wait, longest_wait)
        self.failures += 1

    def cut_off(self, first: int, entries: int) -> bool:
        """Send less at once after a request of *entries* from *first* got no answer.

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
