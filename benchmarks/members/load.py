"""Keeps writes in flight and times them; on Twisted, inside the process of a member."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from benchmarks.figures import percentile

Put = Callable[[str, bytes], Deferred[Any]]


class Load:
    """A number of writes in flight, each followed by the next one."""

    def __init__(self, put: Put, inflight: int, size: int, keys: int) -> None:
        self._put = put
        self._inflight = inflight
        self._value = b"v" * size
        self._keys = keys
        self._sent = 0
        self._limit: int | None = None
        self._is_counted = False
        self._over: Deferred[None] = Deferred()
        self.answered = 0
        self.latencies: list[float] = []

    def start(self, limit: int | None = None) -> Deferred[None]:
        """Begin; fires once *limit* writes were answered, fails with the first."""
        self._limit = limit
        self._is_counted = limit is not None  # as Go's: no latencies are kept
        for _ in range(self._inflight):
            self._send()
        return self._over

    def stop(self) -> Deferred[None]:
        """Send no more; fires when all that was sent is answered."""
        self._limit = self._sent
        return self._over

    def _send(self) -> None:
        if self._limit is not None and self._sent >= self._limit:
            return
        key = f"key-{self._sent % self._keys:06d}"
        self._sent += 1
        began = time.perf_counter()
        self._put(key, self._value).addCallbacks(
            self._answered, self._failed, callbackArgs=(began,)
        )

    def _answered(self, _: object, began: float) -> None:
        if not self._is_counted:
            self.latencies.append(time.perf_counter() - began)
        self.answered += 1
        if self.answered == self._limit:
            self._over.callback(None)
        else:
            self._send()

    def _failed(self, failure: Failure) -> None:
        if not self._over.called:
            self._over.errback(failure)


def summary(latencies: list[float], elapsed: float, answered: int) -> dict[str, float]:
    """Return the rate of what was answered in time, and its latencies."""
    ordered = sorted(latencies)
    return {
        "rate": len(ordered) / elapsed,
        "p50_ms": percentile(ordered, 0.5) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
        "answered": answered,
    }


async def measure(
    clock: IReactorTime, load: Load, warm_up: float, seconds: float
) -> dict[str, float]:
    """Run *load* and measure it for a while, after a warm-up."""
    over = load.start()
    await first(over, pause(clock, warm_up))
    load.latencies.clear()
    began = time.perf_counter()
    await first(over, pause(clock, seconds))
    elapsed = time.perf_counter() - began
    found = load.latencies
    load.latencies = []
    await load.stop()
    return summary(found, elapsed, load.answered)


def first(over: Deferred[None], paused: Deferred[None]) -> Deferred[None]:
    """Wait for the pause, but fail at once if the load does."""

    def failed(failure: Failure) -> None:
        if not paused.called:
            paused.errback(failure)

    over.addErrback(failed)
    return paused


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Fire after *seconds*."""
    over: Deferred[None] = Deferred()

    def fire() -> None:
        if not over.called:
            over.callback(None)

    clock.callLater(seconds, fire)
    return over
