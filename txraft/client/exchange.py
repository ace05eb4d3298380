"""Send one request to one node, and say whether it can have had an effect.

A request of which no byte was sent has none (`NotSent`). A request that was sent and
not answered may have one (`NoAnswer`). The client uses this, and so does a node that
forwards a request to the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    PartialDownloadError,
    ResponseDone,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from txraft._twisted import request_not_sent
from txraft.reasons import reason_of

PIECE_BYTES = 1 << 16
"""Bytes of a file that are read and sent at once."""

T = TypeVar("T")
# Only errors that Twisted raises before it writes a byte: any other one added here
# would let a write be repeated that was applied.
_NOT_SENT = (ConnectError, DNSLookupError, request_not_sent(), SchemeNotSupported)


class NotSent(Exception):
    """Nothing of the request was sent."""


class NoAnswer(Exception):
    """The request was sent, at least in part, but no complete answer came."""


class TimedOut(Exception):
    """An answer took too long."""


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """A request to a node: *target* is path and query, *body* bytes or a producer.

    *repeatable* says that a second attempt does no harm. *patience* is the longest time
    of one attempt and *timeout* that of all attempts, in seconds; None stands for the
    client's own bounds. *consume*, if given, gets the pieces of the body of an answer
    with status 200, which is then not kept. *headers* are added to those of every
    request.
    """

    method: str
    target: str
    body: bytes | IBodyProducer | None = None
    repeatable: bool = False
    patience: float | None = None
    timeout: float | None = None
    consume: Callable[[bytes], object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether the request may change anything."""
        return self.method != "GET"


@dataclass(frozen=True, slots=True)
class NodeResponse:
    """A complete response of one node."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of the header *name*."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None

    @property
    def sentence(self) -> str:
        """The body of a failure as one sentence, cut at 1000 bytes."""
        return self.body[:1000].decode("utf-8", "replace").strip() or "no reason given"


def connection_pool(
    reactor: Any, max_idle: int, idle_seconds: int
) -> HTTPConnectionPool:
    """Make a pool that keeps up to *max_idle* connections to each node.

    Idle connections are closed after *idle_seconds*. Let that be long before the other
    end closes them, so that few requests meet a closing connection.
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    # Twisted would send a GET or DELETE again by itself when its connection closes
    # without an answer. A DELETE may have been applied: `attempts` decides on that.
    pool.retryAutomatically = False
    pool.maxPersistentPerHost = max_idle
    pool.cachedConnectionTimeout = idle_seconds
    return pool


def pooled_client(
    reactor: Any,
    pool: HTTPConnectionPool,
    connect_timeout: float,
    policy: IPolicyForHTTPS | None = None,
) -> HTTPClient:
    """Make the HTTP client that `ask` needs, on *pool*.

    *policy* says which HTTPS servers to trust, and which certificate to show them.
    """
    agent = Agent(
        reactor,
        policy or BrowserLikePolicyForHTTPS(),
        connectTimeout=connect_timeout,
        pool=pool,
    )
    return HTTPClient(agent)


async def ask(
    http: HTTPClient,
    clock: IReactorTime,
    url: str,
    request: NodeRequest,
    headers: Headers,
    seconds: float,
    max_bytes: int,
) -> NodeResponse:
    """Ask the node at *url*, for at most *seconds*.

    Raises: NotSent, NoAnswer; CancelledError when the wait was cancelled, in which
        case the request may have been sent or not.
    """
    until = clock.seconds() + seconds
    response = await begin(http, clock, url, request, headers, seconds)
    # One time for both parts: a node that trickles a body could else double it.
    left = max(0.0, until - clock.seconds())
    consume = request.consume if response.code == 200 else None
    return await read(response, clock, url, left, max_bytes, consume)


async def begin(
    http: HTTPClient,
    clock: IReactorTime,
    url: str,
    request: NodeRequest,
    headers: Headers,
    seconds: float,
) -> IResponse:
    """Ask the node at *url*, and wait for at most *seconds* until it begins to answer.

    Raises: as `ask`.
    """
    body = request.body
    sent = http.request(
        request.method,
        url + request.target,
        headers=headers,
        data=Body(body) if isinstance(body, bytes) else body,
        allow_redirects=False,
        unbuffered=True,
    )
    try:
        return await within(sent, clock, seconds)
    except CancelledError:
        raise  # the caller's own wish, not an end of the request: it has its own name
    except _NOT_SENT as error:
        raise NotSent(_why(error, url)) from error
    except Exception as error:
        raise NoAnswer(_why(error, url)) from error


