"""Containers of the state are like ordinary ones, and undo what was changed."""

from __future__ import annotations

import copy
import dataclasses
import heapq
import json
import operator
from bisect import insort
from collections.abc import Callable, MutableSequence
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import CannotTravel, OnlyInCommands
from txraft.replicated.containers import CONTAINERS
from txraft.replicated.journal import Journal, plain
from txraft.replicated.values import value

Change = Callable[[Any], object]


def journaled(item: Any) -> tuple[Any, Journal]:
    """Make a container of *item*, and its journal, which is open."""
    journal = Journal("Thing")
    journal.begin()
    made = journal.own(item)
    assert journal.entries is not None
    journal.entries.clear()
    return made, journal


def outcome(change: Change, container: Any) -> object:
    """Return what *change* returns or raises, and what is left."""
    try:
        result = plain(change(container))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        result = type(error)
    return result, plain(container)


def small(random: Random) -> Any:
    """Return one of few values, so that they meet again."""
    return random.choice([0, 1, 2, True, 1.0, "a", "b", b"a", None, (1, "a")])


def dict_change(random: Random) -> Change:
    """Draw a change of a dict."""
    key, item = small(random), small(random)
    some = {small(random): small(random) for _ in range(random.randrange(4))}
    nested = {key: [item], item: {"x": [item]}}
    return random.choice(
        [
            lambda d: operator.setitem(d, key, item),
            lambda d: operator.setitem(d, key, [item]),
            lambda d: operator.delitem(d, key),
            lambda d: d.pop(key),
            lambda d: d.pop(key, item),
            lambda d: d.popitem(),
            lambda d: d.clear(),
            lambda d: d.update(some),
            lambda d: d.update(list(some.items()), a=item),
            lambda d: d.update(nested),
            lambda d: d.setdefault(key, item),
            lambda d: d.setdefault(key),
            lambda d: d.setdefault("list", []).append(item),
            lambda d: operator.ior(d, some),
            lambda d: d | some,
            lambda d: some | d,
            lambda d: d.copy(),
            lambda d: (d.get(key), d.get(key, item), key in d, len(d)),
            lambda d: d == some or d != some,
            lambda d: list(reversed(d)),
            lambda d: operator.setitem(d, "moved", d.pop(key)),
            lambda d: json.dumps(sorted(map(repr, d))),
        ]
    )


def list_change(random: Random) -> Change:
    """Draw a change of a list."""
    item, at = small(random), random.randrange(-8, 8)
    some = [small(random) for _ in range(random.randrange(5))]
    part = slice(
        *(random.choice([None, random.randrange(-6, 7)]) for _ in range(2)),
        random.choice([None, 1, 2, -1, -2]),
    )
    times = random.choice([-1, 0, 1, 2])
    return random.choice(
        [
            lambda x: operator.setitem(x, at, item),
            lambda x: operator.setitem(x, at, [item]),
            lambda x: operator.delitem(x, at),
            lambda x: operator.setitem(x, part, some),
            lambda x: operator.setitem(x, part, [[item], *some]),
            lambda x: operator.delitem(x, part),
            lambda x: x[part],
            lambda x: x[at],
            lambda x: x.insert(at, item),
            lambda x: x.append(item),
            lambda x: x.append([item]),
            lambda x: x.pop(),
            lambda x: x.pop(at),
            lambda x: x.remove(item),
            lambda x: x.extend(some),
            lambda x: x.extend(x[:3]),
            lambda x: operator.iadd(x, some),
            lambda x: operator.setitem(x, slice(None), x[:4] * times),
            lambda x: x[:2] * times + x,
            lambda x: some + x,
            lambda x: x + some,
            lambda x: x.clear() if len(x) > 20 else x.reverse(),
            lambda x: x.sort(key=repr),
            lambda x: x.sort(key=repr, reverse=True),
            lambda x: x.index(item, 1),
            lambda x: (x.count(item), item in x, len(x), x == some, x != some),
            lambda x: x < [5],
            lambda x: x.copy(),
            lambda x: list(reversed(x)),
            lambda x: x.append(x.pop(at)),
            lambda x: insort(x, item, key=repr),
        ]
    )


def set_change(random: Random) -> Change:
    """Draw a change of a set; what `pop` returns is no contract."""
    item = small(random)
    some = {small(random) for _ in range(random.randrange(5))}
    return random.choice(
        [
            lambda s: s.add(item),
            lambda s: s.discard(item),
            lambda s: s.remove(item),
            lambda s: s.clear() if len(s) > 6 else None,
            lambda s: s.update(some, [item]),
            lambda s: s.difference_update(some, [item]),
            lambda s: s.intersection_update(some | {0, "b"}),
            lambda s: s.symmetric_difference_update([*some, item, item]),
            lambda s: operator.ior(s, some),
            lambda s: operator.iand(s, some | {"a", None}),
            lambda s: operator.isub(s, some),
            lambda s: operator.ixor(s, some),
            lambda s: operator.ior(s, list(some)),
            lambda s: s | some,
            lambda s: some - s,
            lambda s: s ^ some,
            lambda s: s.union(some),
            lambda s: (item in s, len(s), s <= some, s == some, s.isdisjoint(some)),
            lambda s: sorted(map(repr, s)) == sorted(map(repr, set(s))),
            lambda s: s.copy(),
        ]
    )


