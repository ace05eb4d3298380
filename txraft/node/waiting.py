"""Waiting for what goes on whether or not somebody waits for it."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def waiter_for(work: Deferred[T]) -> Deferred[T]:
    """Return a Deferred of *work*'s outcome that can be cancelled without harm to it.

    Nobody else may wait for *work*.
    """
    waiter: Deferred[T] = Deferred()
    work.addCallbacks(waiter.callback, waiter.errback)
    return waiter
