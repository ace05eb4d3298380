"""Short pauses of the garbage collector, for a process that is nothing but a node.

Python's full collection stops every thread while it looks at all objects there are:
with 100 000 entries in memory it took 72 ms, during which no heartbeat is answered.
Here what has survived one is set aside, so that the next looks at what is new only. A
node leaves no cyclic garbage behind in what it does all day, so nothing is lost by
that; and once in a while everything is looked at again.

The collector belongs to the process. That is why `twistd raft` does this, and a
library does not: an application decides for itself, and may use this too.
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
"""How often everything is looked at again."""

FULL = 2


class ShortPauses(Service):
    """Has each full collection look at what is new since the one before.

    *seconds* tells the time, monotonic. Everything is as before once it has stopped.
    Thread: any; a collection happens in whichever thread makes objects.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._thresholds = gc.get_threshold()
        self._thawed = 0.0

    def startService(self) -> None:
        """Set aside what is there: the modules, above all."""
        Service.startService(self)
        self._thresholds = gc.get_threshold()
        self._thawed = self._seconds()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._collecting)
        gc.collect()

    def stopService(self) -> None:
        """Let the collector look at everything again."""
        Service.stopService(self)
        gc.callbacks.remove(self._collecting)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def _collecting(self, phase: str, info: Mapping[str, Any]) -> None:
        if info["generation"] != FULL:
            return
        if phase == "stop":
            gc.freeze()
        elif self._seconds() - self._thawed >= THAW_SECONDS:
            self._thawed = self._seconds()
            gc.unfreeze()