KINDS: tuple[tuple[Any, Callable[[Random], Change]], ...] = (
    ({}, dict_change),
    ([], list_change),
    (set(), set_change),
)


class LikeOrdinaryOnes(SynchronousTestCase):
    """What can be done with a container has the result that it has with its model."""

    def test_changes_do_what_they_do_to_ordinary_ones(self) -> None:
        """Results, errors and contents are those of a list, dict or set."""
        for empty, draw in KINDS:
            for seed in range(30):
                random, model = Random(seed), copy.deepcopy(empty)
                container, _ = journaled(empty)
                for step in range(40):
                    change = draw(random)
                    self.assertEqual(
                        outcome(change, container),
                        outcome(change, model),
                        f"{type(model).__name__}, seed {seed}, step {step}",
                    )

    def test_undo_leaves_what_was_there(self) -> None:
        """At any moment, all changes since a mark can be taken back."""
        for empty, draw in KINDS:
            for seed in range(30):
                random = Random(seed)
                container, journal = journaled(empty)
                for _ in range(6):
                    for _ in range(random.randrange(6)):
                        outcome(draw(random), container)
                    assert journal.entries is not None
                    mark, before = len(journal.entries), plain(container)
                    kinds = sorted(map(repr, before))
                    for _ in range(random.randrange(8)):
                        outcome(draw(random), container)
                    journal.undo(mark)
                    self.assertEqual(plain(container), before, f"seed {seed}")
                    # 1, 1.0 and True are equal, and not the same.
                    self.assertEqual(sorted(map(repr, plain(container))), kinds)
                    self.assertEqual(container.nested, nested(container))

    def test_undo_keeps_the_order_alike_on_all_members(self) -> None:
        """Two that have gone through the same have the same order."""
        for empty, draw in KINDS:
            for seed in range(20):
                orders = []
                for _ in range(2):
                    random = Random(seed)
                    container, journal = journaled(empty)
                    for _ in range(30):
                        outcome(draw(random), container)
                        if random.random() < 0.2:
                            journal.undo(
                                random.randrange(len(journal.entries or ()) + 1)
                            )
                    orders.append(list(container))
                self.assertEqual(*orders)


def nested(container: Any) -> int:
    """Count the containers in *container*."""
    items = container.values() if isinstance(container, dict) else container
    return sum(type(item) in CONTAINERS for item in items)


class OutsideACommand(SynchronousTestCase):
    """A change that this member alone would have is refused."""

    def test_every_change_is_refused(self) -> None:
        """Whatever changes an open container raises with a closed one."""
        for empty, draw in KINDS:
            filled = {0: 1, "a": [1]} if empty == {} else type(empty)([0, "a", 1.5])
            for seed in range(150):
                container, journal = journaled(filled)
                journal.end()
                change, before = draw(Random(seed)), plain(container)
                changed = copy.deepcopy(before)
                outcome(change, changed)

                try:
                    change(container)
                    refused = False
                except OnlyInCommands:
                    refused = True
                except (ValueError, KeyError, IndexError, TypeError):
                    refused = False

                self.assertEqual(plain(container), before)
                if repr(changed) != repr(before):
                    self.assertTrue(refused, f"{type(empty).__name__}, seed {seed}")

    def test_message_names_the_object_and_the_way_out(self) -> None:
        """It is found out where it went wrong, and what to do."""
        container, journal = journaled([])
        journal.end()

        error = self.assertRaises(OnlyInCommands, container.append, 1)

        self.assertIn("Thing", str(error))
        self.assertIn("@command", str(error))


