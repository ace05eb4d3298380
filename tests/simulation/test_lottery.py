"""A state machine that is not deterministic, and the simulation that shows it."""

import json
import random
from collections.abc import Callable
from typing import BinaryIO

from twisted.trial.unittest import SynchronousTestCase

from txraft import Log, SnapshotSink
from txraft.testing import ReplicasDiffer, SimulatedCluster


class Lottery:
    """Draws a winner among those who have joined, with *choose*."""

    def __init__(self, choose: Callable[[list[str], int], str]) -> None:
        self.choose = choose
        self.players: list[str] = []
        self.winners: list[str] = []

    def apply(self, log: Log) -> object:
        command = (log.data or b"").decode()
        if command != "draw":
            self.players.append(command)
        elif self.players:
            self.winners.append(self.choose(self.players, log.index))
        return len(self.winners)

    def snapshot(self) -> "LotterySnapshot":
        return LotterySnapshot(json.dumps([self.players, self.winners]).encode())

    def restore(self, source: BinaryIO) -> None:
        self.players, self.winners = json.load(source)


class LotterySnapshot:
    def __init__(self, state: bytes) -> None:
        self.state = state

    def persist(self, sink: SnapshotSink) -> None:
        sink.write(self.state)

    def release(self) -> None:
        pass


def command(chance: random.Random) -> bytes:
    """Join most of the time, draw sometimes."""
    return b"draw" if chance.random() < 0.3 else b"player %d" % chance.randrange(50)


class LotteryTests(SynchronousTestCase):
    def test_each_replica_draws_for_itself(self) -> None:
        """Every replica draws another winner; the entry that shows it is named."""
        cluster = SimulatedCluster(lambda: Lottery(lambda all, _: random.choice(all)))
        cluster.start()

        error = self.assertRaises(ReplicasDiffer, cluster.storm, 20.0, command)

        self.assertIn("differ after entry", str(error))

    def test_the_log_decides(self) -> None:
        """A draw that depends on nothing but the log is the same everywhere."""
        fair = lambda all, index: random.Random(index).choice(all)  # noqa: E731
        cluster = SimulatedCluster(lambda: Lottery(fair), seed=3)
        cluster.start()

        storm = cluster.storm(20.0, command)

        self.assertGreater(storm.acknowledged, 50)
        self.assertGreater(min(storm.crashes, storm.pauses, storm.cuts), 0)
