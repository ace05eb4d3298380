"""What a contract is: tests without the thing to test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Contract:
    """Tests for a subclass to run that also is a `SynchronousTestCase` of trial.

    By itself it is no test case, so that importing it runs nothing.
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