class Kinds(SynchronousTestCase):
    """What a container is to `isinstance`, and to code written in C."""

    def test_dict_and_set_are_one_by_isinstance(self) -> None:
        """They can be read as fast as any other."""
        container, _ = journaled({"a": {1}})

        self.assertIsInstance(container, dict)
        self.assertIsInstance(container["a"], set)
        self.assertEqual(json.dumps({"a": container.copy().pop("a") and 1}), '{"a": 1}')

    def test_list_is_none_so_that_heapq_refuses_it(self) -> None:
        """`heapq` writes past the methods of a list, and so past the journal."""
        container, _ = journaled([3, 1])

        self.assertNotIsInstance(container, list)
        self.assertIsInstance(container, MutableSequence)
        self.assertRaises(TypeError, heapq.heappush, container, 2)
        self.assertRaises(TypeError, heapq.heapify, container)
        self.assertEqual(container, [3, 1])

    def test_hash_is_refused(self) -> None:
        """What can change is no key."""
        for item in ({}, [], set()):
            self.assertRaises(TypeError, hash, journaled(item)[0])

    def test_copies_are_ordinary(self) -> None:
        """A deep copy shares nothing with the state, and can be changed anywhere."""
        container, journal = journaled({"a": [1, {2}]})
        journal.end()

        deep = copy.deepcopy(container)
        deep["a"][1].add(3)

        self.assertEqual(container, {"a": [1, {2}]})
        self.assertEqual([type(deep), type(deep["a"])], [dict, list])
        self.assertIs(type(copy.copy(container)), dict)
        self.assertIs(type(copy.copy(container["a"])), list)

    def test_assigned_containers_are_copied(self) -> None:
        """What is changed after the assignment is what is in the state."""
        container, _ = journaled({})
        ordinary: list[int] = []

        container["a"] = ordinary
        ordinary.append(1)

        self.assertEqual(container, {"a": []})

    def test_shuffle_of_containers(self) -> None:
        """Two of them may change their places, one after the other."""
        container, journal = journaled([[1], [2], [3], [4]])

        Random(1).shuffle(container)

        self.assertEqual(sorted(map(plain, container)), [[1], [2], [3], [4]])
        journal.check_places([container])


@value
@dataclasses.dataclass(frozen=True, eq=False)
class Strict:
    """A value that is not equal to anything of another type, and says so."""

    number: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Strict) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


class Keys(SynchronousTestCase):
    """A key is found by what is equal to it."""

    def test_key_that_is_equal_to_its_own_kind_only(self) -> None:
        """It is taken out of a dict and a set, and an undo puts it back."""
        changes: tuple[tuple[Any, Change], ...] = (
            ({Strict(1): 1, Strict(2): 2}, lambda d: operator.delitem(d, Strict(2))),
            ({Strict(1): 1, Strict(2): 2}, lambda d: d.pop(Strict(2))),
            ({Strict(1), Strict(2)}, lambda s: s.discard(Strict(2))),
            ({Strict(1), Strict(2)}, lambda s: s.remove(Strict(2))),
        )
        for before, change in changes:
            container, journal = journaled(before)
            kept = [each for each in container if each == Strict(2)]

            change(container)
            self.assertEqual([*container], [Strict(1)])
            journal.undo()

            self.assertEqual(container, before)
            self.assertIs([*container][-1], kept[0])


class Sorting(SynchronousTestCase):
    """A sort is of a list that stands still."""

    def test_key_that_changes_the_list(self) -> None:
        """It is refused as by a list, and what it has changed is undone."""
        changes: tuple[Change, ...] = (
            lambda x: x.clear(),
            lambda x: x.append([3]),
            lambda x: operator.setitem(x, 0, [0]),
        )
        for change in changes:
            container, journal = journaled([[2], [1]])

            def key(item: Any, x: Any = container, change: Change = change) -> Any:
                change(x)
                return item[0]

            with self.assertRaises(ValueError):
                container.sort(key=key)
            journal.undo()

            self.assertEqual((container, container.nested), ([[2], [1]], 2))


