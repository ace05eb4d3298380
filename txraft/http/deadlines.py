"""Deadlines of requests: one timer for all requests at work."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txraft.http.inflight import HTTPCall


class Deadlines:
    """The calls at work, in the order of their deadlines.

    All have the same timeout, so the oldest call always ends next: one timer serves all
    of them. A call that ends in time costs two dict operations and no timer.
    """

    def __init__(
        self, clock: IReactorTime, timeout: float, expire: Callable[[HTTPCall], object]
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._expire = expire
        self._calls: dict[HTTPCall, None] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False

    def add(self, call: HTTPCall) -> None:
        """Set the deadline of *call*; at that time it expires, unless discarded."""
        call.deadline = self._clock.seconds() + self._timeout
        self._calls[call] = None
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._fire)

    def discard(self, call: HTTPCall) -> None:
        """Forget *call*; idempotent."""
        self._calls.pop(call, None)
        if self._closed:
            self._stop_if_idle()

    def close(self) -> None:
        """Stop the timer once no call needs it."""
        self._closed = True
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self._timer is not None and not self._calls:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while (oldest := next(iter(self._calls), None)) is not None:
            if oldest.deadline > now:
                self._timer = self._clock.callLater(oldest.deadline - now, self._fire)
                return
            # Removed first: to expire a call discards it, and may discard others.
            del self._calls[oldest]
            self._expire(oldest)
