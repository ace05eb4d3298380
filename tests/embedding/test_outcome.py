"""Tests of `Outcome`, awaited by coroutines of Twisted and of asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from txraft.embedding.outcome import Outcome, Uninterrupted


class Refused(Exception):
    """What the tests let an outcome fail with."""


def refused() -> Refused:
    """Return a Refused that was raised, so that it has a traceback."""
    try:
        raise Refused("no")
    except Refused as error:
        return error


def places(error: BaseException) -> list[str]:
    """Name the functions in the traceback of *error*."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def ended(outcome: Awaitable[Any]) -> object:
    """Wait for *outcome*; return it, or the error that it failed with."""
    try:
        return await outcome
    except (Refused, CancelledError, asyncio.CancelledError) as error:
        return error


class InBothWorlds:
    """The rules that hold whoever waits; subclasses run coroutines of one world."""

    assertEqual: Callable[..., None]
    assertIs: Callable[..., None]
    assertIsInstance: Callable[..., None]
    assertIn: Callable[..., None]
    flushLoggedErrors: Callable[..., list[Any]]

    def wait(
        self, outcome: Awaitable[Any], then: Callable[[], object] = lambda: None
    ) -> object:
        """Have a coroutine wait, do *then*, and return how it ended."""
        raise NotImplementedError

    def test_await_gives_what_it_fired_with_before(self) -> None:
        """An outcome that is known already is no wait."""
        outcome: Outcome[int] = Outcome()
        outcome.callback(7)

        self.assertEqual(self.wait(outcome), 7)

    def test_await_gives_what_it_fires_with_afterwards(self) -> None:
        """The coroutine goes on when the outcome is known."""
        outcome: Outcome[int] = Outcome()

        self.assertEqual(self.wait(outcome, lambda: outcome.callback(7)), 7)

    def test_await_raises_what_it_failed_with_before(self) -> None:
        """The traceback leads to where it failed."""
        outcome: Outcome[int] = Outcome()
        outcome.errback(refused())

        found = self.wait(outcome)

        assert isinstance(found, Refused)
        self.assertIn("refused", places(found))

    def test_await_raises_what_it_fails_with_afterwards(self) -> None:
        """The traceback leads to where it failed, also when that came later."""
        outcome: Outcome[int] = Outcome()

        found = self.wait(outcome, lambda: outcome.errback(refused()))

        assert isinstance(found, Refused)
        self.assertIn("refused", places(found))
        self.assertIn("ended", places(found))

    def test_await_twice_gives_the_same(self) -> None:
        """An outcome stays what it is, however often somebody asks."""
        outcome: Outcome[int] = Outcome()

        first = self.wait(outcome, lambda: outcome.callback(7))

        self.assertEqual([first, self.wait(outcome)], [7, 7])

    def test_await_twice_raises_the_same(self) -> None:
        """A failure that one has seen is no success for the next."""
        outcome: Outcome[int] = Outcome()

        first = self.wait(outcome, lambda: outcome.errback(refused()))

        self.assertIsInstance(first, Refused)
        self.assertIs(self.wait(outcome), first)

    def test_await_of_a_paused_one_waits(self) -> None:
        """One that was fired while it is paused has no result yet."""
        outcome: Outcome[int] = Outcome()
        outcome.pause()
        outcome.callback(7)

        self.assertEqual(self.wait(outcome, outcome.unpause), 7)

    def test_await_of_one_that_waits_for_another_waits(self) -> None:
        """A callback's Deferred comes first."""
        outcome: Outcome[int] = Outcome()
        inner: Deferred[int] = Deferred()
        outcome.addCallback(lambda _: inner)
        outcome.callback(1)

        self.assertEqual(self.wait(outcome, lambda: inner.callback(7)), 7)

    def test_cancel_of_the_outcome_raises_in_who_waits(self) -> None:
        """It is Twisted's error: a task of asyncio that nobody cancelled goes on."""
        outcome: Outcome[int] = Outcome()

        found = self.wait(outcome, outcome.cancel)

        self.assertIsInstance(found, CancelledError)

    def test_await_leaves_no_failure_to_be_logged(self) -> None:
        """A failure that was raised in a coroutine was seen."""

        def wait() -> None:
            outcome: Outcome[int] = Outcome()
            self.wait(outcome, lambda: outcome.errback(refused()))

        wait()
        gc.collect()

        self.assertEqual(self.flushLoggedErrors(Refused), [])


