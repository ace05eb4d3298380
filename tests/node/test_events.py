"""Observers: filters, the queue of a busy one, and the counts of losses."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredQueue, succeed
from twisted.trial.unittest import SynchronousTestCase

from txraft.node.events import Observation, Observer, Observers
from txraft.node.raft import Raft

NOBODY = cast(Raft, None)


def tell(observers: Observers, *data: object) -> None:
    """Tell of each of *data* in turn."""
    for each in data:
        observers.tell(Observation(NOBODY, each))


class Observing(SynchronousTestCase):
    def setUp(self) -> None:
        self.observers = Observers()
        self.seen: list[object] = []
        self.under_way: list[Deferred[None]] = []

    def take(self, observation: Observation) -> None:
        self.seen.append(observation.data)

    def take_slowly(self, observation: Observation) -> Deferred[None]:
        self.seen.append(observation.data)
        self.under_way.append(Deferred())
        return self.under_way[-1]

    def register(self, callback: Any, filter: Any = None, **options: Any) -> Observer:
        observer = Observer(callback, filter, **options)
        self.observers.register(observer)
        return observer

    def test_filter_comes_first(self) -> None:
        """What the filter keeps back is neither delivered nor counted."""
        observer = self.register(self.take, lambda o: o.data != 2)

        tell(self.observers, 1, 2, 3)

        self.assertEqual(self.seen, [1, 3])
        self.assertEqual((observer.num_observed, observer.num_dropped), (2, 0))

    def test_filter_alone(self) -> None:
        """An observer without a callback only filters."""

        def filter(observation: Observation) -> bool:
            self.seen.append(observation.data)
            return True

        observer = self.register(None, filter)

        tell(self.observers, 1, 2)

        self.assertEqual(self.seen, [1, 2])
        self.assertEqual((observer.num_observed, observer.num_dropped), (0, 0))

    def test_filter_that_raises_keeps_nobody_from_it(self) -> None:
        """It is logged, counted, and the next observer is told."""
        bad = self.register(self.take, lambda o: 1 / 0)
        self.register(self.take)

        tell(self.observers, 1)

        self.assertEqual(self.seen, [1])
        self.assertEqual(bad.num_dropped, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_busy_observer_drops_and_counts(self) -> None:
        """Without blocking, what comes while the callback is busy is lost."""
        observer = self.register(self.take_slowly)

        tell(self.observers, 1, 2, 3)
        self.under_way[0].callback(None)
        tell(self.observers, 4)

        self.assertEqual(self.seen, [1, 4])
        self.assertEqual((observer.num_observed, observer.num_dropped), (2, 2))

    def test_blocking_observer_gets_all_in_order(self) -> None:
        """With blocking, it waits for its turn; the node does not."""
        observer = self.register(self.take_slowly, blocking=True)

        tell(self.observers, 1, 2, 3)
        self.assertEqual(self.seen, [1])
        while self.under_way:
            self.under_way.pop(0).callback(None)

        self.assertEqual(self.seen, [1, 2, 3])
        self.assertEqual((observer.num_observed, observer.num_dropped), (3, 0))

    def test_blocking_observer_keeps_so_much(self) -> None:
        """One that never ends does not fill the memory."""
        observer = self.register(self.take_slowly, blocking=True, max_waiting=2)

        tell(self.observers, 1, 2, 3, 4, 5)
        while self.under_way:
            self.under_way.pop(0).callback(None)

        self.assertEqual(self.seen, [1, 2, 3])
        self.assertEqual(observer.num_dropped, 2)

    def test_many_that_waited_are_delivered_in_one_go(self) -> None:
        """However many they are, and whether or not each ends at once."""
        first: Deferred[None] = Deferred()

        def take(observation: Observation) -> Deferred[None] | None:
            self.seen.append(observation.data)
            if observation.data == 0:
                return first
            return succeed(None) if int(str(observation.data)) % 2 else None

        self.register(take, blocking=True)
        tell(self.observers, *range(1000))

        first.callback(None)

        self.assertEqual(self.seen, list(range(1000)))

    def test_callback_that_fails_later_goes_on(self) -> None:
        """A failed Deferred is logged, and the next observation delivered."""
        self.register(self.take_slowly, blocking=True)

        tell(self.observers, 1, 2)
        self.under_way[0].errback(ZeroDivisionError())

        self.assertEqual(self.seen, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_observation_from_inside_a_callback_waits_for_its_end(self) -> None:
        """A callback is never entered twice."""

        def again(observation: Observation) -> None:
            if observation.data == 1:
                tell(self.observers, 2)
            self.seen.append(observation.data)

        for blocking in (True, False):
            self.seen.clear()
            observer = self.register(again, blocking=blocking)

            tell(self.observers, 1)

            self.assertEqual(self.seen, [1, 2])
            self.observers.deregister(observer)

    def test_queue_of_limited_size_is_a_channel(self) -> None:
        """What does not fit is dropped and counted, without a log entry."""
        queue: DeferredQueue[Observation] = DeferredQueue(size=2)
        observer = self.register(queue.put)

        tell(self.observers, 1, 2, 3)

        taken = [self.successResultOf(queue.get()).data for _ in range(2)]
        self.assertEqual(taken, [1, 2])
        self.assertEqual((observer.num_observed, observer.num_dropped), (2, 1))

    def test_deregister_is_idempotent(self) -> None:
        """Nothing is told any more."""
        observer = self.register(self.take)
        self.observers.register(observer)
        tell(self.observers, 1)

        self.observers.deregister(observer)
        self.observers.deregister(observer)
        tell(self.observers, 2)

        self.assertEqual(self.seen, [1])
