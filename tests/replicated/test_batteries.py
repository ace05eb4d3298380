"""The dict, the queues and the lock that come with txraft."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import CommandFailed
from txraft.replicated.batteries import (
    Claim,
    ReplicatedDict,
    ReplicatedLock,
    ReplicatedPriorityQueue,
    ReplicatedQueue,
)
from txraft.replicated.objects import Replicated
from txraft.testing import Cluster, SimulatedCluster

S = TypeVar("S", bound=Replicated)


class OnOneNode(SynchronousTestCase):
    """A node in memory, and its clock."""

    def make(self, kind: type[S]) -> S:
        """Make an object on a node."""
        self.cluster = Cluster(1, make_fsm=kind)
        self.addCleanup(self.cluster.shutdown)
        self.cluster.start()
        return self.cluster.replicated(kind)

    def do(self, call: Any) -> Any:
        """Wait for a result."""
        return self.cluster.result(call)


class Dicts(OnOneNode):
    """`ReplicatedDict`."""

    def test_it_is_a_dict(self) -> None:
        """With the methods that make sense in one step."""
        one = self.make(ReplicatedDict)

        self.do(one.set("a", [1]))
        self.do(one.update({"b": 2, "c": {"x": 3}}))

        self.assertEqual(self.do(one.get("a")), [1])
        self.assertEqual(self.do(one.set_default("a", 5)), [1])
        self.assertEqual(self.do(one.pop("b")), 2)
        self.assertIsNone(self.do(one.pop("b")))
        self.assertEqual(self.do(one.all()), {"a": [1], "c": {"x": 3}})
        self.do(one.clear())
        self.assertEqual(self.do(one.size()), 0)

    def test_set_if_is(self) -> None:
        """One of two who have read the same changes it."""
        one = self.make(ReplicatedDict)

        self.assertTrue(self.do(one.set_if_is("a", None, 1)))
        self.assertFalse(self.do(one.set_if_is("a", None, 2)))
        self.assertTrue(self.do(one.set_if_is("a", 1, 2)))
        self.assertEqual(self.do(one.get("a")), 2)


class Queues(OnOneNode):
    """`ReplicatedQueue` and `ReplicatedPriorityQueue`."""

    def test_first_come_first_served(self) -> None:
        """Each is claimed once, and gone when it is finished."""
        queue = self.make(ReplicatedQueue)
        for item in ("a", "b"):
            self.do(queue.put(item))

        one, other = self.do(queue.claim(5.0)), self.do(queue.claim(5.0))

        self.assertEqual([one.item, other.item], ["a", "b"])
        self.assertIsNone(self.do(queue.claim(5.0)))
        self.assertEqual(self.do(queue.size()), 0)
        self.assertEqual(self.do(queue.claimed()), [one, other])
        self.assertTrue(self.do(queue.finish(one.id, one.token)))
        self.assertFalse(self.do(queue.finish(one.id, one.token)))

    def test_lease_that_is_over(self) -> None:
        """The item is handed out again, and the old token is worth nothing."""
        queue = self.make(ReplicatedQueue)
        self.do(queue.put("a"))
        old: Claim = self.do(queue.claim(1.0))

        self.cluster.advance(1.1)
        new: Claim = self.do(queue.claim(1.0))

        self.assertEqual((new.id, new.item), (old.id, "a"))
        self.assertGreater(new.token, old.token)
        self.assertFalse(self.do(queue.finish(old.id, old.token)))
        self.assertFalse(self.do(queue.extend(old.id, old.token, 1.0)))
        self.assertTrue(self.do(queue.extend(new.id, new.token, 5.0)))
        self.cluster.advance(2.0)
        self.assertIsNone(self.do(queue.claim(1.0)))

    def test_smallest_priority_first(self) -> None:
        """Then the oldest."""
        queue = self.make(ReplicatedPriorityQueue)
        for item, priority in (("b", 2), ("c", 2.0), ("a", 1), ("d", 7)):
            self.do(queue.put(item, priority))

        found = [self.do(queue.claim(5.0)).item for _ in range(4)]

        self.assertEqual(found, ["a", "b", "c", "d"])
        self.assertIsNone(self.do(queue.claim(5.0)))
        self.assertEqual(self.do(queue.size()), 0)

    def test_lease_that_is_none(self) -> None:
        """It is refused, and nothing is handed out."""
        queue = self.make(ReplicatedQueue)
        self.do(queue.put("a"))

        for seconds in (0.0, -1.0, float("inf")):
            self.assertRaises(CommandFailed, self.do, queue.claim(seconds))
        self.assertEqual(self.do(queue.size()), 1)


class Locks(OnOneNode):
    """`ReplicatedLock`."""

    def test_one_owner_at_a_time(self) -> None:
        """Until it is released."""
        lock = self.make(ReplicatedLock)
        token = self.do(lock.acquire("a", 5.0))

        self.assertIsNone(self.do(lock.acquire("b", 5.0)))
        self.assertEqual(self.do(lock.acquire("a", 5.0)), token)
        self.assertEqual(self.do(lock.holder())[:2], ("a", token))
        self.assertFalse(self.do(lock.release(token - 1)))
        self.assertTrue(self.do(lock.release(token)))
        self.assertFalse(self.do(lock.release(token)))
        self.assertIsNone(self.do(lock.holder()))
        self.assertGreater(self.do(lock.acquire("b", 5.0)), token)

    def test_lease_that_is_over(self) -> None:
        """Another takes it, with a larger token; so does the same once more."""
        lock = self.make(ReplicatedLock)
        tokens = [self.do(lock.acquire("a", 1.0))]

        for owner in ("b", "b", "a"):
            self.cluster.advance(1.1)
            tokens.append(self.do(lock.acquire(owner, 1.0)))

        self.assertEqual(tokens, sorted(set(tokens)))
        self.assertFalse(self.do(lock.release(tokens[0])))


class UnderFaults(SynchronousTestCase):
    """Members stay the same."""

    def test_queue_under_faults(self) -> None:
        """With leases that end meanwhile, and clocks that are off."""
        cluster = SimulatedCluster(ReplicatedPriorityQueue, seed=5)
        cluster.start()
        cluster.set_clock_off("b", 50.0)

        storm = cluster.storm_on(
            ReplicatedPriorityQueue,
            4.0,
            lambda queue, random: (
                queue.claim(0.5)
                if random.random() < 0.5
                else queue.put("x", random.randrange(3))
            ),
        )

        self.assertGreater(storm.acknowledged, 5)
        cluster.shutdown()
