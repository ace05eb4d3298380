"""Statistics of runs: medians, spreads and ratios. Nothing here measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of some values, with the least and the most of them."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Make it of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found), len(found))


def spreads(samples: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each value that every one of *samples* has."""
    shared = [name for name in samples[0] if all(name in each for each in samples)]
    return {name: Spread.of(each[name] for each in samples) for name in shared}


def ratio(value: float | None, base: float | None) -> float | None:
    """Divide, unless one of both is unknown or the base is 0."""
    if value is None or not base:
        return None
    return value / base


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that *share* of the *ordered* values do not exceed.

    Raises: ValueError, if there are none.
    """
    if not ordered:
        raise ValueError("nothing was measured: give it more seconds")
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def short(value: float | None, unit: str = "") -> str:
    """Write a number with three digits that count, or a dash if there is none."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        text = f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def with_range(spread: Spread) -> str:
    """Write a median with the range it is from, if there is one."""
    if spread.count == 1:
        return short(spread.median)
    return f"{short(spread.median)} ({short(spread.least)} to {short(spread.most)})"


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fit a line by least squares and return its value at 0 and its slope.

    Raises: ValueError, if the points do not differ in their first value.
    """
    slope, start = statistics.linear_regression(
        [x for x, _ in points], [y for _, y in points]
    )
    return start, slope
