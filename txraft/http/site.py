"""The HTTP server of a node: connections, their limits, and what is wired behind.

Bodies and lines are bounded before they are read, and so is the time they take. What
this does not do: TLS, which is wrapped around it, an access log, HTTP/2.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any

from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import (
    BAD_REQUEST,
    FORBIDDEN,
    RESPONSES,
    HTTPChannel,
    Request,
    datetimeToString,
)
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.server import Site
from zope.interface import provider

from txraft.http.advertise import Advertiser
from txraft.http.agent import Agent
from txraft.http.answers import NOSNIFF, Refusal, not_applied
from txraft.http.api import API, RETRY_AFTER
from txraft.http.auth import Access
from txraft.http.backups import Backups
from txraft.http.cluster import Cluster
from txraft.http.expiry import Expiry
from txraft.http.forward import Forwarder
from txraft.http.keys import Keys
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.metrics import PARAMETERS as METRICS_PARAMETERS
from txraft.http.metrics import PATH as METRICS
from txraft.http.metrics import Metrics, Served
from txraft.http.node import Node
from txraft.http.reads import Reads
from txraft.http.routes import BACKUP, Endpoint, Routes, routes
from txraft.http.sessions import Sessions
from txraft.http.spool import Spool
from txraft.http.transactions import Transactions
from txraft.http.waits import Waits
from txraft.http.writes import Writes
from txraft.kv.state import KeyValueFSM
from txraft.node.worker import Worker
from txraft.transport.limits import ConnectionLimits
from txraft.transport.lobby import Guest, Lobby, host_of
from txraft.transport.refusals import Refusals
from txraft.transport.tls import why_lost

RESERVED_DESCRIPTORS = 256

_OF_STRANGERS = frozenset({BAD_REQUEST, FORBIDDEN})
"""What a request may be answered before anything is known of who has sent it."""

_REFUSED = "it may not send such a request", "refused"


def make_api(
    raft: Node,
    fsm: KeyValueFSM,
    client: HTTPClient,
    clock: IReactorTime,
    limits: HTTPLimits,
    address: str,
    worker: Worker,
    more: Routes | None = None,
    access: Access | None = None,
    meta: Mapping[str, str] | None = None,
) -> API:
    """Make the resource that serves the node at the peer *address*.

    What takes long is done on *worker*, the one of snapshots. *more* is served beside
    what is served anyway; *access* decides for whom, and without it everybody is
    served. *meta* is what the node tells of itself beside. *client* forwards to the
    leader, on a pool of `txraft.exchange.connection_pool`.
    """
    forwarder = Forwarder(client, clock, limits, address)
    leadership = Leadership(raft, fsm, forwarder, clock, limits)
    reads = Reads(raft, leadership, clock)
    writes = Writes(raft, leadership, limits)
    expiry = Expiry(raft, fsm, clock)
    table = routes(
        Keys(fsm, reads, writes, limits),
        Transactions(fsm, reads, writes, limits),
        Sessions(fsm, reads, writes, leadership, expiry, address),
        Cluster(raft, fsm, leadership),
        Agent(raft, fsm, reads, address, meta),
        Backups(raft, fsm, reads, leadership, worker, clock, limits),
    )
    waits = Waits(fsm, clock, limits)
    table |= more or {}
    metrics = Metrics(raft, fsm, Served())
    table[METRICS] = {b"GET": Endpoint(metrics.get, METRICS_PARAMETERS)}
    return API(table, leadership, waits, expiry, metrics, clock, limits, access)


def make_site(
    raft: Node,
    fsm: KeyValueFSM,
    client: HTTPClient,
    clock: IReactorTime,
    limits: HTTPLimits,
    *,
    address: str,
    url: str,
    worker: Worker,
    more: Routes | None = None,
    access: Access | None = None,
    meta: Mapping[str, str] | None = None,
    refusals: Refusals | None = None,
) -> KVSite:
    """Make the server of one node.

    *address* names the node to its peers, *url* is where they reach this server.
    The others are those of `make_api`. *refusals* are told of connections that are
    closed for what they are.
    From `startFactory` on the node sees to it that they know that.
    """
    api = make_api(
        raft, fsm, client, clock, limits, address, worker, more, access, meta
    )
    forwarder = Forwarder(client, clock, limits, address)
    advertiser = Advertiser(raft, fsm, forwarder, clock, address, url)
    return KVSite(api, advertiser, clock, limits, worker, refusals)


@provider(INonQueuedRequestFactory)
class KVRequest(Request):
    """A request whose body is bounded while it arrives.

    It is kept in memory, but for that of a backup, which goes to a `Spool`. Nothing is
    kept of a client that may not send it.
    """

    channel: KVChannel

    def __init__(self, channel: KVChannel) -> None:
        Request.__init__(self, channel, parsePOSTFormSubmission=False)
        self._site = channel.site
        self._limit = self._room = channel.site.limits.max_body_bytes
        self._body: BytesIO | Spool = BytesIO()
        self._held = 0
        self._refused = False
        self._linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that is too long or not permitted, before it is sent."""
        self.content = self._body
        if length == 0:
            return
        self.method, self.uri = self.channel.head
        try:
            self._site.api.admit(self)
            if self.channel.is_for(BACKUP):
                self._expect_backup()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if length is not None and length > self._room:
            self._refuse(self._too_long())

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body; drop it once the body is refused."""
        self._room -= len(data)
        if self._refused:
            return
        if self._room < 0:
            self._refuse(self._too_long())
        elif isinstance(self._body, Spool):
            self._body.add(data)
        elif not self._site.hold(len(data)):
            text = "The node holds as much of unfinished requests as it may."
            self._refuse(not_applied(text, RETRY_AFTER))
        else:
            self._held += len(data)
            self._body.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Serve the request, which is complete."""
        self.channel.request_arrived()
        if self._refused:
            self.channel.close()
            return
        if not isinstance(self._body, Spool):
            if command == b"PUT":
                self._body.seek(0)
            else:
                self._drop_body()
        self.method, self.uri, self.clientproto = command, path, version
        self.responseHeaders.setRawHeaders(b"Date", [datetimeToString()])
        channel = self.channel  # gone once it is answered
        self._site.resource.render(self)
        if self.code not in _OF_STRANGERS:
            channel.let_in()
        elif self.code == FORBIDDEN:
            channel.complain(*_REFUSED)

    def finish(self) -> None:
        """Forget the body with the answer."""
        Request.finish(self)
        self._release()

    def connectionLost(self, reason: Failure) -> None:
        """Forget the client."""
        self._release()
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        Request.connectionLost(self, reason)

    def _expect_backup(self) -> None:
        """Make room for a long body. Raises: Refusal"""
        limits = self._site.limits
        self._limit = self._room = limits.max_backup_bytes
        self.channel.grant(limits.backup_timeout)
        self.content = self._body = self._site.spool(self)
        self.channel.let_in()

    def _drop_body(self) -> None:
        self._body.close()
        self.content = self._body = BytesIO()
        self._release()

    def _release(self) -> None:
        """Count what is held of the body no more."""
        self._site.hold(-self._held)
        self._held = 0

    def _too_long(self) -> Refusal:
        return Refusal(413, f"The body is longer than {self._limit} bytes.")

    def _refuse(self, refusal: Refusal) -> None:
        """Answer at once, then read on for a while so that the client reads it too.

        Closing with unread input would reset the connection and lose the answer.
        """
        self._refused = True
        self._drop_body()
        self.requestHeaders.removeHeader(b"Expect")
        self.channel.write_refusal(refusal)
        if refusal.answer.status == FORBIDDEN:
            self.channel.complain(*_REFUSED)
        self._linger = self._site.clock.callLater(
            self._site.limits.linger_timeout, self.channel.forceAbortClient
        )


