"""`KVNode`: build the key-value node of `twistd raft` from its settings, and run it.

Its parts are opened in the order in which they stand here, and closed the other way
round. An application with a state machine of its own builds its `Raft` in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool

from txraft.addresses import is_loopback, parse_listen
from txraft.client.exchange import connection_pool, pooled_client
from txraft.core.configuration import Server
from txraft.daemon.keyring import Keyring
from txraft.daemon.shutdown import Shutdown, give_up_leadership
from txraft.errors import ConfigError, RaftError
from txraft.http.origins import Origins
from txraft.http.site import KVSite, make_site
from txraft.kv.state import KeyValueFSM
from txraft.node.events import RaftState
from txraft.node.raft import Raft
from txraft.node.worker import Worker, Workers
from txraft.settings.settings import HTTPSettings, Settings
from txraft.storage.directory import DataDirectory
from txraft.storage.peer_stores import JSONPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stores import Stores, open_stores
from txraft.transport.identity import PeerNames
from txraft.transport.identity_check import IdentityCheck
from txraft.transport.network import NetworkTransport
from txraft.transport.refusals import Refusals
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.tls import TLSStreamLayer
from txraft.transport.validity import ValidityWatch

SNAPSHOTS_RETAINED = 2


class KVNode:
    """One node of the replicated key-value store, with its files, TCP and HTTP.

    *reactor* needs monotonic timers, see `txraft.clock`. `fsm` holds the keys. `raft`
    is None until `start` has opened what it needs.
    Thread: reactor.
    """

    log = Logger()

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self.fsm = KeyValueFSM()
        self.fsm.later = lambda call: reactor.callLater(0, call)
        self.raft: Raft | None = None
        self._reactor = reactor
        self._settings = settings
        self._directory: DataDirectory | None = None
        self._transport: NetworkTransport | None = None
        self._stores: Stores | None = None
        self._pool: HTTPConnectionPool | None = None
        self._port: IListeningPort | None = None
        self._site: KVSite | None = None
        self._shutdown: Shutdown | None = None
        self._takes_part = False
        self._keyring: Keyring | None = None
        self._watch: ValidityWatch | None = None

    def start(self) -> Deferred[None]:
        """Open everything and take part.

        Returns: a Deferred that fires when the node takes part. It fails with the
            RaftError, OSError or CannotListenError that prevents it. Call `stop` then,
            too: it closes what was already opened.
        """
        return Deferred.fromCoroutine(self._start())

    def when_stopped(self) -> Deferred[RaftError | None]:
        """Fire when the node has stopped, with the reason if it stopped itself."""
        return succeed(None) if self.raft is None else self.raft.when_stopped()

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Fire when the node begins to stop, with the reason if it stops itself."""
        return succeed(None) if self.raft is None else self.raft.when_stopping()

    def when_ready(self) -> Deferred[str]:
        """Fire with the leader's address once one is known; fails with RaftShutdown."""
        assert self.raft is not None, "a node that has started is asked"
        return self.raft.when_leader()

    def reload(self) -> None:
        """Reread certificates and tokens; where a file is broken, the old one stays."""
        if self._keyring is None:
            return
        problems = self._keyring.reload()
        for problem in problems:
            self.log.error(
                "Not reloaded, the old one stays: {problem}", problem=problem
            )
        if not problems:
            self.log.info("Certificates and tokens were reread")
        for warning in self._keyring.warnings:
            self.log.warn("{found}", found=warning)
        if self._watch is not None:
            self._watch.look()  # at once: an operator wants to see the new end

    def stop(self) -> Deferred[None]:
        """Answer the requests in flight, then close all that was opened.

        Leadership is transferred first, so that clients find another node: see
        `Shutdown`. A node that stopped itself, or never took part, only closes.

        Returns: a Deferred that fires when that is done.
        Durable: all that was written.
        """
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Stop waiting for clients, if this node is stopping; idempotent."""
        if self._shutdown is not None:
            self._shutdown.hurry()

    async def _start(self) -> None:
        settings = self._settings
        name = settings.id or settings.advertise
        # Certificates first: a node whose files are wrong must not hold the lock. The
        # lock of the data directory comes before all that opens a file in it.
        self._keyring = keyring = Keyring(settings)
        self._directory = directory = DataDirectory(settings.data_dir, name)
        self._transport = transport = self._make_transport(keyring)
        # Before the stores are opened, which may take minutes: so a port in use ends
        # the start at once.
        await transport.listen()
        self._stores = stores = open_stores(settings.store, directory, name)
        workers = Workers.threaded(self._reactor)
        self.raft = raft = Raft(
            config=settings.raft,
            fsm=self.fsm,
            log_store=stores.log,
            stable_store=stores.stable,
            snapshots=FileSnapshotStore(directory.path, SNAPSHOTS_RETAINED),
            peer_store=BootstrapPeers(settings.peers, JSONPeers(directory.path)),
            local_addr=settings.advertise,
            transport=transport,
            clock=self._reactor,
            workers=workers,
            server_id=settings.id,
        )
        self.fsm.is_awaited = raft.is_awaited
        # Before `raft.start`: no message of a peer may be taken that was not checked
        # against the name in its certificate.
        if keyring.peers is not None:
            patience = settings.raft.heartbeat_timeout
            now = self._reactor.seconds
            transport.set_identity_check(
                IdentityCheck(keyring.names, raft, now, patience)
            )
        # Also before `raft.start`: /livez answers while a long log is still recovered.
        if settings.http is not None:
            self._port = await self._serve(
                raft, settings.http, keyring, workers.snapshot
            )
        self._warn([*stores.warnings, *keyring.warnings])
        self._watch = ValidityWatch(lambda: keyring.validities, self._reactor)
        self._watch.start()
        await raft.start()
        self._takes_part = True
        # Again, as the settings were checked: the log may hold other members than they
        # list.
        if keyring.peers is not None:
            _refuse_shared_names(keyring.names, raft.configuration.addresses)
        self.log.info(
            "{node} takes part; it listens at {listen} for peers, HTTP is at {url}, "
            "data in {directory}",
            node=settings.advertise,
            listen=settings.listen,
            url=settings.http.advertise if settings.http else "no address",
            directory=settings.data_dir,
        )

    def _make_transport(self, keyring: Keyring) -> NetworkTransport:
        settings, reactor = self._settings, self._reactor
        limits = settings.limits.connections
        endpoint = serverFromString(reactor, settings.listen)
        tcp = TCPStreamLayer(reactor, endpoint, settings.advertise)
        tls = keyring.peers
        return NetworkTransport(
            reactor,
            tcp if tls is None else TLSStreamLayer(tcp, tls, reactor, limits),
            limits=settings.limits.messages,
            connection_limits=limits,
        )

    def _serve(
        self, raft: Raft, http: HTTPSettings, keyring: Keyring, worker: Worker
    ) -> Deferred[IListeningPort]:
        limits = self._settings.limits.http
        idle_seconds = max(1, int(limits.idle_timeout / 2))
        self._pool = pool = connection_pool(
            self._reactor, limits.max_idle_forwards, idle_seconds
        )
        self._site = site = make_site(
            raft,
            self.fsm,
            pooled_client(self._reactor, pool, limits.connect_timeout, keyring.http),
            self._reactor,
            limits,
            address=self._settings.advertise,
            url=http.advertise,
            worker=worker,
            name=self._settings.node_name or "",
            access=keyring.access,
            origins=Origins(http.allowed_origins),
            meta={"insecure_peers": "true"} if self._settings.insecure_peers else {},
            validities=lambda: keyring.validities,
            refusals=Refusals(
                self._reactor, self._settings.limits.connections, "HTTP connection"
            ),
        )
        tls = keyring.http
        listening: Deferred[IListeningPort] = serverFromString(
            self._reactor, http.listen
        ).listen(site if tls is None else tls.wrap(site, self._reactor))
        return listening

    def _warn(self, warnings: Sequence[str]) -> None:
        settings = self._settings
        for warning in warnings:
            self.log.warn("{found}", found=warning)
        exposed = {"peers": settings.listen} if settings.tls is None else {}
        if settings.http is not None and settings.http.insecure:
            exposed["HTTP"] = settings.http.listen
        for whom, listen in exposed.items():
            if not is_loopback(parse_listen(listen).host):
                self.log.warn(
                    "Other machines reach {listen} ({whom}), and nothing "
                    "authenticates or encrypts what they send",
                    listen=listen,
                    whom=whom,
                )

    async def _take_leave(self, raft: Raft) -> None:
        if raft.state is RaftState.SHUTDOWN:
            return  # it stopped itself: no request can be served any more
        if self._site is None or self._port is None:
            await give_up_leadership(raft, self._reactor)
            return
        limits = self._settings.limits.http
        self._shutdown = Shutdown(raft, self._site, self._port, self._reactor, limits)
        await self._shutdown.run()

    async def _stop(self) -> None:
        # The reverse order of `_start`. Each part may be missing, as a start may fail
        # at any step. Stores close after Raft, which writes to them until its end; the
        # lock of the directory goes last, so that no other process opens them before.
        if self._watch is not None:
            self._watch.stop()
        raft = self.raft
        if raft is not None and self._takes_part:
            await self._take_leave(raft)
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        if raft is not None:
            await raft.shutdown()
        elif self._transport is not None:  # `raft.shutdown` closes it otherwise
            await self._transport.close()
        if self._pool is not None:
            await self._pool.closeCachedConnections()
        if self._stores is not None:
            self._stores.close()
        if self._directory is not None:
            self._directory.close()


def _refuse_shared_names(names: PeerNames, addresses: Sequence[str]) -> None:
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

    def __init__(self, members: Sequence[Server], file: JSONPeers) -> None:
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
