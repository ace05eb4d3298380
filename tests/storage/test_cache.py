"""The cache in front of a log store: what it keeps, and what it forgets in time."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry
from txraft.errors import LogNotFound
from txraft.storage.cache import LogCache
from txraft.storage.memory import InmemStore
from txraft.testing.contracts.samples import command, commands


class CountingStore(InmemStore):
    """A store that counts reads, and whose next write fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.error: Exception | None = None

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        self.reads += 1
        return super().get_logs(first, last, max_bytes)

    def store_logs(self, entries: Sequence[Entry]) -> None:
        if self.error is not None:
            raise self.error
        super().store_logs(entries)


class Caching(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = CountingStore()
        self.cache = LogCache(4, self.store)

    def test_capacity_is_positive(self) -> None:
        """A cache of nothing is refused."""
        for capacity in (0, -1):
            self.assertRaises(ValueError, LogCache, capacity, self.store)

    def test_newest_are_read_from_memory(self) -> None:
        """Only what is older than the capacity is asked of the store."""
        self.cache.store_logs(commands(1, 6))

        self.assertEqual([self.cache.get_log(i) for i in (3, 4, 5, 6)], commands(3, 6))
        self.assertEqual(self.store.reads, 0)
        self.assertEqual(self.cache.get_log(2), command(2))
        self.assertEqual(self.store.reads, 1)
        self.assertEqual(self.cache.get_logs(3, 6, 1 << 20), commands(3, 6))
        self.assertEqual(self.store.reads, 1)

    def test_hit_after_the_store_has_lost_it(self) -> None:
        """What is cached is not asked of the store, whatever became of it there."""
        self.cache.store_logs(commands(1, 3))

        self.store.delete_range(1, 3)

        self.assertEqual(self.cache.get_log(2), command(2))

    def test_delete_range_forgets(self) -> None:
        """What is deleted through the cache is gone from it too."""
        self.cache.store_logs(commands(1, 3))

        self.cache.delete_range(1, 2)

        self.assertRaises(LogNotFound, self.cache.get_log, 2)
        self.assertEqual(self.cache.get_log(3), command(3))

    def test_write_that_failed_leaves_nothing(self) -> None:
        """An entry is in the cache only when it is in the store."""
        self.cache.store_logs(commands(1, 3))
        self.store.error = OSError("disk full")

        self.assertRaises(OSError, self.cache.store_logs, commands(4, 5))
        self.assertRaises(OSError, self.cache.store_logs, commands(2, 3, term=2))

        self.assertRaises(LogNotFound, self.cache.get_log, 4)
        self.assertEqual(self.cache.get_log(3), command(3))

    def test_replaced_tail_is_not_found_again(self) -> None:
        """Entries behind a replaced one are gone, also from memory."""
        self.cache.store_logs(commands(1, 4))

        self.cache.store_log(command(2, term=2))

        self.assertEqual(self.cache.get_log(2), command(2, term=2))
        for index in (3, 4):
            self.assertRaises(LogNotFound, self.cache.get_log, index)

    def test_entries_are_forgotten_before_the_store_changes(self) -> None:
        """A reader on another thread never finds what is being replaced."""
        cache = self.cache

        class Watching(InmemStore):
            seen: Entry | None = None

            def store_logs(self, entries: Sequence[Entry]) -> None:
                self.seen = cache._cached(1)
                super().store_logs(entries)

        store = Watching()
        cache = LogCache(4, store)
        cache.store_logs(commands(1, 2))

        cache.store_log(command(1, term=2))

        self.assertIsNone(store.seen)
