"""Peers over TLS: what is logged of those whom this node has dialled in vain."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.forgery import Forge
from txraft.errors import ConnectionFailed
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import PeerNames
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.tls import PeerTLS, TLSStreamLayer

PLAIN = b"HTTP/1.1 400 Bad Request\r\n"
NOT_TLS = "connection to n2.test:1 closed: its TLS handshake failed: "
NO_MORE = "connection to n2.test:1 closed: it closed the connection within the"


@implementer(IProtocolFactory)
class Nobody(Factory):
    """Makes protocols for peers that have proved who they are: there are none."""


class Impostor:
    """The endpoint of who says *answer* and closes; nobody is there if it is None."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Live through a whole connection at once."""
        if self._answer is None:
            return fail(ConnectionRefusedError())
        protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        protocol.makeConnection(StringTransport())
        if self._answer:
            protocol.dataReceived(self._answer)
        protocol.connectionLost(Failure(ConnectionDone()))
        return succeed(protocol)


class Refusals(SynchronousTestCase):
    """A reason is told when it is new: a member is dialled again and again."""

    def setUp(self) -> None:
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        forge, clock = Forge(directory), Clock()
        pair = forge.issue("n1.test")
        files = TLSFiles(
            certificate=str(pair.certificate),
            private_key=str(pair.key),
            ca=str(forge.ca_file),
        )
        tls = PeerTLS(files, PeerNames(), "n1.test")
        tcp = TCPStreamLayer(clock, TCP4ServerEndpoint(clock, 0), "n1.test:1")
        self.layer = TLSStreamLayer(tcp, tls, clock)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def dial(self, *answers: bytes | None) -> list[str]:
        """Dial n2 once for each of *answers*; return the lines that are logged."""
        for answer in answers:
            failed = self.layer.connect(Impostor(answer), "n2.test:1", Nobody())
            self.failureResultOf(failed, ConnectionFailed, ConnectionRefusedError)
        return [formatEvent(event) for event in self.events]

    def test_the_same_again(self) -> None:
        """A line for each attempt would fill the log."""
        (line,) = self.dial(PLAIN, PLAIN, PLAIN)

        self.assertTrue(line.startswith(NOT_TLS), line)

    def test_another(self) -> None:
        """What is wrong has changed, and changes back."""
        first, second, third = self.dial(PLAIN, b"", b"", PLAIN)

        self.assertTrue(first.startswith(NOT_TLS), first)
        self.assertTrue(second.startswith(NO_MORE), second)
        self.assertEqual(third, first)

    def test_nobody_was_there_between(self) -> None:
        """Who comes back as wrong as before is told of anew."""
        first, second = self.dial(PLAIN, None, PLAIN)

        self.assertTrue(first.startswith(NOT_TLS), first)
        self.assertEqual(second, first)
