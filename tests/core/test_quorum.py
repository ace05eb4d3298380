"""Majorities, compared with counting."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import agreed_value, majority


class Quorum(SynchronousTestCase):
    """`majority` and `agreed_value`."""

    def test_majority_of_one_to_nine(self) -> None:
        """More than half, for even sizes too."""
        self.assertEqual(
            [majority(n) for n in range(1, 10)], [1, 2, 2, 3, 3, 4, 4, 5, 5]
        )

    def test_agreed_value_is_what_a_majority_reached(self) -> None:
        """The highest value that more than half have reached, counted one by one."""
        for size in range(1, 6):
            for values in product(range(4), repeat=size):
                reached = max(
                    v for v in range(4) if 2 * sum(x >= v for x in values) > size
                )
                self.assertEqual(agreed_value(values), reached, values)

    def test_agreed_value_of_nobody(self) -> None:
        """No voters agree on nothing."""
        self.assertEqual(agreed_value([]), 0)
