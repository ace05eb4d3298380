"""A leader: replicates its log, commits what a quorum has, and proves it still leads.

Everything here lives and dies with one term's leadership.

Source: Raft dissertation §3.5, §3.6.2, §4, §6.2, §6.4, §10.2.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from txraft.core.configuration import agreed_value
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesResponse,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    Response,
    TimeoutNowRequest,
)
from txraft.core.progress import NO_LEVELS, Mode, Progress
from txraft.core.ready import Heartbeat, OutgoingRequest, Replicate, SendSnapshot
from txraft.core.replication import replicate
from txraft.core.role import BaseRole, Next
from txraft.core.server import ServerState

TO_FOLLOWERS = (Replicate, Heartbeat, SendSnapshot)
"""The requests that are a leader's, each with its term. A response to another one is to
what this server asked in an earlier role."""

LONG_WAIT_TIMEOUTS = 20
"""Heartbeat timeouts between attempts, at most, to send what has failed often: a
snapshot, or an entry that a follower does not take."""


class Resignation(NamedTuple):
    """The reason for which a leader gave up, in ticks.

    It had heard no quorum for *silence*, and its oldest write had waited for
    *write_age*. When the server was held up itself, *late* ticks came at once.
    """

    silence: int
    write_age: int
    late: int


class Leader(BaseRole):
    """Leads one term.

    *levels* are what its voters announced as they gave it their votes.
    """

    def __init__(self, server: ServerState, levels: Mapping[str, int]) -> None:
        super().__init__(server)
        self.leader = server.address

        # All other servers that get entries; removed ones too, until they were told.
        self.followers: dict[str, Progress] = {}
        self._streams = 0

        # Up to where its own log is durable: one copy among others. All of it is at
        # first, since a candidate asks for votes behind its writes.
        self.own_match = server.log.last_index

        # Where its own term begins in the log. Until that entry is committed it can
        # neither know what is committed nor commit by counting (§3.6.2, §6.4).
        self.first_index = server.log.last_index + 1

        # Whether this server is a voter itself: one that is not leads on until its
        # removal is committed, but takes no entries (§4.2.2).
        self._votes = True
        self._step_down_by: int | None = None

        # The round of heartbeats that is due, and the newest of which one has left.
        # Each verification waits for its round, oldest first.
        self._round = self._round_sent = 0
        self._verifying: deque[tuple[object, int]] = deque()

        # Since when it has no lease, if it has none; how many ticks came at once then;
        # when it gives up; and why it did, for people to know.
        self._doubts_since: int | None = None
        self._stall_ticks = 1
        self._resign_at = 0
        self.resignation: Resignation | None = None

        # Whom it hands its leadership to, until when, and whether that server was told
        # to campaign; how many transfers this one has begun.
        self.transferee: str | None = None
        self._transfer_until = 0
        self._timeout_now_sent = False
        self._transfers = 0

        # The highest level of the state machine whose activation it has appended.
        self.appended_level = 0

        self._follow_configuration()
        for address, level in levels.items():
            if address in self.followers:
                self.followers[address].level = level

    def open(self) -> None:
        """Append the entry that opens a leadership, and say who leads.

        Source: Raft dissertation §6.4, step 1.
        """
        server = self.server
        cluster = None
        if server.options.tags_cluster and server.cluster is None:
            cluster = server.random.getrandbits(128).to_bytes(16, "big")
        if server.options.opening_entry_lists_members:
            members = server.configuration
            self._append([Entry(0, 0, LogType.ADD_PEER, configuration=members)])
        else:
            self._append([Entry(0, 0, LogType.NOOP, cluster=cluster)])
        # Rounds begin with 1: 0 is the round of a follower that never answered.
        self._round += 1

    @property
    def hears_leader(self) -> bool:
        """Whether this leader has its lease: not while it doubts."""
        return self._doubts_since is None

    # Entries ----------------------------------------------------------------------

    def propose(self, entries: Sequence[Entry]) -> None:
        """Append *entries*, unless this leader is about to go.

        During a transfer the target would have to catch up for ever. A leader without a
        vote leads on only until its removal is committed, and could not tell what
        becomes of more entries.
        """
        if entries and self.transferee is None and self._votes:
            self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> None:
        server = self.server
        index, term = server.log.last_index, server.term
        for entry in entries:
            index += 1
            entry.index, entry.term = index, term
        # It is in force as soon as it is appended: before anything is sent or counted.
        if server.append(entries):
            self._follow_configuration()

    @property
    def may_change_configuration(self) -> bool:
        """Whether the configuration in force, and an entry of this term, are committed.

        Two changes at once, or one behind an entry of an older leader that may still be
        replaced, could have quorums that share no server.
        Source: Raft dissertation §4.1; Ongaro, raft-dev, 10 July 2015.
        """
        server = self.server
        return (
            server.configurations.latest_index <= server.commit_index
            and server.commit_index >= self.first_index
            and self.transferee is None
        )

    def _follow_configuration(self) -> None:
        """Send to new servers; keep telling removed ones until they know."""
        server = self.server
        self._votes = server.configuration.is_voter(server.address)
        members = set(server.configuration.addresses)
        for address in server.configuration.addresses:
            known = self.followers.get(address)
            # One that was removed and is added again may have lost its disk meanwhile:
            # nothing that is known of it counts.
            if address != server.address and (known is None or known.removal_index):
                self.followers[address] = self._new_progress()
        for address, progress in self.followers.items():
            if address not in members and progress.removal_index is None:
                progress.removal_index = server.configurations.latest_index

    def _new_progress(self) -> Progress:
        stream = self._new_stream()
        return Progress(
            next=self.server.log.last_index + 1,
            stream=stream,
            contact=self.server.now,
            first_stream=stream,
        )

    def _new_stream(self) -> int:
        # Of all followers together, so that no number comes back to one that is removed
        # and added again.
        self._streams += 1
        return self._streams

    def synced(self, index: int) -> None:
        """Count this server's own copy, now that it is on disk."""
        self.own_match = max(self.own_match, index)
        self._commit_what_a_quorum_has(self.own_match)

    def _commit_what_a_quorum_has(self, copied: int) -> None:
        """Commit by counting copies, but only entries of this leader's own term.

        One more server has a copy of the log up to *copied*.
        Source: Raft dissertation §3.6.2.
        """
        server = self.server
        # The third copy of three, say: the quorum was complete without it. Every copy
        # behind the one that completed it ends here.
        if copied <= server.commit_index:
            return
        agreed = agreed_value(
            [
                self.own_match
                if address == server.address
                else self.followers[address].match
                for address in server.configurations.latest.voters
            ]
        )
        # An entry of an older term may be on a quorum and still be replaced, by a
        # leader that never had it: figure 3.7. It is committed by one of this term
        # behind it.
        if agreed <= server.commit_index or agreed < self.first_index:
            return
        server.commit(agreed)
        if self._verifying:
            self._settle_verifications()

    # Time -------------------------------------------------------------------------

    def tick(self, count: int) -> Next | None:
        """Give up leadership that a quorum no longer confirms; keep others informed."""
        server = self.server
        self._give_up_transfer_in_time()
        if self._lacks_support(0):
            self._doubt(count)
            if self.resignation is not None:
                return Next.FOLLOWER
        self._forget_the_removed()
        if any(p.heartbeat_due <= server.now for p in self.followers.values()):
            self._round += 1
        return None

    def _lacks_support(self, late: int) -> bool:
        """Tell whether, as of *late* ticks ago, no quorum or no disk answered in time.

        A disk that hangs counts as well: this leader could not vote or store anything,
        and others can.
        Source: Raft dissertation §6.2.
        """
        server = self.server
        voters = server.configuration.voters
        others = [address for address in voters if address != server.address]
        if not others or not server.options.check_quorum:
            return False
        age = server.oldest_write_age - late
        if age > server.options.election_timeout_ticks:
            return True
        silence = server.now - late - agreed_value(self._contacts())
        return silence > server.options.lease_ticks

    def _doubt(self, count: int) -> None:
        """Resign, but first try one round if it was this server that came late.

        The responses to all it sent may be in its sockets already. Until a quorum
        has answered what was sent after the stall this leader has no lease: it confirms
        nothing, and votes as one who hears nobody, as its followers may have elected
        another. It has a heartbeat timeout after each stall, and no longer: all servers
        apply the same entries, so that what held it up may hold them up next, once they
        have answered.
        Source: Raft dissertation §6.2, §6.4.
        """
        now = self.server.now
        # As of the tick before this stall it had support: so the stall is the reason.
        # Only then it is patient, and only once: the stalls that follow find it in
        # doubt and leave `_resign_at` as it is.
        if self._doubts_since is None and not self._lacks_support(count - 1):
            self._stall_ticks = count
            limit = self.server.options.heartbeat_timeout_ticks
            self._resign_at = now + limit
        if now >= self._resign_at:
            silence = now - agreed_value(self._contacts())
            age = self.server.oldest_write_age
            self.resignation = Resignation(silence, age, max(count, self._stall_ticks))
        elif self._doubts_since is None:
            # A response counts only if it is to what was sent from here on, so that
            # must leave now.
            self._doubts_since = now
            for progress in self.followers.values():
                progress.heartbeat_due = now

    def _heard(self, progress: Progress, sent: int) -> None:
        """Note a response to what was *sent* at that tick; it may end a doubt.

        When it was sent counts, and not when the response came: only then the follower
        surely had no newer leader yet.
        Source: Raft dissertation §6.4.1.
        """
        progress.contact = max(progress.contact, sent)
        since = self._doubts_since
        if since is not None and agreed_value(self._contacts()) >= since:
            self._doubts_since = None
            self._stall_ticks = 1
            self._settle_verifications()

    def _contacts(self) -> list[int]:
        """Return the tick at which each voter was heard, in no order."""
        server = self.server
        return [
            server.now if address == server.address else self.followers[address].contact
            for address in server.configuration.voters
        ]

    def _forget_the_removed(self) -> None:
        """Stop sending to removed servers that know it, or that do not answer."""
        server = self.server
        for address, progress in list(self.followers.items()):
            removal = progress.removal_index
            if removal is None or server.commit_index < removal:
                continue
            if progress.removal_deadline is None:
                wait = 2 * server.options.election_timeout_ticks
                progress.removal_deadline = server.now + wait
            if progress.commit_known >= removal or (
                server.now >= progress.removal_deadline
            ):
                del self.followers[address]

    def flush(self) -> Next | None:
        """Send heartbeats and entries that are due, and step down if removed."""
        server = self.server
        for address, progress in self.followers.items():
            due = progress.heartbeat_due <= server.now
            if due or self._verifying:
                self._send_heartbeat(address, progress, due)
            replicate(server, address, progress)
        # Behind the entries: the target campaigns as soon as it reads this.
        if self.transferee is not None:
            self._send_timeout_now()
        if not self._votes and self._removal_is_committed():
            return Next.FOLLOWER
        return None

    def _removal_is_committed(self) -> bool:
        """Tell whether this leader's removal is committed, and all know or time is up.

        A follower that knows does not wait for this leader any longer.
        Source: Raft dissertation §4.2.2.
        """
        server = self.server
        history = server.configurations
        if history.latest_index > server.commit_index:
            return False
        if self._step_down_by is None:
            self._step_down_by = server.now + server.options.heartbeat_timeout_ticks
        return server.now >= self._step_down_by or all(
            progress.commit_known >= history.latest_index
            for progress in self.followers.values()
        )

    # Sending ----------------------------------------------------------------------

    def _send_heartbeat(self, address: str, progress: Progress, due: bool) -> None:
        """Send a heartbeat when it is *due* or a verification asks for one.

        One at a time: a response proves only what was sent before its request, and what
        a follower does not answer would pile up there.
        """
        server = self.server
        wanted = progress.round_sent < self._round and bool(self._verifying)
        # One that does not answer is not called again for each verification.
        waits = progress.heartbeat_failures and not due
        if progress.heartbeat_inflight or waits or not (due or wanted):
            return
        interval = server.options.heartbeat_interval_ticks
        heartbeat = Heartbeat(server.term, self._round, server.now, progress.stream)
        progress.heartbeat_inflight = heartbeat
        progress.heartbeat_due = server.now + interval
        progress.round_sent = self._round_sent = self._round
        server.send(address, heartbeat)

    def needs_ready(self, peer: str | None) -> bool:
        """Tell whether a response of *peer* may bring something to send or to confirm.

        What a *peer* that has all there is may be told can wait for the next input. So
        most responses cost no turn of the shell. To say True too often costs time; to
        say False too often costs a tick of waiting.
        """
        if self._verifying or self.transferee is not None or not self.hears_leader:
            return True
        progress = None if peer is None else self.followers.get(peer)
        return progress is not None and (
            progress.next <= self.server.log.last_index
            or progress.mode is not Mode.REPLICATE
            or progress.removal_index is not None
        )

    # Responses --------------------------------------------------------------------

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Take a response to a request of this term."""
        progress = self.followers.get(peer)
        if progress is None or not isinstance(request, TO_FOLLOWERS):
            return
        if request.term != self.server.term:
            return
        # Before the response is taken: it may make entries leave, which go only to
        # those whose level is known.
        level = response.header.level
        if level is None:
            level = NO_LEVELS
        if level != progress.level:
            progress.announces(level, request)
        match request:
            case Replicate() if isinstance(response, AppendEntriesResponse):
                self._entries_answered(peer, progress, request, response)
            case Heartbeat() if isinstance(response, AppendEntriesResponse):
                self._heartbeat_answered(progress, request, response)
            case SendSnapshot() if isinstance(response, InstallSnapshotResponse):
                self._snapshot_answered(progress, request, response)

    def _heartbeat_answered(
        self, progress: Progress, request: Heartbeat, response: AppendEntriesResponse
    ) -> None:
        # One that was given up: its follower may have been added anew since.
        if request != progress.heartbeat_inflight:
            return
        progress.heartbeat_inflight = None
        self._heard_again(progress, response)
        self._heard(progress, request.sent)
        if response.success:
            progress.round_answered = request.round
            self._settle_verifications()

    def _heard_again(self, progress: Progress, response: AppendEntriesResponse) -> None:
        """Learn how the follower is, and wait no longer for one that was away.

        A long wait is for a follower that is as it was: one that was restarted may
        have other limits, and one that has done with a snapshot takes entries.
        """
        was_away = progress.heartbeat_failures > 0
        is_done = progress.installing and not response.no_retry_backoff
        progress.heartbeat_failures = 0
        progress.installing = response.no_retry_backoff
        progress.last_log = response.last_log
        if was_away or is_done:
            soon = self.server.now + self._longest_wait
            progress.wait_until = min(progress.wait_until, soon)

    def _entries_answered(
        self,
        peer: str,
        progress: Progress,
        request: Replicate,
        response: AppendEntriesResponse,
    ) -> None:
        # Whatever it says, and to whichever stream: it shows that the follower is
        # there.
        self._heard(progress, request.sent)
        if request.stream != progress.stream:
            return
        progress.inflight = max(0, progress.inflight - 1)
        if response.success:
            self._entries_accepted(progress, request)
        else:
            self._entries_refused(peer, progress, request, response)

    def _entries_refused(
        self,
        peer: str,
        progress: Progress,
        request: Replicate,
        response: AppendEntriesResponse,
    ) -> None:
        """Look for where the logs agree, from the entry before the refused ones.

        All that was sent behind them follows on them and is refused as well: their
        responses are of an old stream then, and step back no further.
        Source: Raft dissertation §3.5.
        """
        progress.stream = self._new_stream()
        progress.inflight = 0
        progress.next = min(progress.next, request.prev_index + 1)
        denies_match = request.prev_index <= progress.match
        # Before `refused` and `failed` change what this is told from.
        has_forgotten = denies_match and progress.failures > 0
        progress.refused(response.last_log)
        if has_forgotten and response.no_retry_backoff:
            self._distrust(peer, progress)
        # Else the next probe leaves at once: it asks for an older entry. These would
        # only ask for the same once more.
        if denies_match or not response.no_retry_backoff:
            progress.failed(self.server.now, self._longest_wait)

    def _distrust(self, peer: str, progress: Progress) -> None:
        """Count no promise of *peer*, who denies what it has acknowledged.

        Called at a denial that follows a failure: a first one may have been overtaken
        by the acknowledgement, but this is the response to a request that was sent when
        that was known.
        """
        if progress.match:
            progress.match = 0
            self.server.forgets(peer)

    def _entries_accepted(self, progress: Progress, request: Replicate) -> None:
        """Count what the request carried; an empty one proves nothing durable.

        One that was cut short leaves a gap to what was sent behind it, which is refused
        then. So that this does not happen each time, what is next is sent alone.
        """
        # By the request, which the response answers, and not by its `last_log`: behind
        # that may be entries of another leader.
        if request.last > request.prev_index:
            progress.accepted(request.last)
            if progress.max_entries or progress.snapshot_sent:
                self._grow_requests(progress, request)
            if request.may_shorten:
                self._note_disk_read(progress, request)
        else:
            # The logs agree up to here, but the follower may not have synced it.
            progress.mode = Mode.REPLICATE
            progress.failures, progress.step_back = 0, 1
        progress.commit_known = max(progress.commit_known, request.commit)
        self._commit_what_a_quorum_has(progress.match)

    def _grow_requests(self, progress: Progress, request: Replicate) -> None:
        """Ask more of one that was sent less, and note one that has caught up."""
        limit = self.server.options.max_append_entries
        entries = request.last - request.prev_index
        if progress.max_entries and entries >= progress.max_entries:
            progress.accepted_full(limit)
        if request.last + limit >= self.server.commit_index:
            progress.snapshot_sent = 0

    def _note_disk_read(self, progress: Progress, request: Replicate) -> None:
        """Learn from *request* how much of the log one read brings."""
        server = self.server
        most = progress.max_entries or server.options.max_append_entries
        wanted = request.prev_index + most
        progress.short_read = request.last < min(wanted, server.log.last_index)
        # `next` went ahead by what was asked for. Nothing else is on its way that would
        # be sent twice.
        if not progress.inflight:
            progress.next = progress.match + 1

    def _snapshot_answered(
        self,
        progress: Progress,
        request: SendSnapshot,
        response: InstallSnapshotResponse,
    ) -> None:
        self._heard(progress, request.sent)
        if request.stream != progress.stream or progress.mode is not Mode.SNAPSHOT:
            return
        progress.mode = Mode.PROBE
        if response.success:
            progress.match = max(progress.match, request.index)
            progress.next = progress.match + 1
            progress.snapshot_sent = progress.match
            progress.failures = 0
            self._commit_what_a_quorum_has(progress.match)
        else:
            self._snapshot_failed(progress)

    def _snapshot_failed(self, progress: Progress) -> None:
        """Wait before the next attempt, long enough to hear if one is installed."""
        options = self.server.options
        longest = LONG_WAIT_TIMEOUTS * options.heartbeat_timeout_ticks
        progress.snapshot_failed_at = self.server.now
        progress.failed(self.server.now, longest, options.heartbeat_interval_ticks)

    @property
    def _longest_wait(self) -> int:
        return max(1, self.server.options.heartbeat_timeout_ticks // 2)

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Wait a little, then begin again after what is known to have arrived."""
        progress = self.followers.get(peer)
        # The target will not campaign, so this leader takes entries again at once.
        if isinstance(request, TimeoutNowRequest) and peer == self.transferee:
            self._end_transfer()
        if progress is None or not isinstance(request, TO_FOLLOWERS):
            return
        if request.term != self.server.term:
            return
        now = self.server.now
        # Unless it has answered something newer: a process that is started at this
        # address next may understand less than this one did.
        if request.sent >= progress.contact:
            progress.level = None
        match request:
            case Heartbeat():
                if request == progress.heartbeat_inflight:
                    progress.heartbeat_inflight = None
                    self._hasten(progress)
                    progress.heartbeat_failures += 1
            case Replicate() if request.stream == progress.stream:
                # The entries may have arrived, and only the response got lost: then
                # they come twice, which changes nothing there.
                progress.restart(self._new_stream(), request.prev_index + 1)
                if closed and not progress.heartbeat_failures:
                    self._send_less(peer, progress, request)
                longest = self._longest_wait
                if progress.undeliverable:
                    longest *= 2 * LONG_WAIT_TIMEOUTS
                progress.failed(now, longest)
            case SendSnapshot() if request.stream == progress.stream:
                progress.mode = Mode.PROBE
                self._snapshot_failed(progress)

    def _send_less(self, peer: str, progress: Progress, request: Replicate) -> None:
        """Send less to *peer*, who answers heartbeats but did not take *request*."""
        entries = request.last - request.prev_index
        first = request.prev_index + 1
        if entries and progress.send_less(first, entries):
            self.server.cannot_deliver(peer, first)

    def connection_lost(self, peer: str) -> None:
        """Say at once that this server still leads.

        A follower that lost the connection as well campaigns after a short wait.
        """
        progress = self.followers.get(peer)
        if progress is not None and progress.heartbeat_inflight is None:
            self._hasten(progress)

    def _hasten(self, progress: Progress) -> None:
        """Let a heartbeat go at once, but only one until the peer has answered."""
        if not progress.heartbeat_failures:
            progress.heartbeat_due = self.server.now

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Treat a peer that does not know a request as one that is not there."""
        self.unreachable(peer, request, closed=False)

    def may_compact_to(self, index: int) -> int:
        """Keep the log for followers that have been sent a snapshot and are there."""
        server = self.server
        heard = LONG_WAIT_TIMEOUTS * server.options.heartbeat_timeout_ticks
        for progress in self.followers.values():
            if progress.snapshot_sent and server.now - progress.contact <= heard:
                index = min(index, max(progress.snapshot_sent, progress.match))
        return index

    # Levels of the state machine ----------------------------------------------------

    def common_level(self) -> int:
        """Return the highest level that every server of the configuration understands.

        Nonvoters too: they apply the same entries. The configuration is the latest in
        the log, committed or not.
        """
        server = self.server
        level = server.options.level
        for address in server.configuration.addresses:
            if address != server.address:
                # Not known counts as 0: it may be any process.
                announced = self.followers[address].level
                level = min(level, max(0, announced or 0))
        return level

    # Verification -------------------------------------------------------------------

    def verify(self, token: object) -> None:
        """Begin a round of heartbeats for *token*, or join the one about to begin.

        One of which a single heartbeat has left has begun: the response may have been
        on its way before this call, and proves nothing about the time after it.
        """
        if self._round <= self._round_sent:
            self._round += 1
        self._verifying.append((token, self._round))
        self._settle_verifications()

    def _settle_verifications(self) -> None:
        """Report what a quorum has confirmed, if an entry of this term is committed."""
        server = self.server
        # Until an entry of this term is committed the commit index may be behind what
        # an earlier leader has confirmed to a client: a read there would go back.
        if not self._verifying or server.commit_index < self.first_index:
            return
        # After a stall it may have confirmations in its sockets from before it, of
        # followers that have elected another since.
        if self._doubts_since is not None:
            return
        confirmed = agreed_value(
            self._round
            if address == server.address
            else self.followers[address].round_answered
            for address in server.configuration.voters
        )
        while self._verifying and self._verifying[0][1] <= confirmed:
            server.verified(self._verifying.popleft()[0], server.commit_index)

    # Transfer -----------------------------------------------------------------------

    def transfer(self, target: str) -> None:
        """Stop taking entries until all are committed and *target* has them.

        Then let it campaign.
        """
        is_voter = self.server.configuration.is_voter(target)
        if self.transferee is None and is_voter and target in self.followers:
            self.transferee = target
            self._transfers += 1
            self._timeout_now_sent = False
            self._transfer_until = (
                self.server.now + self.server.options.election_timeout_ticks
            )

    def best_successor(self) -> str | None:
        """Return the voter with most of the log among those that answer, if any does.

        Of those that have the same, the one that was heard last.
        """
        voters = self.server.configuration.voters
        others = [
            voter
            for voter in voters
            if voter in self.followers and not self.silence_of(voter)
        ]

        def merit(voter: str) -> tuple[int, int]:
            progress = self.followers[voter]
            return progress.match, progress.contact

        return max(others, key=merit, default=None)

    def silence_of(self, peer: str) -> int:
        """Return for how many ticks *peer* was not heard; 0 within those of a lease."""
        progress = self.followers.get(peer)
        silence = 0 if progress is None else self.server.now - progress.contact
        return silence if silence > self.server.options.lease_ticks else 0

    def consents(self, request: RequestPreVoteRequest) -> bool:
        """Tell whether the transfer that *request* names still is under way here.

        Numbers are of one leadership, so the term of the server that asks counts too.
        """
        return (
            self._timeout_now_sent
            and request.candidate == self.transferee
            and request.transfer == self._transfers
            and request.term == self.server.term + 1
        )

    def _send_timeout_now(self) -> None:
        target = self.transferee
        if target is None or self._timeout_now_sent:
            return
        progress, last = self.followers.get(target), self.server.log.last_index
        # What the target has, others may lack, even this server's own disk. Whoever
        # waits here for the outcome of such an entry would be told that it is unknown.
        if self.server.commit_index < last:
            return
        # Told earlier it could not win: the others have a more complete log.
        if progress is not None and progress.match == last:
            self._timeout_now_sent = True
            self.server.send(target, TimeoutNowRequest(transfer=self._transfers))

    def _give_up_transfer_in_time(self) -> None:
        if self.transferee is not None and self.server.now >= self._transfer_until:
            self._end_transfer()

    def _end_transfer(self) -> None:
        self.transferee = None
