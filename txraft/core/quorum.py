"""Majorities.

Source: Raft dissertation §3.3; the median rule is that of §3.6.2.
"""

from __future__ import annotations

from collections.abc import Iterable


def majority(voters: int) -> int:
    """Return how many of *voters* make a quorum."""
    return voters // 2 + 1


def agreed_value(values: Iterable[int]) -> int:
    """Return the highest value that a quorum has reached, one value a voter.

    No voters agree on nothing: 0.
    """
    ordered = sorted(values, reverse=True)
    return ordered[len(ordered) // 2] if ordered else 0  # a majority is as far
