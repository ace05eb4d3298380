"""Replication: decide what one follower is sent now, entries or a snapshot.

`replicate` is called for each follower at every `ready`, and sends one request after
the other until one of these ends it:

1. all there is is on its way, or the window is full (`_is_paused`);
2. the follower waits: after a failure, or while it installs a snapshot (`_is_paused`);
3. nothing is new for it, not even the commit index (`_should_send_empty`);
4. the entry before the next one is compacted away, so a snapshot is sent instead.

What is known of the follower is in its `Progress`. Heartbeats go beside this, see
`Leader.flush`.

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
            # For speed: usually, all there is is on its way. This branch takes 0.2 us
            # for each follower and turn, and the checks below 0.5.
            return
        if _is_paused(server, progress):
            return
        # A removed server gets the entry that removed it, so that it knows, and none
        # after that.
        if progress.removal_index is not None:
            end = min(end, progress.removal_index)
        if progress.next > end and not _should_send_empty(server, progress, end):
            return
        prev_term = server.log.term_at(progress.next - 1)
        # Compacted away. Without its term the follower could not check that the logs
        # agree before what it is sent.
        if prev_term is None:
            if _tries_other_end(server, progress):
                continue
            _send_snapshot(server, address, progress)
            return
        _send_entries(server, address, progress, prev_term, end)


def _is_paused(server: ServerState, progress: Progress) -> bool:
    """Tell whether the follower gets nothing but heartbeats for now.

    While a level is active, so does one that is not known to understand levels: it
    might apply entries by rules that do not hold any more. Its response to a heartbeat
    says what it understands.
    """
    if progress.mode is Mode.SNAPSHOT or progress.installing:
        return True
    if server.active_level and progress.may_misjudge:
        return True
    # One request at a time in PROBE, as the next depends on the response; and as long
    # as reads from the disk are short, as a request behind one would leave a gap.
    pipelined = progress.mode is Mode.REPLICATE and (
        not progress.short_read or progress.next >= server.resident_from
    )
    limit = server.options.max_inflight_requests if pipelined else 1
    return progress.inflight >= limit or progress.wait_until > server.now


def _should_send_empty(server: ServerState, progress: Progress, end: int) -> bool:
    """Tell whether to send a request without entries, as none up to *end* are new.

    It carries the commit index, which heartbeats do not. A new one is sent soon. The
    same one is sent again once in a while, as a follower that was restarted between two
    heartbeats has forgotten it.
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
    # How many fit into a message is known only of entries in memory. Of others the
    # shell reads as many as fit, and names these in the request that it hands back.
    resident = progress.next >= server.resident_from
    most = progress.max_entries or server.options.max_append_entries
    last = min(end, progress.next + most - 1)
    if last < progress.next:
        last = progress.next - 1
    elif resident:
        last = server.fit(progress.next, last)
    # Not above *last*: behind that the follower may have entries of an older leader,
    # and a Go follower would apply them.
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
    # The pipeline: the next request follows without waiting for this one's response. In
    # PROBE `next` stays, so that a lost probe is sent again.
    if progress.mode is Mode.REPLICATE:
        progress.next = last + 1
    server.send(address, request)


def _tries_other_end(server: ServerState, progress: Progress) -> bool:
    """Go to where the follower's log ends, if that was not tried before a snapshot.

    It may have installed a snapshot meanwhile: of another leader, or this one's, if
    only the response was lost. Each end is tried once.

    Returns: whether `next` has moved there.
    """
    end = min(progress.last_log, server.log.last_index)
    if progress.last_log == progress.tried_end or end < server.log.base_index:
        return False
    progress.tried_end = progress.last_log
    progress.next = max(progress.match, end) + 1
    progress.step_back = 1
    return True


def _send_snapshot(server: ServerState, address: str, progress: Progress) -> None:
    """Send a snapshot, but only to a follower that answers: it may be large.

    After one that failed, a heartbeat has to be answered first: perhaps only the
    response was lost, and the follower is installing it, or has done so.
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
