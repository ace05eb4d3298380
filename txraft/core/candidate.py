"""A candidate, and the pre-candidate that first asks whether it could win.

A pre-candidate changes no term, so whoever could not win disturbs nobody. Each round of
either is a new object: what has to outlive a round is in `ServerState`.

Source: Raft dissertation §3.4, §9.6.
"""

from __future__ import annotations

from txraft.core.configuration import majority
from txraft.core.messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.core.progress import NO_LEVELS
from txraft.core.ready import OutgoingRequest
from txraft.core.role import BaseRole, ElectionTimer, Next
from txraft.core.server import ServerState


class _Campaign(BaseRole):
    """One round of asking the voters, for votes or for pre-votes.

    Once a quorum has granted it, the role asks to become `_won`.
    """

    _won: Next

    def __init__(self, server: ServerState) -> None:
        super().__init__(server)
        self._granted: set[str] = set()
        options = server.options
        self.timer = ElectionTimer(
            server.random, options, least=options.election_timeout_ticks
        )

    @property
    def _others(self) -> list[str]:
        voters = self.server.configuration.voters
        return [address for address in voters if address != self.server.address]

    def _grant(self, voter: str) -> Next | None:
        """Count *voter* once, and move on when a quorum of the voters is for us."""
        self._granted.add(voter)
        # Only those that are voters now count: the configuration may have changed since
        # the round began, and a server that is no voter may have answered.
        voters = self.server.configuration.voters
        granted = sum(1 for address in voters if address in self._granted)
        return self._won if granted >= majority(len(voters)) else None

    def tick(self, count: int) -> Next | None:
        """Begin a new round when this one has brought no leader."""
        if not self.timer.has_ended_after(count):
            return None
        return Next.CAMPAIGN if self.server.may_campaign else Next.FOLLOWER


class PreCandidate(_Campaign):
    """Asks for pre-votes.

    *by_timer* is False if not silence but a lost connection to the leader began it.
    """

    _won = Next.CANDIDATE

    def __init__(self, server: ServerState, by_timer: bool) -> None:
        super().__init__(server)
        self._by_timer = by_timer

    def granted_vote(self) -> Next:
        """Give up the round: the other candidate asks for votes already and may win."""
        return Next.FOLLOWER

    def campaign(self) -> Next | None:
        """Ask every other voter, with the term that an election would have."""
        server = self.server
        request = RequestPreVoteRequest(
            term=server.term + 1,
            candidate=server.address,
            last_log_index=server.log.last_index,
            last_log_term=server.log.last_term,
        )
        for address in self._others:
            server.send(address, request)
        return self._grant(server.address)

    def _is_current(self, request: OutgoingRequest) -> bool:
        return (
            isinstance(request, RequestPreVoteRequest)
            and request.term == self.server.term + 1
            # A leader's consent to a transfer is no pre-vote.
            and request.transfer is None
        )

    def response(
        self, peer: str, request: OutgoingRequest, response: Response
    ) -> Next | None:
        """Count a pre-vote for this round."""
        granted = isinstance(response, RequestPreVoteResponse) and response.granted
        if granted and self._is_current(request):
            return self._grant(peer)
        return None

    def unreachable(
        self, peer: str, request: OutgoingRequest, closed: bool
    ) -> Next | None:
        """Count a peer that hung up on the request as one that has no pre-vote.

        Old peers end the connection at a request that they do not know. But not if a
        lost connection began this round: then the peer may be going down itself.
        """
        if closed and self._by_timer and self._is_current(request):
            return self._grant(peer)
        return None

    def unsupported(self, peer: str, request: OutgoingRequest) -> Next | None:
        """Count a peer that does not know pre-votes as one that granted it.

        Otherwise this server could never win in a cluster of old peers.
        """
        return self._grant(peer) if self._is_current(request) else None


class Candidate(_Campaign):
    """Asks for votes in its term. Its own counts when it is on disk, not before.

    After a split vote, when too few voters are left for a quorum, the next round begins
    after a short random wait. Only once in a while, though: a candidate with an
    incomplete log, which cannot win, would else keep all others from campaigning.

    `levels` are what its voters have announced; it begins with them as a leader.

    Source: Raft dissertation §3.4, §9.2.
    """

    _won = Next.LEADER

    def __init__(self, server: ServerState, is_transfer: bool) -> None:
        super().__init__(server)
        self._is_transfer = is_transfer
        self.levels: dict[str, int] = {}

        # The voters that will not vote for this server in this round; and whether one
        # of them refused in this very term, so that it has surely voted for another.
        self._missing: set[str] = set()
        self._others_won_votes = False

    def campaign(self) -> None:
        """Ask every other voter, once this server's own vote is durable."""
        server = self.server
        request = RequestVoteRequest(
            term=server.term,
            candidate=server.address,
            last_log_index=server.log.last_index,
            last_log_term=server.log.last_term,
            leadership_transfer=self._is_transfer,
        )
        for address in self._others:
            server.send_after_sync(address, request)

    def synced(self, index: int) -> Next | None:
        """Count this server's own vote."""
        # The write that was synced may be an older one. If the vote counted before it
        # is on the disk, a crash could undo it, and another candidate get it in this
        # term.
        if self.server.state_is_durable:
            return self._grant(self.server.address)
        return None

    def response(
        self, peer: str, request: OutgoingRequest, response: Response
    ) -> Next | None:
        """Count a vote for this term."""
        if not self._is_current(request):
            return None
        assert isinstance(response, RequestVoteResponse), "it answers a request"
        if response.granted:
            level = response.header.level
            self.levels[peer] = NO_LEVELS if level is None else level
            return self._grant(peer)
        self._miss(peer, has_voted=response.term == self.server.term)
        return None

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Do without the vote of a peer that gave no response."""
        if self._is_current(request):
            self._miss(peer, has_voted=False)

    def _is_current(self, request: OutgoingRequest) -> bool:
        return (
            isinstance(request, RequestVoteRequest) and request.term == self.server.term
        )

    def _miss(self, voter: str, has_voted: bool) -> None:
        """Do without *voter*; end the round soon if the vote is split.

        Silent voters alone do not end it, nor do voters of an older term, which hear a
        leader: a server that is cut off would take one term after the other.
        """
        self._missing.add(voter)
        self._others_won_votes |= has_voted
        voters = self.server.configuration.voters
        possible = sum(1 for address in voters if address not in self._missing)
        if self._others_won_votes and possible < majority(len(voters)):
            self._shorten_round()

    def _shorten_round(self) -> None:
        """Let the next round begin soon, unless another one has just done so."""
        server = self.server
        # Only with pre-votes: without them each round is a new term, which deposes
        # whoever has won.
        if server.options.pre_vote and server.now >= server.next_short_round:
            rest = 2 * server.options.election_timeout_ticks
            server.next_short_round = server.now + rest
            self.timer.shorten()
