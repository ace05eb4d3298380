"""All uses of Twisted's private parts, each with the reason why nothing public does.

Twisted may change these without notice, so no other module touches them, and
`tests/test_twisted.py` has a test of each that fails when Twisted has changed it. What
is of twisted.web or of twistd is imported where it is used: a node without HTTP does
not load it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import ILogObserver, LegacyLogObserverWrapper

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.http import HTTPChannel

    Channel = TypeVar("Channel", bound=type[HTTPChannel])

unsent_bytes_of: Callable[[TCPConnection], bytes] = attrgetter("dataBuffer")
"""Returns the buffer of a TCP connection, which is empty once all has been sent.

`Connection.write` sends past the transport when nothing is queued there. Bytes that
overtook queued ones would corrupt the stream, and no public method tells whether there
are any. `attrgetter` rather than a function, because each message pays for it.
"""


def set_seconds(reactor: ReactorBase, seconds: Callable[[], float]) -> None:
    """Let *reactor* and its pending timers read the time from *seconds*.

    A reactor has no parameter for its clock; `ReactorBase` calls its own attribute.
    """
    # A pending call reads its own reference to the clock when it is reset or delayed:
    # left as it is, it would mix wall clock and monotonic time.
    for call in reactor.getDelayedCalls():
        assert isinstance(call, DelayedCall)
        call.seconds = seconds
    reactor.seconds = seconds


def loop_of(reactor: AsyncioSelectorReactor) -> AbstractEventLoop:
    """Return the loop of asyncio that *reactor* runs on; it has no method for that."""
    loop: AbstractEventLoop = reactor._asyncioEventloop
    return loop


def leave_loop(reactor: AsyncioSelectorReactor) -> None:
    """Take a *reactor* that has been shut down out of its loop, which runs on.

    Twisted's reactors live as long as their process, and so keep the pipes that wake
    them, and asyncio the timer of their next call.
    """
    for call in reactor.getDelayedCalls():
        call.cancel()
    if reactor._timerHandle is not None:
        reactor._timerHandle.cancel()
        reactor._timerHandle = None
    reactor.removeAll()
    for waker in list(reactor._internalReaders):
        reactor.removeReader(waker)
        waker.connectionLost(None)
    reactor._internalReaders.clear()


def log_observer(options: object) -> ILogObserver:
    """Make the log observer that `twistd` itself would use with its *options*.

    An application may bring an observer of its own, here one with a level, but then it
    loses what `--logfile`, `--syslog` and `--prefix` say, and the reopening of the
    file. Only the logger of `twistd` can make that observer.
    """
    from twisted.scripts._twistd_unix import UnixApplicationRunner

    logger = UnixApplicationRunner.loggerFactory(options)
    observer = logger._getLogObserver()
    if not ILogObserver.providedBy(observer):
        observer = LegacyLogObserverWrapper(observer)
    return cast(ILogObserver, observer)


def request_not_sent() -> type[Exception]:
    """Return the error of a request of which no byte was sent.

    Such a request may be repeated whatever it does. `twisted.web.client` fails with
    this error, but does not export it as it does its siblings.
    """
    from twisted.web._newclient import RequestNotSent

    return RequestNotSent


# The parser of HTTP: `HTTPChannel` tells its subclasses nothing about a connection,
# but its own methods and attributes. A server that bounds what a client may hold, and
# that closes without losing requests, has to know what is in it.


def has_unparsed_bytes(channel: HTTPChannel) -> bool:
    """Tell whether bytes have come behind the request that is being answered.

    They are in one place while it is rendered, and in another one afterwards.
    """
    return bool(channel._buffer) or any(channel._dataBuffer)


def waits_for_transport(channel: HTTPChannel) -> bool:
    """Tell whether the client does not read, so that what is written piles up."""
    return bool(channel._waitingForTransport)


def response_producer(channel: HTTPChannel) -> object:
    """Return the producer of the response that is being sent, None without one."""
    return channel._requestProducer


def request_line(channel: HTTPChannel) -> tuple[bytes, bytes, bytes]:
    """Return method, URI and protocol of the request whose headers have come."""
    return channel._command, channel._path, channel._version


def header_bytes(channel: HTTPChannel) -> int:
    """Return the size of the headers that have come of the newest request."""
    return int(channel._receivedHeaderSize)


def header_count(channel: HTTPChannel) -> int:
    """Return the number of the headers that have come of the newest request."""
    return int(channel._receivedHeaderCount)


def set_abort_call(channel: HTTPChannel, call: IDelayedCall | None) -> None:
    """Have *call* cut the connection; `HTTPChannel` cancels it when that is closed.

    Its own `timeoutConnection` schedules that call, but logs a line for each client.
    """
    channel._abortingCall = call


def handles_malformed(channel: Channel) -> Channel:
    """Let the parser call `malformed` of a *channel* class, a decorator.

    By default it writes a response without a body and closes: the client learns
    nothing, and neither does the log.
    """

    def respond(self: Any) -> None:
        self.malformed()

    channel._respondToBadRequestAndDisconnect = respond  # type: ignore[method-assign]
    return channel
