"""`Raft`: one node of a cluster, as an application holds it.

Source: hashicorp/raft `Raft`; the names are its own, in snake_case.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from threading import get_ident

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.config import Config, validate_config
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.leader import Leader
from txraft.core.messages import RequestVoteRequest
from txraft.errors import (
    EntryTooLarge,
    NodeFailed,
    NodeRemoved,
    NothingNewToSnapshot,
    NotLeader,
    RaftError,
    RaftShutdown,
    ShutdownWhileCommitting,
    TransferFailed,
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
from txraft.node.application import answer_of, check_methods, told
from txraft.node.bootstrap import Founding, stored_founders
from txraft.node.events import (
    Edges,
    EventNotifier,
    Observation,
    Observer,
    RaftState,
    is_state,
)
from txraft.node.leadership_transfer import LeadershipTransfer
from txraft.node.membership import Membership
from txraft.node.ownership import application_of, check_application
from txraft.node.parts import Parts
from txraft.node.pending import ApplyResult, waiter_for
from txraft.node.shell import Shell
from txraft.node.snapshot_writer import discards
from txraft.node.startup import Recovered, Restored, recover, restore_newest
from txraft.node.status import Status
from txraft.node.timing import tick_seconds
from txraft.node.verifications import Verification
from txraft.node.worker import Workers
from txraft.wire.entries import encode_new

Waiters = dict[Deferred[RaftError | None], None]
"""Those who wait for the end, in the order in which they came."""

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


class Raft(Status, Membership, Founding):
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
            config,
            fsm,
            log_store,
            stable_store,
            snapshots,
            peer_store,
            address,
            server_id or address,
            transport,
            clock,
            random or Random(),  # noqa: S311 - election timeouts are no secret
            workers,
        )
        self._shell = None
        self._ticker: LoopingCall | None = None
        self._events = EventNotifier(self, self._parts, stop=self.stop)
        self._started = False
        self._thread = get_ident()
        self._shutdown_error: RaftShutdown | None = None
        self._start_error: RaftShutdown | None = None
        self._handover: LeadershipTransfer | None = None
        self._stopping: Waiters = {}
        self._leaving: Waiters = {}
        self._has_stopped = False
        self._next_snapshot_check = 0.0
        self._snapshot_index = 0
        self._hurries = True

    # Life

    def start(self) -> Deferred[None]:
        """Recover what is on disk and take part in the cluster.

        A node with nothing on disk founds a cluster with the peers of its peer
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
        self._start_error = RaftShutdown(f"it did not start: {told(failure)}")
        self._events.stopped(self._start_error)
        return failure

    def _recover(self, restored: Restored) -> Deferred[Recovered]:
        parts = self._parts
        for warning in restored.warnings:
            self.log.warn("{node}: {found}", node=parts.address, found=warning)
        return self._read(restored, lambda: stored_founders(parts))

    def _read(
        self, restored: Restored, founders: Callable[[], Configuration]
    ) -> Deferred[Recovered]:
        parts = self._parts
        version = parts.config.protocol_version
        return parts.workers.writer.run(
            lambda: recover(
                parts.log_store,
                parts.stable_store,
                restored,
                founders,
                version,
                lambda entry: encode_new(entry, version),
                application_of(parts.fsm),
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
        self._ticker = LoopingCall.withCount(self._tick)
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
        transport.set_handler(shell)
        shell.schedule()

    def _begin_again(self, founders: Callable[[], Configuration]) -> Deferred[None]:
        return self._read(Restored(), founders).addCallback(self._enter)

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
    def _why_stopped(self) -> RaftError | None:
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
        if not isinstance(failure.value, Exception):
            self._parts.clock.callLater(0, failure.raiseException)
        self.stop(NodeFailed(f"{reason}: {told(failure)}"))

    def stop(self, error: RaftShutdown) -> None:
        """Stop for the reason that *error* names; `shutdown` is for users."""
        if self._shutdown_error is not None:
            self._failed_while_stopping(error)
            return
        self._shutdown_error = error
        if self._ticker is not None and self._ticker.running:
            self._ticker.stop()
        shell = self._shell
        with ExitStack() as then:  # from last to first, whatever each of them raises
            then.callback(self._tell, self._leaving)
            then.callback(self._wind_up, shell)
            then.callback(self._events.stopped, error)
            then.callback(self._events.changed, shell, RaftState.SHUTDOWN, None)
            if shell is not None:
                shell.stop(error, ShutdownWhileCommitting())

    def _wind_up(self, shell: Shell | None) -> None:
        """End what blocks and what is open, once all that was written is durable."""
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
        """Hand leadership to the voter at *target*, by default the most complete.

        Only one that has answered of late is chosen; a *target* that has not is refused
        at once. No command is accepted meanwhile.
        Returns: a Deferred that fires when this node no longer leads. It fails with
            NotLeader, TransferInProgress, TransferFailed or RaftShutdown.
        """
        self._check_thread("transfer_leadership")
        try:
            shell = self._leading()
            if self._handover is not None or shell.consensus.is_transferring:
                raise TransferInProgress("leadership is being handed over already")
            chosen = self._successor(shell, target)
        except RaftError as error:
            return fail(error)
        shell.transfer(chosen)
        self._handover = LeadershipTransfer(
            chosen,
            self._events.observers,
            self._parts.clock,
            2 * self._parts.config.election_timeout,
            self._handover_ended,
        )
        return self._handover.done

    def _successor(self, shell: Shell, target: str | None) -> str:
        """Return whom to hand leadership to.

        Raises: TransferFailed, if nobody there would take it.
        """
        consensus = shell.consensus
        others = set(consensus.configuration.voters) - {self._parts.address}
        if not others or target == self._parts.address:
            raise TransferFailed("there is no other voter to hand leadership to")
        chosen = target or consensus.best_successor()
        if chosen is None:
            raise TransferFailed("no other voter has answered of late")
        if chosen not in others:
            raise TransferFailed(f"{chosen} is not a voter")
        silence = consensus.silence_of(chosen) * tick_seconds(self._parts.config)
        if silence:
            raise TransferFailed(f"{chosen} has not answered for {silence:.1f} s")
        return chosen

    def _handover_ended(self) -> None:
        self._handover = None

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
        if shell.applier.last_command_index <= covered:
            return fail(NothingNewToSnapshot())
        taken = shell.snapshots.take().addCallback(self._snapshot_taken)
        return waiter_for(taken)

    def _snapshot_taken(self, meta: SnapshotMeta) -> SnapshotMeta:
        self._snapshot_index = max(self._snapshot_index, meta.index)
        return meta

    def _schedule_snapshot_check(self) -> None:
        interval = self._parts.config.snapshot_interval
        wait = interval * (1 + self._parts.random.random())
        self._next_snapshot_check = self._parts.clock.seconds() + wait

    def _snapshot_if_due(self, shell: Shell) -> None:
        covered, applied = shell.consensus.snapshot.index, shell.applier.applied_index
        # A cluster that has skipped an entry is to be rid of it at once.
        wanted = bool(shell.skips) and shell.skips.uncovered(covered, applied)
        hurries = wanted and self._hurries and not shell.snapshots.busy
        if not hurries and self._parts.clock.seconds() < self._next_snapshot_check:
            return
        self._schedule_snapshot_check()
        self._hurries = self._hurries and not hurries
        if applied - covered >= self._parts.config.snapshot_threshold:
            wanted = True
        if wanted and not shell.snapshots.busy:
            self.snapshot().addErrback(lambda f: f.trap(RaftError))

    # Observers

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
        edges = Edges(callback)
        observer = Observer(edges, is_state, blocking=True)
        self.register_observer(observer)
        observer.observe(Observation(self, self.state))
        return lambda: self.deregister_observer(observer)

    def deregister_observer(self, observer: Observer) -> None:
        """Tell *observer* no more; idempotent."""
        self._check_thread("deregister_observer")
        self._events.observers.deregister(observer)

    # What a turn brought about

    def _tick(self, count: int) -> None:
        shell = self._shell
        assert shell is not None, "ticks begin when the node takes part"
        shell.tick(count)
        self._snapshot_if_due(shell)

    def vote_requested(self, request: RequestVoteRequest) -> None:
        """Tell observers that a candidate asks for a vote."""
        self._events.observers.tell(Observation(self, request))

    def turned(self) -> None:
        """Tell of changes of role, leader and membership."""
        assert self._shell is not None, "turns begin when the node takes part"
        self._events.turned(self._shell)


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
