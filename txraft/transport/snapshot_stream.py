"""Sends a snapshot: the request, then its bytes as fast as the peer takes them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txraft.core.messages import AnyResponse
from txraft.errors import CallTimedOut, TransportError
from txraft.interfaces import SnapshotSource
from txraft.transport.connection_limits import PIECE_BYTES
from txraft.transport.link import Link
from txraft.transport.patience import Patience
from txraft.wire.requests import INSTALL_SNAPSHOT


class SnapshotStream:
    """Sends an encoded *request* and *size* bytes of *source* over *link*.

    It gives up when *patience* ends. The link is closed in any case.
    """

    def __init__(
        self,
        clock: IReactorTime,
        link: Link,
        request: bytes,
        size: int,
        source: SnapshotSource,
        patience: Patience,
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._timer: IDelayedCall | None = None
        self._link = link
        self._request = request
        self._size = size
        self._source = source
        self._left = size
        self._reading = False
        self._pumping = False

    def send(self) -> Deferred[AnyResponse]:
        """Send everything and wait for the response.

        Returns: a Deferred that fails as those of a link do; cancelling it closes the
            link.
        """
        link = self._link
        response = link.send(self._request, INSTALL_SNAPSHOT, None)
        link.unblocked = self._unblocked
        link.watch_closely()
        self._timer = self._clock.callLater(self._patience.left(False), self._check)
        self._pump()
        return response.addBoth(self._ended)

    def _unblocked(self) -> None:
        self._patience.moved()
        self._pump()

    def _check(self) -> None:
        """Give up if the peer or the source has made no progress."""
        is_sent = not (self._left or self._link.blocked)
        wait = self._patience.left(is_sent)
        if wait > 0:
            self._timer = self._clock.callLater(wait, self._check)
            return
        self._timer = None
        target, sent = self._link.target, self._size - self._left
        if is_sent:
            reason = f"{target} did not answer in time to a snapshot of {sent} bytes"
        elif self._reading:
            reason = f"the snapshot could not be read on after {sent} bytes"
        else:
            reason = f"{target} takes no more of a snapshot after {sent} bytes"
        self._link.close(CallTimedOut(reason))

    def _pump(self) -> None:
        """Read and send until the peer or the source is not ready."""
        # A source that has data at once calls `_send` below, which comes back here: the
        # loop goes on instead of recursing once for each piece.
        if self._pumping:
            return
        self._pumping = True
        link = self._link
        while self._left and not (self._reading or link.blocked or link.lost):
            self._reading = True
            piece = maybeDeferred(self._source.read, min(PIECE_BYTES, self._left))
            piece.addCallbacks(self._send, self._failed)
        self._pumping = False

    def _send(self, piece: bytes) -> None:
        self._reading = False
        if not piece:
            sent = self._size - self._left
            self._link.close(
                TransportError(f"the snapshot ended after {sent} of {self._size} bytes")
            )
            return
        # A source that gives too much must not write into the next request.
        piece = piece[: self._left]
        self._left -= len(piece)
        self._link.write(piece)
        # Progress is what the peer takes, not what is queued here.
        if not self._link.blocked:
            self._patience.moved()
        self._pump()

    def _failed(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._link.close(TransportError(f"the snapshot cannot be read: {reason}"))

    def _ended(self, response: AnyResponse | Failure) -> AnyResponse | Failure:
        """Close the connection, as hashicorp/raft does after each snapshot."""
        self._link.unblocked = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left or isinstance(response, Failure):
            self._link.abort()
        else:
            self._link.finish()
        return response
