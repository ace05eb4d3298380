"""A follower: obeys the leader of its term, and campaigns when it hears none.

What it does with AppendEntries, in this order:

1. Refuse all entries while a snapshot is being installed: it replaces the log.
2. Refuse entries that are no sequence: they show a fault of the sender.
3. Without the entry before them, ask for older ones. If that entry is committed here,
   the leader is of another cluster, and is told so.
4. Skip entries that are here already; truncate at the first that differs, never at or
   below the commit index; append the rest.
5. Raise the commit index, but not beyond the last entry of this request.
6. Answer once all of it is on the disk.

Source: Raft dissertation §3.4, §3.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from txraft.core.entry import Entry
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    Response,
)
from txraft.core.ready import Install, OutgoingRequest, Refusal
from txraft.core.role import BaseRole, ElectionTimer, Next
from txraft.core.server import ServerState

LONGEST_STALL_TICKS = 2
"""What a stall of any length adds to the election timer, at most. A follower that was
held up itself must first read the heartbeats that wait in its sockets."""


class Follower(BaseRole):
    """Follows *leader*, or whoever says it leads this term."""

    def __init__(self, server: ServerState, leader: str | None) -> None:
        super().__init__(server)
        self.leader = leader

        # Whether the last connection from the leader ended: it surely is gone, so this
        # server campaigns after a short wait.
        self._lost_leader = False
        options = server.options
        self.timer = ElectionTimer(
            server.random, options, least=options.heartbeat_timeout_ticks
        )
        if server.now == 0 and self._need_not_wait():
            self.timer.end_with_next_tick()

    def _need_not_wait(self) -> bool:
        """Tell whether this server may campaign as soon as it starts."""
        server = self.server
        is_alone = server.configuration.voters == (server.address,)
        return is_alone or server.options.campaign_at_once

    # Waiting for a leader -----------------------------------------------------------

    @property
    def hears_leader(self) -> bool:
        """Whether a leader was heard within the shortest election timeout."""
        return self.leader is not None and not self.timer.least_has_passed

    def heard_from(self, leader: str) -> None:
        """Take *leader* for the leader of this term and wait anew."""
        self.leader = leader
        self._lost_leader = False
        self.timer.restart()

    def granted_vote(self) -> None:
        """Wait anew: the candidate may win."""
        self.timer.restart()

    def disconnected(self, peer: str) -> None:
        """Forget a leader that hung up, and campaign after a short random wait."""
        if peer != self.leader or not self.server.may_campaign:
            return
        self.leader = None
        self._lost_leader = True
        self.timer.restart_short()

    def tick(self, count: int) -> Next | None:
        """Campaign when the wait is over."""
        if not self.timer.has_ended_after(min(count, LONGEST_STALL_TICKS)):
            return None
        if not self.server.may_campaign:
            self.leader = None
            self.timer.restart()
            return None
        return Next.CAMPAIGN_WITHOUT_LEADER if self._lost_leader else Next.CAMPAIGN

    def needs_ready(self, peer: str | None) -> bool:
        """Return False for a sync: the shell then sends what waited for it by itself.

        That is what `Ready.after_sync` held back. Nothing else follows from it here.
        """
        return peer is not None

    # Taking over --------------------------------------------------------------------

    def ask_consent(self, transfer: int) -> None:
        """Ask the leader whether its *transfer* to this server is still under way.

        The request to campaign may have waited long in a socket. If the transfer is
        over, to campaign would depose a leader that serves again. Without a leader
        there is nobody to ask, and an election will come anyway.
        Source: Raft dissertation §3.10.
        """
        server = self.server
        if self.leader is not None:
            request = RequestPreVoteRequest(
                term=server.term + 1,
                candidate=server.address,
                last_log_index=server.log.last_index,
                last_log_term=server.log.last_term,
                transfer=transfer,
            )
            server.send(self.leader, request)

    def response(
        self, peer: str, request: OutgoingRequest, response: Response
    ) -> Next | None:
        """Campaign at once if the leader that transfers to this server consents."""
        server = self.server
        if (
            isinstance(request, RequestPreVoteRequest)
            and request.transfer is not None
            and request.term == server.term + 1
            and peer == self.leader
            and isinstance(response, RequestPreVoteResponse)
            and response.granted
            and server.may_campaign
        ):
            return Next.CAMPAIGN_FOR_TRANSFER
        return None

    # Requests of the leader ---------------------------------------------------------

    def heartbeat(self, reply_to: object) -> None:
        """Answer a heartbeat at once, if this server's term and vote are on the disk.

        The answer promises nothing but the term. If it waited for entries on their way
        to the disk, a follower with a slow disk would look like one that is gone.
        """
        server = self.server
        response = AppendEntriesResponse(
            server.term,
            server.log.last_index,
            True,
            no_retry_backoff=server.installing,
        )
        if server.state_is_durable:
            server.send(reply_to, response)
        else:
            server.send_after_sync(reply_to, response)

    def append_entries(self, request: AppendEntriesRequest, reply_to: object) -> None:
        """Store the leader's entries if they follow on what is here.

        Truncates only from the first real conflict, and takes no commit index
        above what the request has proven to be the leader's.
        """
        server, log = self.server, self.server.log
        # Entries that are accepted now would be lost when the snapshot replaces the
        # log.
        if server.installing:
            server.send(reply_to, rejection(server))
            return
        malformed = _fault(request)
        if malformed:
            server.send(reply_to, Refusal(malformed))
            return
        # As hashicorp/raft does, the response names the end of the log before the
        # request.
        last_before = log.last_index
        if not self._follows_on(request):
            # Every leader of this cluster has what is committed here, so this one is of
            # another cluster. To ask it for older entries would end in a truncation of
            # committed ones.
            if request.prev_log_index <= server.commit_index:
                server.contradicted_by(request.leader, reply_to)
                return
            response = AppendEntriesResponse(
                server.term, last_before, False, no_retry_backoff=True
            )
            server.send(reply_to, response)
            return
        new = self._unknown_suffix(request.entries)
        # The same contradiction, in the entries themselves. Without this check a leader
        # of another cluster would get committed entries truncated.
        if new and new[0].index <= server.commit_index:
            server.contradicted_by(request.leader, reply_to)
            return
        if new:
            self._store(new)
        # Not the leader's commit index alone: behind the last entry of this request the
        # log may have entries of another leader. What is compacted is committed anyway.
        proven = request.prev_log_index + len(request.entries)
        server.commit(min(request.leader_commit, max(proven, log.base_index)))
        # After the sync even if nothing is new: an earlier request may have brought
        # these entries, and their write may still be under way.
        response = AppendEntriesResponse(server.term, last_before, True)
        server.send_after_sync(reply_to, response)

    def _follows_on(self, request: AppendEntriesRequest) -> bool:
        """Tell whether the entry before the new ones is here, with the same term.

        If it is compacted away it was committed, so the leader's is the same.
        """
        log, prev = self.server.log, request.prev_log_index
        return prev < log.base_index or log.term_at(prev) == request.prev_log_term

    def _unknown_suffix(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return *entries* from the first that is not in the log, by index and term.

        Those before it must not be written again. A request may come late, when a newer
        one has already brought more: to truncate at its first entry would drop entries
        that this server has acknowledged.
        """
        log = self.server.log
        # For speed: usually all are new. With 64 entries this takes 0.2 us, and the
        # loop below 12.
        if entries and entries[0].index == log.last_index + 1:
            return list(entries)
        for position, entry in enumerate(entries):
            covered = entry.index < log.base_index
            if not covered and log.term_at(entry.index) != entry.term:
                return list(entries[position:])
        return []

    def _store(self, new: list[Entry]) -> None:
        server = self.server
        if new[0].index <= server.log.last_index:
            server.truncate_from(new[0].index)
        server.append(new)

    def install_snapshot(
        self, request: InstallSnapshotRequest, reply_to: object
    ) -> None:
        """Have the leader's snapshot received, unless it brings nothing new.

        Source: Raft dissertation §5, figure 5.3.
        """
        server = self.server
        if request.last_log_index <= server.commit_index:
            response = InstallSnapshotResponse(server.term, True)
            server.send_after_sync(reply_to, response)
        elif server.installing:
            server.send(reply_to, Refusal("another snapshot is being installed"))
        else:
            server.install(Install(request, reply_to))


def rejection(server: ServerState) -> AppendEntriesResponse:
    """Make the response that refuses all entries and makes the leader wait a little."""
    return AppendEntriesResponse(server.term, server.log.last_index, False)


def _fault(request: AppendEntriesRequest) -> str | None:
    """Say what is wrong with the entries as a sequence, if anything is."""
    index, term = request.prev_log_index, max(request.prev_log_term, 1)
    for entry in request.entries:
        index += 1
        if entry.index != index:
            return f"entry {entry.index} stands where {index} belongs"
        if not term <= entry.term <= request.term:
            return f"entry {index} has term {entry.term}, out of order"
        term = entry.term
    return None
