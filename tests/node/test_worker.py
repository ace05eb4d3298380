"""Workers: order, results, and what stopping means; with a real thread too."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from queue import Queue

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kernel import FakeAio, FDReactor
from txraft.errors import RaftShutdown, ThreadRefused
from txraft.node.kernel_sync import KernelSync
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


class MemoryFile:
    """Keeps the threads that have synced it."""

    def __init__(self) -> None:
        self.synced_by: list[threading.Thread] = []

    def sync_data(self) -> None:
        self.synced_by.append(threading.current_thread())


class File(MemoryFile):
    """One with a descriptor; the kernel that gets it is a fake."""

    def fileno(self) -> int:
        return 7


class Threads(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.worker = ThreadWorker(self.reactor, "test")  # type: ignore[arg-type]

    def stop(self) -> None:
        stopped = self.worker.stop()
        self.reactor.take(1)
        self.successResultOf(stopped)

    def test_thread_that_is_refused(self) -> None:
        """Work fails with a sentence, a later piece may succeed, and stopping ends."""

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with_threads = threading.Thread.start
        self.patch(threading.Thread, "start", refuse)
        error = self.failureResultOf(self.worker.run(int), ThreadRefused)
        self.assertIn("the thread test was not started", error.getErrorMessage())
        idle = ThreadWorker(self.reactor, "idle")  # type: ignore[arg-type]
        self.failureResultOf(idle.run(int), ThreadRefused)
        self.successResultOf(idle.stop())

        self.patch(threading.Thread, "start", with_threads)
        later = self.worker.run(int)
        self.reactor.take(1)

        self.assertEqual(self.successResultOf(later), 0)
        self.stop()

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


class Syncs(SynchronousTestCase):
    """A thread beside a kernel that can sync files."""

    def setUp(self) -> None:
        self.aio = FakeAio(self)
        self.descriptors = FDReactor()
        self.reactor = FakeReactor()
        self.worker = self.make_worker(KernelSync(self.descriptors))

    def make_worker(self, kernel: KernelSync | None) -> ThreadWorker:
        return ThreadWorker(self.reactor, "test", kernel)  # type: ignore[arg-type]

    def check_by_thread(self, worker: ThreadWorker, file: MemoryFile) -> None:
        """Have *file* synced: the worker's thread does it, then ends."""
        done = worker.sync(file)
        self.reactor.take(1)

        self.assertIsNone(self.successResultOf(done))
        [thread] = file.synced_by
        self.assertEqual(thread.name, "test")
        self.assertEqual(self.aio.under_way, [])
        stopped = worker.stop()
        self.reactor.take(1)
        self.successResultOf(stopped)

    def test_sync_by_the_kernel(self) -> None:
        """No thread is there for it; the reactor tells its end."""
        file = File()
        done = self.worker.sync(file)
        [operation] = self.aio.under_way
        self.assertEqual(operation.descriptor, 7)
        self.assertNoResult(done)

        self.aio.end()
        self.descriptors.turn()

        self.successResultOf(done)
        self.assertEqual(file.synced_by, [])
        self.successResultOf(self.worker.stop())
        self.assertTrue(self.reactor.calls.empty())

    def test_sync_that_the_kernel_fails(self) -> None:
        """It is not made again by the thread: that would tell of no failure."""
        file = File()
        done = self.worker.sync(file)

        self.aio.end(result=-errno.EIO)
        self.descriptors.turn()

        self.assertEqual(self.failureResultOf(done, OSError).value.errno, errno.EIO)
        self.assertEqual(file.synced_by, [])
        self.successResultOf(self.worker.stop())
        self.assertTrue(self.reactor.calls.empty())

    def test_sync_that_the_kernel_refuses(self) -> None:
        """The thread does it."""
        self.aio.refusal = ValueError("[EINVAL]")

        self.check_by_thread(self.worker, File())

    def test_sync_of_a_file_in_memory(self) -> None:
        """The kernel knows files by their descriptors; the thread calls this one."""
        self.check_by_thread(self.worker, MemoryFile())

    def test_sync_without_a_kernel(self) -> None:
        """Workers that sync no log have none."""
        self.check_by_thread(self.make_worker(None), File())

    def test_stop_waits_for_the_kernel(self) -> None:
        """A log is closed only when no sync of it is under way."""
        done = self.worker.sync(File())
        first, second = self.worker.stop(), self.worker.stop()
        self.assertNoResult(first)

        self.aio.end()
        self.descriptors.turn()

        self.successResultOf(done)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.descriptors.readers, [])
        self.failureResultOf(self.worker.sync(File()), RaftShutdown)

    def test_stopping_worker_takes_nothing(self) -> None:
        """Also while it waits for the kernel; what was given before is done."""
        before = self.worker.run(lambda: 1)
        self.worker.sync(File())
        stopped = self.worker.stop()

        self.failureResultOf(self.worker.run(lambda: 2), RaftShutdown)
        self.failureResultOf(self.worker.sync(File()), RaftShutdown)

        self.aio.end()
        self.descriptors.turn()
        self.reactor.take(2)
        self.assertEqual(self.successResultOf(before), 1)
        self.successResultOf(stopped)

    def test_stop_waits_for_the_kernel_and_the_thread(self) -> None:
        """Whichever ends last."""
        done = self.worker.run(lambda: 1)
        self.worker.sync(File())
        stopped = self.worker.stop()
        self.reactor.take(1)
        self.successResultOf(done)
        self.assertNoResult(stopped)

        self.aio.end()
        self.descriptors.turn()
        self.assertNoResult(stopped)
        self.reactor.take(1)

        self.successResultOf(stopped)


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

    def test_sync_in_order(self) -> None:
        """A sync waits its turn, so a test says when a write is durable."""
        worker, file = MemoryWorker(), MemoryFile()
        seen: list[int] = []
        before = worker.run(lambda: seen.append(len(file.synced_by)))
        synced = worker.sync(file)
        after = worker.run(lambda: seen.append(len(file.synced_by)))

        worker.perform()
        self.successResultOf(before)
        self.assertNoResult(synced)
        worker.perform()
        self.successResultOf(synced)
        worker.perform()

        self.successResultOf(after)
        self.assertEqual(seen, [0, 1])

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
