"""The writer: one write at a time, in consensus order, and never after a failure."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.two_step_store import TwoStepStore
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState, Ready, ResetLog
from txraft.node.startup import read_hard_state
from txraft.node.synced_note import LogEnd
from txraft.node.worker import MemoryWorker
from txraft.node.writer import Writer
from txraft.storage.memory import InmemStore


class CountingStore(InmemStore):
    """Counts log writes, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[int]] = []
        self.broken = False

    def store_logs(self, entries: Sequence[Entry]) -> None:
        if self.broken:
            raise OSError(5, "the disk is gone")
        self.writes.append([entry.index for entry in entries])
        super().store_logs(entries)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(i, term, LogType.COMMAND, b"") for i in range(first, last + 1)]


class WriterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = CountingStore()
        self.worker = MemoryWorker()
        self.synced: list[int] = []
        self.failures: list[Failure] = []
        self.number = 0
        self.writer = Writer(
            self.worker,
            log_store=self.store,
            stable_store=self.store,
            synced=self.synced.append,
            failed=self.failures.append,
            end=LogEnd(),
        )

    def write(
        self,
        append: Sequence[Entry] = (),
        truncate_from: int | None = None,
        hard_state: HardState | None = None,
        reset_log: ResetLog | None = None,
    ) -> None:
        self.number += 1
        self.writer.write(
            Ready(
                write_number=self.number,
                has_write=True,
                append=list(append),
                truncate_from=truncate_from,
                hard_state=hard_state,
                reset_log=reset_log,
            )
        )


class TimedWriterCase(WriterCase):
    """A writer that looks at a clock, and a store that lists what it does."""

    store: TwoStepStore  # type: ignore[assignment]

    def make_store(self) -> TwoStepStore:
        """Make the store of the writer."""
        return TwoStepStore()

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.store = self.make_store()
        self.writer = Writer(
            self.worker,
            log_store=self.store,
            stable_store=self.store,
            synced=self.store.synced,
            failed=self.failures.append,
            end=LogEnd(),
            seconds=self.clock.seconds,
        )


class Writing(WriterCase):
    def test_write_is_synced_when_the_worker_has_done_it(self) -> None:
        """Nothing is reported before."""
        self.write(entries(1, 2), hard_state=HardState(3, "b", b"c" * 16))
        self.assertEqual((self.synced, self.writer.synced_number), ([], 0))

        self.worker.perform()

        self.assertEqual((self.synced, self.writer.synced_number), ([1], 1))
        self.assertEqual(self.store.last_index(), 2)
        self.assertEqual(read_hard_state(self.store), HardState(3, "b", b"c" * 16))

    def test_writes_that_wait_together_are_one(self) -> None:
        """Entries per sync are what arrived during the sync before."""
        for index in range(1, 6):
            self.write(entries(index, index))
        self.worker.perform()
        self.worker.perform()

        self.assertEqual(self.store.writes, [[1], [2, 3, 4, 5]])
        self.assertEqual(self.synced, [1, 5])

    def test_order_is_kept_around_a_truncation(self) -> None:
        """Entries of before and after it are never merged into one write."""
        self.write(entries(1, 4))
        self.write(entries(5, 6))
        self.write(entries(3, 3, term=2), truncate_from=3)
        self.write(entries(4, 4, term=2))
        while self.worker.perform():
            pass

        self.assertEqual(self.store.writes, [[1, 2, 3, 4], [5, 6], [3, 4]])
        self.assertEqual(self.store.term_runs(), [(1, 1), (3, 2)])

    def test_reset_drops_the_log_or_its_prefix(self) -> None:
        """A snapshot takes the place of the log up to its index, or of all of it."""
        self.write(entries(1, 6))
        self.write(reset_log=ResetLog(4, True))
        while self.worker.perform():
            pass
        self.assertEqual((self.store.first_index(), self.store.last_index()), (5, 6))

        self.write(reset_log=ResetLog(5, False))
        self.worker.perform()
        self.assertEqual(self.store.last_index(), 0)

    def test_delete_up_to_keeps_its_place(self) -> None:
        """A prefix is deleted after the writes that were queued before."""
        self.write(entries(1, 3))
        self.writer.delete_up_to(2)
        self.writer.delete_up_to(2)
        while self.worker.perform():
            pass

        self.assertEqual(self.store.first_index(), 3)


class SyncedIndex(WriterCase):
    def test_index_does_not_count_what_a_queued_write_takes_back(self) -> None:
        """An index written twice is on disk only when its second write is."""
        self.write(entries(1, 10))
        self.write(entries(5, 8, term=2), truncate_from=5)

        self.worker.perform()
        self.assertEqual(self.writer.synced_index, 4)

        self.worker.perform()
        self.assertEqual(self.writer.synced_index, 8)

    def test_index_falls_when_a_truncation_is_queued(self) -> None:
        """What was on disk may be read no more."""
        self.write(entries(1, 10))
        self.worker.perform()

        self.write(entries(5, 8, term=2), truncate_from=5)

        self.assertEqual(self.writer.synced_index, 4)

    def test_index_falls_when_a_reset_is_queued(self) -> None:
        """Likewise for a snapshot that replaces the log."""
        self.write(entries(1, 10))
        self.worker.perform()

        self.write(reset_log=ResetLog(8, False))
        self.write(entries(9, 12, term=2))

        self.assertEqual(self.writer.synced_index, 8)


class Failing(WriterCase):
    def test_failure_is_told_once_and_nothing_is_written_after_it(self) -> None:
        """Never retry a sync: what it left behind is unknown."""
        self.store.broken = True
        self.write(entries(1, 1))
        self.write(entries(2, 2))
        self.worker.perform()
        self.store.broken = False

        self.assertFalse(self.worker.perform())
        self.write(entries(3, 3))
        self.assertFalse(self.worker.perform())

        [failure] = self.failures
        failure.trap(OSError)
        self.assertEqual((self.store.writes, self.synced), ([], []))

    def test_when_synced_fails_with_the_write(self) -> None:
        """Whoever waits is told, and so is whoever asks later."""
        self.store.broken = True
        self.write(entries(1, 1))
        waiting = self.writer.when_synced()
        self.assertNoResult(waiting)

        self.worker.perform()

        self.failureResultOf(waiting, OSError)
        self.failureResultOf(self.writer.when_synced(), OSError)

    def test_when_synced_waits_for_what_is_queued_now(self) -> None:
        """Not for what comes later, and not only for what is under way."""
        self.write(entries(1, 1))
        self.write(entries(2, 2))
        waiting = self.writer.when_synced()
        self.worker.perform()
        self.assertNoResult(waiting)
        self.write(entries(3, 3))

        self.worker.perform()

        self.successResultOf(waiting)
        self.assertEqual(self.store.last_index(), 2)

    def test_flush_waits_for_deletions_too(self) -> None:
        """Nothing is left for a worker that is about to stop."""
        self.write(entries(1, 3))
        self.writer.delete_up_to(2)
        flushed = self.writer.flush()
        self.worker.perform()
        self.assertNoResult(flushed)
        self.worker.perform()

        self.successResultOf(flushed)
        self.successResultOf(self.writer.flush())

    def test_flush_fires_although_a_write_fails(self) -> None:
        """A node with a broken disk must be able to stop."""
        self.store.broken = True
        self.write(entries(1, 3))
        self.write(entries(4, 4))
        flushed = self.writer.flush()

        self.worker.perform()

        self.successResultOf(flushed)
        self.successResultOf(self.writer.flush())
