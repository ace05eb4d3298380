"""The HTTP server of a node: wire the API, and bound and count its connections.

It does not do TLS, which is wrapped around it, nor an access log, nor HTTP/2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
)
from twisted.web.http import Request
from twisted.web.server import Site

from txraft.http.advertise import Advertiser
from txraft.http.agent import Agent
from txraft.http.answers import RETRY_AFTER, not_applied
from txraft.http.api import API
from txraft.http.auth import AccessPolicy
from txraft.http.backend import RaftNode
from txraft.http.backups import Backups
from txraft.http.catalog import Catalog
from txraft.http.channel import KVChannel, KVRequest
from txraft.http.cluster import ClusterAPI
from txraft.http.expiry import Expiry
from txraft.http.forward import Forwarder
from txraft.http.keys import Keys
from txraft.http.leading import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.metrics import PARAMETERS as METRICS_PARAMETERS
from txraft.http.metrics import PATH as METRICS
from txraft.http.metrics import Metrics, RequestCounts
from txraft.http.origins import Origins
from txraft.http.quotas import Quotas
from txraft.http.reads import Reads
from txraft.http.routes import Route, Routes, routes
from txraft.http.sessions import Sessions
from txraft.http.slices import Slices
from txraft.http.spool import Spool
from txraft.http.transactions import Transactions
from txraft.http.unread import Unread
from txraft.http.waits import Waits
from txraft.http.writes import Writes
from txraft.kv.state import KeyValueFSM
from txraft.node.worker import Worker
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.refusals import Refusals
from txraft.transport.unauthenticated import UnauthenticatedConnections, host_of
from txraft.transport.validity import Validities, no_certificates

RESERVED_FOR_NODE = 192
"""File descriptors for log, snapshots, peers and forwarding."""

RESERVED_FOR_FORWARDS = 64
"""File descriptors for requests that other members forward."""


def make_api(
    raft: RaftNode,
    fsm: KeyValueFSM,
    client: HTTPClient,
    clock: IReactorTime,
    limits: HTTPLimits,
    address: str,
    worker: Worker,
    more: Routes | None = None,
    access: AccessPolicy | None = None,
    meta: Mapping[str, str] | None = None,
    origins: Origins | None = None,
    validities: Validities = no_certificates,
    name: str = "",
) -> API:
    """Make the resource that serves the node at the peer *address*.

    - *client* forwards to the leader; its pool is made by
      `txraft.client.exchange.connection_pool`.
    - *worker*, that of snapshots, does all long work.
    - *more* holds routes besides those of this package.
    - *access* gives each request a role; without it everybody may do everything.
    - *origins* decides about requests of pages in browsers.
    - *meta* is shown in ``/v1/agent/self``, and so is the expiry of the certificates in
      *validities*.
    - *name* is the name of the node, if that is not its address.
    """
    forwarder = Forwarder(client, clock, limits, address)
    leadership = Leadership(raft, fsm, forwarder, clock, limits)
    reads = Reads(raft, leadership, clock)
    quotas = Quotas(fsm, limits)
    writes = Writes(raft, fsm, leadership, quotas, limits)
    expiry = Expiry(raft, fsm, clock)
    slices = Slices(clock)
    catalog = Catalog(raft, fsm, address, name or address)
    table = routes(
        Keys(fsm, reads, writes, slices, limits),
        Transactions(fsm, reads, writes, slices, limits),
        Sessions(
            fsm=fsm,
            reads=reads,
            writes=writes,
            slices=slices,
            limits=limits,
            leadership=leadership,
            expiry=expiry,
            catalog=catalog,
        ),
        ClusterAPI(raft, fsm, leadership, catalog, clock),
        Agent(raft, catalog, reads, limits, meta, validities),
        Backups(
            raft=raft,
            fsm=fsm,
            reads=reads,
            leadership=leadership,
            quotas=quotas,
            worker=worker,
            clock=clock,
            limits=limits,
        ),
    )
    waits = Waits(fsm, clock, limits)
    table |= more or {}
    metrics = Metrics(raft, quotas, RequestCounts(), validities)
    table[METRICS] = {b"GET": Route(metrics.get, METRICS_PARAMETERS)}
    return API(
        table=table,
        leadership=leadership,
        waits=waits,
        expiry=expiry,
        catalog=catalog,
        metrics=metrics,
        clock=clock,
        limits=limits,
        access=access,
        origins=origins,
    )


def make_site(
    raft: RaftNode,
    fsm: KeyValueFSM,
    client: HTTPClient,
    clock: IReactorTime,
    limits: HTTPLimits,
    *,
    address: str,
    url: str,
    worker: Worker,
    more: Routes | None = None,
    access: AccessPolicy | None = None,
    meta: Mapping[str, str] | None = None,
    refusals: Refusals | None = None,
    origins: Origins | None = None,
    validities: Validities = no_certificates,
    name: str = "",
) -> KVSite:
    """Make the server of one node.

    Peers know the node by *address* and reach this server at *url*; from `startFactory`
    on the node advertises that. *refusals* logs connections that were refused. All
    others are those of `make_api`.
    """
    api = make_api(
        raft=raft,
        fsm=fsm,
        client=client,
        clock=clock,
        limits=limits,
        address=address,
        worker=worker,
        more=more,
        access=access,
        meta=meta,
        origins=origins,
        validities=validities,
        name=name,
    )
    forwarder = Forwarder(client, clock, limits, address)
    advertiser = Advertiser(
        raft=raft,
        fsm=fsm,
        forwarder=forwarder,
        clock=clock,
        address=address,
        url=url,
        name=name,
    )

    def is_member(name: bytes) -> bool:
        return name.decode("utf-8", "replace") in raft.configuration.addresses

    return KVSite(
        api=api,
        advertiser=advertiser,
        clock=clock,
        limits=limits,
        worker=worker,
        is_member=is_member,
        refusals=refusals,
    )


class KVSite(Site):
    """The factory of HTTP connections; it counts and bounds them."""

    protocol = KVChannel  # type: ignore[assignment]  # the plain one, without HTTP/2

    def __init__(
        self,
        api: API,
        advertiser: Advertiser,
        clock: IReactorTime,
        limits: HTTPLimits,
        worker: Worker,
        is_member: Callable[[bytes], bool],
        refusals: Refusals | None = None,
    ) -> None:
        Site.__init__(self, api, KVRequest, reactor=clock, timeout=limits.idle_timeout)
        self.limits = limits
        self.clock = clock
        self.api = api
        self.is_member = is_member
        new = ConnectionLimits(
            max_unauthenticated=limits.max_new_connections,
            max_unauthenticated_per_address=limits.max_new_connections_per_address,
            handshake_timeout=limits.read_timeout,
        )
        self.unauthenticated = UnauthenticatedConnections(clock, new)
        self.refusals = refusals or Refusals(clock, new, "HTTP connection")
        self.unread = Unread(limits.max_unread_bytes)
        self._held_bytes = 0
        allowed, _ = getrlimit(RLIMIT_NOFILE)
        for_clients, self.most_forwards = share_of_descriptors(allowed)
        self.most = min(limits.max_connections, for_clients)
        self.channels: set[KVChannel] = set()
        self.is_draining = False
        self._early: set[KVChannel] = set()
        api.may_wait = self._may_wait
        self._awaited: dict[Deferred[None], Callable[[], bool]] = {}
        self._advertiser = advertiser
        self._worker = worker
        self._spools: set[KVRequest] = set()

    def spool(self, request: KVRequest) -> Spool:
        """Make a file for the long body of *request*, whose head has just come.

        Raises: Refusal
        """
        if len(self._spools) >= self.limits.max_backups:
            raise not_applied("Too many backups are at work here.", RETRY_AFTER)
        try:
            producer = IPushProducer(request.channel.transport)
            spool = Spool(self._worker, producer, lambda: self._spools.discard(request))
        except OSError as error:
            raise not_applied(f"The backup cannot be kept here: {error}") from error
        self._spools.add(request)
        return spool

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocol of a connection; refuse it in a flood of new ones."""
        reason = self.unauthenticated.refusal_of(host_of(addr))
        if reason is None:
            return Site.buildProtocol(self, addr)
        self.refusals.tell(addr, reason)
        return None

    def hold(self, size: int) -> bool:
        """Count *size* more bytes of bodies; return False, uncounted, if too many."""
        if self._held_bytes + size > self.limits.max_bodies_bytes:
            return False
        self._held_bytes += size
        return True

    def startFactory(self) -> None:
        """Start to advertise the URL. Twisted's own would open an access log."""
        self._advertiser.start()

    def stopFactory(self) -> None:
        """Stop to advertise; close the connections, unless `drain` gives them time."""
        self._advertiser.stop()
        if not self.is_draining:
            self.close()

    def drain(self) -> None:
        """Ask clients to leave: each answer is now the last one of its connection.

        Blocking queries are dropped; so are those that the same connections send later,
        but not those on new connections. Call it again to drop these, too.
        """
        # A drain has three parts. The channel closes silent connections and ends busy
        # ones with an answer. This site counts those who were there at the beginning,
        # as load balancers may still send new ones. The daemon stops the listening.
        # Before the queries are dropped: what the same connections send next must not
        # wait again.
        self._early = set(self.channels)
        self.is_draining = True
        self.api.drain()
        for channel in list(self.channels):
            channel.drain()

    def when_left(self) -> Deferred[None]:
        """Fire once all connections from before the last `drain` are closed."""
        return self._when(lambda: not self._early)

    def when_empty(self) -> Deferred[None]:
        """Fire once no connection is open."""
        return self._when(lambda: not self.channels)

    def close(self) -> None:
        """Close idle connections now, and the others after their answer.

        Requests that wait for a leader are answered as not applied.
        """
        self.api.close()
        for channel in list(self.channels):
            channel.finish_up()

    def cut(self) -> None:
        """Cut every connection that is left."""
        for channel in list(self.channels):
            channel.forceAbortClient()

    def lost(self, channel: KVChannel) -> None:
        """Take *channel* off all counts: its connection is closed."""
        self.channels.discard(channel)
        self._early.discard(channel)
        # For speed: this runs at the end of each connection, and hardly ever does
        # anybody wait.
        if self._awaited:
            self._look()

    def _may_wait(self, request: Request) -> bool:
        """Return whether a blocking query may wait: not where a drain waits for it."""
        return request.channel not in self._early

    def _when(self, has_come: Callable[[], bool]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(self._forget)
        self._awaited[waiter] = has_come
        self._look()
        return waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        self._awaited.pop(waiter, None)

    def _look(self) -> None:
        # Two looks at each: a waiter that fires may cancel another one, or ask for
        # more.
        for waiter in [each for each, has_come in self._awaited.items() if has_come()]:
            if self._awaited.pop(waiter, None) is not None:
                waiter.callback(None)

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 only, whatever is installed."""
        return [b"http/1.1"]


def share_of_descriptors(allowed: int) -> tuple[int, int]:
    """Share *allowed* file descriptors: return how many for clients and for forwards.

    If there are few, clients get half of them.
    """
    # The log needs a descriptor whenever it begins a file, and a node that cannot write
    # stops: so clients never get them all.
    if allowed == RLIM_INFINITY:
        return sys.maxsize, RESERVED_FOR_FORWARDS
    for_forwards = min(RESERVED_FOR_FORWARDS, allowed // 8)
    for_node = min(RESERVED_FOR_NODE, allowed * 3 // 8)
    return max(1, allowed - for_node - for_forwards), for_forwards
