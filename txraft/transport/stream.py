"""Sending a snapshot: a request, then its bytes, as fast as the peer takes them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txraft.core.messages import Response
from txraft.errors import TransportError
from txraft.interfaces import SnapshotSource
from txraft.transport.limits import PIECE_BYTES
from txraft.transport.link import Link
from txraft.wire.requests import INSTALL_SNAPSHOT


class SnapshotStream:
    """An encoded *request* and *size* bytes on their way over *link*.

    The link is closed in the end.
    """

    def __init__(
        self, link: Link, request: bytes, size: int, source: SnapshotSource
    ) -> None:
        self._link = link
        self._request = request
        self._size = size
        self._source = source
        self._left = size
        self._reading = False
        self._pumping = False

    def send(self, deadline: float) -> Deferred[Response]:
        """Send everything and wait for the answer until *deadline*."""
        link = self._link
        answer = link.send(self._request, INSTALL_SNAPSHOT, deadline)
        link.unblocked = self._pump
        self._pump()
        return answer.addBoth(self._ended)

    def _pump(self) -> None:
        """Read and send until the peer or the source is not ready."""
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
        piece = piece[: self._left]
        self._left -= len(piece)
        self._link.write(piece)
        self._pump()

    def _failed(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        self._link.close(TransportError(f"the snapshot cannot be read: {reason}"))

    def _ended(self, answer: Response | Failure) -> Response | Failure:
        """Close the connection, as peers expect, whatever came of it."""
        self._link.unblocked = None
        if self._left:
            self._link.abort()
        else:
            self._link.finish()
        return answer
