"""`Raft`: one node of a cluster, as an application holds it.

Source: hashicorp/raft `Raft`; the names are its own, in snake_case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random
from threading import get_ident

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.clock import Ticker
from txraft.config import Config, validate_config
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.core.leader import Leader
from txraft.core.messages import RequestVoteRequest
from txraft.errors import (
    EntryTooLarge,
    NodeFailed,
    NodeIsLeader,
    NodeRemoved,
    NotAdmitted,
    NothingNewToSnapshot,
    NotLeader,
    RaftError,
    RaftShutdown,
    ShutdownWhileCommitting,
    TransferInProgress,
    WrongThread,
)
from txraft.interfaces import (
    FSM,
    LeveledFSM,
    LimitedTransport,
    LogStore,
    PeerStore,
    SnapshotMeta,
    SnapshotStore,
    StableStore,
    Transport,
    WithClose,
    WithLostHandler,
)
from txraft.node.admission import (
    CAUGHT_UP_ENTRIES,
    Admission,
    Probed,
    probed,
    refuse_silent,
    why_not,
)
from txraft.node.application import answer_of, check_methods, reason_of
from txraft.node.bootstrap import Bootstrap, stored_membership
from txraft.node.events import (
    EventNotifier,
    LeadershipChanges,
    Observation,
    Observer,
    RaftState,
    is_state,
)
from txraft.node.leadership_transfer import LeadershipTransfer, choose_successor
from txraft.node.membership import (
    FIRST_VERSION_WITH_IDS,
    MakeEntry,
    nonvoter_added,
    peer_removed,
    server_removed,
    voter_added,
    voter_demoted,
)
from txraft.node.metrics import NodeMetrics
from txraft.node.ownership import application_of, check_application
from txraft.node.parts import Parts
from txraft.node.pending import ApplyResult, Change, Proposal, waiter_for
from txraft.node.shell import Shell
from txraft.node.snapshot_writer import discards
from txraft.node.startup import Recovered, Restored, recover, restore_newest
from txraft.node.status import metrics_of, stats_of
from txraft.node.timing import tick_seconds
from txraft.node.verifications import Verification
from txraft.node.worker import Workers
from txraft.wire.entries import encode_new

Waiters = dict[Deferred[RaftError | None], None]
"""Who waits for the end, in the order they came in; a dict, so that one can leave."""

ANSWERED_LATER = frozenset(
    {
        "append_entries",
        "append_entries_pipeline",
        "install_snapshot",
        "request_pre_vote",
        "request_vote",
        "timeout_now",
    }
)
"""Methods of a transport that may be coroutines, as a Deferred is what they return."""


class Raft:
    """One node: a member of a cluster that keeps *fsm* equal on all of them.

    Nothing happens before `start`. *local_addr* is this node's address as its peers
    know it, by default that of *transport*. *clock* has `seconds`, monotonic, and
    `callLater`; *workers* run what blocks. *random* draws election timeouts.
    *server_id* counts at protocol version 3 only; it is the address by default.

    Every Deferred that a method returns fires: with a result, with the error that
    its docstring names, or with RaftShutdown when the node has stopped before.

    It lives on one thread, the reactor's: the one that calls `start`. All methods are
    called there, others raise WrongThread; reading a property is allowed anywhere.

    Raises: ConfigError; ContractBroken, a TypeError, for an object that lacks a method
        of its plug point.
    Source: hashicorp/raft `NewRaft`.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        fsm: FSM,
        log_store: LogStore,
        stable_store: StableStore,
        snapshots: SnapshotStore,
        peer_store: PeerStore,
        local_addr: str | None,
        transport: Transport,
        *,
        clock: IReactorTime,
        workers: Workers,
        random: Random | None = None,
        server_id: str | None = None,
    ) -> None:
        if isinstance(transport, LimitedTransport):
            validate_config(config, transport.limits)
        else:
            validate_config(config)
        check_methods(fsm, FSM, {"apply"})
        if isinstance(fsm, LeveledFSM):
            check_methods(fsm, LeveledFSM)
        check_methods(log_store, LogStore)
        check_methods(stable_store, StableStore)
        check_methods(snapshots, SnapshotStore)
        check_methods(peer_store, PeerStore)
        check_methods(transport, Transport, ANSWERED_LATER)
        address = local_addr or transport.local_addr()
        self._parts = Parts(
            config=config,
            fsm=fsm,
            log_store=log_store,
            stable_store=stable_store,
            snapshots=snapshots,
            peer_store=peer_store,
            address=address,
            server_id=server_id or address,
            transport=transport,
            clock=clock,
            random=random or Random(),  # noqa: S311 - election timeouts are no secret
            workers=workers,
        )
        # None before the start, and anew after a bootstrap; kept after a stop, for what
        # may still be read.
        self._shell: Shell | None = None
        self._ticker: LoopingCall | None = None
        self._events = EventNotifier(self, self._parts, stop=self.stop)
        self._started = False
        self._thread = get_ident()
        # Why it stops, and why it did not start: what every method then fails with.
        self._shutdown_error: RaftShutdown | None = None
        self._start_error: RaftShutdown | None = None
        self._transfer: LeadershipTransfer | None = None
        self._stopping: Waiters = {}
        self._leaving: Waiters = {}
        self._has_stopped = False
        self._next_snapshot_check = 0.0
        self._snapshot_index = 0
        # Whether the next check may take a snapshot at once, if an entry was skipped:
        # see `skipping`. Only the first one, in case that snapshot fails.
        self._snapshot_at_once = True
        self._bootstrap = Bootstrap(
            self._parts, begin_again=self._begin_again, stop_because=self.stop_because
        )

    def __repr__(self) -> str:
        return f"Node at {self.address} [{self.state}]"

    # Start and stop

    def start(self) -> Deferred[None]:
        """Recover what is on disk and take part in the cluster.

        A node with nothing on disk bootstraps a cluster with the peers of its peer
        store; with no peers there it waits until a leader adds it.

        Returns: a Deferred that fires when the node takes part. It fails with
            DataCorrupted, WrongApplication, ConfigurationRefused or whatever the
            stores raise, and nothing has changed; or with RaftShutdown. `shutdown`
            then frees the rest. Cancelling it only stops the wait.
        """
        assert not self._started, "a node starts once"
        self._started = True
        self._thread = get_ident()
        workers, parts = self._parts.workers, self._parts

        def restore() -> Restored:
            # Before anything is restored or written: of foreign data nothing is used.
            check_application(
                parts.fsm, parts.log_store, parts.stable_store, parts.snapshots
            )
            return restore_newest(parts.snapshots, parts.fsm)

        restored = workers.snapshot.run(restore)
        recovered = restored.addCallback(self._recover).addCallback(self._take_part)
        return waiter_for(recovered.addErrback(self._not_started))

    def _not_started(self, failure: Failure) -> Failure:
        """Let nobody wait in vain, now or later."""
        self._start_error = RaftShutdown(f"it did not start: {reason_of(failure)}")
        self._events.stopped(self._start_error)
        return failure

    def _recover(self, restored: Restored) -> Deferred[Recovered]:
        parts = self._parts
        for warning in restored.warnings:
            self.log.warn("{node}: {found}", node=parts.address, found=warning)
        return self._read(restored, lambda: stored_membership(parts))

    def _read(
        self, restored: Restored, read_membership: Callable[[], Configuration]
    ) -> Deferred[Recovered]:
        parts = self._parts
        version = parts.config.protocol_version
        return parts.workers.writer.run(
            lambda: recover(
                parts.log_store,
                parts.stable_store,
                restored,
                read_membership=read_membership,
                protocol_version=version,
                encode=lambda entry: encode_new(entry, version),
                application=application_of(parts.fsm),
            )
        )

    def _take_part(self, recovered: Recovered) -> None:
        parts = self._parts
        self._thread = get_ident()  # wherever `start` was called, this is the reactor
        self._enter(recovered)
        for warning in recovered.warnings:
            self.log.warn("{node}: {found}", node=parts.address, found=warning)
        if discards(parts.snapshots):
            self.log.warn(
                "{node} keeps no snapshots ({store}), and its log is cut all the same: "
                "it must not be started again",
                node=parts.address,
                store=type(parts.snapshots).__name__,
            )
        self._snapshot_index = recovered.snapshot.index
        self._schedule_snapshot_check()
        self._ticker = Ticker.withCount(self._tick)
        self._ticker.clock = parts.clock
        ticking = self._ticker.start(tick_seconds(parts.config), now=False)
        ticking.addErrback(lambda f: self.stop_because("a timer failed", f))

    def _enter(self, recovered: Recovered) -> None:
        if self._shutdown_error is not None:
            raise self._shutdown_error
        self._shell = shell = Shell(self._parts, recovered, self)
        transport = self._parts.transport
        if isinstance(transport, WithLostHandler):
            transport.set_lost_handler(shell.connection_lost)
        # Last: from here on requests may come.
        transport.set_handler(shell)
        shell.schedule()

    def _begin_again(self, members: Configuration) -> Deferred[None]:
        """Take part again, with a new shell that begins with *members*."""
        return self._read(Restored(), lambda: members).addCallback(self._enter)

    def shutdown(self) -> Deferred[None]:
        """Leave at once, without handing leadership over; idempotent.

        What was not appended fails with RaftShutdown, what may still commit with
        ShutdownWhileCommitting.

        Returns: a Deferred that fires when all that was written is durable, and
            threads and transport are closed; every call gets one. A snapshot that
            is being written is abandoned at its next piece; one that the FSM is
            restoring is waited for. If the last write fails, `when_stopped` says so.
        """
        self._check_thread("shutdown")
        stopped: Deferred[None] = Deferred()
        self.when_stopped().addCallback(lambda _: stopped.callback(None))
        self.stop(RaftShutdown())
        return stopped

    def when_stopped(self) -> Deferred[RaftError | None]:
        """Return a Deferred that fires when the node has stopped.

        It fires with None after `shutdown`, with a NodeFailed that says why when the
        node stopped by itself, as after a failed write or a failed FSM, and with a
        NodeRemoved when it did so because it is a member no more.
        """
        self._check_thread("when_stopped")
        if self._has_stopped:
            return succeed(self._why_stopped)
        return _waiter_in(self._stopping)

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Return a Deferred that fires as soon as the node begins to stop.

        It fires with what `when_stopped` fires with later, or never: what was written
        may wait for a disk that hangs. Whoever must end then counts from here.
        """
        self._check_thread("when_stopping")
        if self._shutdown_error is not None:
            return succeed(self._why_stopped)
        return _waiter_in(self._leaving)

    @property
    def _why_stopped(self) -> NodeFailed | NodeRemoved | None:
        error = self._shutdown_error
        return error if isinstance(error, (NodeFailed, NodeRemoved)) else None

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop this node: it cannot go on without a risk to what is committed.

        What is no Exception, such as SystemExit, is raised to the reactor afterwards,
        where it was going; not here, as half of what is on the stack would not be done.
        """
        self.log.failure(
            "{node} stops: {reason}",
            failure=failure,
            node=self._parts.address,
            reason=reason,
        )
        # SystemExit and its like go on to where they were going, but from a stack on
        # which nothing is half done.
        if not isinstance(failure.value, Exception):
            self._parts.clock.callLater(0, failure.raiseException)
        self.stop(NodeFailed(f"{reason}: {reason_of(failure)}"))

    def stop(self, error: RaftShutdown) -> None:
        """Stop for the reason that *error* names; `shutdown` is for users."""
        if self._shutdown_error is not None:
            self._failed_while_stopping(error)
            return
        self._shutdown_error = error
        if self._ticker is not None and self._ticker.running:
            self._ticker.stop()
        shell = self._shell
        # The stack runs from the last line to the first, whatever each raises: callers
        # get their outcomes, then observers are told, then those who wait for a leader
        # fail. Then the disk is waited for. `when_stopping` fires last, while it is.
        with ExitStack() as then:
            then.callback(self._tell, self._leaving)
            then.callback(self._wind_up, shell)
            then.callback(self._events.stopped, error)
            then.callback(self._events.changed, shell, RaftState.SHUTDOWN, None)
            if shell is not None:
                shell.stop(error, ShutdownWhileCommitting(self._why_stopped))

    def _wind_up(self, shell: Shell | None) -> None:
        """End what blocks and what is open, once all that was written is durable."""
        # The last write needs its worker, so the workers end after it.
        flushed = succeed(None) if shell is None else shell.writer.finish()
        done = flushed.addCallback(lambda _: self._parts.workers.stop())
        done.addCallback(lambda _: self._close_transport())
        done.addErrback(lambda f: self.log.failure("a node did not close", failure=f))
        done.addCallback(lambda _: self._stopped())

    def _failed_while_stopping(self, error: RaftShutdown) -> None:
        """Let `when_stopped` tell of a last write that failed."""
        if isinstance(error, NodeFailed) and not self._has_stopped:
            self._shutdown_error = error

    def _close_transport(self) -> Deferred[None]:
        transport = self._parts.transport
        if isinstance(transport, WithClose):
            return answer_of(transport.close)
        return succeed(None)

    def _stopped(self) -> None:
        self._has_stopped = True
        self._tell(self._stopping)

    def _tell(self, waiting: Waiters) -> None:
        waiters = list(waiting)
        waiting.clear()
        for waiter in waiters:
            waiter.callback(self._why_stopped)

    # Commands

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        """Replicate the command *data* and apply it to the FSM of every member.

        *timeout*, in seconds, bounds the wait to be appended, not to be committed;
        for that, use `addTimeout`. 0 is no bound, like None, and as in Go. Cancelling
        before the command is appended withdraws it; later it only detaches the waiter,
        and the command may commit.

        Returns: a Deferred of an ApplyResult, once the command is committed and
            applied here. It fails, never appended, with NotLeader, EnqueueTimeout,
            QueueFull, EntryTooLarge, TransferInProgress or RaftShutdown; with
            LeadershipLost when it may still commit; and with the ApplicationError
            that the FSM refused it with.
        Raises: TypeError, if *data* is not bytes or *timeout* is no number; ValueError,
            if it is negative or NaN.
        """
        # As `_check_thread`, but without a call more for each command.
        if get_ident() != self._thread:
            raise WrongThread("apply")
        if not isinstance(data, bytes):
            raise TypeError(f"a command is bytes, not {type(data).__name__}")
        if len(data) > self._parts.config.max_entry_bytes:
            largest = self._parts.config.max_entry_bytes
            return fail(EntryTooLarge(f"{len(data)} bytes; at most {largest} may be"))
        return self._propose(LogType.COMMAND, data, timeout)

    def is_awaited(self, index: int) -> bool:
        """Tell whether somebody waits here for the outcome of the entry at *index*.

        An FSM may ask while it applies that entry, to make no answer for nobody.
        """
        shell = self._shell
        return shell is not None and index in shell.pending.appended

    def barrier(self, timeout: float | None = None) -> Deferred[int]:
        """Commit an entry that does nothing, and wait until the FSM has reached it.

        Returns: a Deferred of its index; it fails as `apply` does.
        """
        self._check_thread("barrier")
        return self._propose(LogType.BARRIER, None, timeout).addCallback(
            lambda result: result.index
        )

    def _propose(
        self, kind: LogType, data: bytes | None, timeout: float | None
    ) -> Deferred[ApplyResult]:
        deadline = None
        if timeout is not None and (timeout := checked_timeout(timeout)):
            deadline = self._parts.clock.seconds() + timeout
        try:
            shell = self._leading()
            proposal = shell.pending.queue(Entry(0, 0, kind, data), deadline)
        except RaftError as error:
            return fail(error)
        # Not appended here: all that is proposed until the turn shares one append, one
        # write and one message for each follower.
        shell.schedule()
        return proposal.deferred

    def _check_thread(self, method: str) -> None:
        """Refuse what may disturb a turn on another thread. Raises: WrongThread"""
        if get_ident() != self._thread:
            raise WrongThread(method)

    def _running(self) -> Shell:
        error = self._shutdown_error or self._start_error
        if error is not None:
            raise error
        if self._shell is None:
            raise NotLeader(None)
        return self._shell

    def _leading(self) -> Shell:
        shell = self._running()
        if not isinstance(shell.consensus.role, Leader):
            raise NotLeader(shell.consensus.leader)
        return shell

    # Reads

    def verify_leader(self) -> Deferred[None]:
        """Have a quorum confirm, by messages sent after this call, that this leads.

        Returns: a Deferred that fires when it has; it fails with NotLeader.
        """
        self._check_thread("verify_leader")
        return self._verify(applied=False).addCallback(lambda _: None)

    def linearizable(self) -> Deferred[int]:
        """Wait until a read of the FSM here sees all that was committed before now.

        Returns: a Deferred of the applied index; read as soon as it fires. It fails
            with NotLeader.
        Source: Raft dissertation §6.4.
        """
        self._check_thread("linearizable")
        return self._verify(applied=True)

    def _verify(self, applied: bool) -> Deferred[int]:
        try:
            shell = self._leading()
        except RaftError as error:
            return fail(error)
        verification = Verification(
            Deferred(lambda _: shell.verifications.withdraw(verification)), applied
        )
        shell.verify(verification)
        return verification.deferred

    # Leadership

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        """Transfer leadership to the voter at *target*, by default the most complete.

        Only one that has answered of late is chosen; a *target* that has not is refused
        at once. No command is accepted meanwhile.
        Returns: a Deferred that fires when this node no longer leads. It fails with
            NotLeader, TransferInProgress, TransferFailed or RaftShutdown.
        """
        self._check_thread("transfer_leadership")
        try:
            shell = self._leading()
            if self._transfer is not None or shell.consensus.is_transferring:
                raise TransferInProgress("leadership is being transferred already")
            chosen = choose_successor(
                shell.consensus,
                target,
                own_address=self.address,
                tick=tick_seconds(self._parts.config),
            )
        except RaftError as error:
            return fail(error)
        shell.transfer(chosen)
        self._transfer = LeadershipTransfer(
            chosen,
            observers=self._events.observers,
            clock=self._parts.clock,
            patience=2 * self._parts.config.election_timeout,
            ended=self._transfer_ended,
        )
        return self._transfer.done

    def _transfer_ended(self) -> None:
        self._transfer = None

    # Membership
    #
    # Every change is a Deferred of the index of its entry, once that is committed.
    # One waits until the one before it is committed: single-server changes are safe
    # only one at a time (§4.1).

    def add_peer(self, address: str) -> Deferred[int]:
        """Make the server at *address* a voter. It starts with `join`, or empty.

        Returns: as every membership change, a Deferred of the index of the entry,
            once that is committed. It fails with NotLeader, QueueFull or RaftShutdown,
            with ConfigurationRefused for what is no legal single step, and with
            LeadershipLost when it may still commit. Cancelling withdraws the change
            while it waits for the one before it, and afterwards only stops the wait.
            This one also fails with KnownPeer.
        """
        return self.add_voter(address, address)

    def remove_peer(self, address: str) -> Deferred[int]:
        """Remove the member at *address*, which may be this one.

        Returns: as `add_peer`; it also fails with UnknownPeer.
        """
        return self._change(peer_removed(address, self._version))

    def add_voter(self, id: str, address: str) -> Deferred[int]:
        """Make the server *id* at *address* a voter, new or a nonvoter so far.

        Returns: as `add_peer`; it also fails with KnownPeer, and with
            ConfigurationRefused when the server answers that it understands less of
            the state machine than is active.
        """
        server = Server(id, address, Suffrage.VOTER)
        return self._change(voter_added(server, self._version), newcomer=address)

    def add_nonvoter(self, id: str, address: str) -> Deferred[int]:
        """Make the server *id* at *address* a member that gets entries but no vote.

        Returns: as `add_peer`; it also fails with KnownPeer, and with
            ConfigurationRefused below protocol version 3, or as for `add_voter`.
        """
        server = Server(id, address, Suffrage.NONVOTER)
        return self._change(nonvoter_added(server, self._version), newcomer=address)

    def demote_voter(self, id: str) -> Deferred[int]:
        """Take the vote of the server *id*, which may be this one.

        Returns: as `add_peer`; it also fails with UnknownPeer, and with
            ConfigurationRefused below protocol version 3.
        """
        return self._change(voter_demoted(id, self._version))

    def remove_server(self, id: str) -> Deferred[int]:
        """Remove the server *id*, which may be this one.

        Returns: as `add_peer`; it also fails with UnknownPeer.
        """
        return self._change(server_removed(id, self._version))

    def probe_peer(self, address: str) -> Deferred[Probed]:
        """Ask the server at *address*, member or not, who it is. Nothing changes there.

        Returns: a Deferred of what it tells. It fails with a TransportError when nobody
            there answers as a peer in time, and with NotLeader or RaftShutdown.
        """
        self._check_thread("probe_peer")
        try:
            asked = self._leading().outbox.probe(address)
        except RaftError as error:
            return fail(error)
        return asked.addCallback(lambda answer: probed(address, answer))

    def admit_peer(self, address: str) -> Deferred[Admission]:
        """Make the server at *address* a voter, but only if that costs no quorum.

        It is probed first. At protocol version 3 it becomes a nonvoter, under the id
        that it tells, and a voter once it has nearly all of the log: call this again
        until it is.

        Returns: a Deferred of how far it is. It fails as `add_peer`, and with
            NotAdmitted when nobody answers there, or one who belongs elsewhere.
        Source: Raft dissertation §4.2.1.
        """
        self._check_thread("admit_peer")
        try:
            shell = self._leading()
        except RaftError as error:
            return fail(error)
        server = shell.consensus.configuration.server(address)
        if server is None:
            return self.probe_peer(address).addCallbacks(
                self._admit, refuse_silent(address)
            )
        if server.suffrage is Suffrage.VOTER:
            return succeed(Admission(True))
        behind = shell.consensus.entries_behind(address)
        # A silent one is not promoted: it could not help to commit now.
        if behind > CAUGHT_UP_ENTRIES or shell.consensus.silence_of(address):
            return succeed(Admission(False, behind))
        promoted = self.add_voter(server.id, address)
        return promoted.addCallback(lambda _: Admission(True))

    def _admit(self, found: Probed) -> Deferred[Admission]:
        shell, address = self._leading(), found.address
        consensus = shell.consensus
        reason = why_not(found, consensus.configuration, consensus.cluster)
        if reason is not None:
            raise NotAdmitted(reason)
        if self._version < FIRST_VERSION_WITH_IDS:
            return self.add_peer(address).addCallback(lambda _: Admission(True))
        added = self.add_nonvoter(found.id or address, address)
        return added.addCallback(
            lambda _: Admission(False, consensus.entries_behind(address))
        )

    def set_peers(self, peers: Sequence[str]) -> Deferred[None]:
        """Bootstrap a cluster of *peers*, this node included, if it has no past.

        All of them must be given the same list. It is unsafe where some of them are
        members of a cluster that others are to join: let that one's leader add them.

        Returns: a Deferred that fires when the membership is durable and in the peer
            store. It fails, and nothing has changed, with NodeIsLeader, with
            ConfigurationRefused when log, snapshot or an earlier vote show that there
            is a cluster already or when this node is not among *peers*, and with
            RaftShutdown. Cancelling it only stops the wait.
        Source: hashicorp/raft `SetPeers`, which replaces any membership.
        """
        self._check_thread("set_peers")
        try:
            shell = self._running()
            if self.state is RaftState.LEADER:
                raise NodeIsLeader("the leader changes its peers with add_peer")
            return self._bootstrap.run(shell, peers)
        except RaftError as error:
            return fail(error)

    @property
    def _version(self) -> int:
        return self._parts.config.protocol_version

    def _change(self, make: MakeEntry, newcomer: str | None = None) -> Deferred[int]:
        self._check_thread("add_voter, or a change like it,")
        proposal = Proposal(Entry(0, 0, LogType.CONFIGURATION), None)
        try:
            self._leading().change(Change(make, proposal, newcomer))
        except RaftError as error:
            return fail(error)
        return proposal.deferred.addCallback(lambda result: result.index)

    # Snapshots

    def snapshot(self) -> Deferred[SnapshotMeta]:
        """Take a snapshot now, and cut the log behind it.

        Returns: a Deferred of its description, once it is durable. It fails with
            NothingNewToSnapshot, SnapshotFailed or RaftShutdown. Cancelling it only
            stops the wait.
        """
        self._check_thread("snapshot")
        try:
            shell = self._running()
        except RaftError as error:
            return fail(error)
        covered = max(self._snapshot_index, shell.consensus.snapshot.index)
        # Commands only: a snapshot that differs by a no-op is not worth its writing.
        if shell.applier.last_command_index <= covered:
            return fail(NothingNewToSnapshot())
        taken = shell.snapshots.take().addCallback(self._snapshot_taken)
        return waiter_for(taken)

    def _snapshot_taken(self, meta: SnapshotMeta) -> SnapshotMeta:
        self._snapshot_index = max(self._snapshot_index, meta.index)
        return meta

    def _schedule_snapshot_check(self) -> None:
        interval = self._parts.config.snapshot_interval
        # At random, as in hashicorp/raft: not all members take one at the same time.
        wait = interval * (1 + self._parts.random.random())
        self._next_snapshot_check = self._parts.clock.seconds() + wait

    def _snapshot_if_due(self, shell: Shell) -> None:
        covered, applied = shell.consensus.snapshot.index, shell.applier.applied_index
        # A cluster that has skipped an entry is to be rid of it at once.
        wanted = bool(shell.skips) and shell.skips.uncovered(covered, applied)
        hurries = wanted and self._snapshot_at_once and not shell.snapshots.busy
        if not hurries and self._parts.clock.seconds() < self._next_snapshot_check:
            return
        self._schedule_snapshot_check()
        self._snapshot_at_once = self._snapshot_at_once and not hurries
        if applied - covered >= self._parts.config.snapshot_threshold:
            wanted = True
        if wanted and not shell.snapshots.busy:
            self.snapshot().addErrback(lambda f: f.trap(RaftError))

    # Events

    def when_leader(self) -> Deferred[str]:
        """Wait for a leader, this node or another.

        Returns: a Deferred of its address, as soon as one is known. It fails with
            RaftShutdown.
        """
        self._check_thread("when_leader")
        error = self._shutdown_error or self._start_error
        return self._events.when_leader() if error is None else fail(error)

    def register_observer(self, observer: Observer) -> None:
        """Tell *observer* of changes of role and leader from now on."""
        self._check_thread("register_observer")
        self._events.observers.register(observer)

    def leader_ch(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """Tell *callback* whether this node leads: now, and whenever that changes.

        Nothing is lost: while a Deferred that it has returned has not fired, at most
        MAX_WAITING_OBSERVATIONS changes wait. Pass the `put` of a `DeferredQueue` for
        a queue.

        Returns: a function that ends it.
        Source: hashicorp/raft `LeaderCh`, which loses what nobody waits for.
        """
        self._check_thread("leader_ch")
        changes = LeadershipChanges(callback)
        observer = Observer(changes, is_state, blocking=True)
        self.register_observer(observer)
        # Registered before it is told the present state: no change is lost in between.
        observer.observe(Observation(self, self.state))
        return lambda: self.deregister_observer(observer)

    def deregister_observer(self, observer: Observer) -> None:
        """Tell *observer* no more; idempotent."""
        self._check_thread("deregister_observer")
        self._events.observers.deregister(observer)

    def watch_members(
        self, callback: Callable[[Configuration], object]
    ) -> Callable[[], None]:
        """Tell *callback* of each membership that is committed, from now on.

        Returns: a function that ends it.
        """
        self._check_thread("watch_members")

        def tell(observation: Observation) -> object:
            assert isinstance(observation.data, Configuration), "nothing else is told"
            return callback(observation.data)

        observer = Observer(tell, blocking=True)
        self._events.members.register(observer)
        return lambda: self._events.members.deregister(observer)

    # Status: all of it may be asked at any time, on any thread

    @property
    def address(self) -> str:
        """This node's address as its peers know it."""
        return self._parts.address

    @property
    def state(self) -> RaftState:
        """What this node is doing."""
        return self._events.state

    @property
    def leader(self) -> str | None:
        """The address of the leader, None if none is known."""
        return self._events.leader

    @property
    def term(self) -> int:
        """The current term."""
        return self._shell.consensus.term if self._shell else 0

    @property
    def last_index(self) -> int:
        """The index of the newest entry in the log or snapshot."""
        return self._shell.consensus.log.last_index if self._shell else 0

    @property
    def commit_index(self) -> int:
        """The index up to which entries are known to be committed."""
        return self._shell.consensus.commit_index if self._shell else 0

    @property
    def applied_index(self) -> int:
        """The index up to which entries were applied to the FSM."""
        return self._shell.applier.applied_index if self._shell else 0

    @property
    def last_contact(self) -> float | None:
        """When a leader was last heard, in the clock's seconds; None if never."""
        return self._events.last_contact

    @property
    def configuration(self) -> Configuration:
        """The membership in force, committed or not; empty before the start."""
        return self._shell.consensus.configuration if self._shell else Configuration()

    def peers(self) -> list[str]:
        """Return the addresses of all members, this node included, sorted."""
        return sorted(self.configuration.addresses)

    @property
    def active_level(self) -> int:
        """The level of the state machine that is active in what was applied here."""
        return self._shell.levels.active if self._shell else 0

    @property
    def levels(self) -> dict[str, int | None]:
        """Up to which level each member understands the state machine, as it announced.

        A leader has heard it from all that answer it, other members know their own;
        None is unknown. Go servers, and protocol version 0, count as 0.
        """
        shell = self._shell
        return shell.levels.announced_by_members(shell.consensus) if shell else {}

    def stats(self) -> dict[str, str]:
        """Return the status for an operator, under hashicorp/raft's keys."""
        if self._shell is None:
            return {"state": str(self.state)}
        return stats_of(
            self._shell,
            state=self.state,
            silence=self._silence,
            tick=tick_seconds(self._parts.config),
        )

    def metrics(self) -> NodeMetrics:
        """Return the status in numbers, for whoever watches this node."""
        if self._shell is None:
            return NodeMetrics()
        return metrics_of(
            self._shell,
            log_store=self._parts.log_store,
            silence=self._silence,
            tick=tick_seconds(self._parts.config),
        )

    @property
    def _silence(self) -> float | None:
        """Seconds since a leader was last heard, None if never."""
        heard = self.last_contact
        return None if heard is None else self._parts.clock.seconds() - heard

    # What a turn brought about

    def _tick(self, count: int) -> None:
        shell = self._shell
        assert shell is not None, "ticks begin when the node takes part"
        shell.tick(count)
        self._snapshot_if_due(shell)

    def vote_requested(self, request: RequestVoteRequest) -> None:
        """Tell observers that a candidate asks for a vote."""
        self._events.observers.tell(Observation(self, request))

    def after_turn(self) -> None:
        """Tell of changes of role, leader and membership."""
        assert self._shell is not None, "turns begin when the node takes part"
        self._events.after_turn(self._shell)


def _waiter_in(waiting: Waiters) -> Deferred[RaftError | None]:
    """Add a Deferred to *waiting*; one that is cancelled, or timed out, leaves it."""
    waiter: Deferred[RaftError | None]
    waiter = Deferred(lambda _: waiting.pop(waiter, None))
    waiting[waiter] = None
    return waiter


def checked_timeout(timeout: float) -> float:
    """Return *timeout*, in seconds; 0 is none.

    Raises: TypeError, ValueError
    """
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is 0, which is none, or more; not {timeout!r}")
    return timeout
