"""Whether this server takes a snapshot that a leader sends.

Source: Raft dissertation §5, figure 5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import InstallSnapshotRequest, InstallSnapshotResponse
from txraft.core.ready import Install, Refusal

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


def answer_install_snapshot(
    consensus: Consensus, request: InstallSnapshotRequest, reply_to: object
) -> None:
    """Answer at once, or have the snapshot received and answer when it is in place."""
    if request.term < consensus.term:
        consensus.send(reply_to, InstallSnapshotResponse(consensus.term, False))
        return
    if request.fault is not None:
        consensus.send(reply_to, Refusal(request.fault))
        return
    if consensus.follow(request.term, request.leader) is None:
        consensus.send(reply_to, Refusal(f"two leaders in term {consensus.term}"))
    elif request.last_log_index <= consensus.commit_index:
        answer = InstallSnapshotResponse(consensus.term, True)
        consensus.send_after_sync(reply_to, answer)
    elif consensus.installing:
        consensus.send(reply_to, Refusal("another snapshot is being installed"))
    else:
        consensus.install(Install(request, reply_to))
