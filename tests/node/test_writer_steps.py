"""The writer with a store that writes in two steps: the worker may only sync."""

from __future__ import annotations

from tests.node.test_writer import TimedWriterCase, entries
from txraft.core.ready import HardState
from txraft.node.writer import QUICK_SECONDS


class TwoStepCase(TimedWriterCase):
    def take_events(self) -> list[str]:
        events, self.store.events = self.store.events, []
        return events

    def perform(self, after: float = 0.0) -> list[str]:
        """Let the worker do one thing, which takes *after* seconds; return events."""
        self.clock.advance(after)
        self.assertTrue(self.worker.perform())
        return self.take_events()


class TwoSteps(TwoStepCase):
    """What is written by the reactor thread, and what is left to the worker."""

    def test_append_is_written_at_once_and_synced_by_the_worker(self) -> None:
        """It is not durable before: the store and then consensus are told after."""
        self.write(entries(1, 2))
        synced = self.writer.when_synced()
        self.assertEqual(self.take_events(), ["write 1-2"])
        self.assertNoResult(synced)
        self.assertEqual((self.writer.synced_number, self.writer.synced_index), (0, 0))

        self.assertEqual(self.perform(), ["sync", "logs_synced", "synced 1"])

        self.successResultOf(synced)
        self.assertEqual((self.writer.synced_number, self.writer.synced_index), (1, 2))
        self.assertEqual((self.writer.stored, self.store.last_index()), (2, 2))
        self.assertFalse(self.worker.perform())

    def test_what_comes_meanwhile_is_one_write_afterwards(self) -> None:
        """It begins before consensus is told of the first."""
        for index in range(1, 5):
            self.write(entries(index, index))
        self.assertEqual(self.take_events(), ["write 1-1"])
        self.assertEqual(self.writer.waiting, 1)

        self.assertEqual(
            self.perform(), ["sync", "logs_synced", "write 2-4", "synced 1"]
        )
        self.assertEqual(self.perform(), ["sync", "logs_synced", "synced 4"])

    def test_flush_waits_for_the_sync(self) -> None:
        """A node that stops does not leave one under way."""
        self.write(entries(1, 1))
        flushed = self.writer.flush()
        self.assertNoResult(flushed)

        self.perform()

        self.successResultOf(flushed)

    def test_append_with_term_and_vote(self) -> None:
        """The worker does both, in the order that `Ready` documents."""
        self.write(entries(1, 2), hard_state=HardState(3, "b", b"c" * 16))
        self.assertEqual(self.take_events(), [])

        self.assertEqual(self.perform(), ["set", "store 1-2", "synced 1"])

    def test_append_after_a_truncation(self) -> None:
        """Likewise."""
        self.write(entries(1, 4))
        self.perform()
        self.write(entries(3, 3, term=2), truncate_from=3)
        self.assertEqual(self.take_events(), [])

        self.assertEqual(self.perform(), ["delete 3-4", "store 3-3", "synced 2"])

    def test_append_before_and_after_a_deletion(self) -> None:
        """What waits together goes to the worker whole, whichever comes first."""
        self.write(entries(1, 4))
        self.write(entries(5, 5))
        self.writer.delete_up_to(2)
        first = ["sync", "logs_synced", "synced 1"]
        self.assertEqual(self.perform(), ["write 1-4", *first])
        self.assertEqual(self.writer.waiting, 0)
        self.writer.delete_up_to(3)
        self.write(entries(6, 6))

        self.assertEqual(self.perform(), ["store 5-5", "delete 1-2", "synced 2"])
        self.assertEqual(self.perform(), ["delete 3-3", "store 6-6", "synced 3"])

    def test_append_and_save(self) -> None:
        """What is saved keeps its place among the writes."""
        self.write(entries(1, 1))
        self.writer.save({b"k": b"v"})
        self.write(entries(2, 2))
        self.perform()
        self.assertEqual(self.store.last_index(), 1)

        self.assertEqual(self.perform(), ["set", "store 2-2", "synced 2"])

        self.assertEqual(self.store.get(b"k"), b"v")

    def test_save_alone(self) -> None:
        """The worker does it, though the disk is free; an append waits for it."""
        self.writer.save({b"k": b"v"})
        self.write(entries(1, 1))
        self.assertEqual(self.take_events(), [])

        self.assertEqual(self.perform(), ["set", "write 1-1", "synced 0"])

    def test_store_that_has_no_room(self) -> None:
        """Then the worker stores the entries, and the next may be written here."""
        self.store.has_room = False
        self.write(entries(1, 2))
        self.store.has_room = True
        self.assertEqual(self.take_events(), [])

        self.assertEqual(self.perform(), ["store 1-2", "synced 1"])

        self.write(entries(3, 3))
        self.assertEqual(self.take_events(), ["write 3-3"])

    def test_slow_disk(self) -> None:
        """A write may block where a sync does: the worker makes both until one of
        its own was quick."""
        self.write(entries(1, 1))
        self.perform(after=QUICK_SECONDS * 2)

        self.write(entries(2, 2))
        self.assertEqual(self.take_events(), [])
        self.assertEqual(
            self.perform(after=QUICK_SECONDS * 2), ["store 2-2", "synced 2"]
        )
        self.write(entries(3, 3))
        self.assertEqual(self.perform(), ["store 3-3", "synced 3"])

        self.write(entries(4, 4))
        self.assertEqual(self.take_events(), ["write 4-4"])

    def test_slow_disk_for_what_comes_meanwhile(self) -> None:
        """The write that has just ended counts already."""
        self.write(entries(1, 1))
        self.write(entries(2, 2))

        self.assertEqual(
            self.perform(after=QUICK_SECONDS * 2),
            ["write 1-1", "sync", "logs_synced", "synced 1"],
        )
        self.assertEqual(self.perform(), ["store 2-2", "synced 2"])

    def test_disk_at_the_limit_is_quick(self) -> None:
        """A write may take as long as is allowed."""
        self.write(entries(1, 1))
        self.perform(after=QUICK_SECONDS)

        self.write(entries(2, 2))

        self.assertEqual(self.take_events(), ["write 2-2"])


