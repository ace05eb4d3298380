"""The base of both ends of a connection: socket options, back-pressure, closing."""

from __future__ import annotations

import socket
import typing
from contextlib import suppress

from twisted.internet.interfaces import (
    IPushProducer,
    ITCPTransport,
    IWriteDescriptor,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft._twisted import unsent_bytes_of

_CLOSE_WATCH = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 30_000,
}
"""Options of TCP, where the system has them: seconds, the last one milliseconds."""


class Channel(typing.Protocol):
    """The part of a Twisted stream transport that a connection uses.

    Bytes that the socket does not take at once are queued in the transport.
    """

    def write(self, data: bytes) -> None:
        """Queue *data*."""

    def getPeer(self) -> object:
        """Return the address at the other end."""

    def loseConnection(self) -> None:
        """Close once what is queued has been sent."""

    def abortConnection(self) -> None:
        """Close now, dropping what is queued."""

    def pauseProducing(self) -> None:
        """Stop reading."""

    def resumeProducing(self) -> None:
        """Read again."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Tell *producer* to pause when too much is queued."""

    def unregisterProducer(self) -> None:
        """Forget the producer."""


@implementer(IPushProducer)
class Connection(Protocol):
    """A stream to a peer that counts the bytes it could not send yet.

    *blocked* is true while the peer reads too slowly; *unsent_bytes* counts what was
    written in that time. *lost* is true once nothing is sent or read any more.
    """

    channel: Channel
    blocked = False
    lost = False
    _gone = False
    unsent_bytes = 0
    _send_now: typing.Callable[[], object] | None = None
    # Only of plain TCP: None makes `write` go through the transport.
    _transport: TCPConnection | None = None
    _socket: socket.socket

    def connectionMade(self) -> None:
        """Set the options of the socket and ask for back-pressure."""
        self.channel = typing.cast(Channel, self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        if IWriteDescriptor.providedBy(self.transport):
            self._send_now = self.transport.doWrite
        # A TLS connection is not written to directly: the bytes must be encrypted.
        if isinstance(self.transport, TCPConnection) and not self.transport.TLS:
            self._transport = self.transport
            self._socket = self.transport.getHandle()
        self.channel.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send *data*; nothing is sent after the connection has ended.

        The socket gets the bytes at once, not in the next iteration of the reactor: a
        fifth more commits with one in flight (`benchmarks.cluster`). What it takes does
        not enter the transport's buffer. The reactor meets an error of the socket
        again and ends the connection.
        """
        if self.lost:
            return
        transport = self._transport
        # Only past an empty queue: bytes that overtake others corrupt the stream.
        if transport is not None and not (self.blocked or unsent_bytes_of(transport)):
            try:
                sent = self._socket.send(data)
            except OSError:
                # The socket is full, or the connection is broken. The transport tries
                # the same bytes and tells the two apart.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.channel.write(data)
        if self.blocked:
            self.unsent_bytes += len(data)
        elif self._send_now is not None:
            self._send_now()

    def abort(self) -> None:
        """Close now, dropping what is unsent; idempotent."""
        if not self._gone:
            self._let_go()
            self.channel.abortConnection()

    def watch_closely(self) -> None:
        """Have the kernel find out within half a minute if the other host is gone.

        A connection with nothing to send may rest for ever, even if the other host was
        replaced. The kernel then probes it, and a host that does not know the
        connection says so. Without these options a kernel waits for hours.
        """
        carrier = self.transport
        while isinstance(carrier, ProtocolWrapper):
            carrier = carrier.transport
        if not isinstance(carrier, TCPConnection):
            return
        handle = carrier.getHandle()
        for name, value in _CLOSE_WATCH.items():
            option = getattr(socket, name, None)
            if option is not None:
                with suppress(OSError):  # a socket without options of TCP
                    handle.setsockopt(socket.IPPROTO_TCP, option, value)

    def finish(self) -> None:
        """Close in good order, or at once when the peer does not read."""
        # Closing in order first sends what is queued: a peer that does not read would
        # keep the connection open for ever.
        if self.blocked:
            self.abort()
        elif not self.lost:
            self._let_go()
            self.channel.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Mark the connection as ended."""
        self.lost = self._gone = True

    def pauseProducing(self) -> None:
        """Mark the connection as blocked: the peer reads too slowly."""
        self.blocked = True
        self.flow_changed()

    def resumeProducing(self) -> None:
        """Mark the connection as free: everything that was written has been sent."""
        self.blocked = False
        self.unsent_bytes = 0
        self.flow_changed()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    def flow_changed(self) -> None:
        """Do what a change of `blocked` asks for; a subclass overrides this."""

    def _let_go(self) -> None:
        if not self.lost:
            self.lost = True
            # A transport with a producer waits for it before it closes.
            self.channel.unregisterProducer()