async def read(
    response: IResponse,
    clock: IReactorTime,
    url: str,
    seconds: float,
    max_bytes: int,
    consume: Callable[[bytes], object] | None = None,
) -> NodeResponse:
    """Read the body of *response* for at most *seconds*; *consume* as in `NodeRequest`.

    Raises: NoAnswer, CancelledError
    """
    collector = _Collector(max_bytes, consume)
    response.deliverBody(collector)
    try:
        data = await within(collector.done, clock, seconds)
    except CancelledError:
        raise
    except Exception as error:
        raise NoAnswer(_why(error, url)) from error
    return NodeResponse(response.code, response.headers, data)


def drop(transport: Any) -> None:
    """Close the connection of a response whose body is not wanted."""
    # To lose a connection waits for what is left to write, and a peer that does not
    # read would keep it open.
    getattr(transport, "abortConnection", transport.loseConnection)()


def within(deferred: Deferred[T], clock: IReactorTime, seconds: float) -> Deferred[T]:
    """Wait for *deferred*, but no longer than *seconds*.

    Returns: a Deferred that fails with TimedOut after *seconds*, and with
        CancelledError when it is cancelled, whatever *deferred* then fires with.
    """
    settled = False

    def settle(result: T | Failure) -> None:
        nonlocal settled
        if not settled:
            settled = True
            timer.cancel()
            outer.callback(result)

    def cancelled(_: Deferred[T]) -> None:
        nonlocal settled
        settled = True
        timer.cancel()
        deferred.cancel()

    def expired() -> None:
        nonlocal settled
        # First: cancelling may fire *deferred* at once, and its failure would hide that
        # time ran out.
        settled = True
        deferred.cancel()
        outer.errback(TimedOut(f"no answer within {seconds:g} s"))

    outer: Deferred[T] = Deferred(cancelled)
    timer = clock.callLater(seconds, expired)
    deferred.addBoth(settle)
    return outer


@implementer(IBodyProducer)
class Body:
    """A request's body that is sent in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it all."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing is left to resume."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


@implementer(IBodyProducer)
class FileBody:
    """A request's body of *length* bytes, sent at the pace of the connection.

    *read* gets an offset and a size, and returns a Deferred of the bytes there. *sent*
    is called with the number of bytes of each piece that was sent.
    """

    def __init__(
        self,
        length: int,
        read: Callable[[int, int], Deferred[bytes]],
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.length = length
        self._read = read
        self._sent = sent
        self._offset = 0
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._reading = False
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin to send."""
        self._consumer = consumer
        self._go_on()
        return self._done

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._go_on()

    def pauseProducing(self) -> None:
        """Send nothing until `resumeProducing`."""
        self._paused = True

    def stopProducing(self) -> None:
        """Send no more at all."""
        self._consumer = None

    def _go_on(self) -> None:
        # One read at a time: a second one would send the same piece again, because the
        # offset moves only when a piece was sent.
        if self._reading or self._paused or self._consumer is None:
            return
        size = min(PIECE_BYTES, self.length - self._offset)
        if not size:
            self._consumer = None
            self._done.callback(None)
            return
        self._reading = True
        self._read(self._offset, size).addCallbacks(self._send, self._failed)

    def _send(self, data: bytes) -> None:
        self._reading = False
        # Stopped while the read was under way: the connection is no longer ours.
        if self._consumer is None:
            return
        if not data:  # else this would go on reading nothing, for ever
            self._failed(Failure(EOFError("the file has become shorter")))
            return
        self._offset += len(data)
        self._consumer.write(data)
        self._sent(len(data))
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        if self._consumer is not None:
            self._consumer = None
            self._done.errback(failure)


class _Collector(Protocol):
    """Collects a body of bounded size; cancelling `done` drops the connection."""

    def __init__(
        self, room: int, consume: Callable[[bytes], object] | None = None
    ) -> None:
        self._room = room
        self._pieces: list[bytes] = []
        self._consume = consume or self._pieces.append
        self._bounded = consume is None
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        """Take a piece."""
        # Pieces still arrive after the connection was told to close.
        if self.done.called:
            return
        self._room -= len(data) if self._bounded else 0
        try:
            # Counted before it is kept: one piece too many would be in memory
            # otherwise.
            if self._room < 0:
                raise ValueError("the answer is longer than max_answer_bytes")
            self._consume(data)
        except (ValueError, OSError):
            self.done.errback(Failure())
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take the end."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(PartialDownloadError(0, b"the answer was cut off"))

    def _abort(self) -> None:
        drop(self.transport)


def _why(error: Exception, url: str) -> str:
    return f"{url}: {reason_of(error)}"
