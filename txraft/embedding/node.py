"""`Node`: everything of a member of a cluster in one call.

    async with Node("data", jobs, address="127.0.0.1:8400", peers=PEERS):
        await jobs.claim("a", 30.0)

It awaits and is awaited in coroutines of Twisted and of asyncio. `txraft.Raft` is the
part of it that replicates; it stays for who wants other stores or transports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.clock import use_monotonic_time
from txraft.config import Config
from txraft.core.configuration import Server
from txraft.embedding.arguments import member_settings
from txraft.embedding.host import Host, MemberSettings, ThisHost
from txraft.embedding.member import Member
from txraft.embedding.outcome import Outcome, Uninterrupted
from txraft.embedding.reactors import BorrowedReactor, borrow_reactor
from txraft.errors import NodeRemoved, NotLeader, RaftError, TransferInProgress
from txraft.interfaces import FSM
from txraft.node.events import RaftState
from txraft.node.forwarding import Forwarder
from txraft.node.pending import ApplyResult
from txraft.node.raft import Raft, checked_timeout
from txraft.replicated.machine import bind, machine_of, unbind
from txraft.replicated.objects import Replicated
from txraft.transport.validity import ValidityWatch

DEFAULT_TIMEOUT = 10.0
"""Seconds for which commands and reads wait for a leader."""


class Node:
    """A member of a cluster whose data is in *directory*, and which runs *machine*.

    *machine* is a `Replicated` or an `FSM`. More replicated objects are given by their
    names, as in ``Node("data", jobs=jobs, locks=locks, address=...)``; the name is a
    part of the data. An object is on one node at a time.

    *address* is what peers dial, `host:port`; it names the node and cannot change
    later. *listen* is a Twisted endpoint, by default at *address*. *peers* are the
    first members, this node included: addresses, or `Server` for ids at protocol
    version 3; by default this node alone. With *join* it starts empty and waits to be
    added. *tls* has the keys of ``tls`` in ``node.yaml``: ``certificate``,
    ``private_key``, ``ca`` and perhaps ``server_names`` and ``minimum_version``.
    *limits* has those of ``limits`` that concern peers, by their names there.
    *timeout* is for how many seconds commands and reads wait for a leader.

    *reactor* is by default Twisted's own; or, where a loop of asyncio runs at the
    start, one within that loop, which ends with its last node.
    Raises: ConfigError, with all faults at once; ContractBroken, for a machine that is
        none; nothing is opened before the start.
    Thread: reactor.
    """

    log = Logger()

    def __init__(
        self,
        directory: str | os.PathLike[str],
        machine: FSM | Replicated | None = None,
        /,
        *,
        address: str,
        listen: str | None = None,
        peers: Iterable[str | Server] = (),
        tls: Mapping[str, Any] | None = None,
        join: bool = False,
        limits: Mapping[str, float] | None = None,
        config: Config | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        reactor: Any = None,
        server_id: str | None = None,
        **objects: Replicated,
    ) -> None:
        self._settings = member_settings(
            directory,
            address=address,
            listen=listen,
            peers=peers,
            tls=tls,
            join=join,
            limits=limits,
            config=config,
            server_id=server_id,
        )
        self.timeout = timeout
        self._machine = machine_of(machine, objects)
        self._given = reactor
        self._borrowed: BorrowedReactor | None = None
        self._clock: IReactorTime | None = None
        self._member: Member | None = None
        self._raft: Raft | None = None
        self._forwarder: Forwarder | None = None
        # The start, which is cancelled by a stop that comes before its end.
        self._work: Deferred[None] | None = None
        self._takes_part = False
        self._is_stopping = False
        self._watch: ValidityWatch | None = None
        self._has_begun, self._has_ended = _Event(), _Event()

    def __repr__(self) -> str:
        return f"Node at {self._settings.address} in {self._settings.directory}"

    # Start and stop

    def start(self) -> Outcome[None]:
        """Open everything and take part.

        Returns: an Outcome that fires when the node takes part, which needs no leader.
            It fails with the RaftError, OSError or CannotListenError that prevents it;
            then, and when it is cancelled, all that was opened has been closed.
        Raises: RuntimeError for a node that was started or stopped before.
        """
        if self._work is not None or self._is_stopping:
            raise RuntimeError(f"{self!r} was started before: make another one")
        self._work = work = Deferred.fromCoroutine(self._start())
        return Outcome.of(work)

    def stop(self) -> Outcome[None]:
        """Transfer leadership, if this node leads, and close all that was opened.

        Idempotent; a start that is under way is cancelled. To cancel the Outcome only
        ends the wait.

        Returns: an Outcome that fires when that is done.
        Durable: all that was written.
        """
        if not self._is_stopping:
            self._is_stopping = True
            Deferred.fromCoroutine(self._stop()).addBoth(self._has_ended.fire)
        return self._has_ended.when()

    def __aenter__(self) -> Outcome[Self]:
        """Start, and return this node."""
        entered: Deferred[Self] = self.start().addCallback(lambda _: self)
        return Outcome.of(entered)

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> Outcome[None]:
        """Stop. One who is cancelled meanwhile waits all the same, for the files.

        Fails with a NodeFailed, if the node has stopped by itself and the block ends
        without an error: else nobody would hear of it.
        """
        return _uninterrupted(Deferred.fromCoroutine(self._exit(error is None)))

    async def _exit(self, tells: bool) -> None:
        await self.stop()
        if tells and self._raft is not None:
            _told_apart(await self._raft.when_stopped())

    def when_stopped(self) -> Outcome[NodeRemoved | None]:
        """Wait until this node replicates no more, whatever the reason.

        Returns: an Outcome of None after `stop`, and of the NodeRemoved that says so
            when the node is a member no more. It fails with a NodeFailed when the node
            has stopped by itself, as after a failed write. `stop` then closes the rest.
        """
        stopped = self.raft.when_stopped().addCallback(_told_apart)
        return Outcome.of(stopped)

    def when_stopping(self) -> Outcome[RaftError | None]:
        """Wait until this node begins to stop, as `Raft.when_stopping`."""
        return Outcome.of(self.raft.when_stopping())

    def when_ready(self) -> Outcome[str]:
        """Wait for a leader, this node or another.

        Returns: an Outcome of its address, as `Raft.when_leader`.
        """
        return Outcome.of(self.raft.when_leader())

    def reload(self) -> None:
        """Reread the certificates, for connections from now on.

        Raises: ConfigError, and the old ones stay in force.
        """
        if self._settings.tls is not None:
            self._settings.tls.reload()

    # Use

    @property
    def raft(self) -> Raft:
        """The part that replicates, with roles, membership, snapshots and status.

        Raises: RuntimeError before the start.
        """
        if self._raft is None:
            raise RuntimeError(
                f"{self!r} does not run yet: use it in an `async with`, or wait for "
                "its start"
            )
        return self._raft

    @property
    def address(self) -> str:
        """This node's address as its peers know it."""
        return self._settings.address

    def apply(self, data: bytes, timeout: float | None = None) -> Outcome[ApplyResult]:
        """Replicate the command *data* and apply it to the machine of every member.

        Any member takes it, by way of the leader. *timeout*, in seconds, by default
        that of the node, bounds the wait for a leader that takes it; on the leader not
        the wait to be committed, and elsewhere that, too. 0 is no bound. Cancelling
        before the command leaves, or is appended, withdraws it; later it only stops the
        wait, and it may commit.

        Returns: an Outcome of an ApplyResult, once the command is committed and applied
            here. It fails as `Raft.apply`, with NotLeader when no leader took it in
            time, or when the leader takes commands of no other member, as one of Go;
            and with OutcomeUnknown when it may commit, and the leader's answer does not
            come or not in time.
        Raises: TypeError, ValueError: as `Raft.apply`.
        """
        raft, deadline = self.raft, self._deadline(timeout)
        # At once, without a coroutine, where this node leads: this is the hot path.
        if raft.state is RaftState.LEADER:
            limit = self.timeout if timeout is None else timeout
            applied = raft.apply(data, limit)
            applied.addErrback(self._try_again, data, deadline)
            return Outcome.of(applied)
        return Outcome.of(self._forwarder_made.apply(data, deadline))

    def linearizable(
        self, timeout: float | None = None, *, max_stale: float = 0.0
    ) -> Outcome[int]:
        """Wait until a read of the machine here sees all that was committed before now.

        Any member answers it, after a question to the leader. *timeout* bounds the
        wait, as for `apply`. With *max_stale*, in seconds, it is enough to see what was
        committed that long ago; then most reads ask nobody.

        Returns: an Outcome of the applied index; read as soon as it fires. It fails
            with NotLeader when no leader has confirmed it in time, or the leader
            answers no other member; and with ReadTimedOut when what it has to see was
            not applied here in time.
        Source: Raft dissertation §6.4.
        """
        self.raft  # noqa: B018 - says so before the start
        deadline = self._deadline(timeout)
        return Outcome.of(self._forwarder_made.linearizable(deadline, max_stale))

    def _deadline(self, timeout: float | None) -> float:
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        assert self._clock is not None, "it is there before the Raft is"
        return self._clock.seconds() + seconds if seconds else inf

    def _try_again(
        self, failure: Failure, data: bytes, deadline: float
    ) -> Deferred[ApplyResult]:
        """Go on with a command that this node did not append, as it led no more."""
        if failure.check(NotLeader, TransferInProgress):
            return self._forwarder_made.apply(data, deadline)
        return fail(failure)

    @property
    def _forwarder_made(self) -> Forwarder:
        assert self._forwarder is not None, "it is made with the Raft"
        return self._forwarder

    # What start and stop do

    async def _start(self) -> None:
        try:
            member = self._member = Member(self._host(), self._settings, self._machine)
            self._raft = await member.open()
            self._forwarder = member.forwarder()
            await member.take_part()
            self._takes_part = True
            self._watch_certificates()
            bind(self._machine, self)
        except Exception:
            # Also when it was cancelled, from wherever. What was opened is closed
            # before anybody hears of the failure: they may try again.
            try:
                await _uninterrupted(Deferred.fromCoroutine(self._close()))
            except Exception:
                self.log.failure("{node} did not close", node=self)
            raise
        finally:
            self._has_begun.fire(None)

    async def _stop(self) -> None:
        if self._work is None:
            unbind(self._machine)  # which the constructor has taken
            return
        # One that is under way closes what it has opened, or it is too late for that.
        self._work.cancel()
        await self._has_begun.when()
        if self._takes_part:
            assert self._member is not None, "what takes part was opened"
            await self._member.leave()
            await self._close()

    def _watch_certificates(self) -> None:
        """Log what is odd about the certificates, and before one of them expires."""
        tls = self._settings.tls
        if tls is None:
            return
        assert self._clock is not None, "it is there before the Raft is"
        for warning in tls.warnings:
            self.log.warn("{found}", found=warning)
        self._watch = ValidityWatch(lambda: tls.validities, self._clock)
        self._watch.start()

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        try:
            if self._member is not None:
                await self._member.close()
        finally:
            unbind(self._machine)
            borrowed, self._borrowed = self._borrowed, None
            if borrowed is not None:
                await borrowed.give_back()

    def host_on(self, reactor: Any, settings: MemberSettings) -> Host:
        """Make what this node needs of its machine; tests have one in memory."""
        return ThisHost(reactor, settings)

    def _host(self) -> Host:
        if self._given is None:
            self._borrowed = borrow_reactor()
            reactor = self._borrowed.reactor
        else:
            reactor = self._given
            use_monotonic_time(reactor)
        host = self.host_on(reactor, self._settings)
        self._clock = host.clock
        return host


