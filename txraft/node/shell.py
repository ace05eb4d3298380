"""The shell: it feeds inputs to consensus, in turns, and carries out each `Ready`.

Transports, timers, threads and public methods only queue inputs here, and the first
of them schedules a turn. A turn:

1. consensus takes all inputs, then reads, proposals and membership changes;
2. the tail takes the new entries, encoded once for the file and all followers;
3. one `Ready` is carried out, in the order that `Shell._act` explains;
4. refused proposals fail, when nothing of the turn is left to do.

So all requests that one reactor iteration read, from all connections, share one
write, one sync and one round of messages; and consensus is never entered while it
is on the stack, whatever a user's callback does. `TurnState` says when a turn comes.

It decides nothing about consensus: what is sent, written and answered is what `Ready`
says. The public face of a node is `Raft`, which holds a shell while it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.leader import Leader
from txraft.core.messages import (
    AnyRequest,
    AppendEntriesRequest,
    ForwardRequest,
    Request,
    RequestPreVoteRequest,
    RequestVoteRequest,
    Response,
)
from txraft.core.ready import (
    Install,
    Outgoing,
    OutgoingRequest,
    Ready,
    SnapshotMark,
)
from txraft.errors import (
    ContractBroken,
    EnqueueTimeout,
    LeadershipLost,
    NotLeader,
    RaftError,
    TransferInProgress,
)
from txraft.interfaces import IncomingRPC, RPCHandler, StampingFSM
from txraft.node.applier import Applier, StuckWatch
from txraft.node.awaited_entries import AwaitedEntries
from txraft.node.forwarded import Forwarded
from txraft.node.incarnations import Incarnations, encode_known, sender_of
from txraft.node.levels import Levels
from txraft.node.outbox import Outbox
from txraft.node.ownership import application_of
from txraft.node.parts import Owner, Parts
from txraft.node.pending import Change, Changes, Pending, Proposal
from txraft.node.responder import SHUT_DOWN, Responder
from txraft.node.skipping import Skips, noted_failure
from txraft.node.snapshot_sender import SenderHost, SnapshotSender
from txraft.node.snapshots import Snapshots, SnapshotsHost
from txraft.node.startup import Recovered
from txraft.node.synced_note import LogEnd
from txraft.node.tail import Tail, read_range, up_to
from txraft.node.timing import core_options
from txraft.node.undeliverable import UndeliverableEntries
from txraft.node.verifications import Batch, Verification, Verifications
from txraft.node.writer import Writer
from txraft.wire.entries import encode_all_new

READ_BYTES = 1 << 20
"""Bytes of entries that one read of the log store brings, at most."""


class TurnState(Enum):
    """Whether a shell is in a turn, and whether another one is due.

                        an input, or `schedule`
        ┌──────> IDLE ─────────────────────────────> DUE
        │        │  ^                                │ the reactor comes to it
        │        │  └── `_digest_soon`, and          │ (callLater of 0 seconds)
        │        │      nothing follows              v
        │        └── `_hasten`, and the disk ────> TURNING <─> TURNING_AND_DUE
        │            is idle                         │    something   │
        │                                            │    came in     │
        └────────────────────────────────────────────┘                │
                 nothing came in meanwhile           DUE <────────────┘

    `stop` leads from each of them to STOPPED, which nothing leaves.

    There are four ways to get on, from the latest to the earliest:

    - `schedule`: a turn soon, together with all else that the reactor has by then.
    - `_hasten`: a turn at once if the disk is idle, as nothing is gained by waiting.
    - `_digest_soon`: consensus takes it at once, and a turn follows only if there is
      something to do. With one proposal in flight this saves two thirds of a turn for
      each commit.
    - `_apply_first`: within a turn, the FSM gets what is committed before the turn
      looks for proposals. Callers who get their outcome then can propose again for
      this very turn.

    While TURNING, consensus may be on the stack: what arrives then is only queued, and
    no turn begins within a turn.
    """

    IDLE = "no turn is due"
    DUE = "the reactor was asked for a turn"
    TURNING = "a turn is on the stack"
    TURNING_AND_DUE = "a turn is on the stack, and another one is to follow"
    STOPPED = "there is no turn any more"


# Looked at several times for each message: a name of the module is found five times as
# fast as a member of an Enum (Python 3.11).
IDLE, DUE, TURNING, TURNING_AND_DUE, STOPPED = TurnState


class Shell(RPCHandler, SenderHost, SnapshotsHost):
    """One running node: its `Consensus`, and the parts that carry out each `Ready`.

    *owner* hears what a turn brought about. The bases are the ways in: a transport
    delivers requests here, the outbox and the sender of snapshots report what became
    of theirs, and `Snapshots` what was taken or installed.

    `heard_leader` is the address that has last sent entries or a heartbeat, at the time
    `heard_at`; `heard_forwards` is the version of `ForwardRequest` that it takes, if
    any.
    """

    log = Logger()

    def __init__(self, parts: Parts, recovered: Recovered, owner: Owner) -> None:
        self._parts = parts
        self._owner = owner
        self._turn_state = IDLE
        # The calls that the next turn makes, with their arguments; no closure for each.
        self._inputs: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        # What leaves when a write is durable, by the number of that write, in order.
        self._after_sync: deque[tuple[int, list[Outgoing]]] = deque()
        # Proposals that are to fail, with the error, when the turn is over.
        self._refused: list[tuple[Proposal, RaftError]] = []
        # Inbound connections by their tokens, and which leader speaks on each.
        self._leader_connections: dict[object, str] = {}
        # The leader whose contradiction was logged, to say it once.
        self._contradicted_by: str | None = None
        self._stamping_fsm = parts.fsm if isinstance(parts.fsm, StampingFSM) else None
        self._ticked_at = parts.clock.seconds()
        self.heard_leader: str | None = None
        self.heard_at = 0.0
        self.heard_forwards: int | None = None
        self._make_consensus(recovered)
        self._make_disk_and_fsm(recovered)
        self._make_network(recovered)

    def _make_consensus(self, recovered: Recovered) -> None:
        parts, config = self._parts, self._parts.config
        self.pending = Pending(config.max_pending_entries, config.max_pending_bytes)
        self.changes = Changes()
        self.tail = Tail(
            recovered.log.last_index, config.max_tail_bytes, config.max_append_bytes
        )
        self.levels = Levels(parts.address, parts.fsm, config.protocol_version)
        self.consensus = Consensus(
            parts.address,
            parts.random,
            replace(core_options(config), level=self.levels.announced),
            hard_state=recovered.hard_state,
            log=recovered.log,
            configurations=recovered.configurations,
            snapshot=recovered.snapshot,
            fit=self.tail.fit,
        )
        self.consensus.cluster_proposals.update(recovered.cluster_proposals)
        self.consensus.activated(self.levels.active)

    def _make_disk_and_fsm(self, recovered: Recovered) -> None:
        parts, config = self._parts, self._parts.config
        self.writer = Writer(
            parts.workers.writer,
            log_store=parts.log_store,
            stable_store=parts.stable_store,
            synced=self._synced,
            failed=self._write_failed,
            end=LogEnd(recovered.log.last_index, recovered.log.last_term),
            seconds=parts.clock.seconds,
            noted=recovered.noted,
            current_term=recovered.hard_state.term,
        )
        self.skips = Skips(parts.address, recovered.skipped)
        self.applier = Applier(
            parts.fsm,
            clock=parts.clock,
            slice_seconds=config.apply_slice,
            fetch=self._fetch,
            settled=self.pending.applied,
            failed=self._owner.stop_because,
            applied_index=recovered.snapshot.index,
            decided=self._decided,
            skips=self.skips,
            singly_up_to=recovered.failed.last,
            failed_at=lambda entries: self.writer.save(noted_failure(entries)),
        )
        self.stuck = StuckWatch(parts.address, config.stuck_timeout)
        self.awaited = AwaitedEntries(self.applier, config.max_pending_entries)
        self.verifications = Verifications(
            self.applier, parts.clock, config.apply_slice
        )

    def _make_network(self, recovered: Recovered) -> None:
        parts, config = self._parts, self._parts.config
        self.incarnations = Incarnations(
            parts.address,
            recovered.incarnation,
            recovered.known_incarnations,
            self._save,
            seen_membership=recovered.configurations.latest_index,
            pardoned=recovered.pardoned,
        )
        self.responder = Responder(
            config.protocol_version,
            parts.server_id,
            parts.address,
            incarnation=recovered.incarnation,
            level=self.levels.announced,
        )
        self.forwarded = Forwarded(
            self.pending,
            config.max_entry_bytes,
            self.responder.answer_header,
            self.consensus.log.term_at,
        )
        self.undeliverable = UndeliverableEntries(parts.address, self._fetch)
        self.sender = SnapshotSender(
            address=parts.address,
            protocol_version=config.protocol_version,
            store=parts.snapshots,
            worker=parts.workers.sender,
            transport=parts.transport,
            host=self,
            header=lambda: self.outbox.header,
            skipped=self.skips.encoded_up_to,
            application=application_of(parts.fsm),
        )
        self.outbox = Outbox(
            parts.address,
            parts.transport,
            inbox=self,
            fetch=self._fetch,
            send_snapshot=self.sender.send,
            patience_ticks=self.consensus.options.heartbeat_timeout_ticks,
            header=self.responder.request_header(self.consensus.cluster),
            own_id=lambda: self.consensus.configuration.id_of(
                parts.address, parts.server_id
            ),
        )
        self.outbox.known_incarnations = encode_known(recovered.known_incarnations)
        self.snapshots = Snapshots(
            address=parts.address,
            fsm=parts.fsm,
            store=parts.snapshots,
            worker=parts.workers.snapshot,
            applier=self.applier,
            host=self,
            header=lambda: self.outbox.header,
        )

    # Inputs

    def _input(self, function: Callable[..., None], *arguments: object) -> None:
        self._inputs.append((function, arguments))
        self.schedule()

    def schedule(self) -> None:
        """Have a turn soon."""
        if self._turn_state is IDLE:
            self._turn_state = DUE
            self._parts.clock.callLater(0, self._turn)
        elif self._turn_state is TURNING:
            self._turn_state = TURNING_AND_DUE  # the reactor is asked when it is over

    def _hasten(self) -> None:
        """Have a turn at once if the disk is idle, else soon, with what else comes."""
        if self.writer.is_idle and self._turn_state is IDLE:
            self._turn()
        else:
            self.schedule()

    def _digest_soon(
        self, peer: str | None, function: Callable[..., None], *arguments: object
    ) -> None:
        """Let consensus take what *peer* has answered, or the disk if that is None."""
        if self._turn_state is not IDLE:
            # Queued: it must not overtake other inputs, and consensus may be on the
            # stack.
            self._input(function, *arguments)
            return
        try:
            function(*arguments)
        except BaseException:
            self._broken()
        else:
            if self.consensus.needs_ready(peer):
                self._hasten()

    def tick(self, count: int) -> None:
        """Let *count* ticks pass."""
        if self._turn_state is STOPPED:
            return
        # Now, and not in the turn that takes this tick: `_stalled` wants to know when
        # the reactor has last come to its timers.
        self._ticked_at = now = self._parts.clock.seconds()
        applier, snapshots = self.applier, self.snapshots
        # While a snapshot is installed nothing is applied, and nothing hangs.
        backlog = 0 if snapshots.installing else applier.backlog
        self.stuck.look(now, applier.applied_index, backlog)
        self.outbox.tick(count)
        self.outbox.forget_all_but(self._peers)
        self.writer.tick()
        self._input(self._ticked, count)

    def _ticked(self, count: int) -> None:
        self.consensus.tick(count)
        self.levels.propose(self.consensus, self.applier.applied_index)
        self.incarnations.propose(self.consensus)

    @property
    def _peers(self) -> Container[str]:
        """Whom requests go to: a leader tells removed servers too, until they know."""
        role = self.consensus.role
        if isinstance(role, Leader):
            return role.followers
        return self.consensus.configuration.addresses

    def rpc_received(self, rpc: IncomingRPC) -> None:
        """Take a request from a peer."""
        command = rpc.command
        # Refused before consensus hears of it: a version that is not spoken here, or a
        # member that has lost what it promised.
        refusal = self.responder.refuses(command) or self._wrong_incarnation(
            sender_of(command), command
        )
        if refusal or self._turn_state is STOPPED:
            self.responder.refuse(rpc, refusal or "raft is shut down")
            return
        if isinstance(command, ForwardRequest):
            self._forward_received(rpc, command)
            return
        digest: Callable[[Request, object], None] = self.consensus.request
        # Heartbeats only: entries go straight to consensus.
        if command.header.known is not None:
            digest = self._request_and_learn
        self._inputs.append((digest, (command, rpc)))
        if isinstance(command, AppendEntriesRequest) and command.term:
            # Entries and heartbeats, but no probe, which has term 0. A turn at once: a
            # leader waits for this disk, and a follower has little else to do.
            self._leader_connections[rpc.connection] = command.leader
            self.heard_leader = command.leader
            self.heard_at = self._parts.clock.seconds()
            self.heard_forwards = command.header.forwards
            self._hasten()
            return
        if isinstance(command, RequestVoteRequest):
            self._owner.vote_requested(command)
        self.schedule()

    def _forward_received(self, rpc: IncomingRPC, request: ForwardRequest) -> None:
        """Take commands or a read of another member, if this node leads.

        An error text tells that nothing was appended, so none is given afterwards.
        """
        consensus, header = self.consensus, request.header
        is_foreign = header.cluster and consensus.cluster not in (None, header.cluster)
        if is_foreign:
            self.responder.refuse(rpc, consensus.of_another_cluster)
        elif consensus.configuration.server(header.address or "") is None:
            self.responder.refuse(rpc, f"{header.address} is no member here")
        elif not consensus.is_leader:
            self.forwarded.refuse(rpc, request, consensus.leader)
        else:
            self.forwarded.take(rpc, request)
            if request.commands:
                # What else comes in this iteration of the reactor has the next write.
                self._hasten()
            else:
                # The questions of all members that it brings share one round.
                self.schedule()

    def connection_closed(self, connection: object) -> None:
        """Learn that an inbound connection ended."""
        # A leader has several connections: only with the last one it may be gone.
        leader = self._leader_connections.pop(connection, None)
        if leader is not None and leader not in self._leader_connections.values():
            self._input(self.consensus.disconnected, leader)

    def answered(self, peer: str, request: OutgoingRequest, answer: Response) -> None:
        """Take a peer's answer, unless it is of another incarnation."""
        # Consensus must get one outcome for each request, so a refused answer is a
        # loss.
        if self._wrong_incarnation(peer, answer) is not None:
            self.lost(peer, request, False)
            return
        if isinstance(request, RequestPreVoteRequest) and self._stalled():
            self.lost(peer, request, False)  # it may have been true long ago
            return
        self._digest_soon(peer, self.consensus.response, peer, request, answer)

    def _stalled(self) -> bool:
        """Tell whether this process was held up, and has not yet counted for how long.

        After a stall the reactor reads sockets before it runs timers. So what is read
        may be old, and a pre-vote in it may have been granted before the stall. As soon
        as the timers have run, the core knows of the ticks that it missed.
        """
        late = self._parts.clock.seconds() - self._ticked_at
        return late > self._parts.config.heartbeat_timeout

    def connection_lost(self, target: str) -> None:
        """Learn that a connection to *target* ended."""
        if self._turn_state is not STOPPED and self.consensus.is_leader:
            self._input(self.consensus.connection_lost, target)

    def _wrong_incarnation(
        self, peer: str | None, message: AnyRequest | Response
    ) -> str | None:
        header, history = message.header, self.consensus.configurations
        if peer is None or self._turn_state is STOPPED:
            return None
        # An entry of another cluster is let through: consensus refuses it, and its
        # refusal says which way out there is.
        is_foreign = header.cluster and self.consensus.cluster not in (
            None,
            header.cluster,
        )
        if is_foreign and isinstance(message, AppendEntriesRequest):
            return None
        return self.incarnations.refuses(peer, header.incarnation, history)

    def _request_and_learn(self, command: Request, rpc: object) -> None:
        """Digest a request that tells of others, then hear that if its sender leads."""
        consensus, known = self.consensus, command.header.known
        consensus.request(command, rpc)
        if known is not None and consensus.follows(command):
            self.incarnations.learn(known, consensus.configurations)

    def _save(self, values: Mapping[bytes, bytes]) -> None:
        """Store *values* behind all writes so far."""
        [self.outbox.known_incarnations] = values.values()
        self.writer.save(values)

    def lost(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Learn that no answer comes."""
        self._input(self.consensus.unreachable, peer, request, closed)

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Learn that the peer does not know a request."""
        self._input(self.consensus.unsupported, peer, request)

    def leads(self, term: int) -> bool:
        """Tell whether this node leads *term*, still."""
        return self.consensus.is_leader and self.consensus.term == term

    def hears(self, peer: str) -> bool:
        """Tell whether *peer* follows this node, and has answered it lately."""
        consensus, role = self.consensus, self.consensus.role
        progress = role.followers.get(peer) if isinstance(role, Leader) else None
        if progress is None:
            return False
        silence = consensus.now - progress.contact
        return silence <= 2 * consensus.options.heartbeat_timeout_ticks

    def verify(self, verification: Verification) -> None:
        """Have a quorum confirm leadership."""
        self.verifications.add(verification)
        self.schedule()

    def learn_commit(self, index: int, term: int) -> None:
        """Learn from the leader that its entry at *index* of *term* is committed."""
        if self._turn_state is not STOPPED:
            self._inputs.append((self.consensus.learn_commit, (index, term)))
            self._hasten()  # whoever asked waits for nothing else

    def change(self, change: Change) -> None:
        """Change the membership when it is allowed.

        Raises: QueueFull
        """
        self.changes.add(change)
        newcomer = change.newcomer
        members = self.consensus.configuration
        # A newcomer is asked first, as it may understand less than the log uses. The
        # change keeps its place meanwhile, or a later one could overtake it.
        if newcomer and self.levels.announced and members.server(newcomer) is None:
            change.asking = True
            self.outbox.ask_level(newcomer).addCallback(self._level_told, change)
        self.schedule()

    def _level_told(self, level: int | None, change: Change) -> None:
        change.level, change.asking = level, False
        self.schedule()

    def transfer(self, target: str) -> None:
        """Hand leadership to *target*."""
        self._input(self.consensus.transfer, target)

    def _synced(self, number: int) -> None:
        # The messages first: peers wait for them, and consensus only counts a copy.
        if self._after_sync:
            self._release()
        self._digest_soon(None, self.consensus.synced, number)

    # The turn

    def _turn(self) -> None:
        if self._turn_state is STOPPED:
            return
        self._turn_state = TURNING
        try:
            self._digest()
            # Whoever was answered in there may have stopped the node.
            if self._turn_state is not STOPPED:
                # Before `ready`, which takes what is coming out of consensus: the
                # requests that it holds are made from the entries in the tail.
                self._remember(self.consensus.coming)
                self._act(self.consensus.ready())
        except BaseException:  # half a turn must not be followed by another one
            self._broken()
        finally:
            if self._refused:
                self._settle_refused()
            if self._turn_state is TURNING:
                self._turn_state = IDLE
            elif self._turn_state is TURNING_AND_DUE:
                self._turn_state = DUE
                self._parts.clock.callLater(0, self._turn)

    def _broken(self) -> None:
        failure = Failure()
        reason = _why_broken(failure)
        self._owner.stop_because(reason, failure)

    def _digest(self) -> None:
        inputs, self._inputs = self._inputs, []
        for function, arguments in inputs:
            function(*arguments)
        # Reads, proposals and changes come after all inputs, which may have ended this
        # leadership: what cannot be done any more is then refused at once.
        if self.verifications.new or self.forwarded.questions:
            batch = self.verifications.take()
            batch.questions = self.forwarded.take_questions()
            self.consensus.verify(batch)
        pending = self.pending
        # With proposals in the queue this turn has something to send anyway; without
        # them it is worth while to see whether those who are answered make some.
        if pending.appended and not pending.queued:
            self._apply_first()
        if pending.queued:
            self._propose()
        if self.forwarded.queued:
            self._propose_forwarded()
        if self.changes.waiting:
            self._change_configuration()

    def _apply_first(self) -> None:
        """Apply the rest of the log, so that callers who are answered propose again.

        Only if all of the log is committed: otherwise its entries have to leave first.
        And only if the log has not changed in this turn: the tail, from which entries
        are applied, learns of changes later, in `_remember`.
        """
        consensus = self.consensus
        is_all = consensus.commit_index == consensus.log.last_index
        if is_all and not consensus.coming.changes_log:
            self.applier.advance(consensus.commit_index)
            if self._turn_state is TURNING_AND_DUE and not self._inputs:
                # What made a turn due were new proposals, which this turn takes.
                self._turn_state = TURNING

    def _propose(self) -> None:
        # One look at the clock for all of them, and one append.
        proposals, late = self.pending.take(self._parts.clock.seconds())
        if late:
            self._refused += [(proposal, EnqueueTimeout()) for proposal in late]
        entries = [proposal.entry for proposal in proposals]
        try:
            if self._stamping_fsm is not None and self.consensus.is_leader:
                self._stamp(self._stamping_fsm, entries)
            self.consensus.propose(entries)
        finally:  # they are not in the queue any more, and must be told in any case
            self._keep_appended(proposals)

    def _stamp(self, fsm: StampingFSM, entries: list[Entry]) -> None:
        # Here and not where they were queued: time must not stand still for those that
        # wait, nor come from a server that leads no more.
        term = self.consensus.term
        for entry in entries:
            if entry.type is not LogType.COMMAND or entry.data is None:
                continue
            stamped = fsm.stamp(entry.data, term)
            # Its size was admitted, and is counted as what waits.
            if type(stamped) is not bytes or len(stamped) != len(entry.data):
                raise ContractBroken(
                    f"{type(fsm).__name__}.stamp returned {stamped!r:.80}: it must be "
                    f"as many bytes as it was given, {len(entry.data)}"
                )
            entry.data = stamped

    def _keep_appended(self, proposals: list[Proposal]) -> None:
        refused = self.pending.keep(proposals)
        if refused:
            why = self._why_refused()
            self._refused += [(proposal, why) for proposal in refused]

    def _propose_forwarded(self) -> None:
        consensus, forwarded = self.consensus, self.forwarded
        messages, forwarded.queued = forwarded.queued, []
        entries = [entry for message in messages for entry in message.entries]
        try:
            # By who leads, and not by who asked: time is the leader's.
            if self._stamping_fsm is not None and consensus.is_leader:
                self._stamp(self._stamping_fsm, entries)
            consensus.propose(entries)
        finally:  # not in the queue any more, and answered in any case
            forwarded.keep(messages, consensus.leader)

    def _why_refused(self) -> RaftError:
        consensus = self.consensus
        if consensus.is_leader and consensus.is_transferring:
            return TransferInProgress("leadership is being transferred")
        return NotLeader(None if consensus.is_leader else consensus.leader)

    def _settle_refused(self) -> None:
        """Fail the refused proposals, now that nothing of this turn is left to do.

        Not earlier: whoever is told may call anything, `shutdown` too.
        """
        refused, self._refused = self._refused, []
        for proposal, error in refused:
            proposal.fail(error)

    def _change_configuration(self) -> None:
        in_log = self._level_in_log
        if in_log is None:
            return
        while self.consensus.may_change_configuration:
            change = self.changes.take()
            if change is None:
                return
            proposal, members = change.proposal, self.consensus.configuration
            try:
                proposal.entry = change.make(members)
                if change.newcomer and members.server(change.newcomer) is None:
                    self.levels.check_newcomer(change.newcomer, change.level, in_log)
                    self.skips.check_newcomer(
                        change.newcomer, self.consensus.log.base_index
                    )
                self.consensus.change_configuration(proposal.entry)
            except RaftError as error:
                self._refused.append((proposal, error))
            except BaseException:
                # A broken invariant ends the node, but the caller still gets an
                # outcome.
                self._keep_appended([proposal])
                raise
            else:
                self._keep_appended([proposal])

    @property
    def _level_in_log(self) -> int | None:
        """The level in this leader's log, see `levels`; None while it is not known."""
        if not self.levels.announced:
            return 0
        return self.consensus.level_in_log(self.applier.applied_index)

    def _remember(self, changes: Ready) -> None:
        """Keep new entries in memory, in the bytes that file and followers get."""
        # In the order of `Ready`: reset, truncate, append. Entries that a snapshot or
        # another leader has replaced must be gone before those that replace them come.
        if changes.reset_log is not None and not changes.reset_log.keep_suffix:
            self.tail.restart_at(changes.reset_log.index)
        if changes.truncate_from is not None:
            self.tail.truncate_from(changes.truncate_from)
        if changes.append:
            version = self._parts.config.protocol_version
            # A follower's entries came encoded; a leader's own are encoded here, all in
            # one call and once for file and followers.
            encode_all_new([e for e in changes.append if not e.encoded], version)
            self.tail.append(changes.append)
        self.consensus.resident_from = self.tail.first

    def _act(self, ready: Ready) -> None:
        """Carry out *ready*. Consensus is not on the stack any more.

        The order matters:

        1. Send before write: followers write while this leader does (§10.2.1). What
           must not leave before the write is in `after_sync`.
        2. Hand over the write before anybody is told of anything: users may shut the
           node down, and what was decided is then on its way to the disk.
        3. Tell of role and leader before the applier answers: who learns that his
           command was applied sees a node that knows who leads.
        4. Apply before reads are confirmed: most find their index applied at once.
        5. Trim the tail last: nothing above must need what it forgets.
        """
        if ready.send:
            self._dispatch(ready.send)
        if ready.has_write:
            self.writer.write(ready)
        if ready.after_sync:
            self._after_sync.append((ready.write_number, ready.after_sync))
            # At once for what needs no write: its number is durable already.
            self._release()
        self._owner.after_turn()
        # Whoever was told may have stopped the node. Nothing may be applied or
        # installed then: the callers were told that the outcome is unknown.
        if self._turn_state is STOPPED:
            return
        # Before this node applies: those who asked apply it at the same time.
        self.forwarded.committed(ready.commit_index)
        self.applier.advance(ready.commit_index)
        self.incarnations.after_turn(self.consensus.configurations, ready)
        for token, index in ready.verified:
            self._verified(token, index)
        if ready.install is not None:
            self.snapshots.install(ready.install, self.responder.taking(ready.install))
        for peer, index in ready.undeliverable:
            self.undeliverable.found(peer, index)
        if ready.contradiction is not None:
            self._contradicted(ready.contradiction)
        # Unsynced entries must stay, as they are nowhere else; unapplied ones should,
        # as they would soon be read back.
        self.tail.trim(self.writer.synced_index, self.applier.applied_index)
        if self.consensus.cluster != self.outbox.header.cluster:
            self.outbox.header = self.responder.request_header(self.consensus.cluster)

    def _release(self) -> None:
        """Send the responses and votes that waited for writes that are durable now.

        In the order of the writes: a response of an earlier write never overtakes one
        of a later write, and a vote never leaves before it is on the disk (§3.8).
        """
        synced = self.writer.synced_number
        while self._after_sync and self._after_sync[0][0] <= synced:
            self._dispatch(self._after_sync.popleft()[1])

    def _dispatch(self, outgoing: list[Outgoing]) -> None:
        for to, message in outgoing:
            if isinstance(to, str):
                self.outbox.send(to, message)  # type: ignore[arg-type]
            else:
                self.responder.send(to, message, self.consensus)  # type: ignore[arg-type]

    def _verified(self, token: object, index: int) -> None:
        assert isinstance(token, Batch), "only batches of verifications are handed in"
        self.verifications.confirmed(token, index)
        if token.questions:
            term = self.consensus.log.term_at(index)
            assert term is not None, "what is committed is in the log"
            self.forwarded.confirmed(token.questions, index, term)

    def _contradicted(self, leader: str) -> None:
        if leader == self._contradicted_by:
            return
        self._contradicted_by = leader
        self.log.critical(
            "{node} refuses entries of {leader}: they contradict what is committed "
            "here, so it is in another cluster. To move {node} there, stop it, take "
            "its data directory away and start it with join: true",
            node=self._parts.address,
            leader=leader,
        )

    # The end of a leadership, and of the node

    def leadership_lost(self) -> None:
        """Fail what only a leader can finish; entries may still commit.

        What is committed is not failed: it is applied here, and answered with that.
        """
        consensus, leader = self.consensus, self.consensus.leader
        self.forwarded.leadership_lost(consensus.commit_index, leader)
        self.pending.fail_appended_after(
            self.consensus.commit_index, LeadershipLost(leader)
        )
        self.pending.fail_queued(NotLeader(leader))
        self.changes.fail(NotLeader(leader))
        self.verifications.fail(NotLeader(leader))

    def stop(self, error: RaftError, unknown: RaftError) -> None:
        """Take no part any more; fail what waits with *error*, or *unknown* if it
        may still commit."""
        self._turn_state = STOPPED
        self.applier.stop()
        self.snapshots.stop()
        # From last to first, whatever one of them raises: the outbox closes, proposals
        # that were never appended are failed before those that may commit, and peers
        # are refused at the end.
        with ExitStack() as then:
            then.callback(self._refuse_requests)
            then.callback(self.verifications.fail_now, error)
            then.callback(self.changes.fail, error)
            then.callback(self.pending.fail_appended_after, 0, unknown)
            then.callback(self.pending.fail_queued, error)
            then.callback(
                self.forwarded.leadership_lost, self.consensus.commit_index, None
            )
            then.callback(self.sender.stop)
            self.outbox.stop()

    def _refuse_requests(self) -> None:
        """Answer the peers that wait for a write that will not be, or for a turn."""
        self.responder.abandon(self._after_sync)
        self._after_sync.clear()
        inputs, self._inputs = self._inputs, []
        for function, arguments in inputs:
            if function in (self.consensus.request, self._request_and_learn):
                self.responder.refuse(arguments[1], SHUT_DOWN)

    # Snapshots

    def snapshot_position(self) -> SnapshotMark:
        """Return where a snapshot of the FSM as it is now would end."""
        index = self.applier.applied_index
        term = self.consensus.log.term_at(index)
        assert term is not None, "what is applied is in the log"
        made, configuration = self.consensus.configurations.at(index)
        return SnapshotMark(index, term, configuration, made)

    def when_synced(self) -> Deferred[None]:
        """Return a Deferred that fires when all that was written is durable."""
        return self.writer.when_synced()

    def snapshot_taken(self, mark: SnapshotMark) -> None:
        """Cut the log for a snapshot of this node's own, which is durable."""
        self._input(self._compact, mark)

    def _compact(self, mark: SnapshotMark) -> None:
        consensus = self.consensus
        consensus.snapshotted(mark)
        # The synced note is written before the log is cut: a later start can then tell
        # a log that was cut from one that has lost its newest entries.
        self.writer.note()
        keep = self._parts.config.trailing_logs
        index = min(mark.index, consensus.log.last_index - keep)
        # Followers that are catching up should get entries, and no second snapshot.
        index = consensus.may_compact_to(index)
        # A skipped entry goes in any case: no server could apply it, so it must not be
        # sent any more.
        index = max(index, self.skips.newest_up_to(mark.index))
        if index > consensus.log.base_index:
            consensus.compacted(index)
            self.writer.delete_up_to(index)

    def snapshot_installed(self, install: Install, mark: SnapshotMark | None) -> None:
        """Take the place in the log of a leader's snapshot, or say it failed."""
        self._input(self._installed, install, mark)

    def _installed(self, install: Install, mark: SnapshotMark | None) -> None:
        self.consensus.installed(install, mark)
        if mark is not None:
            # The FSM has another state now, with its own level and index. After
            # consensus has moved to where the snapshot ends: the applier fetches from
            # there on.
            self.consensus.activated(self.levels.active)
            self.applier.resume(mark.index)
            self.incarnations.forget_all()
            inherited = self.skips.inherit(install.request.skipped, mark.index)
            if inherited:
                self.writer.save(inherited)
            # These proposals are in the snapshot or were replaced: nobody here can
            # tell.
            self.awaited.installed(mark.index)
            overtaken = self.pending.take_appended(mark.index)
            leader = self.consensus.leader
            self._refused += [(p, LeadershipLost(leader)) for p in overtaken]
        # Last: while this is True no snapshot is taken. Before this line nobody could
        # say at which index the FSM is.
        self.snapshots.installing = False

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""
        self._owner.stop_because(reason, failure)

    def _write_failed(self, failure: Failure) -> None:
        self._owner.stop_because("the log, term or vote could not be written", failure)

    # Entries

    def _decided(self, entry: Entry) -> None:
        """Do what a leader has decided, now that it is committed."""
        self.levels.applied(entry)
        self.consensus.activated(self.levels.active)
        self.incarnations.applied(entry, self.consensus.configurations)

    def _fetch(self, first: int, last: int) -> list[Entry] | Deferred[list[Entry]]:
        """Return entries from memory, or else as many as one read brings.

        No more than fit into one message, be they read for one or not.
        """
        entries = self.tail.slice(first, last)
        if entries is not None:
            return entries  # nearly always: no thread, no copy of the entries
        # Only what is below the tail: entries in the tail may not be in the store yet.
        last = min(last, self.tail.first - 1)
        store = self._parts.log_store
        most = min(READ_BYTES, self._parts.config.max_append_bytes)
        return self._parts.workers.reader.run(
            lambda: up_to(most, read_range(store, first, last, most))
        )


def _why_broken(failure: Failure) -> str:
    """Name what *failure* of a turn is."""
    if failure.check(MemoryError):
        return "out of memory: give this node more and start it again"
    if failure.check(ContractBroken):
        return str(failure.value)
    if failure.check(Exception):
        return "an invariant of consensus broke"
    return "a turn was interrupted"
