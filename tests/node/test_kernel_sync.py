"""Syncs by the kernel: they end, they fail, or the system has none."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kernel import FakeAio, FDReactor, replace_aio
from txraft.node.kernel_sync import KernelSync
from txraft.storage.filesystem import OsFile, OsFileSystem


class Kernel(SynchronousTestCase):
    """Files in a directory, and the kernel of this machine."""

    if not sys.platform.startswith("linux"):
        skip = "only Linux has this"

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.reactor = FDReactor()
        self.kernel = KernelSync(self.reactor)
        self.addCleanup(self.kernel.close)

    def file(self, name: str) -> OsFile:
        file = OsFileSystem().create(self.directory / name)
        self.addCleanup(file.close)
        file.write_at(name.encode(), 0)
        return file

    def sync(self, file: OsFile) -> Deferred[None]:
        done = self.kernel.sync_data(file.fileno())
        assert done is not None, "the kernel has refused"
        return done

    def test_sync_data_is_told_by_the_reactor(self) -> None:
        """A sync that has ended is known only once the reactor has looked."""
        done = self.sync(self.file("one"))

        [reader] = self.reactor.wait()
        self.assertNoResult(done)
        reader.doRead()

        self.assertIs(reader, self.kernel)
        self.assertIsNone(self.successResultOf(done))

    def test_sync_data_of_several_files(self) -> None:
        """Each has its own end, and they share one reader."""
        files = [self.file(str(number)) for number in range(5)]

        all_done = [self.sync(file) for file in files]
        while not all(done.called for done in all_done):
            self.reactor.turn()

        self.assertEqual([self.successResultOf(d) for d in all_done], [None] * 5)
        self.assertEqual(self.reactor.readers, [self.kernel])

    def test_sync_data_again(self) -> None:
        """The queue is made once, and used for all syncs that follow."""
        file = self.file("one")
        for _ in range(3):
            done = self.sync(file)
            self.reactor.turn()
            self.successResultOf(done)

        self.assertEqual(self.reactor.readers, [self.kernel])

    def test_sync_data_of_a_file_that_is_closed_meanwhile(self) -> None:
        """What was begun holds the file itself, not its number."""
        file = self.file("one")
        done = self.sync(file)

        file.close()
        self.reactor.turn()

        self.successResultOf(done)

    def test_sync_data_of_a_file_that_is_closed(self) -> None:
        """The kernel refuses at once; nothing waits for it."""
        file = self.file("one")
        file.close()

        self.assertIsNone(self.kernel.sync_data(file.fileno()))

        self.assertEqual(self.reactor.readers, [])

    def test_read_with_nothing_to_tell(self) -> None:
        """A reactor may look in vain."""
        done = self.sync(self.file("one"))
        self.reactor.turn()
        self.successResultOf(done)

        self.kernel.doRead()

        self.assertEqual(self.reactor.readers, [self.kernel])

    def test_close_lets_go_of_the_queue(self) -> None:
        """No descriptor is left open."""
        done = self.sync(self.file("one"))
        self.reactor.turn()
        self.successResultOf(done)
        descriptor = self.kernel.fileno()

        self.successResultOf(self.kernel.close())

        error = self.assertRaises(OSError, os.fstat, descriptor)
        self.assertEqual(error.errno, errno.EBADF)
        self.assertEqual(self.kernel.fileno(), -1)


class FakeKernelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.aio = FakeAio(self)
        self.reactor = FDReactor()
        self.kernel = KernelSync(self.reactor)

    def sync(self, descriptor: int = 7) -> Deferred[None]:
        done = self.kernel.sync_data(descriptor)
        assert done is not None, "it is available"
        return done

    def assertUnavailable(self, kernel: KernelSync) -> list[str]:
        """Assert that *kernel* takes nothing; return what it says about it."""
        with capturedLogs() as events:
            self.assertIsNone(kernel.sync_data(7))
        names = {event["log_namespace"] for event in events}
        self.assertLessEqual(names, {"txraft.node.kernel_sync.KernelSync"})
        return [str(formatEvent(event)) for event in events]


class Ends(FakeKernelCase):
    """How a sync ends, and whose Deferred fires."""

    def test_failed_sync(self) -> None:
        """The error is that of the system call, with its number."""
        done = self.sync()

        self.aio.end(result=-errno.EIO)
        self.reactor.turn()

        error = self.failureResultOf(done, OSError).value
        self.assertEqual((error.errno, error.strerror), (5, os.strerror(5)))

    def test_failed_sync_is_nobody_elses(self) -> None:
        """Others that are under way, or that follow, may succeed."""
        first, second = self.sync(), self.sync()
        self.aio.end(result=-errno.ENOSPC)
        self.aio.end()
        self.reactor.turn()
        third = self.sync()
        self.aio.end()
        self.reactor.turn()

        self.assertEqual(self.failureResultOf(first, OSError).value.errno, 28)
        self.successResultOf(second)
        self.successResultOf(third)

    def test_ends_in_another_order(self) -> None:
        """Each Deferred fires with the end of its own file's sync."""
        first, second = self.sync(3), self.sync(4)

        self.aio.end(number=1)
        self.reactor.turn()

        self.assertNoResult(first)
        self.successResultOf(second)
        [operation] = self.aio.under_way
        self.assertEqual(operation.descriptor, 3)
        self.aio.end()
        self.reactor.turn()
        self.successResultOf(first)

    def test_next_sync_begins_where_one_ends(self) -> None:
        """Who is told of an end may ask for more, as a log does."""
        nexts: list[Deferred[None]] = []
        self.sync().addCallback(lambda _: nexts.append(self.sync()))

        self.aio.end()
        self.reactor.turn()

        [following] = nexts
        self.assertNoResult(following)
        self.aio.end()
        self.reactor.turn()
        self.successResultOf(following)