class _Event:
    """Something that happens once, and those who wait for it."""

    log = Logger()

    def __init__(self) -> None:
        self._has_fired = False
        self._result: Failure | None = None
        self._waiting: dict[Outcome[None], None] = {}

    def fire(self, result: Failure | None) -> None:
        """Tell all who wait."""
        self._has_fired, self._result = True, result
        waiting, self._waiting = self._waiting, {}
        if isinstance(result, Failure) and not waiting:
            self.log.failure("nobody waits for what has failed", failure=result)
        for waiter in waiting:
            waiter.callback(result)

    def when(self) -> Outcome[None]:
        """Wait for it; cancelling only ends the wait."""
        waiter: Outcome[None] = Outcome(lambda _: self._waiting.pop(waiter, None))
        if self._has_fired:
            waiter.callback(self._result)
        else:
            self._waiting[waiter] = None
        return waiter


def _uninterrupted(work: Deferred[None]) -> Uninterrupted[None]:
    """Return what fires as *work* does, and cannot be cancelled."""
    waiter: Uninterrupted[None] = Uninterrupted()
    work.addBoth(waiter.callback)
    return waiter


def _told_apart(reason: RaftError | None) -> NodeRemoved | None:
    """Return why a node has stopped in order. Raises: the reason, if it has failed"""
    if reason is None or isinstance(reason, NodeRemoved):
        return reason
    raise reason
