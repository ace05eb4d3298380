"""Keep the pauses of the garbage collector short, in a process that only runs a node.

Python's full collection stops every thread while it looks at all objects: with 100 000
entries in memory it took 72 ms, during which no heartbeat is answered. Here the objects
that survived a full collection are frozen, so that the next one looks only at new
objects. The steady work of a node leaves no cyclic garbage, so this loses nothing; and
once an hour everything is looked at again.

The collector belongs to the process. That is why `twistd raft` does this and the
library does not: an application decides for itself, and may use this class.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service

THRESHOLDS = (7000, 1, 1)
"""A full collection for every 28 000 new objects, about: 12 ms at most.

With Python's own 700 for the youngest, writes in flight are looked at ten times before
they are over: a sixth of all commits per second (`benchmarks.compare`).
"""

THAW_SECONDS = 3600.0
"""Seconds until all objects are looked at again."""

FULL = 2


class ShortPauses(Service):
    """Lets each full collection look only at objects made since the one before.

    *seconds* is a monotonic clock. When it stops, the collector is as it was before.
    Thread: any; a collection happens in whichever thread makes objects.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._thresholds = gc.get_threshold()
        self._thawed = 0.0

    def startService(self) -> None:
        """Freeze the existing objects, above all the modules."""
        Service.startService(self)
        self._thresholds = gc.get_threshold()
        self._thawed = self._seconds()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._collecting)
        gc.collect()  # after the callback is there: its end freezes what is left

    def stopService(self) -> None:
        """Let the collector look at everything again."""
        Service.stopService(self)
        gc.callbacks.remove(self._collecting)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _collecting(self, phase: str, info: Mapping[str, Any]) -> None:
        if info["generation"] != FULL:
            return
        # At the end, never at the begin: what is garbage then would be kept as well.
        if phase == "stop":
            gc.freeze()
        elif self._seconds() - self._thawed >= THAW_SECONDS:
            self._thawed = self._seconds()
            gc.unfreeze()
