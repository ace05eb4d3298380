"""The tail: what is not synced is always in memory, and all of it has a bound."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.node.tail import ENTRY_OVERHEAD_BYTES, Tail

SIZE = 10


def entries(first: int, last: int) -> list[Entry]:
    made = [Entry(i, 1, LogType.COMMAND, b"") for i in range(first, last + 1)]
    for entry in made:
        entry.encoded = b"x" * SIZE
    return made


def indexes(found: list[Entry] | None) -> list[int] | None:
    return None if found is None else [entry.index for entry in found]


class TailCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.tail = Tail(4, max_bytes=3200, max_append_bytes=3 * SIZE)
        self.tail.append(entries(5, 14))

    def test_slice_of_what_is_here(self) -> None:
        """Nothing for a range that begins before."""
        self.assertEqual((self.tail.first, self.tail.last), (5, 14))
        self.assertEqual(indexes(self.tail.slice(6, 8)), [6, 7, 8])
        self.assertIsNone(self.tail.slice(4, 8))

    def test_fit_counts_bytes_and_lets_one_entry_through(self) -> None:
        """A message holds at least one entry, however large."""
        self.assertEqual(self.tail.fit(5, 14), 7)
        self.assertEqual(self.tail.fit(13, 14), 14)
        self.assertEqual(self.tail.fit(6, 6), 6)
        large = entries(15, 15)
        large[0].encoded = b"x" * 100
        self.tail.append(large)
        self.assertEqual(self.tail.fit(15, 15), 15)

    def test_fit_after_trimming(self) -> None:
        """Positions count from what is still here."""
        self.tail.append(entries(15, 24))
        self.tail.trim(24, 24)
        first = self.tail.first
        self.assertGreater(first, 5)
        self.assertEqual(self.tail.fit(first, 24), first + 2)
        self.assertEqual(indexes(self.tail.slice(first, first)), [first])

    def test_trim_never_drops_what_the_caller_still_needs(self) -> None:
        """However much there is, nothing that is not synced goes."""
        self.tail.append(entries(15, 100))
        self.tail.trim(7, 100)
        self.assertEqual(self.tail.first, 8)
        self.tail.trim(4, 100)
        self.assertEqual(self.tail.first, 8)

    def test_trim_drops_what_is_not_applied_only_when_that_is_too_much(self) -> None:
        """It would have to be read back; but memory has its bound."""
        self.tail.append(entries(15, 16))
        self.tail.trim(16, 8)
        self.assertEqual(self.tail.first, 9)
        self.tail.append(entries(17, 100))

        self.tail.trim(100, 8)

        held = self.tail.last - self.tail.first + 1
        self.assertLessEqual(held * (2 * SIZE + ENTRY_OVERHEAD_BYTES), 3200)

    def test_trim_keeps_what_the_bound_allows(self) -> None:
        """Half of it is left for later, so that trimming is rare."""
        self.tail.trim(14, 14)
        self.assertEqual(self.tail.first, 5)
        self.tail.append(entries(15, 100))
        self.tail.trim(100, 100)
        held = self.tail.last - self.tail.first + 1
        self.assertLessEqual(held * (2 * SIZE + ENTRY_OVERHEAD_BYTES), 3200)
        self.assertGreater(held, 1)

    def test_truncate_and_append_again(self) -> None:
        """Another leader's entries take the place of those dropped."""
        self.tail.truncate_from(8)
        self.assertEqual(self.tail.last, 7)
        self.tail.append(entries(8, 9))
        self.assertEqual(indexes(self.tail.slice(5, 9)), [5, 6, 7, 8, 9])

    def test_truncate_before_everything_here(self) -> None:
        """The next entry then comes at that index."""
        self.tail.truncate_from(3)
        self.assertEqual((self.tail.first, self.tail.last), (3, 2))
        self.tail.append(entries(3, 4))
        self.assertEqual(self.tail.fit(3, 4), 4)

    def test_restart_behind_a_snapshot(self) -> None:
        """Nothing of before is left, and bytes are counted anew."""
        self.tail.restart_at(50)
        self.assertEqual((self.tail.first, self.tail.last), (51, 50))
        self.tail.append(entries(51, 60))
        self.assertEqual(self.tail.fit(51, 60), 53)
