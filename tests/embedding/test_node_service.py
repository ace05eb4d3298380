"""`NodeService`: what a process does when its node ends."""

from __future__ import annotations

import contextlib
import socket
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.scripted_node import ScriptedNode
from txraft.embedding.node_service import (
    STOP_TIMEOUT,
    NodeService,
    ProcessEnd,
    StartFailed,
)
from txraft.embedding.systemd import Supervisor
from txraft.errors import DirectoryLocked, NodeFailed, RaftShutdown


class NodeServiceTests(SynchronousTestCase):
    """The process lives as long as the node, and says why when it ends."""

    def setUp(self) -> None:
        self.node = ScriptedNode()
        self.clock = Clock()
        self.statuses: list[int] = []
        self.service = NodeService(
            self.node, self.clock, self.statuses.append, self.supervisor()
        )
        self.criticals: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def supervisor(self) -> Supervisor:
        """Make one that tells a socket of this test."""
        directory = mkdtemp()
        self.addCleanup(rmtree, directory)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.setblocking(False)
        self.socket.bind(f"{directory}/notify")
        return Supervisor({"NOTIFY_SOCKET": f"{directory}/notify"})

    def heard(self) -> list[str]:
        """Return what systemd was told since the last call."""
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(self.socket.recv(1000).decode())
        return told

    def test_ready_once_there_is_a_leader(self) -> None:
        """systemd hears READY when a leader is known, not before, and STOPPING."""
        self.service.startService()
        self.node.started.callback(None)
        self.assertEqual(self.heard(), [])

        self.node.leader.callback("127.0.0.1:8300")
        self.assertEqual([told.split("\n")[0] for told in self.heard()], ["READY=1"])

        self.service.stopService()
        self.assertEqual(self.heard(), ["STOPPING=1\nEXTEND_TIMEOUT_USEC=4000000"])
        self.node.stopped.callback(None)

    def test_stopped_before_it_was_ready(self) -> None:
        """A node that ends before it knows a leader never was ready."""
        self.service.startService()
        self.node.started.callback(None)

        self.node.leader.errback(RaftShutdown())

        self.assertEqual(self.heard(), [])

    def test_supervisor_that_is_gone(self) -> None:
        """Nothing depends on systemd being there."""
        Supervisor({"NOTIFY_SOCKET": "/nowhere/at/all"}).tell("READY=1")
        Supervisor({}).tell("READY=1")

    def observe(self, event: dict[str, object]) -> None:
        if event["log_level"] is LogLevel.critical:
            self.criticals.append(formatEvent(event))

    def test_start_and_stop(self) -> None:
        self.service.startService()
        self.node.started.callback(None)

        stopping = self.service.stopService()

        self.assertNoResult(stopping)
        self.node.stopped.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.node.calls, ["start", "when_stopped", "stop"])
        self.assertEqual(self.statuses, [])

    def test_start_refused_at_once(self) -> None:
        """What is found wrong at once fails the start, so that twistd reports it."""
        self.node.started.errback(DirectoryLocked("/d is in use by process 7"))

        error = self.assertRaises(StartFailed, self.service.startService)

        assert error is not None
        self.assertEqual(str(error), "/d is in use by process 7")
        self.assertEqual(error.code, 1)
        self.assertEqual(
            self.criticals, ["The node cannot start: /d is in use by process 7"]
        )

    def test_start_refused_later(self) -> None:
        """What is found wrong later ends the process, with one message."""
        self.service.startService()

        self.node.started.errback(
            CannotListenError("127.0.0.1", 8300, OSError(98, "Address already in use"))
        )

        self.assertEqual(self.statuses, [1])
        self.assertEqual(len(self.criticals), 1)
        self.assertIn("Address already in use", self.criticals[0])

    def test_start_failed_by_a_defect(self) -> None:
        """A fault of the program itself is logged with its traceback."""
        self.node.started.errback(ZeroDivisionError("x"))

        self.assertRaises(StartFailed, self.service.startService)

        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_node_stops_itself(self) -> None:
        """A failed disk ends the process with a status other than 0."""
        self.service.startService()
        self.node.started.callback(None)

        self.node.ended.callback(NodeFailed("fsync of /d/log failed"))

        self.assertEqual(self.statuses, [1])
        self.assertEqual(len(self.criticals), 1)
        self.assertIn("fsync of /d/log failed", self.criticals[0])

    def test_node_removed(self) -> None:
        """A node that was removed from its cluster ends its process in order."""
        self.service.startService()
        self.node.started.callback(None)

        self.node.ended.callback(None)

        self.assertEqual((self.statuses, self.criticals), ([0], []))

    def test_stop_ends_node_silently(self) -> None:
        """The end of the node is no news when the service was asked to stop."""
        self.service.startService()
        self.node.started.callback(None)

        stopping = self.service.stopService()
        self.node.ended.callback(None)
        self.node.stopped.callback(None)

        self.successResultOf(stopping)
        self.assertEqual(self.statuses, [])

    def test_stop_while_starting(self) -> None:
        """A start that is cut short by a stop is not reported."""
        self.service.startService()

        stopping = self.service.stopService()
        self.node.started.errback(NodeFailed("shut down"))
        self.node.stopped.callback(None)

        self.successResultOf(stopping)
        self.assertEqual((self.statuses, self.criticals), ([], []))

    def test_stop_is_bounded(self) -> None:
        """A disk that hangs holds the process up for `STOP_TIMEOUT` only."""
        self.service.startService()
        self.node.started.callback(None)
        stopping = self.service.stopService()

        self.clock.advance(STOP_TIMEOUT - 0.1)
        self.assertNoResult(stopping)
        self.clock.advance(0.2)

        self.successResultOf(stopping)
        self.assertEqual(len(self.criticals), 1)
        self.assertIn("did not stop in order", self.criticals[0])

    def test_stop_waits_for_clients(self) -> None:
        """They have their time besides, and systemd is told of it."""
        node, clock = ScriptedNode(), Clock()
        service = NodeService(
            node, clock, self.statuses.append, self.supervisor(), patience=10.0
        )
        service.startService()
        node.started.callback(None)

        stopping = service.stopService()

        self.assertEqual(self.heard(), ["STOPPING=1\nEXTEND_TIMEOUT_USEC=14000000"])
        clock.advance(10.0 + STOP_TIMEOUT - 0.1)
        self.assertNoResult(stopping)
        clock.advance(0.2)
        self.successResultOf(stopping)
        self.assertEqual(len(self.criticals), 1)

    def test_stop_of_its_own_is_bounded(self) -> None:
        """A node that stops itself and does not get there ends with status 1."""
        self.service.startService()
        self.node.started.callback(None)
        self.node.ending.callback(NodeFailed("no thread was started"))

        self.clock.advance(STOP_TIMEOUT - 0.1)
        self.assertEqual(self.statuses, [])
        self.clock.advance(0.2)

        self.assertEqual(self.statuses, [1])
        [critical] = self.criticals
        self.assertIn("did not stop in order", critical)
        self.assertIn("no thread was started", critical)

    def test_stop_of_its_own_in_time(self) -> None:
        """A node that has stopped itself in time ends the process once."""
        self.service.startService()
        self.node.started.callback(None)
        self.node.ending.callback(NodeFailed("the disk is full"))
        self.node.ended.callback(NodeFailed("the disk is full"))

        self.clock.advance(2 * STOP_TIMEOUT)

        self.assertEqual(self.statuses, [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_asked_for_meanwhile(self) -> None:
        """A stop from outside has a deadline of its own, and one is enough."""
        self.service.startService()
        self.node.started.callback(None)
        self.node.ending.callback(NodeFailed("the disk is full"))
        stopping = self.service.stopService()

        self.clock.advance(STOP_TIMEOUT + 0.1)

        self.successResultOf(stopping)
        self.assertEqual((self.statuses, len(self.criticals)), ([], 1))


class StoppedReactor:
    """A reactor that is being stopped already."""

    def stop(self) -> None:
        raise ReactorNotRunning


class ProcessEndTests(SynchronousTestCase):
    """Ending a process that is ending is no fault."""

    def test_reactor_stopped_before(self) -> None:
        ProcessEnd(StoppedReactor())(0)  # type: ignore[arg-type]
