"""The checkers of histories: each rejects what is wrong, and they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.linearizability import (
    FOREVER,
    OTHER,
    ClientOperation,
    ClientOperationKind,
    Inconclusive,
    NotLinearizable,
    Value,
    check,
    check_appends,
    check_register,
    search,
    step,
)

R, W, C, D, A = (
    ClientOperationKind.READ,
    ClientOperationKind.WRITE,
    ClientOperationKind.CAS,
    ClientOperationKind.DELETE,
    ClientOperationKind.APPEND,
)

Checker = Callable[[Sequence[ClientOperation]], object]


def read(called: int, returned: int, result: Value) -> ClientOperation:
    """Make a read that found *result*."""
    return ClientOperation(R, "k", called, returned=returned, result=result)


def write(
    called: int, returned: int, value: int, kind: ClientOperationKind = W
) -> ClientOperation:
    """Make a write, or another change of *kind*."""
    return ClientOperation(kind, "k", called, value, returned=returned)


def cas(
    called: int, returned: int, expected: int, value: int, met: Value
) -> ClientOperation:
    """Make a compare-and-set that met *met*."""
    return ClientOperation(C, "k", called, value, expected, returned, met)


def holds(checker: Checker, history: Sequence[ClientOperation]) -> bool:
    """Tell whether *checker* accepts *history*."""
    try:
        checker(history)
    except NotLinearizable:
        return False
    return True


def truth(history: Sequence[ClientOperation]) -> bool:
    """Try every order of every choice of the unknown ones: for tiny histories."""
    known = [o for o in history if o.is_known]
    unknown = [o for o in history if not o.is_known and o.kind is not R]
    for choice in range(1 << len(unknown)):
        chosen = known + [o for i, o in enumerate(unknown) if choice >> i & 1]
        if any(explains(order) for order in permutations(chosen)):
            return True
    return False


def explains(order: Sequence[ClientOperation]) -> bool:
    """Tell whether *order* keeps to real time and to every result."""
    state: Value = None
    for place, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[place:]):
            return False
        fits, state = step(state, operation)
        if not fits:
            return False
    return True


def played(
    random: Random, kinds: Sequence[ClientOperationKind], length: int
) -> list[ClientOperation]:
    """Play a history that is linearizable, with clients that overlap."""
    moment = 0
    state: Value = None
    history: list[ClientOperation] = []
    active: list[tuple[ClientOperation, bool]] = []
    while len(history) < length or active:
        moment += 1
        if len(history) < length and (not active or random.random() < 0.5):
            kind = random.choice(kinds)
            made = ClientOperation(kind, "k", moment)
            if kind in (W, C, A):
                made.argument = moment
            if kind is C:
                made.expected = state if isinstance(state, int) else None
            history.append(made)
            active.append((made, False))
            continue
        place = random.randrange(len(active))
        operation, done = active[place]
        if not done:
            if operation.kind in (R, C):
                operation.result = state
            if operation.kind is C:
                state = operation.argument if state == operation.expected else state
            else:
                state = step(state, operation)[1] if operation.kind is not R else state
            active[place] = (operation, True)
        else:
            del active[place]
            if random.random() < 0.9:
                operation.returned = moment
    return history


def mutated(
    random: Random, history: Sequence[ClientOperation]
) -> list[ClientOperation]:
    """Change the result of one read to that of another."""
    copies = [replace(o) for o in history]
    reads = [o for o in copies if o.kind is R and o.is_known]
    if len(reads) > 1:
        one, other = random.sample(reads, 2)
        one.result, other.result = other.result, one.result
    return copies


class Registers(SynchronousTestCase):
    """Reads and writes of distinct values."""

    def test_check_register_of_overlapping_calls(self) -> None:
        """A read may find the value before a write that it overlaps, or after it."""
        for result in (None, 1):
            history = [write(1, 4, 1), read(2, 3, result)]

            self.assertTrue(holds(check_register, history))

    def test_check_register_stale_read(self) -> None:
        """A read that began after a write returned finds it."""
        history = [write(1, 2, 1), read(3, 4, None)]

        self.assertFalse(holds(check_register, history))

    def test_check_register_value_comes_back(self) -> None:
        """Once a newer value was read an older one is gone."""
        history = [write(1, 2, 1), write(3, 8, 2), read(4, 5, 2), read(6, 7, 1)]

        self.assertFalse(holds(check_register, history))

    def test_check_register_unknown_write_may_come_late(self) -> None:
        """A write of unknown outcome may take effect long after it was asked for."""
        history = [write(1, FOREVER, 1), read(2, 3, None), read(4, 5, 1)]

        self.assertTrue(holds(check_register, history))

    def test_check_register_value_from_nowhere(self) -> None:
        """A read finds what was written."""
        self.assertFalse(holds(check_register, [read(1, 2, 7)]))

    def test_check_register_and_search_agree(self) -> None:
        """Two checkers that share no thought agree on histories right and wrong."""
        random = Random(1)
        wrong = 0
        for _ in range(1500):
            history = played(random, (R, R, W), random.randint(2, 14))
            self.assertTrue(holds(check_register, history))
            changed = mutated(random, history)
            verdict = holds(check_register, changed)
            wrong += not verdict

            self.assertEqual(verdict, holds(search, changed), changed)

        self.assertGreater(wrong, 200)


class Search(SynchronousTestCase):
    """Compare-and-set and delete too."""

    def test_search_agrees_with_every_order_tried(self) -> None:
        """The search finds an order exactly if there is one."""
        random = Random(2)
        wrong = 0
        for _ in range(900):
            history = played(random, (R, R, W, C, D), random.randint(3, 6))
            self.assertTrue(holds(search, history), history)
            changed = mutated(random, history)
            verdict = holds(search, changed)
            wrong += not verdict

            self.assertEqual(verdict, truth(changed), changed)

        self.assertGreater(wrong, 40)

    def test_search_two_winners(self) -> None:
        """Of two that expect the same value one wins."""
        both = [write(1, 2, 1), cas(3, 6, 1, 2, 1), cas(4, 5, 1, 3, 1)]

        self.assertFalse(holds(search, both))
        self.assertTrue(holds(search, [*both[:2], cas(4, 5, 1, 3, 2)]))

    def test_search_delete_that_must_come_late(self) -> None:
        """A delete that found nothing to delete may still have to wait its turn."""
        history = [write(1, 6, 5), write(2, 5, 0, D), read(7, 8, None)]

        self.assertTrue(holds(search, history))

    def test_search_refused_by_something_else(self) -> None:
        """A compare-and-set that was refused did not meet what it expected."""
        refused = cas(3, 4, 1, 2, OTHER)

        self.assertFalse(holds(search, [write(1, 2, 1), refused]))
        self.assertTrue(holds(search, [write(1, 2, 5), refused]))
        self.assertTrue(holds(search, [write(1, 2, 1), write(2, 5, 0, D), refused]))

    def test_search_refused_by_what_nobody_met(self) -> None:
        """What refused it may be a write of unknown outcome that nobody has read."""
        history = [write(1, 2, 1), write(3, FOREVER, 7), cas(4, 5, 1, 2, OTHER)]

        self.assertTrue(holds(search, history))

    def test_search_with_hidden_values_agrees_with_every_order_tried(self) -> None:
        """Also if compare-and-sets do not say what refused them."""
        random = Random(4)
        wrong = 0
        for _ in range(900):
            history = played(random, (R, W, C, C, D), random.randint(3, 6))
            for operation in history:
                is_cas = operation.kind is C and operation.is_known
                if is_cas and operation.result != operation.expected:
                    operation.result = OTHER
            self.assertTrue(holds(search, history), history)
            changed = mutated(random, history)
            verdict = holds(search, changed)
            wrong += not verdict

            self.assertEqual(verdict, truth(changed), changed)

        self.assertGreater(wrong, 20)

    def test_search_gives_up(self) -> None:
        """A search that takes too long says so, and does not say yes."""
        history = [write(i, 100 + i, i) for i in range(1, 20)]
        history.append(read(200, 201, 99))

        self.assertRaises(Inconclusive, search, history, max_steps=1000)

    def test_check_takes_the_right_one(self) -> None:
        """A key with a compare-and-set is searched, one with appends is a list."""
        lost = [replace(write(1, 2, 1, A), key="l"), replace(read(3, 4, ()), key="l")]

        self.assertRaises(NotLinearizable, check, lost)
        self.assertEqual(check([write(1, 2, 1), cas(3, 4, 1, 2, 1)]), 0)


class Appends(SynchronousTestCase):
    """Lists that only grow."""

    def test_check_appends_agrees_with_search(self) -> None:
        """The linear check and the search agree."""
        random = Random(3)
        wrong = 0
        for _ in range(800):
            history = played(random, (R, A), random.randint(2, 9))
            self.assertTrue(holds(check_appends, history), history)
            changed = mutated(random, history)
            verdict = holds(check_appends, changed)
            wrong += not verdict

            self.assertEqual(verdict, holds(exhaustive, changed), changed)

        self.assertGreater(wrong, 100)

    def test_check_appends_lost(self) -> None:
        """What was acknowledged is in every list read later."""
        self.assertFalse(holds(check_appends, [write(1, 2, 1, A), read(3, 4, ())]))

    def test_check_appends_twice(self) -> None:
        """What was appended once is there once."""
        self.assertFalse(holds(check_appends, [write(1, 2, 1, A), read(3, 4, (1, 1))]))

    def test_check_appends_out_of_order(self) -> None:
        """Of two appends the one that had returned comes first."""
        history = [write(1, 2, 1, A), write(3, 4, 2, A), read(5, 6, (2, 1))]

        self.assertFalse(holds(check_appends, history))


def exhaustive(history: Sequence[ClientOperation]) -> None:
    """Search with every unknown append taken for one that matters."""
    read_items = {
        item
        for o in history
        if o.kind is R and o.is_known and isinstance(o.result, tuple)
        for item in o.result
    }
    kept = [o for o in history if o.is_known or o.argument in read_items]
    known = [
        replace(o, returned=FOREVER - 1 if not o.is_known else o.returned)
        for o in kept
        if not (o.kind is R and not o.is_known)
    ]
    known = [replace(o, result=o.result or None) if o.kind is R else o for o in known]
    search(known)
