"""Levels of the replicated state machine: their announcement and activation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import BinaryIO

from twisted.internet.defer import Deferred

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.entry import Entry, LogType
from txraft.errors import (
    ConfigurationRefused,
    NodeFailed,
    RaftShutdown,
    UpgradeNeeded,
)
from txraft.interfaces import SnapshotSink
from txraft.node.responder import Responder
from txraft.testing import Cluster, ListFSM, Node
from txraft.testing.cluster import ListSnapshot
from txraft.wire.decisions import activated_level, encode_activation


class LeveledListFSM(ListFSM):
    """A list whose commands are answered with the level that was active then."""

    def __init__(self, level: int = 1) -> None:
        super().__init__()
        self.level = level
        self.active_level = 0

    def apply(self, log: Entry) -> object:
        super().apply(log)
        return self.active_level

    def activate(self, level: int) -> None:
        assert self.active_level < level <= self.level
        self.active_level = level
        self.commands.append(b"level %d" % level)

    def snapshot(self) -> ListSnapshot:
        if not self.active_level:
            return super().snapshot()  # as the version before can read it
        return LeveledListSnapshot(list(self.commands), level=self.active_level)

    def restore(self, source: BinaryIO) -> None:
        state = json.load(source)
        active, commands = state if state and type(state[0]) is int else (0, state)
        if active > self.level:
            raise UpgradeNeeded(active, self.level)
        self.active_level = active
        self.commands = [bytes.fromhex(text) for text in commands]


@dataclass
class LeveledListSnapshot(ListSnapshot):
    """The captured state of a `LeveledListFSM` at a level above 0."""

    level: int = 0

    def persist(self, sink: SnapshotSink) -> None:
        commands = [command.hex() for command in self.commands]
        sink.write(json.dumps([self.level, commands]).encode())


class LevelsCase(ClusterCase):
    """A test on clusters in which each node may run another version."""

    def leveled(self, *levels: int, start: bool = True, **options: object) -> Cluster:
        """Make a cluster of nodes that understand *levels*, in order of addresses."""
        self.versions = dict(zip("abcdefg", levels, strict=False))
        made = iter(self.versions.values())
        make = self.unstarted
        cluster = make(len(levels), lambda: machine(next(made)), **options)  # type: ignore[arg-type]
        if start:
            cluster.start()
        return cluster

    def run_version(self, cluster: Cluster, address: str, level: int) -> Node:
        """Restart *address* with code that understands *level*."""
        cluster.crash(address)
        return self.start_version(cluster, address, level)

    def start_version(self, cluster: Cluster, address: str, level: int) -> Node:
        cluster._make_fsm = lambda: machine(level)
        return cluster.start_node(address)

    def start_old(self, cluster: Cluster, address: str) -> Node:
        """Start *address* with code that knows nothing of levels: it announces none."""
        node = self.start_version(cluster, address, 0)
        shell = node.raft._shell
        assert shell is not None
        own = shell.outbox.header.incarnation
        shell.responder = Responder(
            cluster.config.protocol_version, address, address, incarnation=own
        )
        return node

    def active(self, cluster: Cluster) -> list[int]:
        return [node.raft.active_level for node in cluster.nodes.values()]


def machine(level: int) -> ListFSM:
    """Make a state machine of a version that knows *level*; 0 has no levels."""
    return LeveledListFSM(level) if level else ListFSM()


class Activation(LevelsCase):
    def test_all_announce(self) -> None:
        """A fresh cluster activates what all of it understands by itself, once."""
        cluster = self.leveled(1, 1, 1)

        cluster.advance(1.0)
        cluster.apply(b"x")
        cluster.wait_for_all()

        self.assertEqual(self.active(cluster), [1, 1, 1])
        for node in cluster.nodes.values():
            self.assertEqual(commands_of(node), [b"level 1", b"x"])
        self.assertEqual(cluster.leader.raft.levels, {"a": 1, "b": 1, "c": 1})
        self.assertEqual(cluster.leader.raft.stats()["active_level"], "1")

    def test_not_before_it_is_committed(self) -> None:
        """An entry that is not committed may be lost, and its level with it."""
        cluster = self.leveled(1, 1, 1, start=False, latency=0.01, disk_seconds=0.01)
        cluster.start()
        for _ in range(200):
            cluster.advance(0.005)
            for node in cluster.nodes.values():
                store = node.store
                entries = [store.get_log(i) for i in range(1, store.last_index() + 1)]
                made = [e.index for e in entries if activated_level(e.data or b"")]
                if node.raft.active_level:
                    self.assertLessEqual(min(made), node.raft.commit_index)
        self.assertEqual(self.active(cluster), [1, 1, 1])

    def test_lone_node(self) -> None:
        """A node alone needs nobody."""
        cluster = self.leveled(2)
        cluster.advance(1.0)
        self.assertEqual(self.active(cluster), [2])

    def test_lowest_counts(self) -> None:
        """What one of them does not understand is not activated, the rest is."""
        cluster = self.leveled(3, 1, 2)
        cluster.advance(1.0)
        self.assertEqual(self.active(cluster), [1, 1, 1])

    def test_one_has_none(self) -> None:
        """A member without levels, as a Go server is, keeps all at 0."""
        for levels in ((1, 1, 0), (0, 1, 1), (1, 0, 1)):
            cluster = self.leveled(*levels)
            cluster.advance(2.0)
            self.assertEqual(self.active(cluster), [0, 0, 0])

    def test_silent_member(self) -> None:
        """A member that is down may be of an old version: it is waited for."""
        cluster = self.leveled(1, 1, 1, start=False)
        for address in "ab":
            cluster.start_node(address, "abc")
        cluster.wait_for_leader(["a", "b"])
        cluster.advance(2.0)
        self.assertEqual(self.active(cluster), [0, 0])

        cluster.start_node("c", "abc")
        cluster.advance(1.0)

        self.assertEqual(self.active(cluster), [1, 1, 1])

    def test_nonvoter_counts(self) -> None:
        """A nonvoter applies the same entries, so it is waited for, too."""
        cluster = self.leveled(1, 1, 0, protocol_version=3)
        self.start_version(cluster, "d", 0)
        cluster.result(cluster.leader.raft.add_nonvoter("d", "d"))
        leader = cluster.leader.address
        upgraded = next(a for a in "ab" if a != leader)
        self.run_version(cluster, "c", 1)
        cluster.advance(2.0)
        self.assertEqual(cluster.nodes[leader].raft.active_level, 0, upgraded)

        self.run_version(cluster, "d", 1)
        cluster.advance(2.0)

        self.assertEqual(set(self.active(cluster)), {1})

    def test_not_at_protocol_0(self) -> None:
        """There is no place for an announcement in its messages."""
        cluster = self.leveled(1, 1, 1, protocol_version=0)
        cluster.advance(2.0)
        self.assertEqual(self.active(cluster), [0, 0, 0])
        self.assertEqual(cluster.leader.raft.stats()["level"], "0")

    def test_rolling_upgrade(self) -> None:
        """Node by node: the level is active after the last one, and replay agrees."""
        cluster = self.leveled(0, 0, 0)
        cluster.apply(b"old")
        cluster.wait_for_all()
        for address in "abc":
            self.assertFalse(any(self.active(cluster)))
            self.run_version(cluster, address, 1)
            cluster.wait_for_leader()
            cluster.apply(address.encode())
            cluster.wait_for_all()
            if address != "c":
                cluster.advance(2.0)
        cluster.advance(2.0)
        self.assertEqual(self.active(cluster), [1, 1, 1])
        cluster.apply(b"new")
        for address in "abc":
            self.run_version(cluster, address, 1)
            cluster.wait_for_leader()
        self.assertSameState(cluster, [b"old", b"a", b"b", b"c", b"level 1", b"new"])

    def test_downgrade_before_activation(self) -> None:
        """Until the last one announces the level, each may go back."""
        cluster = self.leveled(1, 1, 0)
        cluster.advance(1.0)
        followers = [n.address for n in cluster.followers]
        back = next(a for a in followers if a != "c")
        self.run_version(cluster, back, 0)
        cluster.wait_for_leader()

        self.run_version(cluster, "c", 1)
        cluster.advance(2.0)

        self.assertEqual(set(self.active(cluster)), {0})
        cluster.apply(b"x")
        self.assertSameState(cluster, [b"x"])

    def test_next_level(self) -> None:
        """Levels come one after the other as versions do, and one may be left out."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        for address in "abc":
            self.run_version(cluster, address, 3)
            cluster.wait_for_leader()
        cluster.advance(2.0)
        self.assertSameState(cluster, [b"level 1", b"level 3"])

    def test_snapshot_carries_it(self) -> None:
        """A node that restores a snapshot is at the level that was active there."""
        cluster = self.leveled(1, 1, 1, trailing_logs=0)
        cluster.advance(1.0)
        cluster.apply(b"x")
        cluster.wait_for_all()
        cluster.result(cluster.leader.raft.snapshot())
        leader = cluster.leader.address
        self.start_version(cluster, "d", 1)

        cluster.result(cluster.leader.raft.add_peer("d"))
        self.run_version(cluster, leader, 1)
        cluster.wait_for_leader()

        self.assertSameState(cluster, [b"level 1", b"x"])
        self.assertEqual(set(self.active(cluster)), {1})


