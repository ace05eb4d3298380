"""Metrics: what a node counts of itself. Nothing here decides anything.

What is counted while the node works costs well under a microsecond for each write or
batch, and nothing for each entry. All else is read when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
"""Upper bounds of a timer's classes, in milliseconds."""


class Timer:
    """How often something took how long, in milliseconds.

    `counts` has a class for each of `BOUNDS`, and one for all above.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count once that it took so many *seconds*."""
        milliseconds = seconds * 1000
        self.counts[bisect_left(BOUNDS, milliseconds)] += 1
        self.total += milliseconds


@runtime_checkable
class MeteredLog(Protocol):
    """A log store that counts what it writes."""

    def metrics(self) -> Mapping[str, float]:
        """Return what was counted since it was opened, by name. Thread: any."""


@dataclass(frozen=True, slots=True)
class PeerMetrics:
    """What a leader knows of one follower.

    *lag* is how many entries of the leader's log it may lack, *silence* how many
    seconds ago the newest request that it has answered was sent. *undeliverable* is
    the index of an entry that it does not take though it answers, 0 for none.
    """

    match: int
    lag: int
    in_flight: int
    silence: float
    undeliverable: int = 0


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """One node at one moment. Indexes are those of log entries.

    *silence* is how many seconds ago the leader was heard, on the leader since a
    quorum has answered; None for never.
    """

    term: int = 0
    first_index: int = 0
    last_index: int = 0
    commit_index: int = 0
    applied_index: int = 0
    apply_backlog: int = 0
    stuck_seconds: float = 0.0
    pending_entries: int = 0
    pending_bytes: int = 0
    waiting_writes: int = 0
    appended: int = 0
    stored: int = 0
    snapshot_index: int = 0
    snapshot_bytes: int = 0
    silence: float | None = None
    commits: Timer = field(default_factory=Timer)
    stores: Timer = field(default_factory=Timer)
    snapshots: Timer = field(default_factory=Timer)
    peers: Mapping[str, PeerMetrics] = field(default_factory=dict)
    log: Mapping[str, float] = field(default_factory=dict)
