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

from txraft.core.ready import Heartbeat


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
    server has announced, None while it is not known, and *born* the life in which it
    became a member: what was asked before that says nothing about it.
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
    leaving: int | None = None
    leaving_until: int | None = None

    def accepted(self, last: int) -> None:
        """Count entries up to *last* as durable on the follower."""
        self.match = max(self.match, last)
        self.next = max(self.next, self.match + 1)
        self.failures = 0
        self.step = 1
        self.mode = Mode.REPLICATE

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

    def failed(self, now: int, longest_wait: int) -> None:
        """Wait before the next request: twice as long at each failure in a row."""
        self.wait_until = now + min(1 << min(self.failures, 16), longest_wait)
        self.failures += 1
