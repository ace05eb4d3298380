"""What both ends of a connection share."""

from __future__ import annotations

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
