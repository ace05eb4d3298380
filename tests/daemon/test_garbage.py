"""The garbage collector of a node's process looks at what is new, not at everything."""

from __future__ import annotations

import gc
import weakref

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.daemon.garbage import THAW_SECONDS, THRESHOLDS, ShortPauses


class Loop:
    """An object that holds itself, which only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


class ShortPausesTests(SynchronousTestCase):
    """What a full collection looks at, and what it frees."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pauses = ShortPauses(self.clock.seconds)
        self.before = gc.get_threshold()
        self.pauses.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop it, if the test has not."""
        if self.pauses.running:
            self.pauses.stopService()

    def test_what_survived_is_set_aside(self) -> None:
        """A full collection does not come back to what one has seen before."""
        old = Loop()
        gc.collect()
        new = Loop()

        seen = {id(found) for found in gc.get_objects()}

        self.assertIn(id(new), seen)
        self.assertNotIn(id(old), seen)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)

    def test_new_garbage_is_freed(self) -> None:
        """What became garbage since the last full collection goes with the next."""
        loop = weakref.ref(Loop())

        gc.collect()

        self.assertIsNone(loop())

    def test_old_garbage_is_freed_once_in_a_while(self) -> None:
        """What was set aside and then became garbage waits, but not for ever."""
        old = Loop()
        gc.collect()
        loop = weakref.ref(old)
        del old

        self.clock.advance(THAW_SECONDS - 1)
        gc.collect()
        self.assertIsNotNone(loop())
        self.clock.advance(1)
        gc.collect()
        self.assertIsNone(loop())

    def test_young_collections_set_nothing_aside(self) -> None:
        """Only a full one does, or young garbage would wait too."""
        loop = Loop()
        gc.collect(1)
        seen = weakref.ref(loop)
        del loop

        gc.collect()

        self.assertIsNone(seen())

    def test_stop(self) -> None:
        """Everything is as before, for whoever uses the process next."""
        loop = Loop()
        gc.collect()

        self.pauses.stopService()

        self.assertEqual(gc.get_threshold(), self.before)
        self.assertEqual(gc.get_freeze_count(), 0)
        gc.collect()
        later = Loop()
        gc.collect()
        seen = {id(found) for found in gc.get_objects()}
        self.assertIn(id(loop), seen)
        self.assertIn(id(later), seen)
