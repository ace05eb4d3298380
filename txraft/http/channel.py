"""Connections of HTTP clients and their requests, each within its limits.

The size of bodies and lines, and the time that they take, are bounded before they are
read. A connection counts as unauthenticated until one of its requests was let in.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall
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
from twisted.web.http_headers import Headers
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from txraft._twisted import (
    handles_malformed,
    has_unparsed_bytes,
    header_bytes,
    header_count,
    request_line,
    response_producer,
    set_abort_call,
    waits_for_transport,
)
from txraft.http.answers import NOSNIFF, RETRY_AFTER, HTTPRefusal, Sender, not_applied
from txraft.http.inflight import FORWARDED
from txraft.http.routes import BACKUP
from txraft.http.spool import Spool
from txraft.transport.tls import why_lost
from txraft.transport.unauthenticated import PendingConnection, host_of

if TYPE_CHECKING:
    from txraft.http.site import KVSite

_OF_STRANGERS = frozenset({BAD_REQUEST, FORBIDDEN})
"""Status codes that may answer a client of which nothing is known."""

_LONGEST = b"9" * 18
"""A length that stands for all longer ones. `int` refuses thousands of digits."""

QUIET_SECONDS = 1.0
"""Seconds of silence after which a draining node closes a connection."""

_PARTING = b"\x00\r\n"
_CODINGS = (b"chunked", b"identity")
_REFUSED = "it may not send such a request", "refused"


@provider(INonQueuedRequestFactory)
class KVRequest(Request):
    """A request whose body is bounded while it arrives.

    The body is kept in memory, except for a backup, which goes to a `Spool`. The body
    of a client without permission is dropped.
    """

    channel: KVChannel

    def __init__(self, channel: KVChannel) -> None:
        Request.__init__(self, channel)
        self._site = channel.site
        self._limit = self._room = channel.site.limits.max_body_bytes
        self._body: BytesIO | Spool = BytesIO()
        self._held = 0
        self._refused = False
        self._linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that is too long or not permitted, before it is sent."""
        # Twisted would make a temporary file for a long body: of any length, from
        # anyone.
        self.content = self._body
        if self.channel.is_beyond and not self._is_of_a_member():
            self._refuse(_too_many())
            return
        if length == 0:
            return
        self.method, self.uri, self.clientproto = self.channel.head
        try:
            self._site.api.admit(self)
            if self.channel.is_for(BACKUP):
                self._expect_backup()
        except HTTPRefusal as refusal:
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
        if self._refused or self.channel.is_cut_off:
            self.channel.close()
            return
        if not isinstance(self._body, Spool):
            if command == b"PUT":
                self._body.seek(0)
            else:
                self._drop_body()
        self.method, self.uri, self.clientproto = command, path, version
        self.responseHeaders.setRawHeaders(b"Date", [datetimeToString()])
        channel = self.channel  # Twisted deletes it once the answer is finished
        self._site.resource.render(self)
        if self.code not in _OF_STRANGERS:
            channel.let_in()
        elif self.code == FORBIDDEN:
            channel.complain(*_REFUSED)

    def forget(self) -> bool:
        """Drop a request that will not arrive whole.

        Returns: whether it was answered already
        """
        was_answered, self._refused = self._refused, True
        self._drop_body()
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        return was_answered

    def finish(self) -> None:
        """Finish the answer, and free the body of the request."""
        Request.finish(self)
        self._release()

    def connectionLost(self, reason: Failure) -> None:
        """Free the body: the client is gone."""
        self._release()
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        Request.connectionLost(self, reason)

    def _is_of_a_member(self) -> bool:
        """Return whether this request says that another member has forwarded it."""
        names = self.requestHeaders.getRawHeaders(FORWARDED, [])
        return any(self._site.is_member(name) for name in names)

    def _expect_backup(self) -> None:
        """Prepare for the long body of a backup. Raises: HTTPRefusal"""
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
        """Take the bytes of the body off the count of the site."""
        self._site.hold(-self._held)
        self._held = 0

    def _too_long(self) -> HTTPRefusal:
        return HTTPRefusal(413, f"The body is longer than {self._limit} bytes.")

    def _refuse(self, refusal: HTTPRefusal) -> None:
        """Answer at once, and read on for a while: so the client gets the answer."""
        # Closing with unread input would reset the connection and lose the answer.
        self._refused = True
        self._drop_body()
        self.requestHeaders.removeHeader(b"Expect")
        self.channel.write_refusal(refusal)
        if refusal.answer.status == FORBIDDEN:
            self.channel.complain(*_REFUSED)
        self._linger = self._site.clock.callLater(
            self._site.limits.linger_timeout, self.channel.forceAbortClient
        )