class KVChannel(HTTPChannel):
    """A connection, counted by its site and with lines of bounded length.

    It is a guest in the lobby of its site until a request of it was let in.
    """

    site: KVSite
    _hurry: IDelayedCall | None = None
    _guest: Guest | None = None

    def connectionMade(self) -> None:
        """Take the connection, or answer 503 when there are too many."""
        limits = self.site.limits
        self.MAX_LENGTH = limits.max_line_bytes
        self.totalHeadersSize = limits.max_headers_bytes
        self.maxHeaders = limits.max_headers
        self.site.channels.add(self)
        HTTPChannel.connectionMade(self)
        assert self.transport is not None, "it is connected"
        host = host_of(self.transport.getPeer())
        late = "no request was let in"
        self._guest = self.site.lobby.enter(host, self._turned_away, late)
        if len(self.site.channels) > self.site.most:
            self.write_refusal(
                not_applied("The node has too many connections.", RETRY_AFTER)
            )
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count the connection no more."""
        self.site.channels.discard(self)
        self.request_arrived()
        if isinstance(reason.value, SSL.Error):
            self.complain(why_lost(reason))
        self.let_in()
        HTTPChannel.connectionLost(self, reason)

    def dataReceived(self, data: bytes) -> None:
        """Read on, for a while from the first byte of a request."""
        if self._hurry is None and not self.requests:
            self.grant(self.site.limits.read_timeout)
        HTTPChannel.dataReceived(self, data)

    def let_in(self) -> None:
        """Count this connection as one of a client."""
        guest, self._guest = self._guest, None
        if guest is not None:
            self.site.lobby.leave(guest)

    def complain(self, reason: str, fate: str = "closed") -> None:
        """Log that the connection, or its request, was not taken."""
        assert self.transport is not None, "it was connected"
        self.site.refusals.tell(self.transport.getPeer(), reason, fate=fate)

    def _turned_away(self, reason: str) -> None:
        self._guest = None
        if self._hurry is not None:
            self._too_slow()
            return
        self.complain(reason)
        self.forceAbortClient()

    def grant(self, seconds: float) -> None:
        """Give the request at hand *seconds* to arrive."""
        self.request_arrived()
        self._hurry = self.site.clock.callLater(seconds, self._too_slow)

    def request_arrived(self) -> None:
        """Wait for it no longer."""
        hurry, self._hurry = self._hurry, None
        if hurry is not None and hurry.active():
            hurry.cancel()

    def _too_slow(self) -> None:
        self.request_arrived()
        self.complain("a request took too long to arrive")
        self.write_refusal(Refusal(408, "The request took too long to arrive."))
        self.timeoutConnection()

    def timeoutConnection(self) -> None:
        """Close a connection that rests; what it does not take in time is dropped."""
        assert self.abortTimeout is not None, "there is a limit to that time"
        self._abortingCall = self.site.clock.callLater(
            self.abortTimeout, self.forceAbortClient
        )
        self.close()

    def forceAbortClient(self) -> None:
        """Cut the connection. Many are in a flood: no line is logged for each."""
        self._abortingCall = None
        assert self.transport is not None, "it is connected"
        self.transport.abortConnection()  # type: ignore[attr-defined]

    @property
    def head(self) -> tuple[bytes, bytes]:
        """Method and URI of the request whose headers have come."""
        return self._command, self._path

    def is_for(self, path: bytes) -> bool:
        """Tell whether the request whose headers have come is for *path*."""
        return self._path.partition(b"?")[0] == path

    def lineLengthExceeded(self, line: bytes) -> None:
        """Say that the URL or a header is too long, and close."""
        limit = self.site.limits.max_line_bytes
        if self.requests:
            refusal = Refusal(431, f"A header is longer than {limit} bytes.")
        else:
            refusal = Refusal(414, f"The request line is longer than {limit} bytes.")
        self.write_refusal(refusal)
        self.close()

    def write_refusal(self, refusal: Refusal) -> None:
        """Write *refusal* as the last response of this connection."""
        answer = refusal.answer
        reason = RESPONSES.get(answer.status, b"Refused")
        head = [b"HTTP/1.1 %d %s" % (answer.status, reason)]
        for name, value in (*answer.headers, NOSNIFF, (b"Connection", b"close")):
            head.append(b"%s: %s" % (name, value))
        head.append(b"Content-Length: %d\r\n\r\n" % len(answer.body))
        assert self.transport is not None, "a refusal answers a connected client"
        self.transport.write(b"\r\n".join(head) + answer.body)

    def close(self) -> None:
        """Close once all is sent that was written."""
        self.loseConnection()  # type: ignore[no-untyped-call]

    def finish_up(self) -> None:
        """Close now, or after the answer to the request at work."""
        if self.requests:
            self.persistent = 0
        else:
            self.close()


class KVSite(Site):
    """The factory of HTTP connections, which it counts and bounds."""

    protocol = KVChannel  # type: ignore[assignment]  # the plain one, without HTTP/2

    def __init__(
        self,
        api: API,
        advertiser: Advertiser,
        clock: IReactorTime,
        limits: HTTPLimits,
        worker: Worker,
        refusals: Refusals | None = None,
    ) -> None:
        Site.__init__(self, api, KVRequest, reactor=clock, timeout=limits.idle_timeout)
        self.limits = limits
        self.clock = clock
        self.api = api
        new = ConnectionLimits(
            max_unauthenticated=limits.max_new_connections,
            max_unauthenticated_per_address=limits.max_new_connections_per_address,
            handshake_timeout=limits.read_timeout,
        )
        self.lobby = Lobby(clock, new)
        self.refusals = refusals or Refusals(clock, new, "HTTP connection")
        self._held_bytes = 0
        self.most = min(limits.max_connections, _descriptors_to_spare())
        self.channels: set[KVChannel] = set()
        self._advertiser = advertiser
        self._worker = worker
        self._spools: set[KVRequest] = set()

    def spool(self, request: KVRequest) -> Spool:
        """Make room for the long body of *request*, of which only the head has come.

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
        """Make the protocol of a connection, none in a flood of new ones."""
        reason = self.lobby.refuses(host_of(addr))
        if reason is None:
            return Site.buildProtocol(self, addr)
        self.refusals.tell(addr, reason)
        return None

    def hold(self, size: int) -> bool:
        """Count *size* more bytes of bodies; False if that would be too many."""
        if self._held_bytes + size > self.limits.max_bodies_bytes:
            return False
        self._held_bytes += size
        return True

    def startFactory(self) -> None:
        """Start to advertise; there is no access log to open."""
        self._advertiser.start()

    def stopFactory(self) -> None:
        """Close idle connections, and the others once they have their answer."""
        self._advertiser.stop()
        self.api.close()
        for channel in list(self.channels):
            channel.finish_up()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 only, whatever is installed."""
        return [b"http/1.1"]


def _descriptors_to_spare() -> int:
    """Count the file descriptors that clients may use.

    The log must find one whenever it begins a file: a node that cannot write stops.
    """
    allowed, _ = getrlimit(RLIMIT_NOFILE)
    if allowed == RLIM_INFINITY:
        return sys.maxsize
    return max(1, allowed - RESERVED_DESCRIPTORS)
