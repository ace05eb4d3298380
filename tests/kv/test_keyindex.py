"""Reads of a prefix against the simplest thing that could be right."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txraft.kv import keyindex
from txraft.kv.keyindex import KeyIndex, ReadView, ReadViewEnded
from txraft.kv.records import Row

KEYS = st.text(alphabet="ab/\U0010ffff", max_size=3)
WHATS = ["put", "put", "remove", "clear", "write_each", "remove_each"]
WHATS += ["read", "open", "close", "step"]
STEPS = st.lists(st.tuples(st.sampled_from(WHATS), KEYS), max_size=60)


def row(index: int) -> Row:
    return (b"%d" % index, 0, index, index, 0, "")


def filled(rows: dict[str, Row], floor: int = 0) -> KeyIndex:
    index = KeyIndex(rows, floor)
    for _ in index.fill():
        pass
    return index


class Model:
    """An index, and beside it all that ever was."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.case = case
        self.rows: dict[str, Row] = {}
        self.index = KeyIndex(self.rows, 0)
        self.number = 0
        self.changes: dict[str, int] = {}
        self.views: list[tuple[ReadView, dict[str, Row], dict[str, Row]]] = []

    def do(self, what: str, key: str) -> None:
        getattr(self, what)(key)

    def put(self, key: str) -> None:
        self.number += 1
        old = self.rows.get(key)
        self.rows[key] = row(self.number)
        self.changes[key] = self.number
        self.index.changed(key, old, self.number)

    def remove(self, key: str) -> None:
        old = self.rows.pop(key, None)
        if old is not None:
            self.number += 1
            self.changes[key] = self.number
            self.index.removed(key, old, self.number)

    def clear(self, prefix: str) -> None:
        """As when all is deleted under a prefix, but for one key that is made anew."""
        self.number += 1
        there = dict.fromkeys(
            k for k in self.index.candidates(prefix) if k in self.rows
        )
        found = [k for k in there if k != prefix]
        for key in found:
            del self.rows[key]
            self.changes[key] = self.number
        self.index.removed_many(prefix, found, there.keys() - {*found}, self.number)

    def write_each(self, prefix: str) -> None:
        """As when a session ends that holds these keys."""
        self.number += 1
        keys = sorted(k for k in self.rows if k.startswith(prefix))
        olds = [self.rows[key] for key in keys]
        for key in keys:
            self.rows[key] = row(self.number)
            self.changes[key] = self.number
        self.index.changed_each(keys, olds, self.number)

    def remove_each(self, prefix: str) -> None:
        """As when the keys of a session are deleted with it: some in a range."""
        self.number += 1
        keys = sorted(k for k in self.rows if k.startswith(prefix))[::2]
        olds = [self.rows.pop(key) for key in keys]
        for key in keys:
            self.changes[key] = self.number
        self.index.removed_each(keys, olds, self.number)

    def read(self, prefix: str) -> None:
        expected = sorted(k for k in self.rows if k.startswith(prefix))
        self.case.assertEqual(list(self.index.under(prefix)), expected)
        there = {k for k in self.index.candidates(prefix) if k in self.rows}
        self.case.assertEqual(sorted(there), expected)
        changed = (at for k, at in self.changes.items() if k.startswith(prefix))
        last = max(changed, default=0)
        told = self.index.changed_under(prefix)
        self.case.assertGreaterEqual(told, last)
        if not self.index._floor:
            self.case.assertEqual(told, last)

    def open(self, prefix: str) -> None:
        then = {k: r for k, r in self.rows.items() if k.startswith(prefix)}
        view = self.index.read_view(prefix, self.number)
        self.views.append((view, then, {}))

    def close(self, _key: str) -> None:
        if self.views:
            self.views.pop(0)[0].close()

    def step(self, _key: str) -> None:
        """Read two more keys of each view."""
        for each in list(self.views):
            view, then, seen = each
            try:
                if self.number % 2:
                    names = view.read_names(2)
                    piece = names and [(name, then.get(name)) for name in names]
                else:
                    piece = view.read(2)
            except ReadViewEnded:
                self.views.remove(each)
                continue
            if piece is None:
                self.case.assertEqual(list(seen.items()), sorted(then.items()))
                view.close()
                self.views.remove(each)
            else:
                seen.update(piece)


