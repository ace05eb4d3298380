"""One server's consensus: its inputs, the rules for all servers, the transitions.

It never sees bytes, clocks or sockets. Inputs change state and return nothing;
`ready` hands out all that follows from them. Time is counted in ticks.

        times out          wins pre-votes       wins votes
    FOLLOWER ───> PRE-CANDIDATE ───> CANDIDATE ───> LEADER
       ^  │             │ ^              │ │            │
       │  └─────────────┼─┼── told to ──>┘ │            │
       │                │ └── times out ───┘            │
       └────────────────┴──── a leader, a newer term, no quorum

Source: Raft dissertation, figure 3.1; sections are named where a rule is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import assert_never

from txraft.core.appending import answer_append_entries
from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.entry import Entry
from txraft.core.follower import Follower
from txraft.core.installation import answer_install_snapshot
from txraft.core.leader import Leader
from txraft.core.log import Log
from txraft.core.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    Response,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.core.ready import (
    HardState,
    Install,
    Options,
    OutgoingRequest,
    Ready,
    Refusal,
    ResetLog,
    SnapshotMark,
)
from txraft.core.voting import answer_pre_vote, answer_vote
from txraft.core.writes import Writes

Role = Follower | PreCandidate | Candidate | Leader

MAX_TERM_JUMP = 1 << 32
"""A term further ahead than this is refused: it would use up the terms there are."""


class Consensus:
    """The Raft state of the server at *address*, as figure 3.1 lists it.

    *hard_state*, *log*, *configurations* and *snapshot* are what was found on disk.
    *fit* tells how many entries from *first* to *last* go into one message; it is
    asked only about entries from `resident_from` on, which are in memory.

    `coming` is what `ready` hands out next. The shell may read its changes to the log:
    they are complete before `ready` is called, so that it can make room for entries
    before it is asked how many of them fit into a message.
    """

    def __init__(
        self,
        address: str,
        random: Random,
        options: Options | None = None,
        hard_state: HardState | None = None,
        log: Log | None = None,
        configurations: ConfigurationHistory | None = None,
        snapshot: SnapshotMark | None = None,
        fit: Callable[[int, int], int] = lambda first, last: last,
    ) -> None:
        self.address = address
        self.random = random
        self.options = options or Options()
        self.log = log or Log()
        self.configurations = configurations or ConfigurationHistory()
        self.snapshot = snapshot or SnapshotMark()
        self.fit = fit
        self.resident_from = self.log.last_index + 1
        state = hard_state or HardState()
        self.term = state.term
        self.voted_for = state.voted_for
        self.cluster = state.cluster
        self.commit_index = self.snapshot.index
        self.active_level = 0
        self.now = 0
        self.no_hurry_before = 0
        self.installing = False
        self.cluster_proposals: dict[int, bytes] = {}
        self._told_commit = self.commit_index
        self._hard_state = state
        self.writes = Writes(state)
        self.coming = Ready()
        self.role: Role = Follower(self, leader=None)

    # Inputs ---------------------------------------------------------------------

    def tick(self, count: int = 1) -> None:
        """Let *count* ticks pass."""
        self.now += count
        self.role.tick(count)

    def propose(self, entries: Sequence[Entry]) -> None:
        """Append *entries* if this server leads and accepts them.

        Those that are accepted get their index and term; the others keep index 0.
        """
        if isinstance(self.role, Leader):
            self.role.propose(entries)

    def change_configuration(self, entry: Entry) -> None:
        """Append the membership *entry* if `may_change_configuration` allows it.

        Raises: ConfigurationRefused, if it is not a single legal step.
        """
        assert entry.configuration is not None, "a membership entry asserts one"
        self.configurations.latest.check_step_to(entry.configuration)
        if isinstance(self.role, Leader) and self.role.may_change_configuration:
            self.role.propose([entry])

    def verify(self, token: object) -> None:
        """Have a quorum confirm this leader, by messages sent after this call.

        Answered in `Ready.verified`; never, if leadership ends before.
        Source: Raft dissertation §6.4.
        """
        if isinstance(self.role, Leader):
            self.role.verify(token)

    def transfer(self, target: str) -> None:
        """Hand leadership to the voter at *target*, or give up after a while.

        Source: Raft dissertation §3.10.
        """
        if isinstance(self.role, Leader):
            self.role.transfer(target)

    def activated(self, level: int) -> None:
        """Learn that *level* is active in the state machine of this server."""
        self.active_level = level

    def activate(self, entry: Entry, level: int) -> None:
        """Append *entry*, which activates *level* of the state machine.

        To be called only for the `level_due` of the same moment: then no server that
        understands less can have been added in between.
        """
        if isinstance(self.role, Leader):
            self.role.propose([entry])
            if entry.index:
                self.role.level = level

    def request(self, message: Request, reply_to: object) -> None:
        """Take a request from a peer; the answer goes to *reply_to*."""
        refusal = self._refuses(message)
        if refusal is not None:
            self.send(reply_to, Refusal(refusal))
            return
        match message:
            case AppendEntriesRequest():
                answer_append_entries(self, message, reply_to)
            case RequestVoteRequest():
                answer_vote(self, message, reply_to)
            case RequestPreVoteRequest():
                answer_pre_vote(self, message, reply_to)
            case InstallSnapshotRequest():
                answer_install_snapshot(self, message, reply_to)
            case TimeoutNowRequest():
                self._timeout_now(message, reply_to)
            case _:
                assert_never(message)

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Take the answer of *peer* to *request*, which this server sent."""
        if response.term > self.term and self._deposes(response):
            self.become_follower(response.term, None)
        else:
            self.role.response(peer, request, response)

    def unreachable(
        self, peer: str, request: OutgoingRequest, closed: bool = False
    ) -> None:
        """Learn that *request* got no answer; *closed*: the peer hung up on it, or did
        not take entries in the time of a call."""
        self.role.unreachable(peer, request, closed)

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Learn that *peer* does not know this kind of request."""
        self.role.unsupported(peer, request)

    def connection_lost(self, peer: str) -> None:
        """Learn that a connection from this server to *peer* is gone."""
        self.role.connection_lost(peer)

    def disconnected(self, peer: str) -> None:
        """Learn that the last connection from *peer* to this server is gone."""
        self.role.disconnected(peer)

    def synced(self, write_number: int) -> None:
        """Learn that all writes up to *write_number* are durable.

        Writes are known by number, not by index; `Writes` says why.
        """
        self.role.synced(self.writes.synced(write_number))

    def compacted(self, index: int) -> None:
        """Learn that the entries up to *index* are about to leave the log."""
        self.log.compact_to(index)

    def snapshotted(self, mark: SnapshotMark) -> None:
        """Learn that a snapshot up to *mark* is durable."""
        if mark.index > self.snapshot.index:
            self.snapshot = mark
            self.configurations.forget_before(mark.index)

    def installed(self, install: Install, mark: SnapshotMark | None = None) -> None:
        """Learn that the snapshot of *install* is durable and restored.

        *mark* is None when it failed; the sender is then told so.
        """
        self.installing = False
        if mark is not None:
            self._restart_at(mark)
        answer = InstallSnapshotResponse(self.term, mark is not None)
        self.send_after_sync(install.reply_to, answer)

    def ready(self) -> Ready:
        """Hand out what follows from all inputs since the last call."""
        self.role.flush()
        ready, self.coming = self.coming, Ready()
        ready.commit_index = self._told_commit = self.commit_index
        self.writes.issue(ready, self.hard_state, self.log.last_index, self.now)
        return ready

    # What the shell may ask -------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """The address of the leader as far as this server knows."""
        return self.role.leader

    def follows(self, message: Request) -> bool:
        """Tell whether *message*, taken just now, is of the leader that is followed.

        Not what merely says so: it named this term and this cluster.
        """
        return (
            isinstance(message, AppendEntriesRequest)
            and isinstance(self.role, Follower)
            and message.term == self.term
            and message.leader == self.role.leader
            and message.header.cluster in (None, self.cluster)
        )

    @property
    def is_leader(self) -> bool:
        """Whether this server leads in its term."""
        return isinstance(self.role, Leader)

    def best_successor(self) -> str | None:
        """Return the other voter that has most of this leader's log, if any answers."""
        return self.role.best_successor() if isinstance(self.role, Leader) else None

    def entries_behind(self, peer: str) -> int:
        """Return how many entries of this leader's log *peer* may lack."""
        if not isinstance(self.role, Leader) or peer not in self.role.followers:
            return self.log.last_index
        return self.log.last_index - self.role.followers[peer].match

    def silence_of(self, peer: str) -> int:
        """Return for how many ticks this leader has not heard *peer*.

        0 as long as it answers, and on a server that does not lead.
        """
        return self.role.silence_of(peer) if isinstance(self.role, Leader) else 0

    @property
    def is_transferring(self) -> bool:
        """Whether this leader is handing its leadership over."""
        return isinstance(self.role, Leader) and self.role.transferee is not None

    @property
    def configuration(self) -> Configuration:
        """The configuration in force: the latest in the log, committed or not."""
        return self.configurations.latest

    @property
    def may_change_configuration(self) -> bool:
        """Whether a membership change may be appended now.

        One at a time, and none before an entry of this term is committed.
        Source: Raft dissertation §4.1; Ongaro, raft-dev, 10 July 2015.
        """
        return isinstance(self.role, Leader) and self.role.may_change_configuration

    def level_in_log(self, applied_index: int) -> int | None:
        """Return the level of the state machine that holds at the end of this leader's
        log, None while that is not known or this server does not lead.

        The state machine here has applied entries up to *applied_index*: what earlier
        leaders activated is known once an entry of this term is applied.
        """
        role = self.role
        if not isinstance(role, Leader) or applied_index < role.first_index:
            return None
        return max(self.active_level, role.level)

    def level_due(self, applied_index: int) -> int:
        """Return the level that is to be activated now, 0 if none is.

        That is one that every server of the configuration understands, in the process
        that it is now, and that is not in the log yet.
        """
        known = self.level_in_log(applied_index)
        if known is None or known >= self.options.level:
            return 0
        assert isinstance(self.role, Leader), "only a leader knows the level in its log"
        level = self.role.common_level()
        return level if level > known else 0

    @property
    def may_campaign(self) -> bool:
        """Whether this server is a voter, unless its removal is known to be committed.

        After a restart little is known to be committed, and the votes of a server
        that is about to be removed may be needed for its removal to commit.
        Source: Raft dissertation §4.2.2.
        """
        possible = self.configurations.since(self.commit_index)
        return not self.installing and any(
            configuration.is_voter(self.address) for configuration in possible
        )

    @property
    def hard_state(self) -> HardState:
        """The term and vote now in force, on disk or not yet."""
        last = self._hard_state
        if not (
            last.term == self.term
            and last.voted_for == self.voted_for
            and last.cluster == self.cluster
        ):
            self._hard_state = HardState(self.term, self.voted_for, self.cluster)
        return self._hard_state

    @property
    def state_is_durable(self) -> bool:
        """Whether the term and vote now in force are on disk."""
        return self.writes.durable_state == self.hard_state

    @property
    def oldest_write_age(self) -> int:
        """Ticks that the oldest unfinished write has waited."""
        return self.writes.oldest_age(self.now)

    def may_compact_to(self, index: int) -> int:
        """Return up to where the log may be cut, of what a snapshot up to *index* has.

        A leader keeps what followers that are being sent a snapshot need next, within
        `Options.max_kept_entries`; without it they would need another snapshot at once.
        """
        longest = self.log.last_index - self.options.max_kept_entries
        return max(self.role.may_compact_to(index), min(index, longest))

    def has_news(self, peer: str | None) -> bool:
        """Tell whether `ready` may hand out something, when all that came since the
        last one is an answer of *peer*, or, for None, that a write is durable.

        If not, it may be called with the next input that matters, or the next tick.
        """
        return (
            self.commit_index > self._told_commit
            or bool(self.coming.verified or self.coming.append)
            or self.role.has_news(peer)
        )

    # What roles use ---------------------------------------------------------------

    def send(self, to: object, message: OutgoingRequest | Response | Refusal) -> None:
        """Let *message* leave at once."""
        self.coming.send.append((to, message))

    def send_after_sync(self, to: object, message: OutgoingRequest | Response) -> None:
        """Let *message* leave when all that was written so far is durable."""
        self.coming.after_sync.append((to, message))

    def verified(self, token: object, index: int) -> None:
        """Answer a `verify`."""
        self.coming.verified.append((token, index))

    def forgets(self, peer: str) -> None:
        """Tell that *peer* does not have what it had made durable."""
        self.coming.forgetful.append(peer)

    def cannot_deliver(self, peer: str, index: int) -> None:
        """Tell that *peer* does not take the entry at *index*."""
        self.coming.undeliverable.append((peer, index))

    def append(self, entries: Sequence[Entry]) -> None:
        """Append *entries*, which have their indexes and terms, to the log."""
        assert entries[0].index == self.log.last_index + 1, "the log has no gaps"
        if entries[0].term == entries[-1].term:  # terms never fall in between
            self.log.append(entries[0].term, len(entries))
        else:
            for entry in entries:
                self.log.append(entry.term)
        self.coming.append += entries
        for entry in entries:
            if entry.configuration is not None:
                self.configurations.append(entry.index, entry.configuration)
                self.role.configuration_changed()
            if entry.cluster is not None:
                self.cluster_proposals[entry.index] = entry.cluster

    def truncate_from(self, index: int) -> None:
        """Drop the entry at *index* and all after it: another leader's never were."""
        assert index > self.commit_index, "what is committed is never truncated"
        self.log.truncate_from(index)
        self.configurations.truncate_from(index)
        for proposed in [i for i in self.cluster_proposals if i >= index]:
            del self.cluster_proposals[proposed]
        ready = self.coming
        ready.append = [entry for entry in ready.append if entry.index < index]
        if ready.truncate_from is None or index < ready.truncate_from:
            ready.truncate_from = index

    def commit(self, index: int) -> None:
        """Raise the commit index; it never falls."""
        assert index <= self.log.last_index, "only what is in the log is committed"
        if index <= self.commit_index:
            return
        self.commit_index = index
        for proposed in sorted(self.cluster_proposals):
            if proposed <= index:
                cluster = self.cluster_proposals.pop(proposed)
                self.cluster = self.cluster or cluster

    def draw_election_timeout(self, least: int) -> int:
        """Draw a timeout of at least once and less than twice *least* ticks."""
        return least + self.random.randrange(least)

    def draw_short_wait(self) -> int:
        """Draw the ticks after which to campaign where there is surely no leader."""
        return self.random.randint(1, max(1, self.options.heartbeat_timeout_ticks // 5))

    # Transitions: the only places that assign the role ----------------------------

    def become_follower(self, term: int, leader: str | None) -> None:
        """Follow *leader*, if it is known, in *term*."""
        assert term >= self.term, "a term never falls"
        if term > self.term:
            self.term = term
            self.voted_for = None
        self.role = Follower(self, leader)

    def become_pre_candidate(self, by_timer: bool) -> None:
        """Ask whether an election could be won, without a new term.

        Source: Raft dissertation §9.6.
        """
        assert not isinstance(self.role, Leader), "a leader does not campaign"
        self.role = PreCandidate(self, by_timer)
        self.role.campaign()

    def become_candidate(self, is_transfer: bool = False) -> None:
        """Campaign in a new term.

        Source: Raft dissertation §3.4.
        """
        assert not isinstance(self.role, Leader), "a leader does not campaign"
        self.term += 1
        self.voted_for = self.address
        self.role = Candidate(self, is_transfer)
        self.role.campaign()

    def become_leader(self) -> None:
        """Lead the term that a quorum of votes was won in."""
        assert isinstance(self.role, Candidate), "only a candidate becomes leader"
        self.role = Leader(self, self.role.levels)
        self.role.open()

    # Rules for all servers --------------------------------------------------------

    def _refuses(self, message: Request) -> str | None:
        """Say why *message* is not even looked at, if so."""
        cluster = message.header.cluster
        if cluster is not None and self.cluster not in (None, cluster):
            if isinstance(message, AppendEntriesRequest | InstallSnapshotRequest):
                self.coming.contradiction = message.leader
            return self._foreign()
        if isinstance(message, TimeoutNowRequest):
            return None
        if message.term > self.term + MAX_TERM_JUMP:
            return f"term {message.term} is too far ahead of {self.term}"
        return None

    def _foreign(self) -> str:
        return (
            f"{self.address} has committed entries in another cluster; to move it "
            "here, stop it, take its data directory away and start it with "
            "join: true"
        )

    def _deposes(self, response: Response) -> bool:
        """Tell whether the newer term of *response* ends this server's role.

        A granted pre-vote names the term it is for, which nobody is in yet.
        """
        if isinstance(response, RequestPreVoteResponse) and response.granted:
            return False
        return response.term <= self.term + MAX_TERM_JUMP

    def follow(self, term: int, leader: str) -> Follower | None:
        """Follow the leader of *term*; None if that is this server itself."""
        if term == self.term and isinstance(self.role, Leader):
            return None
        if term > self.term or not isinstance(self.role, Follower):
            self.become_follower(term, leader)
        role = self.role
        assert isinstance(role, Follower)
        role.heard_from(leader)
        return role

    def install(self, install: Install) -> None:
        """Have the snapshot of *install* received; `installed` tells how that went."""
        self.installing = True
        self.coming.install = install

    def contradicted_by(self, leader: str, reply_to: object) -> None:
        """Refuse a leader whose log denies what is committed here."""
        self.coming.contradiction = leader
        self.send(reply_to, Refusal(self._foreign()))

    def _restart_at(self, mark: SnapshotMark) -> None:
        """Take the state of a snapshot for the log up to *mark*."""
        if mark.index <= self.commit_index:
            return
        kept = self.log.restart_at(mark.index, mark.term)
        if not kept:
            self.configurations = ConfigurationHistory(
                mark.configuration_index, mark.configuration
            )
            self.cluster_proposals.clear()
        ready = self.coming
        ready.append = [e for e in ready.append if kept and e.index > mark.index]
        ready.reset_log = ResetLog(mark.index, kept)
        self.snapshotted(mark)
        self.commit(mark.index)

    def _timeout_now(self, message: TimeoutNowRequest, reply_to: object) -> None:
        self.send(reply_to, TimeoutNowResponse())
        if not self.may_campaign:
            return
        if message.transfer is not None:
            if isinstance(self.role, Follower):
                self.role.ask_consent(message.transfer)
        elif isinstance(self.role, Follower | PreCandidate):
            self.become_candidate(is_transfer=True)
