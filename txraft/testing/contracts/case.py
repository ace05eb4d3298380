"""The base class of contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Contract:
    """Tests that a subclass runs which also is a `SynchronousTestCase` of trial.

    A contract itself is no test case, so importing it into a test module runs nothing.
    The names below are those of the test case, for type checkers.
    """

    assertEqual: Callable[..., None]
    assertFalse: Callable[..., None]
    assertIn: Callable[..., None]
    assertIsInstance: Callable[..., None]
    assertLessEqual: Callable[..., None]
    assertNotEqual: Callable[..., None]
    assertNoResult: Callable[..., None]
    assertRaises: Callable[..., Any]
    assertTrue: Callable[..., None]
    failureResultOf: Callable[..., Any]
    mktemp: Callable[[], str]
    successResultOf: Callable[..., Any]
