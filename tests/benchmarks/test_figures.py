"""Medians, spreads, ratios and the form of numbers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import (
    Spread,
    line,
    percentile,
    ratio,
    short,
    spreads,
    with_range,
)
from benchmarks.rounds import summarise


class Spreads(SynchronousTestCase):
    """A median, and what it is the median of."""

    def test_of_an_odd_number(self) -> None:
        """The value in the middle, whatever the order."""
        self.assertEqual(Spread.of([9.0, 1.0, 4.0]), Spread(4.0, 1.0, 9.0, 3))

    def test_of_an_even_number(self) -> None:
        """Between the two in the middle."""
        self.assertEqual(Spread.of([1.0, 2.0, 4.0, 9.0]).median, 3.0)

    def test_spreads_of_what_all_samples_have(self) -> None:
        """A value that one run lacks has no median."""
        found = spreads([{"rate": 1.0, "p50": 5.0}, {"rate": 3.0}])

        self.assertEqual(found, {"rate": Spread(2.0, 1.0, 3.0, 2)})

    def test_summarise_keeps_systems_and_numbers_in_flight_apart(self) -> None:
        """Medians are of the same runs only; what is no number has none."""
        samples = [
            {"system": "a", "in_flight": 1, "rate": 10.0},
            {"system": "a", "in_flight": 64, "rate": 500.0},
            {"system": "b", "in_flight": 1, "rate": 7.0},
            {"system": "a", "in_flight": 1, "rate": 20.0},
        ]

        found = summarise(samples)

        rates = {key: each["rate"].median for key, each in found.items()}
        self.assertEqual(rates, {("a", 1): 15.0, ("a", 64): 500.0, ("b", 1): 7.0})
        self.assertNotIn("system", found["a", 1])


class Percentiles(SynchronousTestCase):
    """The value that a share of all values do not exceed."""

    def test_percentile(self) -> None:
        """Of a hundred values, one is above the 99th of them."""
        ordered = [float(n) for n in range(100)]

        self.assertEqual(percentile(ordered, 0.5), 50.0)
        self.assertEqual(percentile(ordered, 0.99), 99.0)
        self.assertEqual(percentile([3.0], 0.99), 3.0)

    def test_percentile_of_nothing(self) -> None:
        """A run in which nothing ended says so."""
        with self.assertRaisesRegex(ValueError, "nothing was measured"):
            percentile([], 0.5)


class Numbers(SynchronousTestCase):
    """Ratios and how numbers are written."""

    def test_ratio(self) -> None:
        """What is not known has no ratio, and nothing is divided by nothing."""
        self.assertEqual(ratio(6.0, 4.0), 1.5)
        self.assertIsNone(ratio(None, 4.0))
        self.assertIsNone(ratio(6.0, None))
        self.assertIsNone(ratio(6.0, 0.0))

    def test_short(self) -> None:
        """Three digits that count, and a dash for what is not known."""
        self.assertEqual(short(0.123), "0.12")
        self.assertEqual(short(12.34), "12.3")
        self.assertEqual(short(123.4), "123")
        self.assertEqual(short(28_934.6), "28\N{NO-BREAK SPACE}935")
        self.assertEqual(short(1.5, "ms"), "1.50\N{NO-BREAK SPACE}ms")
        self.assertEqual(short(None, "ms"), "-")

    def test_with_range_of_one_run_has_none(self) -> None:
        """A single run has no spread to show."""
        self.assertEqual(with_range(Spread(4.0, 1.0, 9.0, 3)), "4.00 (1.00 to 9.00)")
        self.assertEqual(with_range(Spread(4.0, 4.0, 4.0, 1)), "4.00")

    def test_line(self) -> None:
        """The value at 0 and the slope of the line through points."""
        self.assertEqual(line([(3, 14.0), (5, 20.0), (7, 26.0)]), (5.0, 3.0))
