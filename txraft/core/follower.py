"""A follower: obeys the leader of its term, and campaigns when it hears none.

Source: Raft dissertation §3.4, §3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txraft.core.entry import Entry
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    Response,
)
from txraft.core.ready import OutgoingRequest, Refusal
from txraft.core.role import BaseRole

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus

LONGEST_STALL_TICKS = 2
"""What a stall of any length adds to the election timer: a follower that was away
first reads what waited in its sockets."""


class Follower(BaseRole):
    """Follows *leader*, or whoever says it leads this term."""

    def __init__(self, consensus: Consensus, leader: str | None) -> None:
        super().__init__(consensus)
        self.leader = leader
        self._lost_leader = False
        self._rest()
        if consensus.now == 0 and self._need_not_wait():
            self._timeout = 1

    def _need_not_wait(self) -> bool:
        """Tell whether this server may campaign as soon as it starts."""
        consensus = self.consensus
        is_alone = consensus.configuration.voters == (consensus.address,)
        return is_alone or consensus.options.campaign_at_once

    def _rest(self) -> None:
        """Begin a new wait."""
        options = self.consensus.options
        self._elapsed = 0
        self._timeout = self.consensus.draw_election_timeout(
            options.heartbeat_timeout_ticks
        )

    @property
    def hears_leader(self) -> bool:  # type: ignore[override]
        """Whether a leader was heard within the shortest election timeout."""
        least = self.consensus.options.heartbeat_timeout_ticks
        return self.leader is not None and self._elapsed < least

    def heard_from(self, leader: str) -> None:
        """Take *leader* for the leader of this term and wait anew."""
        self.leader = leader
        self._lost_leader = False
        self._rest()

    def granted_vote(self) -> None:
        """Wait anew: the candidate may win."""
        self._rest()

    def has_news(self, peer: str | None) -> bool:
        """Tell that a sync is none: what promises a copy is held back by the shell."""
        return peer is not None

    def disconnected(self, peer: str) -> None:
        """Forget a leader that hung up, and campaign after a short random wait."""
        if peer != self.leader or not self.consensus.may_campaign:
            return
        self.leader = None
        self._lost_leader = True
        self._elapsed = 0
        self._timeout = self.consensus.draw_short_wait()

    def ask_consent(self, transfer: int) -> None:
        """Ask the leader whether its *transfer* to this server still is under way.

        The request to campaign may have waited long in a socket, and the transfer be
        over: a leader that serves again would be deposed for nothing. Without a leader
        nobody can be asked; then an election comes without this.
        Source: Raft dissertation §3.10.
        """
        consensus = self.consensus
        if self.leader is not None:
            request = RequestPreVoteRequest(
                term=consensus.term + 1,
                candidate=consensus.address,
                last_log_index=consensus.log.last_index,
                last_log_term=consensus.log.last_term,
                transfer=transfer,
            )
            consensus.send(self.leader, request)

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Campaign at once if the leader that transfers to this server consents."""
        consensus = self.consensus
        if (
            isinstance(request, RequestPreVoteRequest)
            and request.transfer is not None
            and request.term == consensus.term + 1
            and peer == self.leader
            and isinstance(response, RequestPreVoteResponse)
            and response.granted
            and consensus.may_campaign
        ):
            consensus.become_candidate(is_transfer=True)

    def tick(self, count: int) -> None:
        """Campaign when the wait is over."""
        self._elapsed += min(count, LONGEST_STALL_TICKS)
        if self._elapsed < self._timeout:
            return
        if not self.consensus.may_campaign:
            self.leader = None
            self._rest()
        elif self.consensus.options.pre_vote:
            self.consensus.become_pre_candidate(by_timer=not self._lost_leader)
        else:
            self.consensus.become_candidate()

    def append_entries(self, request: AppendEntriesRequest, reply_to: object) -> None:
        """Store the leader's entries if they follow on what is here.

        Truncates only from the first real conflict, and takes no commit index
        above what the request has proven to be the leader's.
        """
        consensus, log = self.consensus, self.consensus.log
        malformed = _fault(request)
        if malformed:
            consensus.send(reply_to, Refusal(malformed))
            return
        last_before = log.last_index
        if not self._follows_on(request):
            answer = AppendEntriesResponse(
                consensus.term, last_before, False, no_retry_backoff=True
            )
            if request.prev_log_index <= consensus.commit_index:
                consensus.contradicted_by(request.leader, reply_to)
            else:
                consensus.send(reply_to, answer)
            return
        new = self._unknown_suffix(request.entries)
        if new and new[0].index <= consensus.commit_index:
            consensus.contradicted_by(request.leader, reply_to)
            return
        if new:
            self._store(new)
        proven = request.prev_log_index + len(request.entries)
        consensus.commit(min(request.leader_commit, max(proven, log.base_index)))
        answer = AppendEntriesResponse(consensus.term, last_before, True)
        consensus.send_after_sync(reply_to, answer)

    def _follows_on(self, request: AppendEntriesRequest) -> bool:
        """Tell whether the entry before the new ones is here.

        What is compacted away was committed, so every leader has it.
        """
        log, prev = self.consensus.log, request.prev_log_index
        return prev < log.base_index or log.term_at(prev) == request.prev_log_term

    def _unknown_suffix(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return *entries* from the first that is not in the log, by index and term."""
        log = self.consensus.log
        if entries and entries[0].index == log.last_index + 1:
            return list(entries)
        for position, entry in enumerate(entries):
            covered = entry.index < log.base_index
            if not covered and log.term_at(entry.index) != entry.term:
                return list(entries[position:])
        return []

    def _store(self, new: list[Entry]) -> None:
        consensus = self.consensus
        if new[0].index <= consensus.log.last_index:
            consensus.truncate_from(new[0].index)
        consensus.append(new)


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
