"""A candidate, and the pre-candidate that first asks whether it could win.

Source: Raft dissertation §3.4, §9.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.core.progress import NO_LEVELS
from txraft.core.quorum import majority
from txraft.core.ready import OutgoingRequest
from txraft.core.role import BaseRole

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


class _Campaign(BaseRole):
    """What a campaign for votes and one for pre-votes share."""

    def __init__(self, consensus: Consensus) -> None:
        super().__init__(consensus)
        self._granted: set[str] = set()
        self._elapsed = 0
        self._timeout = consensus.draw_election_timeout(
            consensus.options.election_timeout_ticks
        )

    @property
    def _others(self) -> list[str]:
        voters = self.consensus.configuration.voters
        return [address for address in voters if address != self.consensus.address]

    def _grant(self, voter: str) -> None:
        """Count *voter* once, and move on when a quorum of the voters is for us."""
        self._granted.add(voter)
        voters = self.consensus.configuration.voters
        granted = sum(1 for address in voters if address in self._granted)
        if granted >= majority(len(voters)):
            self._won()

    def _won(self) -> None:
        raise NotImplementedError

    def tick(self, count: int) -> None:
        """Begin a new round when this one has brought no leader."""
        self._elapsed += count
        if self._elapsed < self._timeout:
            return
        if not self.consensus.may_campaign:
            self.consensus.become_follower(self.consensus.term, None)
        elif self.consensus.options.pre_vote:
            self.consensus.become_pre_candidate(by_timer=True)
        else:
            self.consensus.become_candidate()


class PreCandidate(_Campaign):
    """Asks for pre-votes; *by_timer* tells whether silence or a lost link began it."""

    def __init__(self, consensus: Consensus, by_timer: bool) -> None:
        super().__init__(consensus)
        self._by_timer = by_timer

    def granted_vote(self) -> None:
        """Stand back: the other candidate is a round ahead and may win."""
        self.consensus.become_follower(self.consensus.term, None)

    def campaign(self) -> None:
        """Ask every other voter, with the term that an election would have."""
        consensus = self.consensus
        request = RequestPreVoteRequest(
            term=consensus.term + 1,
            candidate=consensus.address,
            last_log_index=consensus.log.last_index,
            last_log_term=consensus.log.last_term,
        )
        for address in self._others:
            consensus.send(address, request)
        self._grant(consensus.address)

    def _won(self) -> None:
        self.consensus.become_candidate()

    def _is_current(self, request: OutgoingRequest) -> bool:
        return (
            isinstance(request, RequestPreVoteRequest)
            and request.term == self.consensus.term + 1
            and request.transfer is None  # a leader's consent is no vote
        )

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Count a pre-vote for this round."""
        granted = isinstance(response, RequestPreVoteResponse) and response.granted
        if granted and self._is_current(request):
            self._grant(peer)

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Take a peer that hung up on the request for one that does not know it.

        Not after a lost link: then it may itself be going down.
        """
        if closed and self._by_timer and self._is_current(request):
            self._grant(peer)

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Count a peer that has no pre-vote as one that does not object."""
        if self._is_current(request):
            self._grant(peer)


class Candidate(_Campaign):
    """Asks for votes in its term. Its own counts when it is on disk, not before.

    After a split vote, when those that are left are no quorum any more, the next round
    is due shortly, after another random wait; but only once in a while, as a candidate
    whose log is not complete would keep all others from campaigning. *levels* are what
    its voters announced, with which it begins as a leader.
    """

    def __init__(self, consensus: Consensus, is_transfer: bool) -> None:
        super().__init__(consensus)
        self._is_transfer = is_transfer
        self._missing: set[str] = set()
        self.levels: dict[str, int] = {}
        self._others_won_votes = False

    def campaign(self) -> None:
        """Ask every other voter, once this server's own vote is durable."""
        consensus = self.consensus
        request = RequestVoteRequest(
            term=consensus.term,
            candidate=consensus.address,
            last_log_index=consensus.log.last_index,
            last_log_term=consensus.log.last_term,
            leadership_transfer=self._is_transfer,
        )
        for address in self._others:
            consensus.send_after_sync(address, request)

    def synced(self, index: int) -> None:
        """Count this server's own vote."""
        if self.consensus.state_is_durable:
            self._grant(self.consensus.address)

    def _won(self) -> None:
        self.consensus.become_leader()

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Count a vote for this term."""
        if not self._is_current(request):
            return
        assert isinstance(response, RequestVoteResponse), "it answers a request"
        if response.granted:
            level = response.header.level
            self.levels[peer] = NO_LEVELS if level is None else level
            self._grant(peer)
        else:
            self._miss(peer, has_voted=response.term == self.consensus.term)

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Do without the vote of a peer that did not answer."""
        if self._is_current(request):
            self._miss(peer, has_voted=False)

    def _is_current(self, request: OutgoingRequest) -> bool:
        return (
            isinstance(request, RequestVoteRequest)
            and request.term == self.consensus.term
        )

    def _miss(self, voter: str, has_voted: bool) -> None:
        """Do without *voter*; end the round soon if that makes it a split vote.

        Not for silence alone, nor for a voter of an older term that hears a leader: a
        server that is cut off would take one term after the other.
        """
        self._missing.add(voter)
        self._others_won_votes |= has_voted
        voters = self.consensus.configuration.voters
        possible = sum(1 for address in voters if address not in self._missing)
        if self._others_won_votes and possible < majority(len(voters)):
            self._hurry()

    def _hurry(self) -> None:
        """Let the next round begin soon, unless another one has just done so."""
        consensus = self.consensus
        if consensus.options.pre_vote and consensus.now >= consensus.no_hurry_before:
            rest = 2 * consensus.options.election_timeout_ticks
            consensus.no_hurry_before = consensus.now + rest
            self._timeout = min(
                self._timeout, self._elapsed + consensus.draw_short_wait()
            )