class Whatever(SynchronousTestCase):
    """Reads are right whatever was put, removed and read in between."""

    @settings(max_examples=100, deadline=None)
    @given(st.integers(4, 8), STEPS)
    def test_all(self, leaf_keys: int, steps: list[tuple[str, str]]) -> None:
        self.patch(keyindex, "MAX_LEAF_KEYS", leaf_keys)
        self.patch(keyindex, "MAX_BEHIND", 3)
        model = Model(self)
        for what, key in steps:
            model.do(what, key)

        model.read("")
        while model.views:
            model.step("")
        self.assertEqual(model.index._kept, {})


class Order(SynchronousTestCase):
    """Keys come in order, from leaves that are neither too large nor too many."""

    def test_under_key_that_went_and_came_back(self) -> None:
        """It is told once, though its leaf still holds the place it had."""
        model = Model(self)
        model.put("k")
        model.put("l")
        model.remove("k")
        model.put("k")

        self.assertEqual(list(model.index.under("")), ["k", "l"])

    def test_leaves_follow_the_number_of_keys(self) -> None:
        self.patch(keyindex, "MAX_LEAF_KEYS", 16)
        model = Model(self)
        for number in range(1000):
            model.put(f"{number * 7919 % 1000:03d}")
        self.assertLess(len(model.index._leaves), 4 * 1000 / 16)

        for number in range(1000):
            model.remove(f"{number * 31 % 1000:03d}")

        self.assertLess(len(model.index._leaves), 4)

    def test_queue_that_is_watched_leaves_nothing_behind(self) -> None:
        """Keys that a view might see go with the view.

        So a queue, whose keys are new and soon gone, does not grow in memory.
        """
        self.patch(keyindex, "MAX_LEAF_KEYS", 16)
        model = Model(self)
        for number in range(1000):
            if not number % 50:
                model.open("")
            model.put(f"{number:04d}")
            model.remove(f"{number:04d}")
            list(model.index.under(""))
            if number % 50 == 49:
                model.close("")

        kept = sum(len(leaf.keys) for leaf in model.index._leaves)
        self.assertLess(kept, 32)

    def test_notes_that_nobody_reads_are_bounded(self) -> None:
        model = Model(self)
        for number in range(3 * keyindex.MAX_BEHIND):
            model.put(f"{number % (2 * keyindex.MAX_BEHIND)}")

        self.assertLess(len(model.index._behind), keyindex.MAX_BEHIND)


class Changes(SynchronousTestCase):
    """An index at or after the true one is told, never an earlier one."""

    def test_removed(self) -> None:
        index = filled({}, 5)
        for key, at in (("a/1", 7), ("a/2", 9), ("b", 11)):
            index.removed(key, row(1), at)

        self.assertEqual(index.removed_at("a/1"), 7)
        self.assertEqual(index.removed_at("never"), 5)
        self.assertEqual(index.changed_under("a/"), 9)
        self.assertEqual(index.changed_under("c"), 5)

    def test_tombstones_are_bounded(self) -> None:
        self.patch(keyindex, "MAX_TOMBSTONES", 2)
        index = filled({})
        for number in range(1, 5):
            index.removed(f"k{number}", row(1), number)

        told = [index.removed_at(f"k{number}") for number in range(1, 5)]

        self.assertEqual(told, [2, 2, 3, 4])

    def test_prefix_that_was_never_asked_for(self) -> None:
        """What is far away does not count, also in a leaf that is shared."""
        model = Model(self)
        for number in range(3000):
            model.put(f"{'abc'[number // 1000]}/{number:04d}")
        model.put("a/0500")
        model.remove("b/1500")

        told = [model.index.changed_under(each) for each in ("a/", "b/", "c/", "")]

        self.assertEqual(told, [3001, 3002, 3000, 3002])

    def test_record_that_was_written_over(self) -> None:
        """Its leaf, which nobody reads for that, gets to know."""
        model = Model(self)
        for number in range(5000):
            model.put(f"k/{number:04d}")
        model.put("k/2500")

        self.assertEqual(model.index.changed_under("k/"), 5001)

    def test_keys_that_changed_together(self) -> None:
        """The leaves in between get to know, whether they were written or deleted."""
        model = Model(self)
        for number in range(5000):
            model.put(f"k/{number:04d}")

        model.write_each("k/25")
        self.assertEqual(model.index.changed_under("k/"), 5001)
        model.remove_each("k/25")
        self.assertEqual(model.index.changed_under("k/"), 5002)

    def test_filled_index_knows_of_no_earlier_deletion(self) -> None:
        """After a restart, what a client missed may have been deleted before it."""
        index = filled({"a/1": row(3), "b/1": row(4)}, floor=9)

        self.assertEqual(index.changed_under("a/"), 9)
        index.removed("a/1", row(3), 12)
        self.assertEqual(
            (index.changed_under("a/"), index.changed_under("b/")), (12, 9)
        )