class Beyond(LevelsCase):
    """A server that understands less than what is active."""

    def stopped(self, node: Node) -> str:
        [reason] = self.outcome(node.raft.when_stopped())
        assert isinstance(reason, NodeFailed)
        self.flushLoggedErrors(UpgradeNeeded)
        return str(reason)

    def test_entry(self) -> None:
        """It stops at the entry, says what to do, and has applied nothing after it."""
        cluster = self.leveled(2, 2, 2)
        cluster.advance(1.0)
        cluster.apply(b"x")
        cluster.wait_for_all()
        for level in (0, 1):
            follower = cluster.followers[0].address
            node = self.run_version(cluster, follower, level)
            cluster.advance(1.0)

            self.assertIn(
                "upgrade this node: the cluster uses level 2, "
                f"this version knows {level}",
                self.stopped(node),
            )
            self.assertEqual(commands_of(node), [])
            self.run_version(cluster, follower, 2)
        self.assertSameState(cluster, [b"level 2", b"x"])

    def test_snapshot(self) -> None:
        """It does not take a snapshot of a level that it does not know."""
        cluster = self.leveled(2, 2, 2, trailing_logs=0)
        cluster.advance(1.0)
        cluster.apply(b"x")
        cluster.wait_for_all()
        follower = cluster.followers[0].address
        cluster.result(cluster.nodes[follower].raft.snapshot())

        node = self.run_version(cluster, follower, 1)

        failure = self.failureResultOf(node.started)
        self.assertIn("upgrade this node", failure.getErrorMessage())


