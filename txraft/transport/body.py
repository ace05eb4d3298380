"""The body of a snapshot that arrives behind its request."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txraft.errors import ConnectionClosedByPeer

Consume = Callable[[bytes], Deferred[None] | None]


class IncomingBody:
    """A `SnapshotBody` between a connection and its consumer.

    The connection reads on only while `wanted` is true, and pushes each piece in. The
    body calls *changed* whenever `wanted` may have changed.
    """

    def __init__(self, size: int, changed: Callable[[], None]) -> None:
        self.size = size
        self._left = size
        self._changed = changed
        self._consume: Consume | None = None
        self._finished: Deferred[None] | None = None
        self._draining = False
        self._waiting = False
        self._lost = False

    @property
    def wanted(self) -> bool:
        """Whether the next piece has somewhere to go."""
        return self._draining or (self._consume is not None and not self._waiting)

    @property
    def complete(self) -> bool:
        """Whether every byte has been consumed or dropped."""
        return self._left == 0 and not self._waiting

    def deliver_to(self, consume: Consume) -> Deferred[None]:
        """Pass each piece to *consume*; see `SnapshotBody`."""
        assert self._consume is None, "a body is delivered once"
        if self._lost:
            return fail(_cut_short(self.size - self._left, self.size))
        self._consume = consume
        finished = self._finished = Deferred[None]()
        self._settle()
        self._changed()
        return finished

    def drain(self) -> None:
        """Drop the rest of the body as it arrives."""
        # The rest must still be read: the next request begins right behind it.
        if not self._draining and not self.complete:
            self._draining = True
            self._changed()

    def push(self, piece: bytes) -> None:
        """Take the next *piece* off the connection."""
        # Before the consumer is called: it may look at `complete`, or drain.
        self._left -= len(piece)
        if not self._draining:
            self._hand_over(piece)
        self._settle()

    def connection_lost(self) -> None:
        """Fail the delivery: the connection has ended."""
        self._lost = True
        if not self.complete:
            self._fail(_cut_short(self.size - self._left, self.size))

    def _hand_over(self, piece: bytes) -> None:
        assert self._consume is not None, "pieces are pushed only when wanted"
        try:
            pending = self._consume(piece)
        except Exception as error:
            self._refused(error)
            return
        if pending is not None:
            self._waiting = True
            pending.addCallbacks(self._consumed, self._refused)

    def _consumed(self, _: object) -> None:
        self._waiting = False
        self._settle()
        self._changed()

    def _refused(self, failure: Failure | Exception) -> None:
        # A consumer that failed gets no more, but the peer's bytes still have to go.
        self._waiting = False
        self._draining = True
        self._fail(failure)
        self._changed()

    def _settle(self) -> None:
        if self.complete and self._finished is not None:
            finished, self._finished = self._finished, None
            finished.callback(None)

    def _fail(self, failure: Failure | Exception) -> None:
        if self._finished is not None:
            finished, self._finished = self._finished, None
            finished.errback(failure)


def _cut_short(received: int, size: int) -> ConnectionClosedByPeer:
    return ConnectionClosedByPeer(
        f"the connection ended after {received} of {size} bytes of a snapshot"
    )