class InTwisted(InBothWorlds, SynchronousTestCase):
    """`Outcome` in coroutines of Twisted."""

    def wait(
        self, outcome: Awaitable[Any], then: Callable[[], object] = lambda: None
    ) -> object:
        """Have a coroutine of Twisted wait."""
        waiting = Deferred.fromCoroutine(ended(outcome))
        then()
        return self.successResultOf(waiting)

    def test_cancel_of_a_coroutine_cancels_what_it_waits_for(self) -> None:
        """The canceller of the outcome runs, as that of any Deferred."""
        cancelled: list[Deferred[int]] = []
        outcome: Outcome[int] = Outcome(cancelled.append)

        waiting = Deferred.fromCoroutine(ended(outcome))
        waiting.cancel()

        self.assertEqual(cancelled, [outcome])
        self.assertIsInstance(self.successResultOf(waiting), CancelledError)

    def test_await_by_several(self) -> None:
        """All who wait get the failure."""
        outcome: Outcome[int] = Outcome()
        both = gatherResults([Deferred.fromCoroutine(ended(outcome)) for _ in range(2)])

        outcome.errback(refused())

        first, second = self.successResultOf(both)
        self.assertIsInstance(first, Refused)
        self.assertIs(first, second)

    def test_twisted_coroutine_within_a_task_of_asyncio(self) -> None:
        """Who waits decides, and not which loop runs."""
        outcome: Outcome[int] = Outcome()

        async def main() -> object:
            waiting = Deferred.fromCoroutine(ended(outcome))
            outcome.callback(7)
            return self.successResultOf(waiting)

        self.assertEqual(asyncio.run(main()), 7)


class InAsyncio(InBothWorlds, SynchronousTestCase):
    """`Outcome` in coroutines of asyncio."""

    def wait(
        self, outcome: Awaitable[Any], then: Callable[[], object] = lambda: None
    ) -> object:
        """Have a task of asyncio wait."""

        async def main() -> object:
            waiting = asyncio.ensure_future(ended(outcome))
            await asyncio.sleep(0)  # it begins to wait
            then()
            return await waiting

        return asyncio.run(main())

    def test_cancel_of_a_task_cancels_what_it_waits_for(self) -> None:
        """The canceller of the outcome runs, and the task has asyncio's error."""
        cancelled: list[Deferred[int]] = []
        outcome: Outcome[int] = Outcome(cancelled.append)

        async def main() -> object:
            waiting = asyncio.ensure_future(ended(outcome))
            await asyncio.sleep(0)
            waiting.cancel()
            return await waiting

        found = asyncio.run(main())

        self.assertEqual(cancelled, [outcome])
        self.assertIsInstance(found, asyncio.CancelledError)

    def test_cancel_of_a_task_that_has_its_answer(self) -> None:
        """A task that is cancelled between answer and step is cancelled all the same.

        What the outcome was is not undone.
        """
        outcome: Outcome[int] = Outcome()

        async def main() -> object:
            waiting = asyncio.ensure_future(ended(outcome))
            await asyncio.sleep(0)
            outcome.callback(7)
            waiting.cancel()
            return await waiting

        self.assertIsInstance(asyncio.run(main()), asyncio.CancelledError)
        self.assertEqual(self.successResultOf(outcome), 7)

    def test_cancel_before_the_task_waits(self) -> None:
        """A task that was cancelled before its first step never waits."""
        outcome: Outcome[int] = Outcome()

        async def main() -> object:
            waiting = asyncio.ensure_future(ended(outcome))
            waiting.cancel()
            return (await asyncio.gather(waiting, return_exceptions=True))[0]

        self.assertIsInstance(asyncio.run(main()), asyncio.CancelledError)
        self.assertNoResult(outcome)

    def test_cancel_waits_for_an_outcome_that_takes_time_to_end(self) -> None:
        """As with a task that waits for another: it goes on when that has ended."""
        inner: Deferred[int] = Deferred(lambda _: None)
        outcome: Outcome[int] = Outcome()
        outcome.callback(0)
        ending: Deferred[int] = Deferred()
        inner.addErrback(lambda _: ending)
        outcome.addCallback(lambda _: inner)

        async def main() -> list[object]:
            waiting = asyncio.ensure_future(ended(outcome))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            before = waiting.done()
            ending.callback(7)
            return [before, type(await waiting)]

        self.assertEqual(asyncio.run(main()), [False, asyncio.CancelledError])

    def test_gather_and_timeouts(self) -> None:
        """What asyncio has for waiting takes an outcome as any other awaitable."""
        cancelled: list[Deferred[int]] = []

        async def main() -> object:
            first: Outcome[int] = Outcome()
            second: Outcome[int] = Outcome()
            never: Outcome[int] = Outcome(cancelled.append)
            loop = asyncio.get_running_loop()
            loop.call_soon(first.callback, 1)
            loop.call_soon(second.callback, 2)
            both = await asyncio.gather(first, second)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(never, 0.001)
            return both

        self.assertEqual(asyncio.run(main()), [1, 2])
        self.assertEqual(len(cancelled), 1)

    def test_context_is_that_of_the_task(self) -> None:
        """A task that waited has its own context variables afterwards."""
        import contextvars

        name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
        outcome: Outcome[int] = Outcome()

        async def waits(own: str) -> str:
            name.set(own)
            await outcome
            return name.get()

        async def main() -> list[str]:
            name.set("main")
            asyncio.get_running_loop().call_soon(outcome.callback, 1)
            return list(await asyncio.gather(waits("a"), waits("b")))

        self.assertEqual(asyncio.run(main()), ["a", "b"])


