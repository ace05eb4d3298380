"""Makes the pieces of a shell out of the parts of its node and what was recovered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from twisted.python.failure import Failure

from txraft.core.consensus import Consensus
from txraft.core.entry import Entry
from txraft.node.applier import Applier, Fetch, Settled
from txraft.node.boot import Recovered
from txraft.node.incarnations import Incarnations
from txraft.node.levels import Levels
from txraft.node.parts import Owner, Parts
from txraft.node.pending import Pending
from txraft.node.replies import Replies
from txraft.node.skipping import Skips
from txraft.node.synced import LogEnd
from txraft.node.tail import Tail
from txraft.node.timing import core_options
from txraft.node.writer import Writer


def make_pending(parts: Parts) -> Pending:
    """Make room for those who wait for an outcome."""
    config = parts.config
    return Pending(config.max_pending_entries, config.max_pending_bytes)


def make_tail(parts: Parts, recovered: Recovered) -> Tail:
    """Make the memory of the newest entries, which is empty."""
    config = parts.config
    return Tail(
        recovered.log.last_index, config.max_tail_bytes, config.max_append_bytes
    )


def make_consensus(
    parts: Parts, recovered: Recovered, tail: Tail, level: int
) -> Consensus:
    """Make the consensus of a node that has just started and announces *level*."""
    consensus = Consensus(
        parts.address,
        parts.random,
        replace(core_options(parts.config), level=level),
        recovered.hard_state,
        recovered.log,
        recovered.configurations,
        recovered.snapshot,
        tail.fit,
    )
    consensus.cluster_proposals.update(recovered.cluster_proposals)
    return consensus


def make_writer(
    parts: Parts,
    recovered: Recovered,
    synced: Callable[[int], None],
    failed: Callable[[Failure], None],
) -> Writer:
    """Make the way to the disk."""
    return Writer(
        parts.workers.writer,
        parts.log_store,
        parts.stable_store,
        synced,
        failed,
        LogEnd(recovered.log.last_index, recovered.log.last_term),
        parts.clock.seconds,
        recovered.noted,
        recovered.hard_state.term,
    )


def make_applier(
    parts: Parts,
    recovered: Recovered,
    fetch: Fetch,
    settled: Settled,
    owner: Owner,
    decided: Callable[[Entry], None],
    skips: Skips,
    failed_at: Callable[[Sequence[Entry]], None],
) -> Applier:
    """Make what feeds the state machine, which is as the snapshot has left it."""
    return Applier(
        parts.fsm,
        parts.clock,
        parts.config.apply_slice,
        fetch,
        settled,
        owner.stop_because,
        recovered.snapshot.index,
        decided,
        skips,
        recovered.failed.last,
        failed_at,
    )


def make_levels(parts: Parts) -> Levels:
    """Make what announces and activates levels of the state machine."""
    return Levels(parts.address, parts.fsm, parts.config.protocol_version)


def make_incarnations(
    parts: Parts,
    recovered: Recovered,
    save: Callable[[Mapping[bytes, bytes]], None],
) -> Incarnations:
    """Make the memory of who the other members are."""
    return Incarnations(
        parts.address,
        recovered.incarnation,
        recovered.known_incarnations,
        save,
        recovered.configurations.latest_index,
        recovered.pardoned,
    )


def make_replies(parts: Parts, recovered: Recovered, level: int) -> Replies:
    """Make what answers peers."""
    return Replies(
        parts.config.protocol_version,
        parts.server_id,
        parts.address,
        recovered.incarnation,
        level,
    )
