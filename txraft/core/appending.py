"""Whether this server follows who sends it entries, or a heartbeat.

What a follower does with the entries is in `Follower`.

Source: Raft dissertation §3.5, figure 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import AppendEntriesRequest, AppendEntriesResponse
from txraft.core.ready import Refusal

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


def answer_append_entries(
    consensus: Consensus, request: AppendEntriesRequest, reply_to: object
) -> None:
    """Answer at once, or when what *request* brings is durable."""
    if request.term < consensus.term or not request.term:  # 0 asks who is there
        consensus.send(reply_to, _rejection(consensus))
        return
    follower = consensus.follow(request.term, request.leader)
    if follower is None:
        consensus.send(reply_to, Refusal(f"two leaders in term {consensus.term}"))
        return
    if request.header.cluster is not None and consensus.cluster is None:
        consensus.cluster = request.header.cluster
    if request.is_heartbeat:
        _answer_heartbeat(consensus, reply_to)
    elif consensus.installing:
        consensus.send(reply_to, _rejection(consensus))
    else:
        follower.append_entries(request, reply_to)


def _answer_heartbeat(consensus: Consensus, reply_to: object) -> None:
    answer = AppendEntriesResponse(
        consensus.term,
        consensus.log.last_index,
        True,
        no_retry_backoff=consensus.installing,
    )
    if consensus.state_is_durable:
        consensus.send(reply_to, answer)
    else:
        consensus.send_after_sync(reply_to, answer)


def _rejection(consensus: Consensus) -> AppendEntriesResponse:
    return AppendEntriesResponse(consensus.term, consensus.log.last_index, False)
