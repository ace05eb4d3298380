"""Clusters that are upgraded, and set back, node by node in a storm."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_levels import LeveledListFSM, machine
from txraft.config import Config
from txraft.errors import UpgradeNeeded
from txraft.interfaces import FSM
from txraft.node.events import RaftState
from txraft.testing import ListFSM, Node, SimulatedCluster

NEWEST = 2
SEEDS = range(8)


def what_it_holds(fsm: FSM) -> bytes:
    """Stand for the state of a list: its commands, and where its rules have changed."""
    assert isinstance(fsm, ListFSM)
    return repr(fsm.commands).encode()


class Upgraded(SimulatedCluster):
    """Each start of a node may be in another version, one up or one down.

    One down only while no log has a level that it lacks, as operators are told to. A
    node that was overtaken by one has to stop, and is then upgraded.
    """

    def __init__(self, seed: int) -> None:
        self.chance = Random(f"versions {seed}")
        self.versions: dict[str, int] = {}
        self.ever: dict[str, int] = {}
        self.stopped = self.downgrades = 0
        super().__init__(self._make, 3, seed, digest=what_it_holds)

    def _make(self) -> FSM:
        return machine(self.versions[self._starting])

    def start_node(
        self, address: str, peers: Sequence[str] = (), config: Config | None = None
    ) -> Node:
        """Start it in the version before or after the one that it had."""
        before = self.versions.get(address, 0)
        version = min(max(before + self.chance.choice((-1, -1, 0, 1, 1)), 0), NEWEST)
        if version < before:
            version = max(version, self.in_a_log())
        self.downgrades += version < before
        return self.start_version(address, version, peers, config)

    def start_version(
        self,
        address: str,
        version: int,
        peers: Sequence[str] = (),
        config: Config | None = None,
    ) -> Node:
        self.versions[address] = version
        self.ever[address] = max(version, self.ever.get(address, 0))
        return super().start_node(address, peers, config)

    def in_a_log(self) -> int:
        """Return the highest level that any disk holds."""
        levels = [0]
        for disk in self._stores.values():
            last = disk.store.last_index()
            first = disk.store.first_index()
            for index in range(first, last + 1) if first else ():
                data = disk.store.get_log(index).data or b""
                if data.startswith(b"txraft-level:"):
                    levels.append(int(data.partition(b":")[2]))
        levels += [node.raft.active_level for node in self.nodes.values()]
        return max(levels)

    def advance(self, seconds: float) -> None:
        """Let time pass; what is active must have been understood by everybody."""
        super().advance(seconds)
        for address, node in list(self.nodes.items()):
            active = node.raft.active_level
            for member in "abc":
                known = self.ever.get(member, 0)
                assert known >= active, f"{member} never understood {active}"
            if node.raft.state is RaftState.SHUTDOWN:
                self.stopped += 1
                self.crash(address)
                self.start_version(address, NEWEST)

    def upgrade_all(self) -> None:
        """End with the newest version everywhere."""
        for address in "abc":
            if address in self.nodes:
                self.crash(address)
            self.start_version(address, NEWEST)
            self.wait_for_leader()
        self.wait_until(
            lambda: all(n.raft.active_level == NEWEST for n in self.nodes.values())
        )


class Storms(SynchronousTestCase):
    def test_upgrades(self) -> None:
        """No replica differs, whatever runs where, and in the end the newest holds."""
        levels, downgrades, acknowledged = 0, 0, 0
        for seed in SEEDS:
            cluster = Upgraded(seed)
            cluster.start()

            storm = cluster.storm(10.0, lambda chance: b"%d" % chance.randrange(99))
            cluster.upgrade_all()

            acknowledged += storm.acknowledged
            downgrades += cluster.downgrades
            states = [cluster.fsm(address) for address in "abc"]
            self.assertEqual(len({what_it_holds(state) for state in states}), 1)
            for state in states:
                assert isinstance(state, LeveledListFSM)
                self.assertEqual(state.active_level, NEWEST)
                levels += sum(each.startswith(b"level") for each in state.commands)
            self.flushLoggedErrors(UpgradeNeeded)
            cluster.shutdown()
            cluster.advance(1.0)
        self.assertGreater(acknowledged, 50 * len(SEEDS))
        self.assertGreater(downgrades, 0)
        self.assertGreater(levels, 3 * len(SEEDS), "some came one by one")