def _too_many() -> HTTPRefusal:
    return not_applied("The node has too many connections.", RETRY_AFTER)


@handles_malformed
class KVChannel(HTTPChannel):
    """A connection, counted by its site and with lines of bounded length.

    It counts as unauthenticated until one of its requests was let in. One beyond the
    limit for clients serves only requests that other members forward: these members
    have no other leader to forward to.
    """

    site: KVSite
    _hurry: IDelayedCall | None = None
    _quiet: IDelayedCall | None = None
    _pending: PendingConnection | None = None
    is_cut_off = False
    is_refused = False
    is_beyond = False
    """Whether it came when clients had all the connections that they may have."""

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
        self._pending = self.site.unauthenticated.enter(host, self._turned_away, late)
        # Who is beyond the limit is told so, not cut: a 503 sends clients elsewhere.
        beyond = len(self.site.channels) - self.site.most
        self.is_beyond = beyond > 0
        if beyond > self.site.most_forwards:
            self.write_refusal(_too_many())
            self.close()
        elif self.site.is_draining:
            self.drain()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take the connection off all counts."""
        self.site.lost(self)
        self.site.unread.forget(self)
        self.request_arrived()
        self._speaks()
        if isinstance(reason.value, SSL.Error):
            self.complain(why_lost(reason))
        self.let_in()
        HTTPChannel.connectionLost(self, reason)

    def dataReceived(self, data: bytes) -> None:
        """Parse *data*; the first byte of a request starts its time limit.

        An exception in the parser ends here, as an answer and a line in the log.
        """
        if self.is_refused:
            return
        if self._hurry is None and not self.requests:
            self._speaks()
            self.grant(self.site.limits.read_timeout)
        try:
            HTTPChannel.dataReceived(self, data)
        except Exception:
            self.malformed()

    def headerReceived(self, line: bytes) -> bool:
        """Keep a header, or refuse the request because of it.

        Some faults are found here because the parser does not report them: lengths of
        thousands of digits, and transfer codings that it does not know.
        """
        # A lone CR, LF or NUL splits a header in two for a proxy that reads it less
        # strictly (request smuggling). Twisted before 26.10 lets them pass.
        if len(line.translate(None, _PARTING)) != len(line):
            self.malformed()
            return False
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        lowered = name.lower()
        if lowered == b"content-length" and value.isdigit():
            value = value.lstrip(b"0") or b"0"
            if len(value) > len(_LONGEST):
                value = _LONGEST  # refused as well, and no less politely
            line = name + b": " + value
        elif lowered == b"transfer-encoding" and value.lower() not in _CODINGS:
            self._refuse(501, "The only transfer coding that is known is chunked.")
            return False
        kept: bool = HTTPChannel.headerReceived(self, line)
        return kept

    def malformed(self) -> None:
        """Answer with the fault that the parser found, and close. Called by it."""
        limits = self.site.limits
        if header_bytes(self) > self.totalHeadersSize:
            text = f"The headers are longer than {limits.max_headers_bytes} bytes."
            self._refuse(431, text)
        elif header_count(self) > self.maxHeaders:
            self._refuse(431, f"There are more than {limits.max_headers} headers.")
        else:
            self._refuse(400, "The request is not written as HTTP requires.")

    def _refuse(self, status: int, sentence: str) -> None:
        """Refuse a request that cannot be read further, and close."""
        # The parser may find more faults in the same bytes: only the first is answered.
        if self.is_refused:
            return
        self.is_refused = True
        self.request_arrived()
        # If an earlier answer of this connection is on its way, a second one would be
        # taken for a part of it.
        was_answered = [request.forget() for request in self.requests]
        if not any(was_answered):
            self.complain(sentence[0].lower() + sentence[1:].rstrip("."))
            self.write_refusal(HTTPRefusal(status, sentence))
        self.close()

    def let_in(self) -> None:
        """Count this connection as one of a client, no longer as unauthenticated."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self.site.unauthenticated.leave(pending)

    def complain(self, reason: str, fate: str = "closed") -> None:
        """Log that the connection or its request was refused, with the *reason*."""
        assert self.transport is not None, "it was connected"
        self.site.refusals.tell(self.transport.getPeer(), reason, fate=fate)

    def _turned_away(self, reason: str) -> None:
        self._pending = None
        if self._hurry is not None:
            self._too_slow()
            return
        self.complain(reason)
        self.forceAbortClient()

    def write(self, data: bytes) -> None:
        """Send *data* of an answer; count bytes that wait for the client to read."""
        HTTPChannel.write(self, data)
        if waits_for_transport(self) and not self.is_cut_off:
            self.site.unread.add(self, len(data))

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        """Send the head of an answer; while the node drains it says `close`."""
        # Not if more requests have come after this one: closing would drop them, and
        # their client would not know what became of them.
        if self.site.is_draining and not self._has_more:
            self.persistent = 0
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        HTTPChannel.writeHeaders(self, version, code, reason, headers)

    @property
    def _has_more(self) -> bool:
        """Whether bytes have come after the request at work."""
        return has_unparsed_bytes(self)

    def requestDone(self, request: Request) -> None:
        """Go on with the next request, or wait for one."""
        HTTPChannel.requestDone(self, request)
        if self.site.is_draining and self.persistent:
            # The head of its answer was sent before the drain and does not say `close`:
            # the client may be sending another request just now.
            self.drain()

    def drain(self) -> None:
        """Close after a short silence, or with the answer to the next request."""
        # Closing at once would cut off a request that the client is sending just now.
        if self._quiet is None and self._hurry is None and not self.requests:
            self._quiet = self.site.clock.callLater(QUIET_SECONDS, self._was_quiet)

    def _was_quiet(self) -> None:
        self._quiet = None
        self.timeoutConnection()

    def _speaks(self) -> None:
        """Stop waiting for silence: the client has sent something."""
        quiet, self._quiet = self._quiet, None
        if quiet is not None and quiet.active():
            quiet.cancel()

    def pauseProducing(self) -> None:
        """Wait for the client to read; count the rest of its answer as unread."""
        HTTPChannel.pauseProducing(self)
        producer = response_producer(self)
        if isinstance(producer, Sender) and not self.is_cut_off:
            self.site.unread.add(self, producer.left)

    def resumeProducing(self) -> None:
        """Go on: the client has read what waited."""
        self.site.unread.forget(self)
        HTTPChannel.resumeProducing(self)

    def cut_off(self) -> None:
        """Serve no more requests, and close after a short time for the last answer."""
        self.is_cut_off = True
        self.complain("it does not read its answers")
        set_abort_call(self, self.site.clock.callLater(0, self.forceAbortClient))

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
        self.write_refusal(HTTPRefusal(408, "The request took too long to arrive."))
        self.timeoutConnection()

    def timeoutConnection(self) -> None:
        """Close a connection that rests; what it does not take in time is dropped."""
        assert self.abortTimeout is not None, "there is a limit to that time"
        set_abort_call(
            self,
            self.site.clock.callLater(self.abortTimeout, self.forceAbortClient),
        )
        self.close()

    def forceAbortClient(self) -> None:
        """Cut the connection. Many are in a flood: no line is logged for each."""
        set_abort_call(self, None)
        assert self.transport is not None, "it is connected"
        self.transport.abortConnection()  # type: ignore[attr-defined]

    @property
    def head(self) -> tuple[bytes, bytes, bytes]:
        """Method, URI and protocol of the request whose headers have come."""
        return request_line(self)

    def is_for(self, path: bytes) -> bool:
        """Tell whether the request whose headers have come is for *path*."""
        return self.head[1].partition(b"?")[0] == path

    def lineLengthExceeded(self, line: bytes) -> None:
        """Say that the URL or a header is too long, and close."""
        limit = self.site.limits.max_line_bytes
        if self.requests:
            self._refuse(431, f"A header is longer than {limit} bytes.")
        else:
            self._refuse(414, f"The request line is longer than {limit} bytes.")

    def write_refusal(self, refusal: HTTPRefusal) -> None:
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
        """Close once all that was written is sent."""
        self.loseConnection()  # type: ignore[no-untyped-call]

    def finish_up(self) -> None:
        """Close now, or after the answer to the request at work."""
        if self.requests:
            self.persistent = 0
        else:
            self.close()
