"""The state of one server, and its effects: all that holds whatever its role is.

Each method that changes something puts what follows into `coming`, the `Ready` to be
handed out next. Nothing here knows a role: roles get a `ServerState`, and `Consensus`
is one that has a role.

Source: Raft dissertation, figure 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.entry import Entry
from txraft.core.messages import Response
from txraft.core.options import CoreOptions
from txraft.core.ready import (
    HardState,
    Install,
    OutgoingRequest,
    Ready,
    Refusal,
    ResetLog,
    SnapshotMark,
    WriteNumbers,
)
from txraft.core.term_index import TermIndex


class ServerState:
    """What the server at *address* knows, as figure 3.1 lists it.

    *hard_state*, *log*, *configurations* and *snapshot* are what was found on disk.
    *fit* tells how many entries from *first* to *last* go into one message; it is
    asked only about entries from `resident_from` on, which are in memory.
    """

    def __init__(
        self,
        address: str,
        random: Random,
        options: CoreOptions | None = None,
        hard_state: HardState | None = None,
        log: TermIndex | None = None,
        configurations: ConfigurationHistory | None = None,
        snapshot: SnapshotMark | None = None,
        fit: Callable[[int, int], int] = lambda first, last: last,
    ) -> None:
        self.address = address
        self.random = random
        self.options = options or CoreOptions()
        self.log = log or TermIndex()
        self.configurations = configurations or ConfigurationHistory()
        self.snapshot = snapshot or SnapshotMark()
        self.fit = fit

        # The oldest index whose entry is in memory; the shell sets it.
        self.resident_from = self.log.last_index + 1

        # In force, but on disk only when `state_is_durable`.
        state = hard_state or HardState()
        self.term = state.term
        self.voted_for = state.voted_for
        self._hard_state = state

        # The identity of the cluster, once an entry that names one is committed; until
        # then those that are named in the log, by index.
        self.cluster = state.cluster
        self.cluster_proposals: dict[int, bytes] = {}

        # A log does not say what of it is committed; a snapshot holds nothing else.
        self.commit_index = self.snapshot.index

        # The level of the state machine that is active in what is applied here.
        self.active_level = 0

        # The ticks since this server started.
        self.now = 0

        # The tick from which a candidate of this server may shorten its round again. It
        # is not in the role, because it outlives each candidate.
        self.next_short_round = 0

        # Whether a snapshot is being received and put into place: the log must not be
        # written meanwhile, as all of it may be replaced.
        self.installing = False

        # What is on its way to the disk.
        self.writes = WriteNumbers(state)

        # What `ready` hands out next. The shell reads its changes to the log before it
        # calls `ready`, which asks *fit* for the sizes of the new entries, too.
        self.coming = Ready()

    # What follows from it -----------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log, committed or not."""
        return self.configurations.latest

    @property
    def may_campaign(self) -> bool:
        """Whether this server is a voter, unless its removal is known to be committed.

        After a restart little is known to be committed, and the votes of a server
        that is about to be removed may be needed for its removal to commit.
        Source: Raft dissertation §4.2.2.
        """
        possible = self.configurations.since(self.commit_index)
        return not self.installing and any(
            configuration.is_voter(self.address) for configuration in possible
        )

    @property
    def hard_state(self) -> HardState:
        """The term and vote now in force, on disk or not yet."""
        # The same object as long as nothing changes: `WriteNumbers` compares by
        # identity first, at every `ready`.
        last = self._hard_state
        if not (
            last.term == self.term
            and last.voted_for == self.voted_for
            and last.cluster == self.cluster
        ):
            self._hard_state = HardState(self.term, self.voted_for, self.cluster)
        return self._hard_state

    @property
    def state_is_durable(self) -> bool:
        """Whether the term and vote now in force are on disk."""
        return self.writes.durable_state == self.hard_state

    @property
    def oldest_write_age(self) -> int:
        """Ticks that the oldest unfinished write has waited."""
        return self.writes.oldest_age(self.now)

    # Messages -----------------------------------------------------------------------

    def send(self, to: object, message: OutgoingRequest | Response | Refusal) -> None:
        """Let *message* leave at once; it promises nothing that a crash could undo."""
        self.coming.send.append((to, message))

    def send_after_sync(self, to: object, message: OutgoingRequest | Response) -> None:
        """Let *message* leave when all that was written so far is durable."""
        self.coming.after_sync.append((to, message))

    def verified(self, token: object, index: int) -> None:
        """Confirm a `verify`: a read of the state at *index* is linearizable."""
        self.coming.verified.append((token, index))

    def forgets(self, peer: str) -> None:
        """Report that *peer* does not have what it had made durable."""
        self.coming.forgetful.append(peer)

    def cannot_deliver(self, peer: str, index: int) -> None:
        """Report that *peer* does not take the entry at *index*."""
        self.coming.undeliverable.append((peer, index))

    def contradicted_by(self, leader: str, reply_to: object) -> None:
        """Refuse a leader whose log denies what is committed here."""
        self.coming.contradiction = leader
        self.send(reply_to, Refusal(self.of_another_cluster))

    @property
    def of_another_cluster(self) -> str:
        """The text that refuses requests of a cluster that is not this server's."""
        return (
            f"{self.address} has committed entries in another cluster; to move it "
            "here, stop it, take its data directory away and start it with "
            "join: true"
        )

    # The log ------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> bool:
        """Append *entries*, which have their indexes and terms, to the log.

        A configuration among them is in force from here on, committed or not.
        Returns: whether there is one, for a leader to follow. No role is told.
        """
        assert entries[0].index == self.log.last_index + 1, "the log has no gaps"
        # Terms never fall in between, so equal ends mean one run. For 64 entries this
        # takes 0.1 us, and one by one 8.
        if entries[0].term == entries[-1].term:
            self.log.append(entries[0].term, len(entries))
        else:
            for entry in entries:
                self.log.append(entry.term)
        self.coming.append += entries
        reconfigured = False
        for entry in entries:
            if entry.configuration is not None:
                self.configurations.append(entry.index, entry.configuration)
                reconfigured = True
            if entry.cluster is not None:
                self.cluster_proposals[entry.index] = entry.cluster
        return reconfigured

    def truncate_from(self, index: int) -> None:
        """Drop the entry at *index* and all after it: a newer leader has others.

        They may be of this same batch and not handed out yet. Then they leave
        `coming`, but the truncation stays in it: what was written of older entries at
        these indexes must go as well.
        """
        assert index > self.commit_index, "what is committed is never truncated"
        self.log.truncate_from(index)
        # A configuration was in force though not committed, so it can be rolled back.
        self.configurations.truncate_from(index)
        for proposed in [i for i in self.cluster_proposals if i >= index]:
            del self.cluster_proposals[proposed]
        ready = self.coming
        ready.append = [entry for entry in ready.append if entry.index < index]
        # Two truncations in one batch are one from the lower index. The higher alone
        # would leave entries of the old leader on the disk, below the new ones.
        if ready.truncate_from is None or index < ready.truncate_from:
            ready.truncate_from = index

    def commit(self, index: int) -> None:
        """Raise the commit index; it never falls."""
        assert index <= self.log.last_index, "only what is in the log is committed"
        # Requests that were overtaken name an older one.
        if index <= self.commit_index:
            return
        self.commit_index = index
        # None but in the first entries of a cluster: nothing to sort at each commit.
        if not self.cluster_proposals:
            return
        for proposed in sorted(self.cluster_proposals):
            if proposed <= index:
                cluster = self.cluster_proposals.pop(proposed)
                # The first one counts, on all servers: the log has the same order.
                self.cluster = self.cluster or cluster

    # Snapshots ----------------------------------------------------------------------

    def compacted(self, index: int) -> None:
        """Learn that the entries up to *index* are about to leave the log."""
        self.log.compact_to(index)

    def snapshotted(self, mark: SnapshotMark) -> None:
        """Learn that a snapshot up to *mark* is durable."""
        # One of our own may end before one that was installed meanwhile.
        if mark.index > self.snapshot.index:
            self.snapshot = mark
            self.configurations.forget_before(mark.index)

    def install(self, install: Install) -> None:
        """Have the snapshot of *install* received; `installed` tells how that went."""
        self.installing = True
        self.coming.install = install

    def restart_at(self, mark: SnapshotMark) -> None:
        """Take the state of a snapshot for the log up to *mark*."""
        # The log may have got that far while the snapshot was on its way.
        if mark.index <= self.commit_index:
            return
        kept = self.log.restart_at(mark.index, mark.term)
        if not kept:
            self.configurations = ConfigurationHistory(
                mark.configuration_index, mark.configuration
            )
            self.cluster_proposals.clear()
        ready = self.coming
        # Entries of this batch that the snapshot covers, or replaces, must not be
        # written behind the reset.
        ready.append = [e for e in ready.append if kept and e.index > mark.index]
        ready.reset_log = ResetLog(mark.index, kept)
        self.snapshotted(mark)
        self.commit(mark.index)
