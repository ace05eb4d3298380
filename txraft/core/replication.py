"""Replication to one follower: entries, or a snapshot; heartbeats go beside it.

How far a follower is, and how many requests may be on their way to it, is in its
`Progress`.

Source: Raft dissertation §3.5, §5, §10.2.1.
"""

from __future__ import annotations

from txraft.core.progress import Mode, Progress
from txraft.core.ready import Replicate, SendSnapshot
from txraft.core.server import ServerState


def replicate(server: ServerState, address: str, progress: Progress) -> None:
    """Send as many requests as the follower's mode allows."""
    while True:
        end = server.log.last_index
        if (
            progress.mode is Mode.REPLICATE
            and progress.next > end
            and progress.inflight
        ):
            # All there is is on its way: the usual case, by far. This branch takes 0.2
            # us for each follower and turn, and the questions below 0.5.
            return
        if _is_paused(server, progress):
            return
        # A removed server gets the entry that removed it, and none after that: it is of
        # no cluster then, but knows it.
        if progress.removal_index is not None:
            end = min(end, progress.removal_index)
        if progress.next > end and not _should_send_empty(server, progress, end):
            return
        prev_term = server.log.term_at(progress.next - 1)
        # The entry before the next one is compacted away, so what follows cannot be
        # sent in a way that the follower could check.
        if prev_term is None:
            if _tries_other_end(server, progress):
                continue
            _send_snapshot(server, address, progress)
            return
        _send_entries(server, address, progress, prev_term, end)


def _is_paused(server: ServerState, progress: Progress) -> bool:
    """Tell whether the follower gets nothing but heartbeats for now.

    One that has not told yet that it knows of levels gets nothing while one is active:
    it might judge entries by rules that do not hold any more. Its response to a
    heartbeat tells.
    """
    if progress.mode is Mode.SNAPSHOT or progress.installing:
        return True
    if server.active_level and progress.may_misjudge:
        return True
    # One at a time while probing, as the next probe depends on the response; and while
    # reads from the disk are cut short, as what is sent behind one leaves a gap.
    pipelined = progress.mode is Mode.REPLICATE and (
        not progress.short_read or progress.next >= server.resident_from
    )
    limit = server.options.max_inflight_requests if pipelined else 1
    return progress.inflight >= limit or progress.wait_until > server.now


def _should_send_empty(server: ServerState, progress: Progress, end: int) -> bool:
    """Tell whether to send a request without entries, as there are none up to *end*.

    The commit index is said again once in a while: a follower that restarted
    between two heartbeats has forgotten it, and heartbeats do not carry it.
    """
    if progress.mode is Mode.PROBE:
        return True
    if progress.inflight:
        return False
    commit = min(server.commit_index, max(end, progress.next - 1))
    is_news = progress.commit_sent < commit
    longest = 0 if is_news else server.options.heartbeat_timeout_ticks
    return server.now - progress.commit_due >= longest


def _send_entries(
    server: ServerState, address: str, progress: Progress, prev_term: int, end: int
) -> None:
    """Send one request, with as many of the entries up to *end* as fit, or none."""
    # Only of entries in memory it is known how many fit into a message; of others the
    # shell reads what fits, and says how many that were.
    resident = progress.next >= server.resident_from
    most = progress.max_entries or server.options.max_append_entries
    last = min(end, progress.next + most - 1)
    if last < progress.next:
        last = progress.next - 1
    elif resident:
        last = server.fit(progress.next, last)
    # Not beyond what is sent: behind *last* the follower may have entries of an older
    # leader, and a Go follower would apply them.
    commit = min(server.commit_index, last)
    request = Replicate(
        term=server.term,
        prev_index=progress.next - 1,
        prev_term=prev_term,
        last=last,
        commit=commit,
        sent=server.now,
        stream=progress.stream,
        may_shorten=not resident,
    )
    progress.inflight += 1
    progress.commit_sent = commit
    progress.commit_due = server.now + server.options.commit_interval_ticks
    # Taken as received: the next request goes behind it without waiting. A probe that
    # is lost is sent again from the same place.
    if progress.mode is Mode.REPLICATE:
        progress.next = last + 1
    server.send(address, request)


def _tries_other_end(server: ServerState, progress: Progress) -> bool:
    """Try the end that the follower says its log has, before a snapshot is sent.

    It may have got one meanwhile: from another leader, or from this one, when only
    the response was lost. Each end is tried once.
    """
    end = min(progress.last_log, server.log.last_index)
    if progress.last_log == progress.tried_end or end < server.log.base_index:
        return False
    progress.tried_end = progress.last_log
    progress.next = max(progress.match, end) + 1
    progress.step_back = 1
    return True


def _send_snapshot(server: ServerState, address: str, progress: Progress) -> None:
    """Send a snapshot to a follower that answers; it is too much to waste.

    After one that failed, a heartbeat first asks if that is being installed all the
    same, or is in place.
    """
    if progress.heartbeat_failures or progress.contact <= progress.snapshot_failed_at:
        return
    progress.mode = Mode.SNAPSHOT
    index = progress.snapshot_sent = server.snapshot.index
    assert index >= server.log.base_index, "what is compacted is in a snapshot"
    server.send(
        address,
        SendSnapshot(server.term, index, server.now, progress.stream),
    )
