"""What both ends of a connection share: options, back-pressure, an abrupt end."""

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
"""Options of TCP where the system has them: seconds, but the last milliseconds."""


class Channel(typing.Protocol):
    """What is used of a Twisted stream transport.

    What a socket does not take at once waits, and is joined, in the transport.
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
    """A stream to a peer that knows how much of what it wrote is still unsent.

    *blocked* is true while the peer reads too slowly; *unsent_bytes* is what was
    written in that time. *lost* is true once nothing is sent or read any more.
    """

    channel: Channel
    blocked = False
    lost = False
    _gone = False
    unsent_bytes = 0
    _send_now: typing.Callable[[], object] | None = None
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
        if isinstance(self.transport, TCPConnection) and not self.transport.TLS:
            self._transport = self.transport
            self._socket = self.transport.getHandle()
        self.channel.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send *data*; nothing is sent after the connection has ended.

        A socket takes what it can at once, instead of in the next iteration of the
        reactor: a fifth more commits with one in flight (`benchmarks.cluster`). What
        it takes never enters the transport's buffer, which would be asked for its
        state and watched for nothing. An error that shows then is met again by the
        reactor, which ends the connection.
        """
        if self.lost:
            return
        transport = self._transport
        if transport is not None and not (self.blocked or unsent_bytes_of(transport)):
            try:
                sent = self._socket.send(data)
            except OSError:
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

        Where nothing is left to send a connection may rest for ever, although the host
        behind it was replaced: it is asked now and then, and one that does not know
        this connection says so. Without these options a kernel waits for hours.
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
        if self.blocked:
            self.abort()
        elif not self.lost:
            self._let_go()
            self.channel.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end of the connection."""
        self.lost = self._gone = True

    def pauseProducing(self) -> None:
        """Learn that the peer reads too slowly."""
        self.blocked = True
        self.flow_changed()

    def resumeProducing(self) -> None:
        """Learn that all that was written has been sent."""
        self.blocked = False
        self.unsent_bytes = 0
        self.flow_changed()

    def stopProducing(self) -> None:
        """Learn that the connection is going; `connectionLost` follows."""

    def flow_changed(self) -> None:
        """React to a change of `blocked`."""

    def _let_go(self) -> None:
        if not self.lost:
            self.lost = True
            self.channel.unregisterProducer()
