"""One server's consensus: its inputs, the rules for all servers, the transitions.

It never sees bytes, clocks or sockets. Inputs change state and return nothing;
`ready` hands out all that follows from them. Time is counted in ticks.

        times out          wins pre-votes       wins votes
    FOLLOWER ───> PRE-CANDIDATE ───> CANDIDATE ───> LEADER
       ^  │             │ ^              │ │            │
       │  └─────────────┼─┼── told to ──>┘ │            │
       │                │ └── times out ───┘            │
       └────────────────┴──── a leader, a newer term, no quorum

What each role does with what comes in, once the rules for all servers, which are in
this file, let it through:

                   FOLLOWER        PRE-CANDIDATE   CANDIDATE       LEADER
    tick           campaign when   new round, or   new round, or   heartbeats; resign
                   nobody leads    follow          follow          without a quorum
    AppendEntries  take entries    follow it       follow it       refuse: two leaders
    snapshot       install it      follow it       follow it       refuse: two leaders
    vote given     wait anew       follow          -               -
    TimeoutNow     campaign, ask   campaign        -               -
    response       only a consent  count pre-vote  count vote      move the progress
    synced         -               -               count own vote  count own copy
    propose        ignore          ignore          ignore          append
    learn_commit   commit          commit          commit          ignore

Rules for all servers, before a role hears of a message:

1. A message that names another cluster is refused, and changes nothing.
2. A term more than `MAX_TERM_JUMP` ahead is refused, and changes nothing.
3. An older term is refused with the present one.
4. A newer term makes any server a follower in it, before the message is looked at. Two
   exceptions: a pre-vote is for a term that nobody is in; and while a leader is heard
   a request for a vote is refused, as a server that was cut off must not depose it.

A role that is over returns the `Next` it asks for, and `Consensus` alone assigns roles.
So a new input of a role that may end it is called here as all others are:

    if (wanted := self.role.tick(count)) is not None:
        self._become(wanted)

No type checker notices a `Next` that is dropped, so each of these places has a planted
bug, which a test catches.

Source: Raft dissertation, figure 3.1; sections are named where a rule is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import assert_never

from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.configuration import ConfigurationHistory
from txraft.core.entry import Entry
from txraft.core.follower import Follower, rejection
from txraft.core.leader import Leader
from txraft.core.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.core.options import CoreOptions
from txraft.core.ready import (
    HardState,
    Install,
    OutgoingRequest,
    Ready,
    Refusal,
    SnapshotMark,
)
from txraft.core.role import Next
from txraft.core.server import ServerState
from txraft.core.term_index import TermIndex
from txraft.core.voting import grants_pre_vote, grants_vote, is_tied_to_other_leader

Role = Follower | PreCandidate | Candidate | Leader

MAX_TERM_JUMP = 1 << 32
"""A term further ahead than this is refused: it would use up the terms there are."""


class Consensus(ServerState):
    """The server at *address* with its role; the parameters are those of its state."""

    def __init__(
        self,
        address: str,
        random: Random,
        options: CoreOptions | None = None,
        hard_state: HardState | None = None,
        log: TermIndex | None = None,
        configurations: ConfigurationHistory | None = None,
        snapshot: SnapshotMark | None = None,
        fit: Callable[[int, int], int] = lambda first, last: last,
    ) -> None:
        super().__init__(
            address,
            random,
            options=options,
            hard_state=hard_state,
            log=log,
            configurations=configurations,
            snapshot=snapshot,
            fit=fit,
        )
        self._handed_out_commit = self.commit_index
        self._learned: tuple[int, int] | None = None
        self.role: Role = Follower(self, leader=None)

    # Inputs ---------------------------------------------------------------------

    def tick(self, count: int = 1) -> None:
        """Let *count* ticks pass."""
        self.now += count
        if (wanted := self.role.tick(count)) is not None:
            self._become(wanted)

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

        The confirmation is in `Ready.verified`; none comes if leadership ends before.
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

    def append_activation(self, entry: Entry, level: int) -> None:
        """Append *entry*, which activates *level* of the state machine.

        *level* must be what `level_due` has just returned, with no input in between:
        otherwise a server that understands less could have been added since.
        """
        if isinstance(self.role, Leader):
            self.role.propose([entry])
            if entry.index:
                self.role.appended_level = level

    def request(self, message: Request, reply_to: object) -> None:
        """Take a request from a peer; the response goes to *reply_to*."""
        refusal = self._refuses(message)
        if refusal is not None:
            self.send(reply_to, Refusal(refusal))
            return
        match message:
            case AppendEntriesRequest():
                self._append_entries(message, reply_to)
            case RequestVoteRequest():
                self._request_vote(message, reply_to)
            case RequestPreVoteRequest():
                self._request_pre_vote(message, reply_to)
            case InstallSnapshotRequest():
                self._install_snapshot(message, reply_to)
            case TimeoutNowRequest():
                self._timeout_now(message, reply_to)
            case _:
                assert_never(message)

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Take the response of *peer* to *request*, which this server sent."""
        if response.term > self.term and self._deposes(response):
            self.become_follower(response.term, None)
        # None is by far the usual case, so it must not cost a call.
        elif (wanted := self.role.response(peer, request, response)) is not None:
            self._become(wanted)

    def unreachable(
        self, peer: str, request: OutgoingRequest, closed: bool = False
    ) -> None:
        """Learn that *request* got no response.

        *closed* tells that the peer hung up on it, or did not take its entries in the
        time of a call.
        """
        if (wanted := self.role.unreachable(peer, request, closed)) is not None:
            self._become(wanted)

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Learn that *peer* does not know this kind of request."""
        if (wanted := self.role.unsupported(peer, request)) is not None:
            self._become(wanted)

    def connection_lost(self, peer: str) -> None:
        """Learn that a connection from this server to *peer* is gone."""
        self.role.connection_lost(peer)

    def disconnected(self, peer: str) -> None:
        """Learn that the last connection from *peer* to this server is gone."""
        self.role.disconnected(peer)

    def synced(self, write_number: int) -> None:
        """Learn that all writes up to *write_number* are durable.

        Writes are known by number, not by index; `WriteNumbers` says why.
        """
        index = self.writes.synced(write_number)
        if (wanted := self.role.synced(index)) is not None:
            self._become(wanted)

    def installed(self, install: Install, mark: SnapshotMark | None = None) -> None:
        """Learn that the snapshot of *install* is durable and restored.

        *mark* is None when it failed; the sender is then told so.
        """
        self.installing = False
        if mark is not None:
            self.restart_at(mark)
        # Behind the write of this batch, which resets the log: success says that all
        # of it is on the disk.
        response = InstallSnapshotResponse(self.term, mark is not None)
        self.send_after_sync(install.reply_to, response)

    def learn_commit(self, index: int, term: int) -> None:
        """Learn from its leader that the entry of *term* at *index* is committed.

        If this log has that very entry, it agrees with the leader's up to there, so all
        of that is committed (Log Matching). If it does not have it yet, the place is
        remembered, of several only the newest, and looked for at each `ready`. An entry
        of another term at *index* proves nothing.
        Source: Raft dissertation §3.5, figure 3.2 (Log Matching), §3.6.
        """
        # The newest is enough: it is committed with all that stands before it.
        if self._learned is None or index > self._learned[0]:
            self._learned = (index, term)

    def _commit_learned(self, index: int, term: int) -> None:
        """Commit up to the entry at *index* of *term*, if it is in the log by now."""
        if index <= self.commit_index:
            self._learned = None
        # Not while a snapshot is installed: the state that it brings must not be behind
        # the commit index. Nor on a leader, which commits only by counting copies.
        elif (
            self.log.term_at(index) == term
            and not self.installing
            and not isinstance(self.role, Leader)
        ):
            self._learned = None
            self.commit(index)

    def ready(self) -> Ready:
        """Hand out what follows from all inputs since the last call."""
        if self._learned is not None:
            self._commit_learned(*self._learned)
        # First, so that all entries of a batch leave in one message to each follower.
        if (wanted := self.role.flush()) is not None:
            self._become(wanted)
        ready, self.coming = self.coming, Ready()
        ready.commit_index = self._handed_out_commit = self.commit_index
        # Last: nothing may change the log, the term or the vote once they have the
        # number of a write.
        self.writes.issue(ready, self.hard_state, self.log.last_index, self.now)
        return ready

    # What the shell may ask -------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """The address of the leader as far as this server knows."""
        return self.role.leader

    def follows(self, message: Request) -> bool:
        """Tell whether *message*, just handed to `request`, made this server follow.

        To name this server's leader is not enough: its term and cluster must be right.
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
    def may_change_configuration(self) -> bool:
        """Whether a membership change may be appended now.

        One at a time, and none before an entry of this term is committed.
        Source: Raft dissertation §4.1; Ongaro, raft-dev, 10 July 2015.
        """
        return isinstance(self.role, Leader) and self.role.may_change_configuration

    def level_in_log(self, applied_index: int) -> int | None:
        """Return the level that is active once all of this leader's log is applied.

        None while that is not known, and on a server that does not lead. The state
        machine here has applied entries up to *applied_index*. What earlier leaders
        have activated is known once the first entry of this term is applied.
        """
        role = self.role
        if not isinstance(role, Leader) or applied_index < role.first_index:
            return None
        return max(self.active_level, role.appended_level)

    def level_due(self, applied_index: int) -> int:
        """Return the level that is to be activated now, 0 if none is.

        Every server of the configuration has announced it, by the process that runs
        there now, and it is higher than the level in the log.
        """
        known = self.level_in_log(applied_index)
        if known is None or known >= self.options.level:
            return 0
        assert isinstance(self.role, Leader), "only a leader knows the level in its log"
        level = self.role.common_level()
        return level if level > known else 0

    def may_compact_to(self, index: int) -> int:
        """Return the index up to which the log may be compacted, *index* at most.

        A snapshot covers the log up to *index*. A leader keeps what followers that are
        being sent a snapshot need next, within `CoreOptions.max_kept_entries`; else
        they would need another snapshot at once.
        """
        longest = self.log.last_index - self.options.max_kept_entries
        return max(self.role.may_compact_to(index), min(index, longest))

    def needs_ready(self, peer: str | None) -> bool:
        """Tell whether `ready` may have something to hand out now.

        All that came since the last `ready` is one response of *peer*, or, if *peer* is
        None, one write that became durable. If this is False, `ready` can wait for the
        next input or tick. It may be True in vain: that costs a call and nothing else.
        """
        return (
            self.commit_index > self._handed_out_commit
            or bool(self.coming.verified or self.coming.append)
            or self.role.needs_ready(peer)
        )

    # Transitions: the only places that assign the role ----------------------------

    def _become(self, wanted: Next) -> None:
        """Make the transition that a role asks for."""
        match wanted:
            case Next.FOLLOWER:
                self.become_follower(self.term, None)
            case Next.CAMPAIGN | Next.CAMPAIGN_WITHOUT_LEADER if self.options.pre_vote:
                by_timer = wanted is Next.CAMPAIGN
                self.become_pre_candidate(by_timer)
            case Next.CAMPAIGN | Next.CAMPAIGN_WITHOUT_LEADER | Next.CANDIDATE:
                self.become_candidate()
            case Next.CAMPAIGN_FOR_TRANSFER:
                self.become_candidate(is_transfer=True)
            case Next.LEADER:
                self.become_leader()
            case _:
                assert_never(wanted)

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
        # Alone it has its quorum already, and no response will ever come.
        if (wanted := self.role.campaign()) is not None:
            self._become(wanted)

    def become_candidate(self, is_transfer: bool = False) -> None:
        """Campaign in a new term.

        Source: Raft dissertation §3.4.
        """
        assert not isinstance(self.role, Leader), "a leader does not campaign"
        # The vote for itself goes to the disk with the term, and all requests for
        # votes wait for that write: `Candidate.campaign`, `Candidate.synced`.
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
        """Return why *message* is refused before any role hears of it, None if not."""
        cluster = message.header.cluster
        if cluster is not None and self.cluster not in (None, cluster):
            if isinstance(message, AppendEntriesRequest | InstallSnapshotRequest):
                self.coming.contradiction = message.leader
            return self.of_another_cluster
        if isinstance(message, TimeoutNowRequest):
            return None
        if message.term > self.term + MAX_TERM_JUMP:
            return f"term {message.term} is too far ahead of {self.term}"
        return None

    def _deposes(self, response: Response) -> bool:
        """Tell whether the newer term of *response* ends this server's role.

        A granted pre-vote names the term it is for, which nobody is in yet.
        """
        if isinstance(response, RequestPreVoteResponse) and response.granted:
            return False
        return response.term <= self.term + MAX_TERM_JUMP

    def _follow(self, term: int, leader: str) -> Follower | None:
        """Follow the leader of *term*; None if that is this server itself."""
        if term == self.term and isinstance(self.role, Leader):
            return None
        if term > self.term or not isinstance(self.role, Follower):
            self.become_follower(term, leader)
        role = self.role
        assert isinstance(role, Follower)
        role.heard_from(leader)
        return role

    def _append_entries(self, request: AppendEntriesRequest, reply_to: object) -> None:
        """Answer at once, or when what *request* brings is durable.

        Source: Raft dissertation §3.5, figure 3.1.
        """
        # No leader is of term 0: such a request asks who is there, and must not
        # restart the timer of a follower that hears nobody.
        if request.term < self.term or not request.term:
            self.send(reply_to, rejection(self))
            return
        follower = self._follow(request.term, request.leader)
        if follower is None:
            self.send(reply_to, Refusal(f"two leaders in term {self.term}"))
            return
        if request.header.cluster is not None and self.cluster is None:
            self.cluster = request.header.cluster
        if request.is_heartbeat:
            follower.heartbeat(reply_to)
        else:
            follower.append_entries(request, reply_to)

    def _install_snapshot(
        self, request: InstallSnapshotRequest, reply_to: object
    ) -> None:
        """Answer at once, or have the snapshot received and answer when it is in place.

        Source: Raft dissertation §5, figure 5.3.
        """
        if request.term < self.term:
            self.send(reply_to, InstallSnapshotResponse(self.term, False))
            return
        # Before anyone is followed: a message that is wrong in itself changes nothing.
        if request.fault is not None:
            self.send(reply_to, Refusal(request.fault))
            return
        follower = self._follow(request.term, request.leader)
        if follower is None:
            self.send(reply_to, Refusal(f"two leaders in term {self.term}"))
            return
        # As with entries: the one that named the cluster is in the snapshot, and comes
        # no more. Who led without it would give the cluster a second identity.
        if request.header.cluster is not None and self.cluster is None:
            self.cluster = request.header.cluster
        follower.install_snapshot(request, reply_to)

    def _request_vote(self, request: RequestVoteRequest, reply_to: object) -> None:
        """Answer a candidate: a vote once it is durable, a refusal at once.

        Source: Raft dissertation §3.4, §4.2.3.
        """
        voters = self.configuration.voters
        if is_tied_to_other_leader(self.role, request) or request.term < self.term:
            self.send(reply_to, RequestVoteResponse(self.term, False, voters))
            return
        # Before the vote is weighed: it is of this term, and one given in an older term
        # counts no more. A candidate that gets none still shows that the term is over.
        if request.term > self.term:
            self.become_follower(request.term, None)
        if not grants_vote(self, request):
            self.send(reply_to, RequestVoteResponse(self.term, False, voters))
            return
        self.voted_for = request.candidate
        if (wanted := self.role.granted_vote()) is not None:
            self._become(wanted)
        # A vote that a crash could undo might be given twice in a term.
        self.send_after_sync(reply_to, RequestVoteResponse(self.term, True, voters))

    def _request_pre_vote(
        self, request: RequestPreVoteRequest, reply_to: object
    ) -> None:
        """Answer a pre-candidate at once; nothing changes here.

        A refusal names this server's term, so that a candidate behind it catches up.
        A question about a transfer is answered by the leader that transfers, alone.
        Source: Raft dissertation §9.6, §3.10.
        """
        if request.transfer is None:
            granted = grants_pre_vote(self, self.role, request)
        else:
            granted = self.role.consents(request)
        term = request.term if granted else self.term
        self.send(reply_to, RequestPreVoteResponse(term, granted))

    def _timeout_now(self, message: TimeoutNowRequest, reply_to: object) -> None:
        """Campaign at once, or first ask the leader if it still transfers.

        Source: Raft dissertation §3.10.
        """
        self.send(reply_to, TimeoutNowResponse())
        if not self.may_campaign:
            return
        if message.transfer is not None:
            if isinstance(self.role, Follower):
                self.role.ask_consent(message.transfer)
        elif isinstance(self.role, Follower | PreCandidate):
            self.become_candidate(is_transfer=True)
