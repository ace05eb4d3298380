"""Ceasing to accept connections: on real sockets, as the kernel is what is asked."""

from __future__ import annotations

import socket
import sys
from unittest import skipUnless

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.http.acceptance import HANDSHAKE_SECONDS, stop_accepting


class Port:
    """A listening port that accepts one connection whenever it is asked."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.accepted: list[socket.socket] = []
        self.works = True

    def doRead(self) -> None:
        if self.works:
            self.accepted.append(self.socket.accept()[0])

    def stopListening(self) -> None:
        self.socket.close()


class StopAccepting(SynchronousTestCase):
    """Who is connected is served, who is not is refused."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.port = Port()
        self.addCleanup(self.port.socket.close)

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.port.address, timeout=5)
        self.addCleanup(client.close)
        return client

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(stop_accepting(self.port, self.clock))  # type: ignore[arg-type]

    def test_connections_that_wait_are_accepted(self) -> None:
        """Closing the port would reset them, and they may carry requests."""
        clients = [self.connect() for _ in range(3)]

        stopped = self.stop()
        self.clock.advance(HANDSHAKE_SECONDS)

        self.successResultOf(stopped)
        for client, accepted in zip(clients, self.port.accepted, strict=True):
            accepted.sendall(b"served")
            accepted.close()
            self.assertEqual(client.recv(10), b"served")
        with self.assertRaises(ConnectionRefusedError):
            self.connect()

    @skipUnless(sys.platform.startswith("linux"), "Linux has such filters")
    def test_no_connection_is_begun_meanwhile(self) -> None:
        """Those that are made go on; who comes gets no answer, and tries again."""
        made = self.connect()

        stopped = self.stop()
        newcomer = socket.socket()
        self.addCleanup(newcomer.close)
        newcomer.setblocking(False)
        newcomer.connect_ex(self.port.address)
        self.clock.advance(HANDSHAKE_SECONDS)

        self.successResultOf(stopped)
        [accepted] = self.port.accepted
        self.addCleanup(accepted.close)
        made.sendall(b"asked")
        self.assertEqual(accepted.recv(10), b"asked")
        with self.assertRaises(OSError):
            newcomer.getpeername()

    def test_port_that_cannot_accept(self) -> None:
        """One without a descriptor left is closed all the same."""
        self.connect()
        self.port.works = False

        stopped = self.stop()
        self.clock.advance(HANDSHAKE_SECONDS)

        self.successResultOf(stopped)
        self.assertEqual(self.port.accepted, [])
