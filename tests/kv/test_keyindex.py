"""Reads of a prefix against the simplest thing that could be right."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txraft.kv import keyindex
from txraft.kv.keyindex import KeyIndex

KEYS = st.text(alphabet="ab/", max_size=3)
ROW = (b"", 0, 1, 1, 0, "")


class Order(SynchronousTestCase):
    """Keys come in order whatever was added and removed in between."""

    @given(st.lists(st.tuples(st.sampled_from(["add", "remove", "read"]), KEYS)))
    def test_under(self, steps: list[tuple[str, str]]) -> None:
        rows: dict[str, tuple[bytes, int, int, int, int, str]] = {}
        index = KeyIndex(rows, 0)
        for number, (what, key) in enumerate(steps, 1):
            if what == "add" and key not in rows:
                rows[key] = ROW
                index.added(key)
            elif what == "remove" and rows.pop(key, None):
                index.removed(key, number)
            elif what == "read":
                expected = sorted(k for k in rows if k.startswith(key))
                self.assertEqual(list(index.under(key)), expected)

    def test_under_key_that_went_and_came_back(self) -> None:
        """It is told once, though the order still holds the place it had."""
        rows = {"k": ROW}
        index = KeyIndex(rows, 0)
        list(index.under(""))
        del rows["k"]
        index.removed("k", 1)
        rows["k"] = ROW
        index.added("k")

        self.assertEqual(list(index.under("")), ["k"])

    def test_additions_that_nobody_reads_are_bounded(self) -> None:
        rows: dict[str, tuple[bytes, int, int, int, int, str]] = {}
        index = KeyIndex(rows, 0)
        list(index.under(""))
        for _ in range(3 * keyindex._SLACK):
            index.added("k")

        self.assertLessEqual(len(index._new), keyindex._SLACK + 1)


class Tombstones(SynchronousTestCase):
    """An index at or after the true one is told, never an earlier one."""

    def test_removed(self) -> None:
        index = KeyIndex({}, 5)
        index.removed("a/1", 7)
        index.removed("a/2", 9)
        index.removed("b", 11)

        self.assertEqual(index.removed_at("a/1"), 7)
        self.assertEqual(index.removed_at("never"), 5)
        self.assertEqual(index.removed_under("a/"), 9)
        self.assertEqual(index.removed_under("c"), 5)

    def test_tombstones_are_bounded(self) -> None:
        self.patch(keyindex, "MAX_TOMBSTONES", 2)
        index = KeyIndex({}, 0)
        for number in range(1, 5):
            index.removed(f"k{number}", number)

        told = [index.removed_at(f"k{number}") for number in range(1, 5)]

        self.assertEqual(told, [2, 2, 3, 4])
