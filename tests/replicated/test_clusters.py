"""Replicated objects on the members of a cluster, under faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import CommandFailed, NotLeader
from txraft.replicated.objects import Replicated, command, query
from txraft.testing import Cluster, SimulatedCluster
from txraft.testing.cluster import EPOCH, FAST
from txraft.testing.simulated import ReplicasDiffer


class Lots(Replicated):
    """Hands out leases on a few names."""

    def __init__(self) -> None:
        self.leases: dict[str, float] = {}
        self.seen: set[str] = set()
        self.times: list[float] = []

    @command
    def claim(self, name: str, seconds: float) -> float:
        """Take a name, for some time."""
        self.times.append(self.context.time)
        if self.leases.get(name, 0.0) > self.context.time:
            raise ValueError(f"{name} is taken")
        self.seen.add(f"{name} {self.context.random.randrange(5)}")
        self.leases.pop(name, None)
        self.leases[name] = self.context.time + seconds
        return self.leases[name]

    @query
    def all(self) -> list[Any]:
        """List everything."""
        return [self.leases, [*self.seen], self.times]


class OnACluster(SynchronousTestCase):
    """Three members, one clock."""

    def setUp(self) -> None:
        self.cluster = Cluster(3, replace(FAST, trailing_logs=0), make_fsm=Lots)
        self.addCleanup(self.cluster.shutdown)
        self.cluster.start()

    def claim(self, name: str, seconds: float = 30.0) -> float:
        """Claim on the leader."""
        lots = self.cluster.replicated(Lots)
        return self.cluster.result(lots.claim(name, seconds))

    def all(self, at: str) -> list[Any]:
        """Return what a member has."""
        return self.cluster.replicated(Lots, at).all.stale()

    def test_members_have_the_same(self) -> None:
        """Whatever commands did, and whether they raised."""
        until = self.claim("a")
        self.assertRaises(CommandFailed, self.claim, "a")
        self.cluster.wait_for_all()

        leases, seen, times = self.cluster.result(self.cluster.replicated(Lots).all())

        self.assertEqual(leases, {"a": until})
        self.assertEqual(len(times), 1, "the second one was undone")
        for at in self.cluster.addresses:
            self.assertEqual(self.all(at), [leases, seen, times])

    def test_time_is_stamped_as_it_enters_the_log(self) -> None:
        """By the leader's clock; followers apply it later, with the same time."""
        before = self.cluster.clock.seconds()
        self.claim("a")
        self.cluster.wait_for_all()
        after = self.cluster.clock.seconds()

        for at in self.cluster.addresses:
            [time] = self.all(at)[2]
            self.assertGreaterEqual(time - EPOCH, before - 1e-5)
            self.assertLess(time - EPOCH, after)

    def test_leases_end_whoever_leads(self) -> None:
        """Also after a leader whose clock is an hour ahead."""
        first = self.cluster.leader.address
        self.cluster.set_clock_off(first, 3600.0)
        self.claim("a", 1.0)
        self.cluster.crash(first)
        self.cluster.wait_for_leader()

        self.assertRaises(CommandFailed, self.claim, "a")
        self.cluster.advance(1.2)
        self.claim("a", 1.0)

    def test_followers_refuse(self) -> None:
        """This cluster forwards nothing."""
        follower = self.cluster.followers[0].address
        lots = self.cluster.replicated(Lots, follower)

        self.assertRaises(NotLeader, self.cluster.result, lots.claim("a", 1.0))
        self.assertRaises(KeyError, self.cluster.replicated, Hidden)

    def test_snapshot_brings_a_member_up_to_date(self) -> None:
        """It has the state, and goes on with the commands behind it."""
        down = self.cluster.followers[0].address
        self.cluster.isolate(down)
        for number in range(5):
            self.claim(f"{number}")
        self.cluster.result(self.cluster.leader.raft.snapshot())
        self.cluster.heal()
        self.claim("last")
        self.cluster.wait_for_all()

        self.assertEqual(self.all(down), self.all(self.cluster.leader.address))

    def test_several_objects(self) -> None:
        """By their names."""
        cluster = Cluster(1, make_fsm=lambda: {"lots": Lots(), "hidden": Hidden()})
        self.addCleanup(cluster.shutdown)
        cluster.start()

        cluster.result(cluster.replicated(Lots).claim("a", 1.0))
        cluster.result(cluster.replicated(Hidden).count())

        self.assertEqual(len(cluster.replicated(Lots).times), 1)


class Hidden(Replicated):
    """Keeps something where no snapshot looks."""

    counted = 0

    @command
    def count(self) -> int:
        """Count in the class."""
        Hidden.counted += 1
        return Hidden.counted


class Forgetful(Replicated):
    """Counts where no snapshot looks, and keeps that in the state."""

    def __init__(self) -> None:
        self.number = 0

    @command
    def count(self) -> int:
        """Count."""
        _counts[id(self)] = _counts.get(id(self), 0) + 1
        self.number = _counts[id(self)]
        return self.number


class Answering(Replicated):
    """Answers what depends on the member."""

    @command
    def count(self) -> int:
        """Tell how often this object was asked."""
        _counts[id(self)] = _counts.get(id(self), 0) + 1
        return _counts[id(self)]


_counts: dict[int, int] = {}


def count_to(number: int, cluster: SimulatedCluster, counter: Any) -> None:
    """Count so often."""
    for _ in range(number):
        cluster.result(counter.count())


class UnderFaults(SynchronousTestCase):
    """Members are compared with each other, and with restored ones."""

    def test_members_stay_the_same(self) -> None:
        """Under crashes, pauses, cuts and snapshots, with clocks that are off."""
        for seed in range(2):
            cluster = SimulatedCluster(Lots, seed=seed)
            cluster.start()
            cluster.set_clock_off("a", 100.0)
            cluster.set_clock_off("c", -100.0)
            storm = cluster.storm_on(
                Lots,
                10.0,
                lambda lots, random: lots.claim(random.choice("abcdef"), 1.0),
            )

            self.assertGreater(storm.acknowledged, 20)
            self.assertGreater(storm.refused, 0)
            times = cluster.replicated(Lots).times
            self.assertEqual([*times], sorted(set(times)))
            cluster.shutdown()

    def test_state_that_no_snapshot_has(self) -> None:
        """It is found after a few commands, without a crash, and named."""
        for kind, what in ((Forgetful, "state"), (Answering, "result")):
            cluster = SimulatedCluster(kind, size=1, seed=3)
            cluster.start()
            counter: Any = cluster.replicated(kind)

            error = self.assertRaises(ReplicasDiffer, count_to, 20, cluster, counter)

            self.assertIn(f"in the {what} after entry", str(error))
            self.assertIn(f"{kind.__name__}.", str(error))
            self.assertIn("seed 3", str(error))
