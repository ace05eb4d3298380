"""Who gets this server's vote, and its pre-vote.

Source: Raft dissertation §3.4, §3.6.1, §4.2.3 (disruptive servers), §9.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


def answer_vote(
    consensus: Consensus, request: RequestVoteRequest, reply_to: object
) -> None:
    """Answer a candidate: a vote once it is durable, a refusal at once."""
    voters = consensus.configuration.voters
    if is_tied_to_other_leader(consensus, request) or request.term < consensus.term:
        consensus.send(reply_to, RequestVoteResponse(consensus.term, False, voters))
        return
    if request.term > consensus.term:
        consensus.become_follower(request.term, None)
    if not grants_vote(consensus, request):
        consensus.send(reply_to, RequestVoteResponse(consensus.term, False, voters))
        return
    consensus.voted_for = request.candidate
    consensus.role.granted_vote()
    answer = RequestVoteResponse(consensus.term, True, voters)
    consensus.send_after_sync(reply_to, answer)


def answer_pre_vote(
    consensus: Consensus, request: RequestPreVoteRequest, reply_to: object
) -> None:
    """Answer a pre-candidate at once; nothing changes here.

    A refusal names this server's term, so that a candidate behind it catches up. One
    that asks about a transfer is answered by the leader that transfers, and it alone.
    """
    if request.transfer is None:
        granted = grants_pre_vote(consensus, request)
    else:
        granted = consensus.role.consents(request)
    term = request.term if granted else consensus.term
    consensus.send(reply_to, RequestPreVoteResponse(term, granted))


def is_tied_to_other_leader(
    consensus: Consensus, request: RequestVoteRequest | RequestPreVoteRequest
) -> bool:
    """Tell whether this server hears a leader, and the candidate is another.

    Then it neither votes nor takes the term, so that a server which does not hear
    the leader cannot depose it. A transfer of leadership overrides this.
    """
    if isinstance(request, RequestVoteRequest) and request.leadership_transfer:
        return False
    return consensus.role.hears_leader and consensus.leader != request.candidate


def grants_vote(consensus: Consensus, request: RequestVoteRequest) -> bool:
    """Grant at most one candidate a term, and only one whose log is as complete.

    Assumes that the request's term is this server's. A candidate without a name gets
    no vote: on disk that would be none, which another could have after a restart.
    """
    free = consensus.voted_for in (None, request.candidate)
    if request.candidate == "":
        return False
    return free and consensus.log.is_up_to_date(
        request.last_log_index, request.last_log_term
    )


def grants_pre_vote(consensus: Consensus, request: RequestPreVoteRequest) -> bool:
    """Tell whether the candidate could win this server's vote; nothing changes."""
    return (
        not is_tied_to_other_leader(consensus, request)
        and request.candidate != ""
        and request.term >= consensus.term
        and consensus.log.is_up_to_date(request.last_log_index, request.last_log_term)
    )