class TwoStepFailures(TwoStepCase):
    """A failure of either step is that of the write."""

    def check_nothing_follows(self, error: Exception) -> None:
        """Check that *error* was told once, and that nothing is written any more."""
        self.take_events()
        self.write(entries(8, 8))
        self.writer.save({b"k": b"v"})

        self.assertFalse(self.worker.perform())
        self.assertEqual(self.take_events(), [])
        self.assertEqual([failure.value for failure in self.failures], [error])
        self.failureResultOf(self.writer.when_synced(), type(error))
        self.successResultOf(self.writer.flush())

    def test_write_error(self) -> None:
        """It comes as from a thread, never while consensus hands over its write."""
        error = self.store.write_error = ValueError("a gap")
        self.write(entries(1, 1))
        waiting = self.writer.when_synced()
        self.assertEqual((self.failures, self.take_events()), ([], []))
        self.assertNoResult(waiting)

        self.perform()

        self.failureResultOf(waiting, ValueError)
        self.check_nothing_follows(error)

    def test_write_error_of_what_came_meanwhile(self) -> None:
        """The write before it is durable, and told to be."""
        self.write(entries(1, 1))
        self.write(entries(2, 2))
        error = self.store.write_error = OSError(28, "no space")

        self.assertEqual(
            self.perform(), ["write 1-1", "sync", "logs_synced", "synced 1"]
        )
        self.assertEqual(self.failures, [])
        self.perform()

        self.check_nothing_follows(error)
        self.assertEqual(self.writer.synced_number, 1)

    def test_sync_error(self) -> None:
        """The store is told, and what waits is written no more."""
        error = self.store.sync_error = OSError(5, "the disk is gone")
        self.write(entries(1, 1))
        self.write(entries(2, 2))
        waiting = self.writer.when_synced()

        self.assertEqual(self.perform(), ["write 1-1", "sync", f"failed: {error}"])

        self.failureResultOf(waiting, OSError)
        self.check_nothing_follows(error)
        self.assertEqual((self.writer.synced_number, self.writer.synced_index), (0, 0))
        self.assertEqual(self.store.last_index(), 0)
        self.assertEqual((self.writer.stored, sum(self.writer.stores.counts)), (0, 0))

    def test_save_error(self) -> None:
        """What cannot be saved ends all writing, as any other write does."""
        error = self.store.set_error = OSError(28, "no space")
        self.write(entries(1, 1))
        self.writer.save({b"k": b"v"})
        self.write(entries(2, 2))
        self.perform()

        self.assertEqual(self.perform(), ["set"])

        self.check_nothing_follows(error)
        self.assertEqual(self.store.last_index(), 1)
