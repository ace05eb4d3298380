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

OF_A_LEADER = (Replicate, Heartbeat, SendSnapshot)
"""What a leader sends to keep its followers, each with its term."""


LONG_WAIT_TIMEOUTS = 20
"""Heartbeat timeouts between attempts, at most, to send what has failed often: a
snapshot, or an entry that a follower does not take."""


class Resignation(NamedTuple):
    """Why a leader gave up, in ticks.

    For *silence* it had heard no quorum, and its oldest write was waiting for
    *write_age*. Ticks came at once, *late* of them: the server was held up itself.
    """

    silence: int
    write_age: int
    late: int


class Leader(BaseRole):
    """Leads one term.

    *followers* are all other servers that get entries, removed ones too until they
    have been told. *transferee* is the server that leadership is being handed to.
    *resignation* tells why it steps down by itself. *level* is the highest level of
    the state machine whose activation this leader has appended; *levels* are what its
    voters announced as they gave it their votes.
    """

    def __init__(self, server: ServerState, levels: Mapping[str, int]) -> None:
        super().__init__(server)
        self.leader = server.address
        self.followers: dict[str, Progress] = {}
        self.transferee: str | None = None
        self.resignation: Resignation | None = None
        self._transfer_until = 0
        self._told_transferee = False
        self._transfers = 0
        self._doubts_since: int | None = None
        self._late = 1
        self._patient_until = 0
        self._leave_by: int | None = None
        self.level = 0
        self.own_match = server.log.last_index
        self.first_index = server.log.last_index + 1
        self._round = self._begun = 0
        self._lives = 0
        self._votes = True
        self._verifying: deque[tuple[object, int]] = deque()
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
        self._round += 1

    @property
    def hears_leader(self) -> bool:
        """Whether this leader has its lease: not while it doubts."""
        return self._doubts_since is None

    # Entries ----------------------------------------------------------------------

    def propose(self, entries: Sequence[Entry]) -> None:
        """Append *entries*, unless this leader is about to go."""
        if entries and self.transferee is None and self._votes:
            self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> None:
        index, term = self.server.log.last_index, self.server.term
        for entry in entries:
            index += 1
            entry.index, entry.term = index, term
        known = self.server.configurations.latest_index
        self.server.append(entries)
        if self.server.configurations.latest_index > known:
            self._follow_configuration()

    @property
    def may_change_configuration(self) -> bool:
        """Whether the configuration in force, and an entry of this term, committed."""
        server = self.server
        return (
            server.configurations.latest_index <= server.commit_index
            and server.commit_index >= self.first_index
            and self.transferee is None
        )

    def _follow_configuration(self) -> None:
        """Send to new servers; keep telling removed ones until they know.

        Called for every entry with a configuration; a leader drops none of them.
        """
        server = self.server
        self._votes = server.configuration.is_voter(server.address)
        members = set(server.configuration.addresses)
        for address in server.configuration.addresses:
            known = self.followers.get(address)
            if address != server.address and (known is None or known.leaving):
                self.followers[address] = self._new_progress()
        for address, progress in self.followers.items():
            if address not in members and progress.leaving is None:
                progress.leaving = server.configurations.latest_index

    def _new_progress(self) -> Progress:
        life = self._new_life()
        return Progress(
            next=self.server.log.last_index + 1,
            life=life,
            contact=self.server.now,
            born=life,
        )

    def _new_life(self) -> int:
        self._lives += 1
        return self._lives

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
        """Tell whether *late* ticks ago no quorum, or no disk, had answered in time."""
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

        What came at once may all be answered already, in its sockets. Until a quorum
        has answered what was sent after the stall this leader has no lease: it confirms
        nothing, and votes as one who hears nobody, as its followers may have elected
        another. It has a heartbeat timeout after each stall, and no longer: all servers
        apply the same entries, so that what held it up may hold them up next, once they
        have answered.
        Source: Raft dissertation §6.2, §6.4.
        """
        now = self.server.now
        if self._doubts_since is None and not self._lacks_support(count - 1):
            self._late = count
            limit = self.server.options.heartbeat_timeout_ticks
            self._patient_until = now + limit
        if now >= self._patient_until:
            silence = now - agreed_value(self._contacts())
            age = self.server.oldest_write_age
            self.resignation = Resignation(silence, age, max(count, self._late))
        elif self._doubts_since is None:
            self._doubts_since = now
            for progress in self.followers.values():
                progress.heartbeat_due = now

    def _heard(self, progress: Progress, sent: int) -> None:
        """Note an answer to what was *sent* at that tick; it may end a doubt."""
        progress.contact = max(progress.contact, sent)
        since = self._doubts_since
        if since is not None and agreed_value(self._contacts()) >= since:
            self._doubts_since = None
            self._late = 1
            self._settle_verifications()

    def _contacts(self) -> list[int]:
        """Return when each voter was heard, in no order."""
        server = self.server
        return [
            server.now if address == server.address else self.followers[address].contact
            for address in server.configuration.voters
        ]

    def _forget_the_removed(self) -> None:
        """Stop sending to removed servers that know it, or that do not answer."""
        server = self.server
        for address, progress in list(self.followers.items()):
            removal = progress.leaving
            if removal is None or server.commit_index < removal:
                continue
            if progress.leaving_until is None:
                wait = 2 * server.options.election_timeout_ticks
                progress.leaving_until = server.now + wait
            if progress.commit_known >= removal or (
                server.now >= progress.leaving_until
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
        if self.transferee is not None:
            self._tell_transferee()
        if not self._votes and self._removal_is_committed():
            return Next.FOLLOWER
        return None

    def _removal_is_committed(self) -> bool:
        """Tell whether this leader, who votes no more, has said so for a while.

        Source: Raft dissertation §4.2.2.
        """
        server = self.server
        history = server.configurations
        if history.latest_index > server.commit_index:
            return False
        if self._leave_by is None:
            self._leave_by = server.now + server.options.heartbeat_timeout_ticks
        return server.now >= self._leave_by or all(
            progress.commit_known >= history.latest_index
            for progress in self.followers.values()
        )

    # Sending ----------------------------------------------------------------------

    def _send_heartbeat(self, address: str, progress: Progress, due: bool) -> None:
        """Send a heartbeat when it is *due* or a verification asks for one.

        One at a time: an answer proves only what was sent before it.
        """
        server = self.server
        wanted = progress.round_sent < self._round and bool(self._verifying)
        waits = progress.heartbeat_failures and not due
        if progress.heartbeat_inflight or waits or not (due or wanted):
            return
        interval = server.options.heartbeat_interval_ticks
        heartbeat = Heartbeat(server.term, self._round, server.now, progress.life)
        progress.heartbeat_inflight = heartbeat
        progress.heartbeat_due = server.now + interval
        progress.round_sent = self._begun = self._round
        server.send(address, heartbeat)

    def has_news(self, peer: str | None) -> bool:
        """Tell whether there may be anything to send to *peer*, or a verification to
        go on with; to a *peer* that has all there is, it can wait."""
        if self._verifying or self.transferee is not None or not self.hears_leader:
            return True
        progress = None if peer is None else self.followers.get(peer)
        return progress is not None and (
            progress.next <= self.server.log.last_index
            or progress.mode is not Mode.REPLICATE
            or progress.leaving is not None
        )

    # Answers ----------------------------------------------------------------------

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Take an answer to a request of this term."""
        progress = self.followers.get(peer)
        if progress is None or not isinstance(request, OF_A_LEADER):
            return
        if request.term != self.server.term:
            return
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
        self, progress: Progress, request: Heartbeat, answer: AppendEntriesResponse
    ) -> None:
        if request != progress.heartbeat_inflight:
            return
        progress.heartbeat_inflight = None
        self._heard_again(progress, answer)
        self._heard(progress, request.sent)
        if answer.success:
            progress.round_answered = request.round
            self._settle_verifications()

    def _heard_again(self, progress: Progress, answer: AppendEntriesResponse) -> None:
        """Learn how the follower is, and wait no longer for one that was away.

        A long wait is for a follower that is as it was: one that was restarted may
        have other limits, and one that has done with a snapshot takes entries.
        """
        was_away = progress.heartbeat_failures > 0
        is_done = progress.installing and not answer.no_retry_backoff
        progress.heartbeat_failures = 0
        progress.installing = answer.no_retry_backoff
        progress.last_log = answer.last_log
        if was_away or is_done:
            soon = self.server.now + self._longest_wait
            progress.wait_until = min(progress.wait_until, soon)

    def _entries_answered(
        self,
        peer: str,
        progress: Progress,
        request: Replicate,
        answer: AppendEntriesResponse,
    ) -> None:
        self._heard(progress, request.sent)
        if request.life != progress.life:
            return
        progress.inflight = max(0, progress.inflight - 1)
        if answer.success:
            self._entries_accepted(progress, request)
        else:
            progress.life = self._new_life()
            progress.inflight = 0
            progress.next = min(progress.next, request.prev_index + 1)
            denies_match = request.prev_index <= progress.match
            has_forgotten = denies_match and progress.failures > 0
            progress.refused(answer.last_log)
            if has_forgotten and answer.no_retry_backoff:
                self._forgets(peer, progress)
            if denies_match or not answer.no_retry_backoff:
                progress.failed(self.server.now, self._longest_wait)

    def _forgets(self, peer: str, progress: Progress) -> None:
        """Count no promise of *peer*, who denies what it has acknowledged.

        Called at a denial that follows a failure: a first one may have been overtaken
        by the acknowledgement, but this is the answer to a request that was sent when
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
        if request.last > request.prev_index:
            progress.accepted(request.last)
            if progress.most or progress.recovering:
                self._grew(progress, request)
            if request.may_shorten:
                self._read_back(progress, request)
        else:
            progress.mode = Mode.REPLICATE
            progress.failures, progress.step = 0, 1
        progress.commit_known = max(progress.commit_known, request.commit)
        self._commit_what_a_quorum_has(progress.match)

    def _grew(self, progress: Progress, request: Replicate) -> None:
        """Ask more of one that was sent less, and note one that has caught up."""
        limit = self.server.options.max_append_entries
        if progress.most and request.last - request.prev_index >= progress.most:
            progress.took_most(limit)
        if request.last + limit >= self.server.commit_index:
            progress.recovering = 0

    def _read_back(self, progress: Progress, request: Replicate) -> None:
        """Learn from *request* how much of the log one read brings."""
        server = self.server
        most = progress.most or server.options.max_append_entries
        wanted = request.prev_index + most
        progress.cut_short = request.last < min(wanted, server.log.last_index)
        if not progress.inflight:
            progress.next = progress.match + 1

    def _snapshot_answered(
        self,
        progress: Progress,
        request: SendSnapshot,
        answer: InstallSnapshotResponse,
    ) -> None:
        self._heard(progress, request.sent)
        if request.life != progress.life or progress.mode is not Mode.SNAPSHOT:
            return
        progress.mode = Mode.PROBE
        if answer.success:
            progress.match = max(progress.match, request.index)
            progress.next = progress.match + 1
            progress.recovering = progress.match
            progress.failures = 0
            self._commit_what_a_quorum_has(progress.match)
        else:
            self._snapshot_failed(progress)

    def _snapshot_failed(self, progress: Progress) -> None:
        """Wait before the next attempt, long enough to hear if one is installed."""
        options = self.server.options
        longest = LONG_WAIT_TIMEOUTS * options.heartbeat_timeout_ticks
        progress.not_installed = self.server.now
        progress.failed(self.server.now, longest, options.heartbeat_interval_ticks)

    @property
    def _longest_wait(self) -> int:
        return max(1, self.server.options.heartbeat_timeout_ticks // 2)

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Wait a little, then begin again after what is known to have arrived."""
        progress = self.followers.get(peer)
        if isinstance(request, TimeoutNowRequest) and peer == self.transferee:
            self._end_transfer()
        if progress is None or not isinstance(request, OF_A_LEADER):
            return
        if request.term != self.server.term:
            return
        now = self.server.now
        if request.sent >= progress.contact:
            progress.level = None  # whoever is started there next may know less
        match request:
            case Heartbeat():
                if request == progress.heartbeat_inflight:
                    progress.heartbeat_inflight = None
                    self._hasten(progress)
                    progress.heartbeat_failures += 1
            case Replicate() if request.life == progress.life:
                progress.restart(self._new_life(), request.prev_index + 1)
                if closed and not progress.heartbeat_failures:
                    self._cut_off(peer, progress, request)
                longest = self._longest_wait
                if progress.undeliverable:
                    longest *= 2 * LONG_WAIT_TIMEOUTS
                progress.failed(now, longest)
            case SendSnapshot() if request.life == progress.life:
                progress.mode = Mode.PROBE
                self._snapshot_failed(progress)

    def _cut_off(self, peer: str, progress: Progress, request: Replicate) -> None:
        """Send less to *peer*, who answers heartbeats but did not take *request*."""
        entries = request.last - request.prev_index
        first = request.prev_index + 1
        if entries and progress.cut_off(first, entries):
            self.server.cannot_deliver(peer, first)

    def connection_lost(self, peer: str) -> None:
        """Say at once that this server still leads: who lost it soon campaigns."""
        progress = self.followers.get(peer)
        if progress is not None and progress.heartbeat_inflight is None:
            self._hasten(progress)

    def _hasten(self, progress: Progress) -> None:
        """Let a heartbeat go at once, but only one until the peer has answered."""
        if not progress.heartbeat_failures:
            progress.heartbeat_due = self.server.now

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Treat a peer that does not know a request as one that did not answer."""
        self.unreachable(peer, request, closed=False)

    def may_compact_to(self, index: int) -> int:
        """Keep the log for followers that have been sent a snapshot and are there."""
        server = self.server
        heard = LONG_WAIT_TIMEOUTS * server.options.heartbeat_timeout_ticks
        for progress in self.followers.values():
            if progress.recovering and server.now - progress.contact <= heard:
                index = min(index, max(progress.recovering, progress.match))
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
                announced = self.followers[address].level
                level = min(level, max(0, announced or 0))
        return level

    # Verification -------------------------------------------------------------------

    def verify(self, token: object) -> None:
        """Begin a round of heartbeats for *token*, or join the one about to begin.

        One that a single heartbeat has left for has begun: its answer may have been
        on its way before this call, and proves nothing about the time after it.
        """
        if self._round <= self._begun:
            self._round += 1
        self._verifying.append((token, self._round))
        self._settle_verifications()

    def _settle_verifications(self) -> None:
        """Answer what a quorum has confirmed, once an entry of this term committed."""
        server = self.server
        if not self._verifying or server.commit_index < self.first_index:
            return
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
            self._told_transferee = False
            self._transfer_until = (
                self.server.now + self.server.options.election_timeout_ticks
            )

    def best_successor(self) -> str | None:
        """Return the voter that has most of the log of those that answer, if any do.

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
        """Return for how long *peer* was not heard; 0 within the time of a lease."""
        progress = self.followers.get(peer)
        silence = 0 if progress is None else self.server.now - progress.contact
        return silence if silence > self.server.options.lease_ticks else 0

    def consents(self, request: RequestPreVoteRequest) -> bool:
        """Tell whether the transfer that *request* names still is under way here.

        The number is one of this leadership, and so is the term of who asks.
        """
        return (
            self._told_transferee
            and request.candidate == self.transferee
            and request.transfer == self._transfers
            and request.term == self.server.term + 1
        )

    def _tell_transferee(self) -> None:
        target = self.transferee
        if target is None or self._told_transferee:
            return
        progress, last = self.followers.get(target), self.server.log.last_index
        # What the target has, others may lack, even this server's own disk. Whoever
        # waits here for the outcome of such an entry would be told that it is unknown.
        if self.server.commit_index < last:
            return
        if progress is not None and progress.match == last:
            self._told_transferee = True
            self.server.send(target, TimeoutNowRequest(transfer=self._transfers))

    def _give_up_transfer_in_time(self) -> None:
        if self.transferee is not None and self.server.now >= self._transfer_until:
            self._end_transfer()

    def _end_transfer(self) -> None:
        self.transferee = None
