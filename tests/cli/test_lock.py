"""`txraft lock`: the command ends before its lock is free, whatever ends it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.cli.lock import Child


class ScriptedProcess:
    """A process that notes its signals."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.has_ended = False

    def signalProcess(self, name: str) -> None:
        """Note a signal; there is none for what has ended."""
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(name)


class Children(SynchronousTestCase):
    """A child ends as it likes, or is ended."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.process = ScriptedProcess()
        self.child = Child(self.clock, grace=5.0)
        self.child.transport = self.process  # type: ignore[assignment]

    def end(self, reason: Exception) -> None:
        """Let the process end."""
        self.process.has_ended = True
        self.child.processEnded(Failure(reason))

    def test_status(self) -> None:
        """Its status is told, and that of a signal as shells do."""
        for reason, status in (
            (ProcessDone(None), 0),
            (ProcessTerminated(exitCode=7), 7),
            (ProcessTerminated(signal=9), 137),
        ):
            self.setUp()
            self.end(reason)
            self.assertEqual(self.successResultOf(self.child.exit), status)

    def test_cancel(self) -> None:
        """It gets time to end; that it has ended is told apart."""
        self.child.exit.cancel()
        self.failureResultOf(self.child.exit, CancelledError)
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertNoResult(self.child.ended)

        self.end(ProcessDone(None))

        self.assertEqual(self.successResultOf(self.child.ended), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_in_vain(self) -> None:
        """One that does not end in its grace is killed."""
        self.child.exit.cancel()
        self.failureResultOf(self.child.exit, CancelledError)

        self.clock.advance(5.0)

        self.assertEqual(self.process.signals, ["TERM", "KILL"])

    def test_cancel_after_the_end(self) -> None:
        """What has ended is sent nothing."""
        self.process.has_ended = True

        self.child.exit.cancel()

        self.failureResultOf(self.child.exit, CancelledError)
        self.assertEqual(self.process.signals, [])
