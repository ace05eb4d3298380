"""`Member`: the parts of one member, opened in order and closed the other way round.

    lock ── transport ── stores ── workers ── Raft ── identity check ── take part
                                                                            │
    unlock ── stores ── Raft, workers, transport ── transfer of leadership ─┘

A start may fail at any step, so `close` closes what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txraft.addresses import is_loopback, parse_listen
from txraft.core.configuration import Configuration, Server
from txraft.embedding.host import Host, MemberSettings, MemberTransport, PeerFile
from txraft.errors import ConfigError, RaftError, RaftShutdown
from txraft.interfaces import FSM
from txraft.node.events import RaftState
from txraft.node.forwarding import Forwarder
from txraft.node.raft import Raft
from txraft.node.worker import Worker, Workers
from txraft.storage.stores import Stores
from txraft.transport.identity import PeerNames
from txraft.transport.identity_check import IdentityCheck

TRANSFER_TIMEOUT = 1.5
"""The most seconds for the transfer of leadership."""


class Member:
    """One member with its files and connections, which keeps *fsm* equal to the others.

    `raft` is None until `open` has made it; `takes_part` is true from the end of
    `take_part` on.
    Thread: reactor.
    """

    log = Logger()

    def __init__(self, host: Host, settings: MemberSettings, fsm: FSM) -> None:
        self.raft: Raft | None = None
        self._host = host
        self._settings = settings
        self._fsm = fsm
        self._transport: MemberTransport | None = None
        self._workers: Workers | None = None
        self._stores: Stores | None = None
        self.takes_part = False
        self._is_closing = False

    @property
    def snapshot_worker(self) -> Worker:
        """The worker of snapshots, once `open` has ended."""
        assert self._workers is not None, "a member that was opened is asked"
        return self._workers.snapshot

    async def open(self) -> Raft:
        """Open all that is needed, and return the Raft, which has not started yet.

        Raises: RaftError, OSError or CannotListenError; call `close` then, too.
        """
        host, settings = self._host, self._settings
        # First: all that opens a file comes after the lock.
        host.lock()
        self._transport = transport = host.transport()
        # Before the stores are opened, which may take minutes: so a port in use ends
        # the start at once.
        await transport.listen()
        self._go_on()
        # On the reactor's thread: what is wrong with the files is found before this
        # returns, and so before a daemon tells that it has started.
        self._stores = stores = host.stores()
        self._workers = workers = host.workers()
        self.raft = raft = Raft(
            config=settings.config,
            fsm=self._fsm,
            log_store=stores.log,
            stable_store=stores.stable,
            snapshots=host.snapshots(),
            peer_store=BootstrapPeers(settings.peers, host.peer_file()),
            local_addr=settings.address,
            transport=transport,
            clock=host.clock,
            workers=workers,
            server_id=settings.server_id,
        )
        # Before `raft.start`: no message of a peer may be taken that was not checked
        # against the name in its certificate.
        if settings.tls is not None:
            patience = settings.config.heartbeat_timeout
            transport.set_identity_check(
                IdentityCheck(settings.names, raft, host.clock.seconds, patience)
            )
        self._warn(stores.warnings)
        return raft

    def forwarder(self) -> Forwarder:
        """Make what takes commands and reads here for a leader elsewhere."""
        raft, transport = self.raft, self._transport
        assert raft is not None, "a member is opened before that"
        assert transport is not None, "it was made before the Raft"
        return Forwarder(raft, transport, self._host.clock)

    async def take_part(self) -> None:
        """Start the Raft. Raises: as `Raft.start`, and ConfigError"""
        raft, settings = self.raft, self._settings
        assert raft is not None, "a member is opened before it takes part"
        await raft.start()
        self.takes_part = True
        # Only now: the log may hold other members than the settings list.
        if settings.tls is not None:
            refuse_shared_names(settings.names, raft.configuration.addresses)

    async def leave(self) -> None:
        """Transfer leadership, if this node leads and takes part."""
        if self.raft is not None and self.takes_part:
            await give_up_leadership(self.raft, self._host.clock)

    async def close(self) -> None:
        """Close what was opened. Durable: all that was written."""
        self._is_closing = True
        # Raft first, as it writes to the stores until it has stopped, and the lock
        # last, so that no other process opens them before: also if something fails.
        try:
            await self._stop()
        finally:
            try:
                if self._stores is not None:
                    self._stores.close()
            finally:
                self._host.unlock()

    async def _stop(self) -> None:
        if self.raft is not None:
            await self.raft.shutdown()  # which ends workers and transport as well
            return
        if self._workers is not None:
            await self._workers.stop()
        if self._transport is not None:
            await self._transport.close()

    def _go_on(self) -> None:
        """Open no more of a member that is being closed. Raises: RaftShutdown"""
        if self._is_closing:
            raise RaftShutdown("it was closed while it started")

    def _warn(self, warnings: Sequence[str]) -> None:
        settings = self._settings
        for warning in warnings:
            self.log.warn("{found}", found=warning)
        warn_if_exposed(settings.listen, "peers", settings.tls is not None)


class LeavingRaft(Protocol):
    """The part of `Raft` that leaves its leadership to another."""

    @property
    def address(self) -> str:
        """The address of this node."""

    @property
    def state(self) -> RaftState:
        """The role of this node."""

    @property
    def configuration(self) -> Configuration:
        """The membership as this node knows it."""

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        """Transfer leadership; fails with RaftError."""


async def give_up_leadership(raft: LeavingRaft, clock: IReactorTime) -> None:
    """Transfer leadership, so that the others need not wait for an election timeout."""
    if raft.state is not RaftState.LEADER:
        return
    others = [voter for voter in raft.configuration.voters if voter != raft.address]
    if not others:
        return
    transferred = raft.transfer_leadership()
    try:
        await transferred.addTimeout(TRANSFER_TIMEOUT, clock)
    except (RaftError, TimeoutError) as error:
        Member.log.info("Leadership was not transferred: {why}", why=str(error))


def warn_if_exposed(listen: str, whom: str, is_secured: bool) -> None:
    """Log a warning if others than this machine reach *listen*, and nothing is secured.

    *whom* names for whom it is.
    """
    if is_secured or is_loopback(parse_listen(listen).host):
        return
    Member.log.warn(
        "Other machines reach {listen} ({whom}), and nothing authenticates or "
        "encrypts what they send",
        listen=listen,
        whom=whom,
    )


def refuse_shared_names(names: PeerNames, addresses: Sequence[str]) -> None:
    """Refuse two members with one certificate name. Raises: ConfigError"""
    problems = [
        f"tls.server_names: the members {first} and {second} share the name {name}; "
        "give each its own, for which its certificate is"
        for name, first, second in names.shared(addresses)
    ]
    if problems:
        raise ConfigError(problems)


class BootstrapPeers:
    """A `PeerStore` whose members, for bootstrap, are those of the settings.

    Later memberships are written to *file*, for humans to read; nothing reads them
    back: after the bootstrap only the log says who is a member.
    """

    def __init__(self, members: Sequence[Server], file: PeerFile) -> None:
        self._members = tuple(members)
        self._file = file

    def peers(self) -> list[str]:
        """Return the addresses of the settings, whatever the file holds."""
        return [member.address for member in self._members]

    def servers(self) -> list[Server]:
        """Return the members of the settings, whatever the file holds."""
        return list(self._members)

    def set_peers(self, peers: Sequence[str]) -> None:
        """Write *peers* to the file. Durable: when this returns."""
        self._file.set_peers(peers)

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Write *servers* with ids to the file. Durable: when this returns."""
        self._file.set_servers(servers)