class Newcomers(LevelsCase):
    """Servers that are added when a level is active."""

    def test_knows_less(self) -> None:
        """It is asked first, and not added; no quorum waits for it."""
        cluster = self.leveled(2, 2, 2, protocol_version=3)
        cluster.advance(1.0)
        raft = cluster.leader.raft
        for level, address in ((0, "d"), (1, "e")):
            self.start_version(cluster, address, level)
            for add in (raft.add_voter, raft.add_nonvoter):
                outcome = self.outcome(add(address, address))
                cluster.advance(1.0)
                error = self.assertFailedWith(outcome, ConfigurationRefused)
                self.assertIn(f"{address} understands level {level}", str(error))
                self.assertIn("uses level 2: upgrade it first", str(error))
        self.assertEqual(raft.peers(), ["a", "b", "c"])

    def test_knows_enough(self) -> None:
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        self.start_version(cluster, "d", 2)

        cluster.result(cluster.leader.raft.add_peer("d"))
        cluster.apply(b"x")

        self.assertSameState(cluster, [b"level 1", b"x"])
        self.assertEqual(cluster.leader.raft.levels["d"], 2)

    def test_before_activation(self) -> None:
        """While nothing is active, old ones may come, and hold it up."""
        cluster = self.leveled(1, 1, 0)
        cluster.advance(1.0)
        self.start_version(cluster, "d", 0)

        cluster.result(cluster.leader.raft.add_peer("d"))
        self.run_version(cluster, "c", 1)
        cluster.advance(2.0)

        self.assertEqual(set(self.active(cluster)), {0})

    def test_activation_overtakes_question(self) -> None:
        """What an old one answered is judged by what is active when it is added."""
        cluster = self.leveled(1, 1, 0)
        cluster.advance(1.0)
        cluster.crash("c")
        cluster.wait_for_leader(["a", "b"])
        self.start_version(cluster, "d", 0)
        leader = cluster.leader.raft
        asked: Deferred[int | None] = Deferred()
        assert leader._shell is not None
        self.patch(leader._shell.outbox, "ask_level", lambda peer: asked)
        outcome = self.outcome(leader.add_peer("d"))
        cluster.advance(0.1)
        self.start_version(cluster, "c", 1)
        cluster.advance(1.0)
        self.assertEqual(leader.active_level, 1)

        asked.callback(0)
        cluster.advance(1.0)

        self.assertFailedWith(outcome, ConfigurationRefused)

    def test_activation_not_committed_yet(self) -> None:
        """It will be committed before the addition is, so it counts already."""
        cluster = self.leveled(1, 1, 0)
        cluster.advance(1.0)
        self.start_version(cluster, "d", 0)
        leader = cluster.leader
        others = [a for a in "abc" if a != leader.address]
        cluster._cut = {frozenset({leader.address, each}) for each in others}
        cluster._route()
        shell = leader.raft._shell
        assert shell is not None
        shell.consensus.append_activation(
            Entry(0, 0, LogType.NOOP, encode_activation(1)), 1
        )

        outcome = self.outcome(leader.raft.add_peer("d"))
        cluster.advance(0.02)

        self.assertEqual(leader.raft.active_level, 0)
        self.assertFailedWith(outcome, ConfigurationRefused)

    def test_nobody_answers(self) -> None:
        """It is added all the same, and gets entries when it is known not to err."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)

        cluster.result(cluster.leader.raft.add_peer("d"))
        node = self.start_old(cluster, "d")
        cluster.advance(2.0)

        self.assertEqual(node.raft.last_index, 0)
        self.assertEqual(cluster.leader.raft.stats()["outdated_peers"], "d")
        self.run_version(cluster, "d", 1)
        cluster.apply(b"x")
        self.assertSameState(cluster, [b"level 1", b"x"])
        cluster.advance(0.1)
        self.assertNotIn("outdated_peers", cluster.leader.raft.stats())

    def test_stopped_while_asking(self) -> None:
        """The change fails with its node, and is withdrawn with its Deferred."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        leader = cluster.leader.raft
        withdrawn = leader.add_peer("e")
        outcome = self.outcome(leader.add_peer("d"))
        withdrawn.cancel()
        self.failureResultOf(withdrawn)
        leader.shutdown()
        cluster.advance(1.0)
        self.assertFailedWith(outcome, RaftShutdown)

    def test_question_changes_nothing(self) -> None:
        """A server that is in no cluster, or in another one, takes no notice."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        node = self.start_version(cluster, "d", 1)
        assert cluster.leader.raft._shell is not None
        ask = cluster.leader.raft._shell.outbox.ask_level

        told = ask("d"), ask("x")
        cluster.advance(0.3)

        self.assertEqual([self.successResultOf(each) for each in told], [1, None])
        self.assertIsNone(node.raft.leader)
        self.assertEqual(node.raft.term, 0)


class Downgrades(LevelsCase):
    """Members that go back when it is too late."""

    def test_old_version_gets_no_entries(self) -> None:
        """It is kept from judging what comes by rules that do not hold any more."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        old = cluster.followers[0].address
        cluster.crash(old)
        node = self.start_old(cluster, old)
        last = node.raft.last_index

        cluster.apply(b"x")
        cluster.advance(2.0)

        self.assertEqual(node.raft.last_index, last)
        self.assertEqual(cluster.leader.raft.stats()["outdated_peers"], old)
        self.run_version(cluster, old, 1)
        self.assertSameState(cluster, [b"level 1", b"x"])

    def test_new_leader_knows_its_voters(self) -> None:
        """A vote announces a level, too, so entries follow an election at once."""
        cluster = self.leveled(1, 1, 1)
        cluster.advance(1.0)
        cluster.crash(cluster.leader.address)
        cluster.wait_for_leader()
        role = cluster.leader.raft._shell.consensus.role  # type: ignore[union-attr]
        follower = cluster.followers[0].address
        self.assertEqual(role.followers[follower].level, 1)  # type: ignore[union-attr]


class Encoding(ClusterCase):
    def test_round_trip(self) -> None:
        for level in (1, 7, 2**31 - 1):
            self.assertEqual(activated_level(encode_activation(level)), level)

    def test_other_data(self) -> None:
        """What is no activation is skipped, as every no-op of another is."""
        for data in (b"", b"x", b"txraft-level:", b"txraft-level:x", b"txraft-level:0"):
            self.assertEqual(activated_level(data), 0, data)
        self.assertEqual(activated_level(b"txraft-level:%d" % 2**31), 0)
