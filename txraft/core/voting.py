"""Who gets this server's vote, and its pre-vote.

Source: Raft dissertation §3.4, §3.6.1, §4.2.3 (disruptive servers), §9.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import RequestPreVoteRequest, RequestVoteRequest

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


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

    Assumes that the request's term is this server's.
    """
    free = consensus.voted_for in (None, request.candidate)
    return free and consensus.log.is_up_to_date(
        request.last_log_index, request.last_log_term
    )


def grants_pre_vote(consensus: Consensus, request: RequestPreVoteRequest) -> bool:
    """Tell whether the candidate could win this server's vote; nothing changes."""
    return (
        not is_tied_to_other_leader(consensus, request)
        and request.term >= consensus.term
        and consensus.log.is_up_to_date(request.last_log_index, request.last_log_term)
    )
