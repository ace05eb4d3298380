"""Workers: order, results, and what stopping means; with a real thread too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import RaftShutdown
from txraft.node.worker import MemoryWorker, ThreadWorker


class FakeReactor:
    """Keeps what threads hand over until the test takes it."""

    def __init__(self) -> None:
        self.calls: Queue[Callable[[], object]] = Queue()

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        self.calls.put(lambda: call(*arguments))

    def take(self, count: int) -> None:
        for _ in range(count):
            self.calls.get(timeout=10)()


class Threads(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.worker = ThreadWorker(self.reactor, "test")  # type: ignore[arg-type]

    def stop(self) -> None:
        stopped = self.worker.stop()
        self.reactor.take(1)
        self.successResultOf(stopped)

    def test_run_in_order_on_one_thread(self) -> None:
        """Results come back on the reactor's thread, in the order given."""
        threads: list[threading.Thread] = []
        done: list[Deferred[int]] = []
        for number in range(5):

            def work(number: int = number) -> int:
                threads.append(threading.current_thread())
                return number

            done.append(self.worker.run(work))
        self.reactor.take(5)

        self.assertEqual([self.successResultOf(d) for d in done], list(range(5)))
        self.assertEqual(len(set(threads)), 1)
        self.assertIsNot(threads[0], threading.current_thread())
        self.stop()

    def test_failure_comes_back_and_the_thread_lives_on(self) -> None:
        """Whatever a function raises is its caller's, not the thread's end."""

        def fails() -> None:
            raise SystemExit(1)

        failed = self.worker.run(fails)
        after = self.worker.run(lambda: "after")
        self.reactor.take(2)

        self.failureResultOf(failed, SystemExit)
        self.assertEqual(self.successResultOf(after), "after")
        self.stop()

    def test_stop_finishes_what_was_given(self) -> None:
        """Every call of it fires, and nothing more is taken."""
        done = self.worker.run(lambda: 1)
        first, second = self.worker.stop(), self.worker.stop()
        self.failureResultOf(self.worker.run(lambda: 2), RaftShutdown)
        self.assertNoResult(first)
        self.reactor.take(2)

        self.assertEqual(self.successResultOf(done), 1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.worker.stop())

    def test_stop_before_the_first_work(self) -> None:
        """There is no thread to wait for."""
        self.successResultOf(self.worker.stop())


class Memory(SynchronousTestCase):
    def test_perform_does_the_oldest(self) -> None:
        """Nothing happens before; failures come back as with a thread."""
        worker = MemoryWorker()
        first = worker.run(lambda: 1)
        second = worker.run(lambda: 1 / 0)
        self.assertNoResult(first)

        self.assertTrue(worker.perform())
        self.assertEqual(self.successResultOf(first), 1)
        self.assertNoResult(second)
        self.assertTrue(worker.perform())
        self.failureResultOf(second, ZeroDivisionError)
        self.assertFalse(worker.perform())

    def test_discard_forgets_what_was_not_done(self) -> None:
        """As a crash does: nobody is told."""
        worker = MemoryWorker()
        done: list[int] = []
        lost = worker.run(lambda: done.append(1))

        worker.discard()

        self.assertFalse(worker.perform())
        self.assertEqual(done, [])
        self.assertNoResult(lost)
        self.failureResultOf(worker.run(lambda: 2), RaftShutdown)

    def test_stop_does_what_is_left(self) -> None:
        """And refuses more."""
        worker = MemoryWorker()
        done = worker.run(lambda: 1)

        self.successResultOf(worker.stop())

        self.assertEqual(self.successResultOf(done), 1)
        self.failureResultOf(worker.run(lambda: 2), RaftShutdown)
