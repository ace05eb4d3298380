"""`twistd raft`: its options, and the end of its process when the node ends."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.application.service import Application
from twisted.application.twist._options import TwistOptions
from twisted.logger import ILogObserver, LogLevel
from twisted.python import usage
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.support.scripted_node import ScriptedNode
from txraft.daemon.service import Impatience, Options, RaftService
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
