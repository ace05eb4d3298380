"""The options of consensus, in ticks and entries.

`txraft.node.timing` makes them from a `Config`, whose times are in seconds. An option
that users may set is a field of both, and a line in `core_options` there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """The options of one server; they never change while it runs."""

    # A follower campaigns after once to twice as long without its leader.
    heartbeat_timeout_ticks: int = 20

    # A round of a campaign takes once to twice as long; a leader whose disk takes
    # longer for one write gives up.
    election_timeout_ticks: int = 20

    # Time between heartbeats, and before a commit index without entries is sent again.
    heartbeat_interval_ticks: int = 2
    commit_interval_ticks: int = 1

    # A leader gives up when no quorum has answered what it sent so long ago. Less than
    # a heartbeat timeout, or followers might elect another before it has.
    lease_ticks: int = 10

    # Entries in one request, and requests on their way to one follower.
    max_append_entries: int = 64
    max_inflight_requests: int = 2

    # Entries that are kept for followers that are being sent a snapshot.
    max_kept_entries: int = 1 << 17

    # Whether to ask for pre-votes before a new term (§9.6), and whether a leader needs
    # the responses of a quorum to lead on (§6.2).
    pre_vote: bool = True
    check_quorum: bool = True

    # Whether a server campaigns as soon as it starts.
    campaign_at_once: bool = False

    # Protocol version 0 opens a leadership with the whole membership, not a no-op.
    opening_entry_lists_members: bool = False

    # Whether the first leader gives the cluster an identity.
    tags_cluster: bool = True

    # The highest level of the state machine that this server understands.
    level: int = 0
