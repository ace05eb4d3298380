"""Tests of `run`, with reactors of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from txraft.embedding.run import run


class Runs(SynchronousTestCase):
    """`run` is what `asyncio.run` is, for Twisted."""

    def setUp(self) -> None:
        self.reactor: Any = SelectReactor()
        self.done: list[str] = []

    async def wait(self, begun: Callable[[], object]) -> None:
        """Do *begun* and wait for ever; take a moment to clean up when cancelled."""
        self.reactor.callLater(0, begun)
        try:
            await Deferred()
        except CancelledError:
            self.done.append("cancelled")
            await deferLater(self.reactor, 0.0)
            self.done.append("cleaned up")
            raise

    def test_run_returns_what_main_returns(self) -> None:
        """The reactor has stopped then."""

        async def main() -> int:
            await deferLater(self.reactor, 0.0)
            return 7

        self.assertEqual(run(main(), reactor=self.reactor), 7)
        self.assertFalse(self.reactor.running)

    def test_run_of_what_waits_for_nothing(self) -> None:
        """A main that ends at once is no special case."""

        async def main() -> int:
            return 7

        self.assertEqual(run(main(), reactor=self.reactor), 7)

    def test_run_raises_what_main_raises(self) -> None:
        """So a program ends with a traceback and with status 1."""

        async def main() -> None:
            await deferLater(self.reactor, 0.0)
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            run(main(), reactor=self.reactor)
        self.assertFalse(self.reactor.running)

    def test_run_ends_in_order_at_a_signal(self) -> None:
        """What main waits for is cancelled; the reactor runs until main has ended."""

        def terminate() -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        with self.assertRaises(SystemExit) as raised:
            run(self.wait(terminate), reactor=self.reactor)

        self.assertEqual(raised.exception.code, 0)
        self.assertEqual(self.done, ["cancelled", "cleaned up"])

    def test_run_ends_in_order_when_the_reactor_is_stopped(self) -> None:
        """Whoever stops it, main comes to its end."""
        with self.assertRaises(SystemExit) as raised:
            run(self.wait(self.reactor.stop), reactor=self.reactor)

        self.assertEqual(raised.exception.code, 0)
        self.assertEqual(self.done, ["cancelled", "cleaned up"])

    def test_run_returns_what_main_returns_after_a_signal(self) -> None:
        """One that has finished its work although it was cancelled has done so."""

        async def main() -> str:
            try:
                await self.wait(self.reactor.stop)
            except CancelledError:
                return "all done"
            return "not cancelled"

        self.assertEqual(run(main(), reactor=self.reactor), "all done")

    def test_run_stops_at_once_at_the_second_signal(self) -> None:
        """A main that does not end, as its disk hangs, holds nobody up for ever."""

        async def main() -> None:
            try:
                await self.wait(lambda: os.kill(os.getpid(), signal.SIGTERM))
            except CancelledError:
                os.kill(os.getpid(), signal.SIGTERM)
                await Deferred(lambda _: None)

        with self.assertRaises(SystemExit) as raised:
            run(main(), reactor=self.reactor)

        self.assertEqual(raised.exception.code, 1)

    def test_run_leaves_the_handlers_of_signals(self) -> None:
        """They are those from before."""
        before = signal.getsignal(signal.SIGTERM)

        with self.assertRaises(SystemExit):
            run(self.wait(self.reactor.stop), reactor=self.reactor)

        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_run_within_a_loop_of_asyncio_is_refused(self) -> None:
        """There main can be awaited, and another reactor would block the loop."""

        async def main() -> None:
            raise AssertionError("it never runs")

        async def within() -> None:
            run(main(), reactor=self.reactor)

        with self.assertRaises(RuntimeError):
            asyncio.run(within())
