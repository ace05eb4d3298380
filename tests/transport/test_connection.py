"""The rules of both ends of a connection."""

from __future__ import annotations

import socket

from twisted.internet import tcp
from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txraft.transport.connection import Connection


@implementer(IWriteDescriptor)
class Descriptor(StringTransport):
    """A transport that a reactor could tell to write."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    def doWrite(self) -> None:
        self.told.append(self.value())


class Writing(SynchronousTestCase):
    """`Connection.write`"""

    def setUp(self) -> None:
        self.descriptor = Descriptor()
        self.connection = Connection()
        self.connection.makeConnection(self.descriptor)

    def test_write_at_once(self) -> None:
        """What the socket takes leaves now, not in the next iteration."""
        self.connection.write(b"one")

        self.assertEqual(self.descriptor.told, [b"one"])

    def test_write_while_blocked(self) -> None:
        """A socket that takes nothing is not asked, and what waits is counted."""
        self.connection.pauseProducing()

        self.connection.write(b"one")

        self.assertEqual(self.descriptor.told, [])
        self.assertEqual(self.connection.unsent_bytes, 3)

    def test_write_to_any_transport(self) -> None:
        """A transport that is no socket, as that of TLS, gets its bytes too."""
        transport, connection = StringTransport(), Connection()
        connection.makeConnection(transport)

        connection.write(b"one")

        self.assertEqual(transport.value(), b"one")


class Reactor:
    """A reactor that calls nobody."""

    def addReader(self, reader: object) -> None:
        """Never tell that there is something to read."""

    removeReader = addWriter = removeWriter = addReader


class Stream(tcp.Connection):
    """A TCP transport on a socket that has no options of TCP."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Have none."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have none."""


class Sockets(SynchronousTestCase):
    """`Connection.write` to a socket, past the buffer of its transport."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.theirs.setblocking(False)
        self.connection = Connection()
        self.transport = Stream(ours, self.connection, Reactor())
        self.transport.connected = 1
        self.connection.makeConnection(self.transport)
        self.received = b""

    def read(self) -> None:
        """Take all that has arrived."""
        try:
            while piece := self.theirs.recv(1 << 16):
                self.received += piece
        except BlockingIOError:
            pass

    def test_write_keeps_order_when_a_socket_is_full(self) -> None:
        """There is room again, but what waits goes first."""
        pieces = [bytes([number]) * 10_000 for number in range(1, 7)]

        for piece in pieces:
            self.connection.write(piece)
            self.read()
        while self.transport.dataBuffer:
            self.transport.doWrite()
            self.read()

        self.assertEqual(self.received, b"".join(pieces))
        self.assertFalse(self.connection.blocked)
