"""A leader: replicates its log, commits what a quorum has, and proves it still leads.

Everything here lives and dies with one term's leadership. These rules stand behind it:

1. A leader appends, and never changes or drops an entry of its own log.
2. It commits by counting copies only from `first_index` on, the first entry of its own
   term. Older entries are committed with that one.
3. Its own copy is one among others: it counts once it is synced (`own_match`).
4. A response proves that the leader still led when the *request* was sent, and nothing
   about a later time. The lease and verifications both count from there.
5. Without a quorum of such responses within `CoreOptions.lease_ticks` it has no lease.
   It resigns then. Only when the server itself was held up, it first doubts for a
   heartbeat timeout:

       leading ── no quorum in time, held up itself ──> in doubt
         │  ^                                             │ │
         │  └── a quorum answered what was sent since ────┘ │ still none in time
         └────── no quorum in time, not held up ────────────┴──> resigned

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
"""The requests that only a leader sends. A late response to any other request is to
something that this server asked before it led."""

LONG_WAIT_TIMEOUTS = 20
"""Heartbeat timeouts between attempts, at most, to send what has failed often: a
snapshot, or an entry that a follower does not take."""


class Resignation(NamedTuple):
    """Why a leader resigned, for people to know; all in ticks.

    It had heard no quorum for *silence*, and its oldest write had waited for
    *write_age*. *late* is how many ticks came at once: many, if it was held up itself.
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

        # All other servers that get entries; removed ones too, until they know of it.
        self.followers: dict[str, Progress] = {}

        # The last number that was given to a stream of requests: see `Progress.stream`.
        self._streams = 0

        # Up to where its own log is durable: one copy among others. At first that is
        # all of it, since a candidate's own vote counts only behind all its writes.
        self.own_match = server.log.last_index

        # The first entry of its own term. Until that is committed the leader neither
        # knows what earlier leaders committed nor commits by counting (§3.6.2, §6.4).
        self.first_index = server.log.last_index + 1

        # Whether this server is a voter itself. One that was removed leads on until its
        # removal is committed, and a little longer, but accepts no entries (§4.2.2).
        # The tick at which it steps down, whether all know of its removal or not.
        self._votes = True
        self._step_down_by: int | None = None

        # Heartbeats leave in numbered rounds. The number of the round that is due, and
        # of the newest of which any heartbeat has left. Verifications, oldest first,
        # each with the round that a quorum has to answer for it.
        self._round = self._round_sent = 0
        self._verifying: deque[tuple[object, int]] = deque()

        # The tick since which it is in doubt, None while it is not; how many ticks came
        # at once then, 1 for none too many; and the tick at which it resigns unless a
        # quorum has answered by then. All of it as rule 5 above says.
        self._doubts_since: int | None = None
        self._stall_ticks = 1
        self._resign_at = 0
        self.resignation: Resignation | None = None

        # The server that it transfers its leadership to, None if there is no transfer;
        # the tick at which it gives up; whether that server was asked to campaign; and
        # how many transfers this leader has begun, which is the number of the last one.
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

        During a transfer the target would never catch up. A leader that was removed
        leads on only until its removal is committed, so it could not tell what becomes
        of more entries. Entries that are not appended keep index 0.
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
        """Begin to send to new servers, and mark removed ones."""
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
        # One count for all followers together: a follower that is removed and added
        # again never gets a number that it had before, whose responses may be late.
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
        # For speed: most copies change nothing. The third of three, say, comes when the
        # quorum is complete without it.
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
        # Not below `first_index`: an entry of an older term may be on a quorum and
        # still be replaced, by a leader that never had it (figure 3.7). It is committed
        # once an entry of this term behind it is.
        if agreed <= server.commit_index or agreed < self.first_index:
            return
        server.commit(agreed)
        if self._verifying:
            self._settle_verifications()

    # Time -------------------------------------------------------------------------

    def tick(self, count: int) -> Next | None:
        """Resign if no quorum confirms this leader; begin a round when one is due."""
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
        """Tell whether, *late* ticks ago, a quorum or the own disk was overdue.

        A disk that hangs counts as well: this leader can store nothing, and another
        one could.
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
        """Resign; but if this server was held up itself, first doubt for a while.

        The responses to all that it sent may be in its sockets already. They prove
        nothing about the time of the stall, in which its followers may have elected
        another leader. So it sends heartbeats at once, and until a quorum has answered
        these it has no lease: it confirms no verification, and treats candidates as a
        server does that hears no leader.

        It waits for one heartbeat timeout after a stall and no longer. All servers
        apply the same entries: what held this one up may hold up the others next.
        Source: Raft dissertation §6.2, §6.4.
        """
        now = self.server.now
        # It had support at the tick before this stall, so the stall is the reason. Once
        # only: a stall that comes while it is in doubt must not move `_resign_at`, or
        # one stall after another would let it lead for ever.
        if self._doubts_since is None and not self._lacks_support(count - 1):
            self._stall_ticks = count
            limit = self.server.options.heartbeat_timeout_ticks
            self._resign_at = now + limit
        if now >= self._resign_at:
            silence = now - agreed_value(self._contacts())
            age = self.server.oldest_write_age
            self.resignation = Resignation(silence, age, max(count, self._stall_ticks))
        elif self._doubts_since is None:
            # Only responses to what is sent from here on count, so send at once.
            self._doubts_since = now
            for progress in self.followers.values():
                progress.heartbeat_due = now

    def _heard(self, progress: Progress, sent: int) -> None:
        """Note a response to a request of the tick *sent*; it may end a doubt.

        The tick of the request counts, and not that of the response: how long the
        response was on its way is not known, and the follower may have elected
        another leader meanwhile.
        Source: Raft dissertation §6.4.1.
        """
        progress.contact = max(progress.contact, sent)
        since = self._doubts_since
        if since is not None and agreed_value(self._contacts()) >= since:
            self._doubts_since = None
            self._stall_ticks = 1
            self._settle_verifications()

    def _contacts(self) -> list[int]:
        """Return the `contact` of each voter, in no order; this server's own is now."""
        server = self.server
        return [
            server.now if address == server.address else self.followers[address].contact
            for address in server.configuration.voters
        ]

    def _forget_the_removed(self) -> None:
        """Stop sending to removed servers that know of it, or have had enough time."""
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

        One at a time: a second one would prove nothing that the first does not, and
        with a follower that does not answer they would pile up.
        """
        server = self.server
        wanted = progress.round_sent < self._round and bool(self._verifying)
        # A follower that does not answer gets no more of them for verifications.
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

        A *peer* that has the whole log needs nothing before the next input: so most
        responses cost no turn of the shell. To say True too often costs time; to say
        False wrongly makes somebody wait for the next tick.
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
        # Before the response moves anything: entries may leave because of it, and they
        # go only to followers whose level is known.
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
        # Not the one on its way: it was given up, and its follower may be a new member
        # under the same address by now.
        if request != progress.heartbeat_inflight:
            return
        progress.heartbeat_inflight = None
        self._heard_again(progress, response)
        self._heard(progress, request.sent)
        if response.success:
            progress.round_answered = request.round
            self._settle_verifications()

    def _heard_again(self, progress: Progress, response: AppendEntriesResponse) -> None:
        """Note what a heartbeat's *response* says of the follower.

        This cuts a long wait short if it was away, or has just installed a snapshot.
        Long waits are for one that goes on refusing the same thing: after a restart it
        may have other limits, and with the snapshot it takes entries.
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
        # First: whatever the response says, and of whichever stream its request is, it
        # shows that the follower was there.
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
        """Look further back for where the logs agree, in a new stream.

        The requests behind this one are refused as well, as they follow on it. By the
        new stream their responses are ignored, or each would step back once more.
        Source: Raft dissertation §3.5.
        """
        progress.stream = self._new_stream()
        progress.inflight = 0
        progress.next = min(progress.next, request.prev_index + 1)
        denies_match = request.prev_index <= progress.match
        # Before `refused` and `failed`, which change what this is computed from.
        has_forgotten = denies_match and progress.failures > 0
        progress.refused(response.last_log)
        if has_forgotten and response.no_retry_backoff:
            self._distrust(peer, progress)
        # In these cases the next request would be the same once more, so it waits. In
        # all others it leaves at once: it asks for an older entry.
        if denies_match or not response.no_retry_backoff:
            progress.failed(self.server.now, self._longest_wait)

    def _distrust(self, peer: str, progress: Progress) -> None:
        """Count no copy of *peer* any more, which denies what it has acknowledged.

        Only at a denial that follows another failure. The first may be an old response
        that was overtaken by the acknowledgement. The request of this one was sent
        later, when the acknowledgement was known.
        """
        if progress.match:
            progress.match = 0
            self.server.forgets(peer)

    def _entries_accepted(self, progress: Progress, request: Replicate) -> None:
        """Count what the *request* carried, as durable on the follower."""
        # By what was sent, and not by the `last_log` of the response: the follower may
        # have entries of another leader up to there.
        if request.last > request.prev_index:
            progress.accepted(request.last)
            if progress.max_entries or progress.snapshot_sent:
                self._grow_requests(progress, request)
            if request.may_shorten:
                self._note_disk_read(progress, request)
        else:
            # No entries: the logs agree up to `prev_index`, but that proves no copy.
            # The follower may not have synced what it had before.
            progress.mode = Mode.REPLICATE
            progress.failures, progress.step_back = 0, 1
        progress.commit_known = max(progress.commit_known, request.commit)
        self._commit_what_a_quorum_has(progress.match)

    def _grow_requests(self, progress: Progress, request: Replicate) -> None:
        """Let requests grow again, and note a follower that has caught up."""
        limit = self.server.options.max_append_entries
        entries = request.last - request.prev_index
        if progress.max_entries and entries >= progress.max_entries:
            progress.accepted_full(limit)
        if request.last + limit >= self.server.commit_index:
            progress.snapshot_sent = 0

    def _note_disk_read(self, progress: Progress, request: Replicate) -> None:
        """Learn from a *request* that was read from the disk whether it was cut short.

        If it was, what was sent behind it leaves a gap and is refused. So that this
        does not happen each time, `short_read` lets the next request go alone.
        """
        server = self.server
        most = progress.max_entries or server.options.max_append_entries
        wanted = request.prev_index + most
        progress.short_read = request.last < min(wanted, server.log.last_index)
        # `next` went ahead by what was asked for, which may be more than was sent. Only
        # if nothing else is on its way: else that would be sent twice.
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
        """Wait a little, then send again what is not known to have arrived."""
        progress = self.followers.get(peer)
        # The target will not campaign, so this leader takes entries again at once.
        if isinstance(request, TimeoutNowRequest) and peer == self.transferee:
            self._end_transfer()
        if progress is None or not isinstance(request, TO_FOLLOWERS):
            return
        if request.term != self.server.term:
            return
        now = self.server.now
        # Another process may be started at this address, which understands less. But if
        # the peer has answered something newer, its level is known from that.
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
        """Send less to *peer*, which answers heartbeats but did not take *request*."""
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
        """Let a heartbeat leave at once, but only one until the peer has answered."""
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
        """Have *token* confirmed by the next round of heartbeats.

        A round of which any heartbeat has left does not count: its response may have
        been given before this call, and proves nothing about the time after it.
        """
        if self._round <= self._round_sent:
            self._round += 1
        self._verifying.append((token, self._round))
        self._settle_verifications()

    def _settle_verifications(self) -> None:
        """Report what a quorum has confirmed, if an entry of this term is committed."""
        server = self.server
        # Until an entry of this term is committed the commit index may be below what an
        # earlier leader has answered clients with: such a read would go back in time.
        if not self._verifying or server.commit_index < self.first_index:
            return
        # In doubt: what confirms may be from before the stall, and the followers may
        # have elected another leader since.
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
        """Tell whether the transfer that *request* names is still under way here.

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
        # Not before all is committed: callers that wait here for the outcome of an
        # entry would be told that it is unknown.
        if self.server.commit_index < last:
            return
        # Not before the target has the whole log: it could not win against servers
        # whose log is more complete.
        if progress is not None and progress.match == last:
            self._timeout_now_sent = True
            self.server.send(target, TimeoutNowRequest(transfer=self._transfers))

    def _give_up_transfer_in_time(self) -> None:
        if self.transferee is not None and self.server.now >= self._transfer_until:
            self._end_transfer()

    def _end_transfer(self) -> None:
        self.transferee = None