class Unavailable(FakeKernelCase):
    """Where the kernel cannot, a thread does it: None tells so."""

    def test_nothing_is_opened_before_the_first_sync(self) -> None:
        """A process may become a daemon in between."""
        self.assertEqual((self.aio.contexts, self.reactor.readers), ([], []))
        self.assertEqual(self.kernel.fileno(), -1)

        self.sync()

        self.assertEqual(len(self.aio.contexts), 1)
        self.assertEqual(self.reactor.readers, [self.kernel])

    def test_reactor_without_descriptors(self) -> None:
        """A reactor that watches no descriptors could tell of no end."""
        kernel = KernelSync(object())

        self.assertEqual(self.assertUnavailable(kernel), [])

        self.assertEqual(self.aio.contexts, [])
        self.successResultOf(kernel.close())

    def test_without_the_package(self) -> None:
        """That is said once, when the node is made."""
        replace_aio(self, None)

        with capturedLogs() as events:
            kernel = KernelSync(self.reactor)

        [said] = [str(formatEvent(event)) for event in events]
        self.assertIn("A thread syncs the log, not the kernel: ", said)
        self.assertEqual(self.assertUnavailable(kernel), [])
        self.assertEqual(self.reactor.readers, [])

    def test_without_a_queue(self) -> None:
        """The kernel has only so many of them, and some have none."""
        self.aio.has_no_queue = True

        [said] = self.assertUnavailable(self.kernel)

        self.assertIn("Resource temporarily unavailable", said)
        self.aio.has_no_queue = False
        self.assertEqual(self.assertUnavailable(self.kernel), [])
        self.assertEqual(self.reactor.readers, [])

    def test_refused_sync(self) -> None:
        """It is not tried again."""
        self.aio.refusal = ValueError("[EINVAL]")

        [said] = self.assertUnavailable(self.kernel)

        self.assertIn("[EINVAL]", said)
        self.aio.refusal = None
        self.assertEqual(self.assertUnavailable(self.kernel), [])
        self.assertEqual((self.aio.under_way, self.reactor.readers), ([], []))

    def test_refused_sync_beside_one_under_way(self) -> None:
        """That one ends as it would have; then nothing is left open."""
        done = self.sync()
        self.aio.refusal = OverflowError("[EAGAIN]")
        self.assertUnavailable(self.kernel)
        self.assertEqual(self.reactor.readers, [self.kernel])

        self.aio.end(result=-errno.EIO)
        self.reactor.turn()

        self.failureResultOf(done, OSError)
        self.assertEqual(self.reactor.readers, [])


class Closing(FakeKernelCase):
    """How it ends itself."""

    def test_close_before_the_first_sync(self) -> None:
        """There is nothing to let go of, and nothing is begun afterwards."""
        self.successResultOf(self.kernel.close())

        self.assertEqual(self.assertUnavailable(self.kernel), [])
        self.assertEqual(self.aio.contexts, [])

    def test_close_waits_for_what_is_under_way(self) -> None:
        """Every call fires after the last end, and no reader is left."""
        first, second = self.sync(), self.sync()
        closed, again = self.kernel.close(), self.kernel.close()
        self.assertUnavailable(self.kernel)

        self.aio.end()
        self.reactor.turn()
        self.successResultOf(first)
        self.assertNoResult(closed)
        self.assertEqual(self.reactor.readers, [self.kernel])
        self.aio.end(result=-errno.EIO)
        self.reactor.turn()

        self.failureResultOf(second, OSError)
        self.successResultOf(closed)
        self.successResultOf(again)
        self.assertEqual(self.reactor.readers, [])
        self.successResultOf(self.kernel.close())

    def test_close_where_a_sync_ends(self) -> None:
        """Who is told of one end may close; the other is told all the same."""
        closed: list[Deferred[None]] = []
        self.sync().addCallback(lambda _: closed.append(self.kernel.close()))
        other = self.sync()

        self.aio.end()
        self.aio.end()
        self.reactor.turn()

        self.successResultOf(other)
        self.successResultOf(closed[0])
        self.assertEqual(self.reactor.readers, [])

    def test_connection_lost_fails_what_is_under_way(self) -> None:
        """A reactor that has dropped it tells of no end any more."""
        first, second = self.sync(), self.sync()
        closed = self.kernel.close()

        self.kernel.connectionLost(Failure(ConnectionLost()))

        self.failureResultOf(first, ConnectionLost)
        self.failureResultOf(second, ConnectionLost)
        self.successResultOf(closed)
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.assertUnavailable(self.kernel), [])
