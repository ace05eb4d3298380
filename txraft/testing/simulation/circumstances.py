"""The circumstances of a run: size, options and rates of faults, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from txraft.core.options import CoreOptions

TICK = 100_000
"""Microseconds between two ticks of an exact clock."""


@dataclass(slots=True)
class Circumstances:
    """The size, the options and the faults of one run.

    A *_rate* is the chance of a fault at each tick. `protected` tells whether pre-vote
    and check-quorum are on. Delays are in microseconds; `snapshot_threshold` and
    `trailing` are in entries. The first `bootstrap_size` of `names` bootstrap the
    cluster, the others wait to be added.
    """

    names: tuple[str, ...]
    bootstrap_size: int
    options: CoreOptions
    protected: bool
    fault_free: bool
    drifts: bool
    resident_entries: int
    snapshot_threshold: int
    trailing: int
    disk_delays: tuple[int, ...]
    loss: float
    repeats: float
    late: float
    tail: float
    longest_delay: int
    in_order: bool
    crash_rate: float
    pause_rate: float
    disk_fault_rate: float
    damage_rate: float
    cut_rate: float
    degrade_rate: float
    heal_rate: float
    change_rate: float
    transfer_rate: float
    snapshot_rate: float
    burst_rate: float
    clients: int
    think: int
    armed: float


FAULT_FREE_EVERY = 16
"""One seed in so many meets no fault at all, and must then elect exactly once."""


def draw(seed: int, random: Random) -> Circumstances:
    """Draw the circumstances of *seed*."""
    names = tuple("abcdefg"[: random.choice((1, 2, 3, 3, 4, 5, 5, 6, 7))])
    protected = random.random() >= 1 / 3
    circumstances = Circumstances(
        names=names,
        bootstrap_size=random.randint(max(1, len(names) - 2), len(names)),
        options=_options(random, protected),
        protected=protected,
        fault_free=False,
        drifts=random.random() < 1 / 3,
        resident_entries=random.choice((0, 2, 8, 1000)),
        snapshot_threshold=random.choice((3, 10, 30, 10**9)),
        trailing=random.choice((0, 2, 10)),
        disk_delays=random.choice(
            ((0,), (100, 2000), (20_000, 90_000, 300_000), (0, 50_000, 2_000_000))
        ),
        loss=random.choice((0.0, 0.02, 0.1, 0.25)),
        repeats=random.choice((0.0, 0.05)),
        late=random.choice((0.0, 0.3)),
        tail=random.choice((0.0, 0.01, 0.05)),
        longest_delay=random.choice((1_000, 20_000, 100_000, 300_000)),
        in_order=random.random() < 0.5,
        crash_rate=random.choice((0.0, 0.01, 0.04, 0.1)),
        pause_rate=random.choice((0.0, 0.01, 0.03)),
        disk_fault_rate=random.choice((0.0, 0.0, 0.01)),
        cut_rate=random.choice((0.0, 0.02, 0.05, 0.1)),
        degrade_rate=random.choice((0.0, 0.02)),
        heal_rate=random.choice((0.02, 0.06, 0.15)),
        change_rate=random.choice((0.0, 0.03, 0.15)),
        transfer_rate=random.choice((0.0, 0.01)),
        snapshot_rate=random.choice((0.0, 0.02)),
        burst_rate=random.choice((0.0, 0.1, 0.4, 0.8)),
        clients=random.randint(2, 5),
        think=random.choice((50_000, 200_000, 500_000)),
        armed=random.choice((0.0, 0.15, 0.4, 0.6)),
        damage_rate=0.0,
    )
    if seed % FAULT_FREE_EVERY == FAULT_FREE_EVERY - 1:
        return _without_faults(circumstances)
    return circumstances


def _options(random: Random, protected: bool) -> CoreOptions:
    return CoreOptions(
        heartbeat_timeout_ticks=10,
        election_timeout_ticks=10,
        heartbeat_interval_ticks=2,
        commit_interval_ticks=1,
        lease_ticks=8,
        max_append_entries=random.choice((1, 2, 8, 64)),
        max_inflight_requests=random.choice((1, 2, 4)),
        pre_vote=protected or random.random() < 0.3,
        check_quorum=protected or random.random() < 0.3,
        opening_entry_lists_members=random.random() < 0.2,
        tags_cluster=random.random() < 0.7,
    )


def _without_faults(circumstances: Circumstances) -> Circumstances:
    return replace(
        circumstances,
        fault_free=True,
        bootstrap_size=len(circumstances.names),
        disk_delays=(100, 2000),
        loss=0.0,
        repeats=0.0,
        late=0.0,
        tail=0.0,
        longest_delay=2_000,
        crash_rate=0.0,
        pause_rate=0.0,
        disk_fault_rate=0.0,
        damage_rate=0.0,
        cut_rate=0.0,
        degrade_rate=0.0,
        change_rate=0.0,
        transfer_rate=0.0,
        armed=0.0,
    )
