"""What a node is doing, for its users to look at."""

from __future__ import annotations

from txraft.core.configuration import Configuration, Suffrage
from txraft.core.leader import Leader
from txraft.node.events import EventNotifier, RaftState
from txraft.node.metrics import MeteredLog, NodeMetrics, PeerMetrics
from txraft.node.parts import Parts
from txraft.node.shell import Shell
from txraft.node.timing import tick_seconds

HEALTHY_SILENCE = 2.0
"""Seconds without a word after which a leader counts a member as silent."""


class Status:
    """The part of `Raft` that only tells. All of it may be asked at any time."""

    _parts: Parts
    _events: EventNotifier
    _shell: Shell | None

    def __repr__(self) -> str:
        return f"Node at {self._parts.address} [{self.state}]"

    @property
    def address(self) -> str:
        """This node's address as its peers know it."""
        return self._parts.address

    @property
    def state(self) -> RaftState:
        """What this node is doing."""
        return self._events.state

    @property
    def leader(self) -> str | None:
        """The address of the leader, None if none is known."""
        return self._events.leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._shell.consensus.term if self._shell else 0

    @property
    def last_index(self) -> int:
        """The index of the newest entry in the log or snapshot."""
        return self._shell.consensus.log.last_index if self._shell else 0

    @property
    def commit_index(self) -> int:
        """The index up to which entries are known to be committed."""
        return self._shell.consensus.commit_index if self._shell else 0

    @property
    def applied_index(self) -> int:
        """The index up to which entries were applied to the FSM."""
        return self._shell.applier.applied_index if self._shell else 0

    @property
    def last_contact(self) -> float | None:
        """When a leader was last heard, in the clock's seconds; None if never."""
        return self._events.last_contact

    @property
    def active_level(self) -> int:
        """The level of the state machine that is active in what was applied here."""
        return self._shell.levels.active if self._shell else 0

    @property
    def levels(self) -> dict[str, int | None]:
        """Up to which level each member understands the state machine, as it announced.

        A leader has heard it from all that answer it, other members know their own;
        None is unknown. Go servers, and protocol version 0, count as 0.
        """
        return self._shell.levels.told(self._shell.consensus) if self._shell else {}

    def stats(self) -> dict[str, str]:
        """Return figures for an operator, under the seed's keys."""
        shell = self._shell
        if shell is None:
            return {"state": str(self.state)}
        consensus = shell.consensus
        return {
            "state": str(self.state),
            "term": str(consensus.term),
            "last_log_index": str(consensus.log.last_index),
            "last_log_term": str(consensus.log.last_term),
            "commit_index": str(consensus.commit_index),
            "applied_index": str(shell.applier.applied_index),
            "fsm_pending": str(shell.applier.backlog),
            "last_snapshot_index": str(consensus.snapshot.index),
            "last_snapshot_term": str(consensus.snapshot.term),
            "num_peers": str(max(0, len(self.peers()) - 1)),
            "last_contact": self._last_contact_text(),
            "level": str(shell.levels.announced),
            "active_level": str(shell.levels.active),
            **_cluster(shell),
            **_silent(shell, tick_seconds(self._parts.config)),
            **_refused(shell),
            **_undeliverable(shell),
            **_stuck(shell),
            **_skipped(shell),
        }

    def metrics(self) -> NodeMetrics:
        """Return figures for whoever watches this node."""
        shell = self._shell
        if shell is None:
            return NodeMetrics()
        consensus = shell.consensus
        store = self._parts.log_store
        heard = self.last_contact
        now = self._parts.clock.seconds()
        return NodeMetrics(
            term=consensus.term,
            first_index=store.first_index(),
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
            silence=None if heard is None else now - heard,
            commits=shell.pending.commits,
            stores=shell.writer.stores,
            snapshots=shell.snapshots.taken,
            peers=self._peer_figures(shell),
            log=store.metrics() if isinstance(store, MeteredLog) else {},
        )

    def _peer_figures(self, shell: Shell) -> dict[str, PeerMetrics]:
        leader, consensus = shell.consensus.role, shell.consensus
        if not isinstance(leader, Leader):
            return {}
        tick = tick_seconds(self._parts.config)
        return {
            address: PeerMetrics(
                progress.match,
                consensus.log.last_index - progress.match,
                progress.inflight,
                (consensus.now - progress.contact) * tick,
                progress.undeliverable,
            )
            for address, progress in leader.followers.items()
        }

    def _last_contact_text(self) -> str:
        if self.last_contact is None:
            return "never"
        if self.state is RaftState.LEADER:
            return "0"
        return f"{self._parts.clock.seconds() - self.last_contact:.6f}s"

    @property
    def configuration(self) -> Configuration:
        """The membership in force, committed or not; empty before the start."""
        if self._shell is None:
            return Configuration()
        return self._shell.consensus.configuration

    def peers(self) -> list[str]:
        """Return the addresses of all members, this node included, sorted."""
        if self._shell is None:
            return []
        return sorted(self._shell.consensus.configuration.addresses)


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