class ReadViews(SynchronousTestCase):
    """What is kept for those who read a view is bounded."""

    def read_all(self, view: ReadView) -> dict[str, Row]:
        seen: dict[str, Row] = {}
        while (piece := view.read(10)) is not None:
            seen.update(piece)
        return seen

    def model(self) -> Model:
        model = Model(self)
        for number in range(100):
            model.put(f"{number:03d}")
        return model

    def test_changes_meanwhile(self) -> None:
        model = self.model()
        first = model.index.read_view("", model.number)
        begun = first.read(10)
        for number in range(100):
            model.put(f"{number:03d}")
            model.put(f"{number:03d}+")
        second = model.index.read_view("", model.number)
        for number in range(100):
            model.remove(f"{number:03d}")

        self.assertEqual(
            [(begun or [])[0][1], *self.read_all(first).values()],
            [row(number) for number in range(1, 101) if number == 1 or number > 10],
        )
        self.assertEqual(len(self.read_all(second)), 200)

    def test_deleted_key_in_a_leaf_that_is_split_meanwhile(self) -> None:
        """Nobody sees it once the view is over, whichever half it was in."""
        self.patch(keyindex, "MAX_LEAF_KEYS", 16)
        for deleted in ("000", "014"):
            model = Model(self)
            for number in range(15):
                model.put(f"{number:03d}")
            view = model.index.read_view("", model.number)
            model.remove(deleted)
            for number in range(15, 18):
                model.put(f"{number:03d}")
            self.assertEqual(len(model.index._leaves), 2)
            view.close()

            later = model.index.read_view("", model.number)

            self.assertEqual(self.read_all(later), model.rows)

    def test_nothing_is_kept_for_nobody(self) -> None:
        model = self.model()
        view = model.index.read_view("", model.number)
        model.put("000")
        self.assertEqual(len(model.index._kept), 1)

        view.close()
        view.close()

        self.assertEqual((model.index._kept, model.index.views), ({}, {}))

    def assert_over(self, change: Callable[[Model], None]) -> None:
        model = self.model()
        views = [model.index.read_view("", model.number) for _ in range(2)]

        change(model)

        for view in views:
            self.assertRaises(ReadViewEnded, view.read, 10)
        self.assertEqual(model.index._kept, {})

    def test_too_many_changes(self) -> None:
        self.patch(keyindex, "MAX_KEPT_CHANGES", 10)
        self.assert_over(lambda model: put_all(model, 11))

    def test_too_many_bytes(self) -> None:
        self.patch(keyindex, "MAX_KEPT_BYTES", 20)
        self.assert_over(lambda model: put_all(model, 20))

    def test_what_is_written_twice_is_kept_once(self) -> None:
        self.patch(keyindex, "MAX_KEPT_CHANGES", 10)
        model = self.model()
        view = model.index.read_view("", model.number)
        for _ in range(100):
            model.put("000")

        self.assertEqual(len(self.read_all(view)), 100)

    def test_all_deleted_at_once(self) -> None:
        self.assert_over(lambda model: model.clear("0"))

    def test_skip(self) -> None:
        """What lies under a name that is told already is not read."""
        model = self.model()
        view = model.index.read_view("0", model.number)
        self.assertEqual(len(view.read(3) or []), 3)

        view.skip("08")
        self.assertEqual(list(self.read_all(view)), [f"09{n}" for n in range(10)])
        view.skip("09")
        self.assertEqual(self.read_all(view), {})


def put_all(model: Model, count: int) -> None:
    for number in range(count):
        model.put(f"{number:03d}")
