"""Status: what a running node tells operators, in words and in numbers.

Everything is read when somebody asks, and nothing here changes anything.
"""

from __future__ import annotations

from txraft.core.configuration import Suffrage
from txraft.core.leader import Leader
from txraft.interfaces import LogStore
from txraft.node.events import RaftState
from txraft.node.metrics import MeteredLog, NodeMetrics, PeerMetrics
from txraft.node.shell import Shell

HEALTHY_SILENCE = 2.0
"""Seconds without a word after which a leader counts a member as silent."""


def stats_of(
    shell: Shell, *, state: RaftState, silence: float | None, tick: float
) -> dict[str, str]:
    """Return what `Raft.stats` tells, under hashicorp/raft's keys.

    *silence* is how many seconds ago a leader was heard, None for never; *tick* is in
    seconds.
    """
    consensus = shell.consensus
    members = consensus.configuration.addresses
    return {
        "state": str(state),
        "term": str(consensus.term),
        "last_log_index": str(consensus.log.last_index),
        "last_log_term": str(consensus.log.last_term),
        "commit_index": str(consensus.commit_index),
        "applied_index": str(shell.applier.applied_index),
        "fsm_pending": str(shell.applier.backlog),
        "last_snapshot_index": str(consensus.snapshot.index),
        "last_snapshot_term": str(consensus.snapshot.term),
        "num_peers": str(max(0, len(members) - 1)),
        "last_contact": _last_contact(state, silence),
        "level": str(shell.levels.announced),
        "active_level": str(shell.levels.active),
        **_cluster(shell),
        **_silent(shell, tick),
        **_refused(shell),
        **_undeliverable(shell),
        **_stuck(shell),
        **_skipped(shell),
    }


def metrics_of(
    shell: Shell, *, log_store: LogStore, silence: float | None, tick: float
) -> NodeMetrics:
    """Return what `Raft.metrics` tells; *silence* and *tick* as for `stats_of`."""
    consensus = shell.consensus
    return NodeMetrics(
        term=consensus.term,
        first_index=log_store.first_index(),
        last_index=consensus.log.last_index,
        commit_index=consensus.commit_index,
        applied_index=shell.applier.applied_index,
        apply_backlog=shell.applier.backlog,
        stuck_seconds=shell.stuck.seconds,
        pending_entries=len(shell.pending),
        pending_bytes=shell.pending.waiting_bytes,
        waiting_writes=shell.writer.waiting,
        appended=shell.pending.appended_count,
        stored=shell.writer.stored,
        snapshot_index=consensus.snapshot.index,
        snapshot_bytes=shell.snapshots.newest_bytes,
        silence=silence,
        commits=shell.pending.commits,
        stores=shell.writer.stores,
        snapshots=shell.snapshots.taken,
        peers=_peers(shell, tick),
        log=log_store.metrics() if isinstance(log_store, MeteredLog) else {},
    )


def _peers(shell: Shell, tick: float) -> dict[str, PeerMetrics]:
    leader, consensus = shell.consensus.role, shell.consensus
    if not isinstance(leader, Leader):
        return {}
    return {
        address: PeerMetrics(
            match=progress.match,
            lag=consensus.log.last_index - progress.match,
            in_flight=progress.inflight,
            silence=(consensus.now - progress.contact) * tick,
            undeliverable=progress.undeliverable,
        )
        for address, progress in leader.followers.items()
    }


def _last_contact(state: RaftState, silence: float | None) -> str:
    if silence is None:
        return "never"
    return "0" if state is RaftState.LEADER else f"{silence:.6f}s"


def _cluster(shell: Shell) -> dict[str, str]:
    """Tell which cluster this is, and since which entry it has these members."""
    consensus = shell.consensus
    servers = consensus.configuration.servers
    others = [s.address for s in servers if s.suffrage is not Suffrage.VOTER]
    found = {"configuration_index": str(consensus.configurations.latest_index)}
    if consensus.cluster is not None:
        found["cluster"] = consensus.cluster.hex()
    if others:
        found["nonvoters"] = ", ".join(sorted(others))
    return found


def _silent(shell: Shell, tick: float) -> dict[str, str]:
    """Name the members that this leader has not heard lately, and for how long."""
    leader, now = shell.consensus.role, shell.consensus.now
    if not isinstance(leader, Leader):
        return {}
    silent = {
        address: (now - progress.contact) * tick
        for address, progress in leader.followers.items()
        if (now - progress.contact) * tick > HEALTHY_SILENCE
    }
    named = [f"{address}={seconds:.1f}s" for address, seconds in silent.items()]
    return {"silent_peers": ", ".join(sorted(named))} if named else {}


def _refused(shell: Shell) -> dict[str, str]:
    """Name the members that came without their data or are too old, if any did."""
    refused = shell.incarnations.refused
    found = {}
    if refused:
        found["refused_peers"] = ", ".join(sorted(refused))
    if shell.levels.behind:
        found["outdated_peers"] = ", ".join(sorted(shell.levels.behind))
    return found


def _undeliverable(shell: Shell) -> dict[str, str]:
    """Name the entries that followers of this leader do not take, if there are any."""
    leader = shell.consensus.role
    found = shell.undeliverable.of(leader) if isinstance(leader, Leader) else []
    return {"undeliverable_entries": "; ".join(map(str, found))} if found else {}


def _stuck(shell: Shell) -> dict[str, str]:
    """Tell for how many seconds the state machine has hung, if it does."""
    seconds = shell.stuck.seconds
    return {"fsm_stuck_seconds": f"{seconds:.1f}"} if seconds else {}


def _skipped(shell: Shell) -> dict[str, str]:
    """Name the entries that are skipped here, if there are any: INDEX:TERM:DIGEST."""
    skipped = shell.skips.skipped
    return {"skipped_entries": ", ".join(map(str, skipped))} if skipped else {}