class OrderOfSets(SynchronousTestCase):
    """A loop over a set of the state is the same on all members."""

    def test_order_is_that_of_additions(self) -> None:
        """It does not depend on hashes."""
        container, _ = journaled(set())
        for word in ("pear", "fig", "apple", "fig"):
            container.add(word)

        self.assertEqual([*container], ["pear", "fig", "apple"])
        self.assertEqual(container.pop(), "apple")

    def test_ordinary_sets_are_sorted_as_they_are_added(self) -> None:
        """Their own order is another one in each process."""
        words = [f"word {number}" for number in range(50)]
        changes: tuple[Change, ...] = (
            lambda s: s.update(set(words)),
            lambda s: operator.ior(s, frozenset(words)),
            lambda s: operator.ixor(s, set(words)),
        )

        for change in changes:
            container, _ = journaled(set())
            change(container)
            self.assertEqual([*container], sorted(words, key=lambda w: (len(w), w)))
        self.assertEqual(
            [*journaled(set(words))[0]], sorted(words, key=lambda w: (len(w), w))
        )

    def test_lists_and_dicts_take_ordinary_sets_sorted(self) -> None:
        """A list and a dict have an order, which a set of arguments has not."""
        numbers = {16, 8, 1}  # their order by hash is 16, 8, 1 or 8, 16, 1
        changes: tuple[Change, ...] = (
            lambda x: x.extend(numbers),
            lambda x: operator.iadd(x, frozenset(numbers)),
            lambda x: operator.setitem(x, slice(None), numbers),
        )
        pairs = {(number, "x") for number in range(50)}

        for change in changes:
            container, _ = journaled([])
            change(container)
            self.assertEqual([*container], [1, 8, 16])
        for more in (pairs, frozenset(pairs)):
            container, _ = journaled({})
            container.update(more)
            self.assertEqual([*container], [*range(50)])
        container, _ = journaled({})
        container |= pairs
        self.assertEqual([*container], [*range(50)])
        self.assertEqual([*container.fromkeys(numbers)], [1, 8, 16])

    def test_results_have_an_order(self) -> None:
        """A loop over them may change the state, and is the same on all members."""
        container, _ = journaled(set())
        for number in (5, 3, 4, 1):
            container.add(number)
        other = {24, 3, 4, 8}

        for found, expected in (
            (container.copy(), [5, 3, 4, 1]),
            (copy.copy(container), [5, 3, 4, 1]),
            (copy.deepcopy(container), [5, 3, 4, 1]),
            (container - {3}, [5, 4, 1]),
            (container.difference([3], [1]), [5, 4]),
            (container & other, [3, 4]),
            (other & container, [3, 4]),
            (container.intersection([4, 5, 3], other), [3, 4]),
            (container | other, [5, 3, 4, 1, 8, 24]),
            (container.union([7], other), [5, 3, 4, 1, 7, 8, 24]),
            (other | container, [3, 4, 8, 24, 5, 1]),
            (other - container, [8, 24]),
            (container ^ other, [5, 1, 8, 24]),
            (other ^ container, [5, 1, 8, 24]),
            (container - dict.fromkeys([3]).keys(), [5, 4, 1]),
        ):
            self.assertEqual([*found], expected)
            self.assertEqual(found, set(expected))
            self.assertIs(type(plain(found)), set)
        for operation in (operator.or_, operator.and_, operator.sub, operator.xor):
            with self.assertRaises(TypeError):
                operation(container, [1])
            with self.assertRaises(TypeError):
                operation([1], container)

    def test_results_are_of_no_object(self) -> None:
        """They change at any time, and are copied into the state."""
        container, journal = journaled({"s": {1, 2}})
        found = container["s"] - {1}
        journal.end()
        found.add(9)
        journal.begin()

        container["t"] = found
        container["u"] = found
        found.clear()

        self.assertEqual(container, {"s": {1, 2}, "t": {2, 9}, "u": {2, 9}})
        self.assertIsNot(container["t"], container["u"])


class Values(SynchronousTestCase):
    """What may change without the journal is not taken."""

    def test_refused_items_change_nothing(self) -> None:
        """The check comes before the change."""
        bad = bytearray(b"x")
        changes: tuple[tuple[Any, Change], ...] = (
            ({1: 2}, lambda d: operator.setitem(d, 1, bad)),
            ({1: 2}, lambda d: operator.setitem(d, (1, float("nan")), 1)),
            ({1: 2}, lambda d: d.setdefault(2, bad)),
            ([1], lambda x: x.append(bad)),
            ([1], lambda x: x.insert(0, float("nan"))),
            ([1], lambda x: operator.setitem(x, slice(0, 1), [2, bad])),
            ({1}, lambda s: s.add(float("nan"))),
            ({1: 2}, lambda d: operator.setitem(d, 3, {"x": [{"y": ([],)}]})),
        )

        for item, change in changes:
            container, _ = journaled(item)
            self.assertRaises(CannotTravel, change, container)
            self.assertEqual(container, item)

    def test_container_of_another_object_is_refused(self) -> None:
        """A command of one object undoes what it changed in its own alone."""
        mine, _ = journaled({})
        other, _ = journaled([1])

        error = self.assertRaises(CannotTravel, operator.setitem, mine, "a", other)

        self.assertIn("deepcopy", str(error))

    def test_container_in_two_places_is_refused_at_the_end(self) -> None:
        """A restore would make two of it."""
        container, journal = journaled({"a": [1]})

        container["b"] = container["a"]

        error = self.assertRaises(CannotTravel, journal.check_places, [container])
        self.assertIn("2 places", str(error))

    def test_container_in_itself_is_refused_at_the_end(self) -> None:
        """No snapshot would ever end."""
        container, journal = journaled({"a": []})

        container["a"].append(container["a"])

        self.assertRaises(CannotTravel, journal.check_places, [container])

    def test_container_may_move(self) -> None:
        """It is taken out before or after it is put in, or with what it was in."""
        container, journal = journaled({"a": {"x": [1]}, "b": [2], "c": {}})

        container["c"]["b"] = container["b"]
        del container["b"]
        container["x"] = container.pop("a")["x"]

        journal.check_places([container])
        self.assertEqual(container, {"c": {"b": [2]}, "x": [1]})
        self.assertEqual(container["x"].places, 1)
