"""`twistd raft`: its options, and what a process does when its node ends."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.application.service import Application
from twisted.application.twist._options import TwistOptions
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.python import usage
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txraft.daemon.service import (
    STOP_TIMEOUT,
    Impatience,
    NodeService,
    Options,
    ProcessEnd,
    RaftService,
    StartFailed,
)
from txraft.daemon.systemd import Supervisor
from txraft.errors import DirectoryLocked, NodeFailed, RaftError, RaftShutdown
from txraft.settings.settings import load_settings


class OptionsTestCase(SynchronousTestCase):
    """Has a directory for settings files, and what was printed."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.config = self.directory / "node.yaml"
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)


class CommandLine(OptionsTestCase):
    """Options are checked as a whole, before anything is opened."""

    def test_no_options(self) -> None:
        """Without options the settings are the defaults."""
        options = Options()

        options.parseOptions([])

        self.assertEqual(options.settings, load_settings())

    def test_every_flag(self) -> None:
        """Each flag overrides the file."""
        self.config.write_text("log_level: error\nhttp: {listen: null}\n")
        options = Options()

        options.parseOptions(
            [
                *("--config", str(self.config)),
                *("--data-dir", str(self.directory / "d")),
                *("--listen", "tcp:2:interface=127.0.0.1"),
                *("--advertise", "n1:2"),
                *("--peers", "n1:2,n2:2"),
                *("--http-listen", "tcp:3:interface=127.0.0.1"),
                *("--http-advertise", "http://n1:3"),
                *("--log-level", "debug"),
            ]
        )

        settings, http = options.settings, options.settings.http
        assert http is not None
        self.assertEqual(settings.data_dir, str(self.directory / "d"))
        self.assertEqual(settings.listen, "tcp:2:interface=127.0.0.1")
        self.assertEqual(settings.advertise, "n1:2")
        self.assertEqual([peer.address for peer in settings.peers], ["n1:2", "n2:2"])
        self.assertEqual(http.listen, "tcp:3:interface=127.0.0.1")
        self.assertEqual(http.advertise, "http://n1:3")
        self.assertEqual(settings.log_level, "debug")

    def test_under_twist(self) -> None:
        """`twist raft` has no run directory: paths start where it is called."""
        options = Options()
        options.parent = TwistOptions()

        options.parseOptions(["--data-dir", "d"])

        self.assertEqual(options.settings.data_dir, os.path.abspath("d"))

    def test_join(self) -> None:
        options = Options()

        options.parseOptions(["--join"])

        self.assertTrue(options.settings.join)

    def test_paths_start_at_rundir(self) -> None:
        """`twistd --rundir` is where the process will be."""
        server = ServerOptions()

        server.parseOptions(["--rundir", str(self.directory), "raft"])

        self.assertEqual(
            server.subOptions.settings.data_dir, str(self.directory / "txraft-data")
        )

    def test_check_config(self) -> None:
        """The effective settings are printed, and can be used as a file."""
        options = Options()

        ending = self.assertRaises(
            SystemExit,
            options.parseOptions,
            ["--check-config", "--listen", "tcp:8302:interface=127.0.0.1"],
        )

        assert ending is not None
        self.assertEqual(ending.code, 0)
        self.config.write_text(self.printed.getvalue())
        self.assertEqual(load_settings(str(self.config)), options.settings)

    def test_faults(self) -> None:
        """All faults are one message, and no page of options hides it."""
        self.config.write_text("perrs: []\nstore: x\n")

        told = self.refused("--check-config", "--config", str(self.config))

        prefix, _, message = told.partition(": ")
        self.assertEqual(prefix, "twistd raft")
        self.assertEqual(
            [line.split(": ")[0] for line in message.splitlines()],
            [f"{self.config}:1", f"{self.config}:2"],
        )
        self.assertEqual(self.printed.getvalue(), "")

    def test_unknown_flag(self) -> None:
        """A mistake on the command line itself is answered with the options."""
        told = self.refused("--perrs")

        self.assertIn("--data-dir", told)
        self.assertIn("--perrs", told.splitlines()[-1])

    def test_fault_without_twistd(self) -> None:
        """Whoever reads options in a program of their own gets an exception."""
        self.assertRaises(usage.UsageError, Options().parseOptions, ["--perrs"])

    def refused(self, *flags: str) -> str:
        """Assert that twistd ends with status 1; return what it says of *flags*."""
        told = io.StringIO()
        self.patch(sys, "stderr", told)

        ending = self.assertRaises(
            SystemExit, ServerOptions().parseOptions, ["raft", *flags]
        )

        assert ending is not None
        self.assertEqual(ending.code, 1)
        return told.getvalue()


class LogLevels(OptionsTestCase):
    """`log_level` holds for the whole process."""

    def levels(self, *flags: str) -> list[str]:
        """Return the levels that the process would log."""
        server = ServerOptions()
        server.parseOptions(["--nodaemon", "raft", *flags])
        application = Application("raft")
        RaftService(server.subOptions).setServiceParent(application)
        observer = ILogObserver(application)
        for level in LogLevel.iterconstants():
            observer(
                {
                    "log_format": level.name,
                    "log_level": level,
                    "log_time": 0.0,
                    "log_namespace": "n",
                }
            )
        logged = self.printed.getvalue().splitlines()
        return [line.rpartition(" ")[2] for line in logged]

    def test_default(self) -> None:
        self.assertEqual(self.levels(), ["info", "warn", "error", "critical"])

    def test_error(self) -> None:
        self.assertEqual(self.levels("--log-level", "error"), ["error", "critical"])

    def test_debug(self) -> None:
        self.assertEqual(
            self.levels("--log-level", "debug"),
            ["debug", "info", "warn", "error", "critical"],
        )


class ScriptedNode:
    """A node whose start, end and stop happen when a test says so."""

    def __init__(self) -> None:
        self.started: Deferred[None] = Deferred()
        self.ending: Deferred[RaftError | None] = Deferred()
        self.ended: Deferred[RaftError | None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.leader: Deferred[str] = Deferred()
        self.calls: list[str] = []

    def start(self) -> Deferred[None]:
        self.calls.append("start")
        return self.started

    def when_ready(self) -> Deferred[str]:
        return self.leader

    def when_stopping(self) -> Deferred[RaftError | None]:
        return self.ending

    def when_stopped(self) -> Deferred[RaftError | None]:
        self.calls.append("when_stopped")
        return self.ended

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return self.stopped

    def hurry(self) -> None:
        self.calls.append("hurry")


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


class Signals(SynchronousTestCase):
    """Whoever tells a node to stop a second time does not want to wait."""

    def test_hurry(self) -> None:
        """The reactor takes the first signal, the node the next ones."""
        handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        for number, handler in handlers.items():
            self.addCleanup(signal.signal, number, handler)
        node, later = ScriptedNode(), Later()
        service = Impatience(node, later)  # type: ignore[arg-type]
        service.startService()
        self.assertEqual(signal.getsignal(signal.SIGTERM), handlers[signal.SIGTERM])

        service.stopService()
        for number in handlers:
            os.kill(os.getpid(), number)

        for call in later.calls:
            call()
        self.assertEqual(node.calls, ["hurry", "hurry"])


class Later:
    """Takes calls from signal handlers."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.calls.append(call)


class StoppedReactor:
    """A reactor that is being stopped already."""

    def stop(self) -> None:
        raise ReactorNotRunning


class ProcessEndTests(SynchronousTestCase):
    """Ending a process that is ending is no fault."""

    def test_reactor_stopped_before(self) -> None:
        ProcessEnd(StoppedReactor())(0)  # type: ignore[arg-type]
