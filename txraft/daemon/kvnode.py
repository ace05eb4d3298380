"""`KVNode`: build the key-value node of `twistd raft` from its settings, and run it.

It is a `Member` with HTTP around it. An application with a state machine of its own
has `txraft.Node`, which is one as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool

from txraft.client.exchange import connection_pool, pooled_client
from txraft.daemon.keyring import Keyring
from txraft.daemon.shutdown import Shutdown
from txraft.embedding.host import MemberSettings, ThisHost
from txraft.embedding.member import Member, warn_if_exposed
from txraft.errors import RaftError
from txraft.http.origins import Origins
from txraft.http.site import KVSite, make_site
from txraft.kv.state import KeyValueFSM
from txraft.node.events import RaftState
from txraft.node.raft import Raft
from txraft.node.worker import Worker
from txraft.settings.settings import HTTPSettings, Settings
from txraft.transport.refusals import Refusals
from txraft.transport.validity import ValidityWatch


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
        self._member: Member | None = None
        self._pool: HTTPConnectionPool | None = None
        self._port: IListeningPort | None = None
        self._site: KVSite | None = None
        self._shutdown: Shutdown | None = None
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
        # Certificates first: a node whose files are wrong must not hold the lock.
        self._keyring = keyring = Keyring(settings)
        of_member = _member_settings(settings, keyring)
        self._member = member = Member(
            ThisHost(self._reactor, of_member), of_member, self.fsm
        )
        self.raft = raft = await member.open()
        self.fsm.is_awaited = raft.is_awaited
        # Before the member takes part: /livez answers while a long log is still
        # recovered.
        if settings.http is not None:
            self._port = await self._serve(
                raft, settings.http, keyring, member.snapshot_worker
            )
        self._warn(keyring.warnings)
        self._watch = ValidityWatch(lambda: keyring.validities, self._reactor)
        self._watch.start()
        await member.take_part()
        self.log.info(
            "{node} takes part; it listens at {listen} for peers, HTTP is at {url}, "
            "data in {directory}",
            node=settings.advertise,
            listen=settings.listen,
            url=settings.http.advertise if settings.http else "no address",
            directory=settings.data_dir,
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
        for warning in warnings:
            self.log.warn("{found}", found=warning)
        http = self._settings.http
        if http is not None:
            warn_if_exposed(http.listen, "HTTP", not http.insecure)

    async def _take_leave(self, member: Member) -> None:
        raft = self.raft
        if raft is None or raft.state is RaftState.SHUTDOWN or not member.takes_part:
            return  # it stopped itself, or never took part: no request can be served
        if self._site is None or self._port is None:
            await member.leave()
            return
        limits = self._settings.limits.http
        self._shutdown = Shutdown(raft, self._site, self._port, self._reactor, limits)
        await self._shutdown.run()

    async def _stop(self) -> None:
        # The reverse order of `_start`. Each part may be missing, as a start may fail
        # at any step.
        if self._watch is not None:
            self._watch.stop()
        member = self._member
        if member is None:
            return
        await self._take_leave(member)
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        if self._pool is not None:
            await self._pool.closeCachedConnections()
        await member.close()


def _member_settings(settings: Settings, keyring: Keyring) -> MemberSettings:
    return MemberSettings(
        directory=settings.data_dir,
        address=settings.advertise,
        listen=settings.listen,
        peers=settings.peers,
        server_id=settings.id,
        store=settings.store,
        config=settings.raft,
        connections=settings.limits.connections,
        messages=settings.limits.messages,
        tls=keyring.peers,
        names=keyring.names,
    )
