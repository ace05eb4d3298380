"""Timing: turn the seconds of a `Config` into ticks, the only time that consensus has.

So consensus needs no clock, and a simulation can let time pass as it likes.
"""

from __future__ import annotations

import math

from txraft.config import Config
from txraft.core.options import CoreOptions

TICKS_PER_HEARTBEAT_TIMEOUT = 20
"""So fine that rounding moves no timeout by more than a twentieth of it."""

HEARTBEATS_PER_TIMEOUT = 10
"""About so many heartbeats are lost in a row before a follower campaigns."""


def tick_seconds(config: Config) -> float:
    """Return how long a tick is: fine enough for every timeout of *config*."""
    return min(
        config.heartbeat_timeout / TICKS_PER_HEARTBEAT_TIMEOUT,
        config.leader_lease_timeout / HEARTBEATS_PER_TIMEOUT,
        config.commit_timeout,
    )


def to_ticks(seconds: float, tick: float) -> int:
    """Return the least number of ticks that last *seconds*, at least one."""
    # What divides evenly must not become a tick more by the error of a float.
    return max(1, math.ceil(seconds / tick - 1e-9))


def core_options(config: Config) -> CoreOptions:
    """Translate *config* into the options of consensus."""
    tick = tick_seconds(config)
    return CoreOptions(
        heartbeat_timeout_ticks=to_ticks(config.heartbeat_timeout, tick),
        election_timeout_ticks=to_ticks(config.election_timeout, tick),
        heartbeat_interval_ticks=to_ticks(
            config.heartbeat_timeout / HEARTBEATS_PER_TIMEOUT, tick
        ),
        commit_interval_ticks=to_ticks(config.commit_timeout, tick),
        lease_ticks=to_ticks(config.leader_lease_timeout, tick),
        max_append_entries=config.max_append_entries,
        max_inflight_requests=config.max_inflight_requests,
        max_kept_entries=config.max_kept_for_snapshot_entries,
        pre_vote=config.pre_vote,
        campaign_at_once=config.start_as_leader,
        opening_entry_lists_members=config.protocol_version == 0,
        tags_cluster=config.protocol_version > 0,
    )
