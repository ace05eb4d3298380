"""Streamed answers: too long for memory, sent in pieces at the pace of the client.

The status has been sent when a stream fails. So it cuts the connection, and the client
sees that the end of the body is missing. It does the same when its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss, Request
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txraft.client.exchange import drop
from txraft.errors import RaftShutdown
from txraft.http.answers import NOSNIFF, Answer, Header
from txraft.node.worker import Worker


class Stream:
    """The source of the body of an answer. It ends exactly once, whatever happens.

    It is cut off *seconds* after its start. *ended* is called at the end.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._ended = ended
        self._timer: IDelayedCall | None = None
        self._request: Request | None = None
        self._is_over = False

    def start(self, request: Request) -> None:
        """Begin to send the body of the answer to *request*."""
        self._request = request
        self._timer = self._clock.callLater(self._seconds, self.cut)
        request.notifyFinish().addErrback(lambda _: self.stopProducing())
        request.registerProducer(self, True)

    def finish(self) -> None:
        """End the answer: the body is complete."""
        request = self._end()
        if request is not None:
            # In this order: Twisted takes it for an error to finish with a producer.
            request.unregisterProducer()
            request.finish()

    def cut(self) -> None:
        """End the connection in the middle of the answer."""
        request = self._end()
        # Without a channel the connection is gone already.
        if request is not None and request.channel is not None:
            request.unregisterProducer()
            request.channel.forceAbortClient()

    def stopProducing(self) -> None:
        """Stop: the client is gone."""
        self._end()

    def _end(self) -> Request | None:
        """Release everything; return the request, but None the second time."""
        # A stream ends on many ways: done, cut, timed out, client gone, worker failed.
        # The flag makes sure that only the first of them touches the request.
        if self._is_over:
            return None
        self._is_over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._ended()
        return self._request

    def _send(self, data: bytes) -> None:
        if not self._is_over and self._request is not None:
            self._request.write(data)


@implementer(IPushProducer)
class Made(Stream):
    """A body whose *pieces* are made on *worker*, each when the client has room for it.

    An empty piece is not sent: it only gives others a turn on the worker.
    """

    def __init__(
        self,
        worker: Worker,
        pieces: Iterator[bytes],
        clock: IReactorTime,
        seconds: float,
        ended: Callable[[], object],
    ) -> None:
        Stream.__init__(self, clock, seconds, ended)
        self._worker = worker
        self._pieces = pieces
        self._making = False
        self._paused = False

    def start(self, request: Request) -> None:
        """Begin."""
        Stream.start(self, request)
        self._go_on()

    def pauseProducing(self) -> None:
        """Make no more pieces for a while."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        # One piece at a time: else a client that reads slowly would have its whole
        # answer made and kept in memory.
        if not (self._making or self._paused or self._is_over):
            self._making = True
            made: Deferred[bytes | None] = self._worker.run(
                lambda: next(self._pieces, None)
            )
            made.addCallback(self._made).addErrback(self._failed)

    def _made(self, piece: bytes | None) -> None:
        self._making = False
        if piece is None:
            self.finish()
            return
        if piece:
            self._send(piece)
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        if failure.check(RaftShutdown) is None:
            self.log.failure("an answer was cut off", failure)
        self.cut()


@implementer(IPushProducer)
class Relayed(Stream, Protocol):
    """The body of another node's *response*, passed on while it comes."""

    def __init__(
        self, response: IResponse, clock: IReactorTime, seconds: float
    ) -> None:
        Stream.__init__(self, clock, seconds)
        self._response = response

    def start(self, request: Request) -> None:
        """Begin."""
        Stream.start(self, request)
        self._response.deliverBody(self)

    def pauseProducing(self) -> None:
        """Stop reading from the other node for a while."""
        if self.transport is not None:
            IPushProducer(self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        if self.transport is not None:
            IPushProducer(self.transport).resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """Pass a piece on."""
        self._send(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Finish if the body is complete, else cut the answer off."""
        # Before the end, which would else drop a connection that is lost already.
        self.transport = None
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finish()
        else:
            self.cut()

    def _end(self) -> Request | None:
        if not self._is_over and self._request is None:
            # Twisted opens the body only to a reader: without one the connection to the
            # other node would stay open, unread.
            self._response.deliverBody(self)
        request = Stream._end(self)
        if self.transport is not None:
            drop(self.transport)
        return request


class Streamed(Answer):
    """An answer with the body of *stream*."""

    __slots__ = ("_stream",)

    def __init__(self, status: int, stream: Stream, *headers: Header) -> None:
        Answer.__init__(self, status, b"", *headers)
        self._stream = stream

    def write(self, request: Request) -> None:
        """Begin to send this answer as the response to *request*."""
        request.setResponseCode(self.status)
        for name, value in (*self.headers, NOSNIFF):
            request.responseHeaders.setRawHeaders(name, [value])
        self._stream.start(request)

    def discard(self) -> None:
        """Stop the stream: nobody waits for the answer any more."""
        self._stream.stopProducing()
