"""The rules by which a server gives its vote, and its pre-vote. Nothing changes here.

`Consensus` asks these rules, and does what follows.

Source: Raft dissertation §3.4, §3.6.1, §4.2.3 (disruptive servers), §9.6.
"""

from __future__ import annotations

from txraft.core.messages import RequestPreVoteRequest, RequestVoteRequest
from txraft.core.role import BaseRole
from txraft.core.server import ServerState


def is_tied_to_other_leader(
    role: BaseRole, request: RequestVoteRequest | RequestPreVoteRequest
) -> bool:
    """Tell whether a server with that *role* hears a leader other than the candidate.

    Such a server neither votes nor takes the candidate's term: otherwise a server that
    is cut off from the leader could depose it. A leadership transfer overrides this.
    """
    if isinstance(request, RequestVoteRequest) and request.leadership_transfer:
        return False
    return role.hears_leader and role.leader != request.candidate


def grants_vote(server: ServerState, request: RequestVoteRequest) -> bool:
    """Grant at most one candidate a term, and only one whose log is as complete.

    The term of *request* must be this server's. A candidate with an empty name gets no
    vote: on the disk that looks like no vote, so another candidate could get one in the
    same term after a restart.
    """
    if request.candidate == "":
        return False
    # The same candidate may ask twice: the response to its first request was lost.
    free = server.voted_for in (None, request.candidate)
    return free and server.log.is_up_to_date(
        request.last_log_index, request.last_log_term
    )


def grants_pre_vote(
    server: ServerState, role: BaseRole, request: RequestPreVoteRequest
) -> bool:
    """Tell whether the candidate could win this server's vote.

    The vote that the server has given does not matter: it is of this term, and the
    election would be in a later one.
    """
    return (
        not is_tied_to_other_leader(role, request)
        and request.candidate != ""
        and request.term >= server.term
        and server.log.is_up_to_date(request.last_log_index, request.last_log_term)
    )