class Wrapped(SynchronousTestCase):
    """`Outcome.of` and `Outcome.run`: outcomes of other work."""

    def test_of_passes_results_and_failures(self) -> None:
        """It fires as the work does."""
        work: Deferred[int] = Deferred()
        outcome = Outcome.of(work)
        work.callback(7)

        self.assertEqual(self.successResultOf(outcome), 7)
        self.failureResultOf(Outcome.of(fail(Refused())), Refused)

    def test_of_passes_a_cancel(self) -> None:
        """To cancel it is to cancel the work."""
        cancelled: list[Deferred[int]] = []
        work: Deferred[int] = Deferred(cancelled.append)
        outcome = Outcome.of(work)

        outcome.cancel()

        self.assertEqual(cancelled, [work])
        self.failureResultOf(outcome, CancelledError)

    def test_of_a_work_that_takes_time_to_end(self) -> None:
        """One that is cancelled is waited for: it may have to close something."""
        ending: Deferred[int] = Deferred()
        work: Deferred[int] = Deferred().addErrback(lambda _: ending)
        outcome = Outcome.of(work)

        outcome.cancel()
        self.assertNoResult(outcome)
        ending.callback(7)

        self.assertEqual(self.successResultOf(outcome), 7)

    def test_uninterrupted_cannot_be_cancelled(self) -> None:
        """Neither world can end what must be finished; both wait for it."""
        closing: Uninterrupted[int] = Uninterrupted()

        async def main() -> object:
            waiting = asyncio.ensure_future(ended(closing))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            before = waiting.done()
            closing.callback(7)
            return before, type(await waiting)

        self.assertEqual(asyncio.run(main()), (False, asyncio.CancelledError))
        self.assertEqual(self.successResultOf(closing), 7)

    def test_run_runs_a_coroutine_of_twisted(self) -> None:
        """It may await Deferreds, whoever waits for the outcome."""
        work: Deferred[int] = Deferred()

        async def doubled() -> int:
            return 2 * await work

        async def main() -> int:
            asyncio.get_running_loop().call_soon(work.callback, 4)
            return await Outcome.run(doubled())

        self.assertEqual(asyncio.run(main()), 8)
