"""`Host`: what a member needs of its machine; `ThisHost` has files, TCP and threads.

A seam for tests: with a `Host` in memory a whole `Member` runs on a `task.Clock`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime

from txraft.config import Config
from txraft.core.configuration import Server
from txraft.interfaces import PeerStore, ServerPeerStore, SnapshotStore, Transport
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.peer_stores import JSONPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stores import Stores, open_stores
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.identity import PeerNames
from txraft.transport.identity_check import IdentityCheck
from txraft.transport.network import NetworkTransport
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.tls import PeerTLS, TLSStreamLayer
from txraft.wire.stream import MessageLimits

SNAPSHOTS_RETAINED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings:
    """What makes a member: *address* is what peers dial, *listen* an endpoint.

    *peers* are the first members; without any it waits to be added. *tls* has the
    certificates in force, *names* the identities of addresses.
    """

    directory: str
    address: str
    listen: str
    peers: tuple[Server, ...] = ()
    server_id: str | None = None
    store: str = "file"
    config: Config = field(default_factory=Config)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    messages: MessageLimits = field(default_factory=MessageLimits)
    tls: PeerTLS | None = None
    names: PeerNames = field(default_factory=PeerNames)

    @property
    def name(self) -> str:
        """The name that this member's files bear."""
        return self.server_id or self.address


class MemberTransport(Transport, Protocol):
    """A transport that a member opens and closes."""

    def listen(self) -> Deferred[None]:
        """Begin to accept connections. It fails when it cannot."""

    def set_identity_check(self, check: IdentityCheck) -> None:
        """Let *check* decide which sender may use a connection."""

    def close(self) -> Deferred[None]:
        """End every connection; idempotent."""


class PeerFile(PeerStore, ServerPeerStore, Protocol):
    """A list of members for humans, by address or by id."""


class Host(Protocol):
    """The machine of one member. Every method is called once, in this order."""

    @property
    def clock(self) -> IReactorTime:
        """The timers, which must be monotonic."""

    def lock(self) -> None:
        """Keep others away from the files. Raises: DirectoryLocked"""

    def transport(self) -> MemberTransport:
        """Make the transport; it does not listen yet."""

    def stores(self) -> Stores:
        """Open log, term and vote."""

    def workers(self) -> Workers:
        """Make what runs blocking work."""

    def snapshots(self) -> SnapshotStore:
        """Make the store of snapshots."""

    def peer_file(self) -> PeerFile:
        """Make the list of members for humans."""

    def unlock(self) -> None:
        """Let others at the files; idempotent, and harmless without a lock."""


class ThisHost:
    """The operating system, through a *reactor* with monotonic timers."""

    def __init__(self, reactor: Any, settings: MemberSettings) -> None:
        self.clock: IReactorTime = reactor
        self._reactor = reactor
        self._settings = settings
        self._directory: DataDirectory | None = None

    def lock(self) -> None:
        """Make the directory and lock it. Raises: DirectoryLocked, StorageError"""
        settings = self._settings
        self._directory = DataDirectory(settings.directory, settings.name)

    def transport(self) -> MemberTransport:
        """Make a transport of TCP, with TLS if there are certificates."""
        settings, reactor = self._settings, self._reactor
        endpoint = serverFromString(reactor, settings.listen)
        tcp = TCPStreamLayer(reactor, endpoint, settings.address)
        tls, limits = settings.tls, settings.connections
        return NetworkTransport(
            reactor,
            tcp if tls is None else TLSStreamLayer(tcp, tls, reactor, limits),
            limits=settings.messages,
            connection_limits=limits,
        )

    def workers(self) -> Workers:
        """Make threads."""
        return Workers.threaded(self._reactor)

    def stores(self) -> Stores:
        """Open the files. Raises: StorageError, OSError"""
        settings = self._settings
        return open_stores(settings.store, self._locked, settings.name)

    def snapshots(self) -> SnapshotStore:
        """Make a store of files."""
        return FileSnapshotStore(self._locked.path, SNAPSHOTS_RETAINED)

    def peer_file(self) -> PeerFile:
        """Make the file `peers.json`."""
        return JSONPeers(self._locked.path)

    def unlock(self) -> None:
        """Give the directory free."""
        if self._directory is not None:
            self._directory.close()

    @property
    def _locked(self) -> DataDirectory:
        assert self._directory is not None, "the lock comes before all that opens files"
        return self._directory
