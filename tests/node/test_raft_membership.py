"""Membership, transfers of leadership, and clusters that meet by mistake."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs, formatEvent

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.entry import LogType
from txraft.errors import (
    KnownPeer,
    LeadershipLost,
    NodeRemoved,
    NotLeader,
    QueueFull,
    RaftShutdown,
    TransferFailed,
    TransferInProgress,
    UnknownPeer,
)
from txraft.node.events import RaftState
from txraft.node.pending import MAX_WAITING
from txraft.testing import Cluster, Node


class Adding(ClusterCase):
    def test_add_peer_that_joins_empty(self) -> None:
        """R10: it waits without campaigning, is added, and gets everything."""
        cluster = self.cluster(3)
        cluster.apply(b"one")
        joining = cluster.start_node("d")
        cluster.advance(2)
        self.assertEqual(joining.raft.state, RaftState.FOLLOWER)
        self.assertEqual(joining.raft.term, 0)

        index = cluster.result(cluster.leader.raft.add_peer("d"))

        self.assertEqual(index, cluster.leader.raft.last_index)
        self.assertSameState(cluster, [b"one"])
        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), ["a", "b", "c", "d"])
            self.assertEqual(node.peer_store.peers(), ["a", "b", "c", "d"])

    def test_watch_members(self) -> None:
        """Each membership that is committed is told, on every member and once."""
        cluster = self.cluster(3)
        told: list[tuple[str, ...]] = []
        end = cluster.nodes["b"].raft.watch_members(
            lambda members: told.append(members.addresses)
        )
        cluster.start_node("d")

        cluster.result(cluster.leader.raft.add_peer("d"))
        cluster.advance(1)
        self.assertEqual(told, [("a", "b", "c", "d")])
        cluster.result(cluster.leader.raft.remove_peer("d"))
        cluster.advance(1)
        self.assertEqual(told[1:], [("a", "b", "c")])
        end()
        cluster.result(cluster.leader.raft.add_peer("d"))
        cluster.advance(1)

        self.assertEqual(len(told), 2)

    def test_list_of_peers_does_not_outlive_the_log_it_is_from(self) -> None:
        """It is written once that is durable, or the list alone would found a cluster.

        A follower may hear that a membership is committed before it has it on disk.
        """
        cluster = self.cluster(3)
        joining = cluster.start_node("d")
        cluster.slow_disk("d", 0.2)
        for number in range(5):
            cluster.apply(b"%d" % number)
        added = self.outcome(cluster.leader.raft.add_peer("d"))

        for _ in range(100):
            cluster.advance(0.02)
            if "d" in joining.peer_store.peers():
                self.assertGreaterEqual([joining.store.last_index()], added)

        self.assertEqual(joining.peer_store.peers(), ["a", "b", "c", "d"])

    def test_every_protocol_version_changes_its_membership(self) -> None:
        """Versions 0 and 1 write entries of types 2 and 3, later ones type 5."""
        written = {
            0: {LogType.ADD_PEER, LogType.REMOVE_PEER},
            1: {LogType.ADD_PEER, LogType.REMOVE_PEER},
            2: {LogType.CONFIGURATION},
            3: {LogType.CONFIGURATION},
        }
        for version, kinds in written.items():
            cluster = self.cluster(3, protocol_version=version)
            cluster.start_node("d")
            cluster.result(cluster.leader.raft.add_peer("d"))
            cluster.result(
                cluster.leader.raft.remove_peer(cluster.followers[0].address)
            )
            cluster.apply(b"one")

            types = {e.type for e in cluster.leader.store.special_entries()}
            self.assertLessEqual(types - {LogType.NOOP}, kinds)
            self.assertGreaterEqual(types, kinds)
            self.assertEqual(len(cluster.leader.raft.peers()), 3)

    def test_known_and_unknown_peers(self) -> None:
        """R15, R16: as version 0 has it."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        known = self.outcome(raft.add_peer("b"))
        unknown = self.outcome(raft.remove_peer("z"))
        cluster.advance(0.1)

        self.assertFailedWith(known, KnownPeer)
        self.assertFailedWith(unknown, UnknownPeer)
        self.assertFailedWith(
            self.outcome(cluster.followers[0].raft.add_peer("z")), NotLeader
        )

    def test_changes_wait_for_one_another(self) -> None:
        """One is in flight at a time, and those behind it take their turn."""
        cluster = self.cluster(3, disk_seconds=0.01)
        cluster.start_node("d")
        cluster.start_node("e")
        raft = cluster.leader.raft

        outcomes = [
            self.outcome(raft.add_peer("d")),
            self.outcome(raft.add_peer("e")),
            self.outcome(raft.remove_peer("d")),
        ]
        cluster.wait_until(lambda: all(outcomes))

        self.assertEqual(outcomes, [sorted(o) for o in outcomes])
        self.assertEqual(raft.peers(), ["a", "b", "c", "e"])

    def test_waiting_changes_are_bounded_and_can_be_withdrawn(self) -> None:
        """A change that was cancelled before its turn never enters the log."""
        cluster = self.cluster(3)
        leader = cluster.leader
        cluster.isolate(leader.address)
        first = self.outcome(leader.raft.add_peer("d"))
        cluster.clock.advance(0)
        waiting = [leader.raft.add_peer("e") for _ in range(MAX_WAITING)]
        outcomes = [self.outcome(deferred) for deferred in waiting]

        full = self.outcome(leader.raft.add_peer("e"))
        self.assertFailedWith(full, QueueFull)
        waiting[0].cancel()
        self.assertFailedWith(outcomes[0], CancelledError)
        cluster.advance(0.5)

        self.assertFailedWith(first, LeadershipLost)
        for outcome in outcomes[1:]:
            self.assertFailedWith(outcome, NotLeader)

    def test_withdrawn_change_is_passed_over(self) -> None:
        """The next one takes its place."""
        cluster = self.cluster(3)
        cluster.start_node("e")
        raft = cluster.leader.raft
        withdrawn = raft.add_peer("d")
        outcome = self.outcome(withdrawn)
        second = self.outcome(raft.add_peer("e"))

        withdrawn.cancel()
        cluster.advance(0.2)

        self.assertFailedWith(outcome, CancelledError)
        self.assertSucceeded(second)
        self.assertEqual(raft.peers(), ["a", "b", "c", "e"])


class Removing(ClusterCase):
    def test_remove_follower(self) -> None:
        """R11: two are left, and the removed one shuts down after a while."""
        cluster = self.cluster(3)
        removed = cluster.followers[0]
        stopped = self.outcome(removed.raft.when_stopped())

        cluster.result(cluster.leader.raft.remove_peer(removed.address))
        cluster.advance(1)

        self.assertEqual([type(why) for why in stopped], [NodeRemoved])
        self.assertEqual(removed.raft.state, RaftState.SHUTDOWN)
        del cluster.nodes[removed.address]
        for node in cluster.nodes.values():
            self.assertEqual(len(node.raft.peers()), 2)
        cluster.apply(b"two are enough")

    def test_nothing_is_kept_for_who_was_removed(self) -> None:
        """No pipeline, and no memory of what it has refused."""
        cluster = self.cluster(3)
        shell = cluster.leader.raft._shell
        assert shell is not None
        removed, other = cluster.followers
        cluster.apply(b"one")
        shell.outbox._refusals[removed.address] = "no"
        self.assertEqual(len(shell.outbox._pipelines), 2)

        cluster.result(cluster.leader.raft.remove_peer(removed.address))
        cluster.advance(1)

        self.assertEqual(list(shell.outbox._pipelines), [other.address])
        self.assertEqual(shell.outbox._refusals, {})
        del cluster.nodes[removed.address]
        cluster.apply(b"two")

    def test_remove_leader(self) -> None:
        """R12: another takes over; the old one shuts down."""
        cluster = self.cluster(3)
        old = cluster.leader

        cluster.result(old.raft.remove_peer(old.address))
        cluster.advance(1)

        self.assertEqual(old.raft.state, RaftState.SHUTDOWN)
        error = self.assertFailedWith(self.outcome(old.raft.apply(b"x")), NodeRemoved)
        self.assertIn("removed", str(error))
        del cluster.nodes[old.address]
        new = cluster.wait_for_leader()
        self.assertEqual(len(new.raft.peers()), 2)
        cluster.apply(b"on")

    def test_remove_leader_without_shutdown_amid_commands(self) -> None:
        """R13: what comes behind the removal gets NotLeader; all logs agree."""
        cluster = self.cluster(3, shutdown_on_remove=False)
        old = cluster.leader
        commands = [b"%d" % i for i in range(100)]
        before = [self.outcome(old.raft.apply(c)) for c in commands[:80]]
        cluster.clock.advance(0)
        removal = self.outcome(old.raft.remove_peer(old.address))
        cluster.clock.advance(0)
        behind = [self.outcome(old.raft.apply(c)) for c in commands[80:]]
        cluster.advance(1)

        for outcome in before:
            self.assertSucceeded(outcome)
        self.assertSucceeded(removal)
        for outcome in behind:
            self.assertFailedWith(outcome, NotLeader)
        self.assertEqual(old.raft.state, RaftState.FOLLOWER)
        self.assertEqual(len(old.raft.peers()), 2)
        del cluster.nodes[old.address]
        cluster.wait_for_leader()
        self.assertSameState(cluster, commands[:80])
        old.raft.shutdown()

    def test_removed_and_added_again(self) -> None:
        """R22: with the log that it kept, and a higher term."""
        cluster = self.cluster(3, shutdown_on_remove=False)
        cluster.apply(b"one")
        again = cluster.followers[0]
        cluster.result(cluster.leader.raft.remove_peer(again.address))
        cluster.apply(b"two")
        cluster.advance(1)

        outcome = self.outcome(cluster.leader.raft.add_peer(again.address))
        cluster.advance(1)

        self.assertEqual(len(outcome), 1)
        cluster.wait_for_leader()
        self.assertSameState(cluster, [b"one", b"two"])
        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), ["a", "b", "c"])

    def test_replaying_a_removal_that_was_undone_does_not_shut_down(self) -> None:
        """A member reads in its log how it was removed and added again."""
        cluster = self.cluster(3)
        leader = cluster.leader
        again = cluster.followers[0].address
        cluster.crash(again)
        cluster.result(leader.raft.remove_peer(again))
        outcome = self.outcome(leader.raft.add_peer(again))
        cluster.advance(0.2)
        self.assertSucceeded(outcome)

        node = cluster.start_node(again)
        cluster.advance(2)

        self.assertEqual(node.raft.state, RaftState.FOLLOWER)
        self.assertSameState(cluster, [])

    def test_removal_needs_a_quorum(self) -> None:
        """B07: with half of four cut off, a third is not removed either."""
        cluster = self.cluster(4)
        leader = cluster.leader
        third, *cut = [node.address for node in cluster.followers]
        cluster.isolate(*cut)

        outcome = self.outcome(leader.raft.remove_peer(third))
        cluster.advance(1)

        self.assertFailedWith(outcome, LeadershipLost, NotLeader)


class Transferring(ClusterCase):
    def test_transfer_to_a_named_voter(self) -> None:
        """B28: it leads in a new term, and nothing is left behind here."""
        cluster = self.cluster(5)
        cluster.apply(b"one")
        old = cluster.leader
        target = cluster.followers[2].address
        term = old.raft.term

        self.assertIsNone(cluster.result(old.raft.transfer_leadership(target)))
        cluster.wait_for_leader()

        self.assertEqual(cluster.leader.address, target)
        self.assertEqual(cluster.leader.raft.term, term + 1)
        self.assertSameState(cluster, [b"one"])

    def test_transfer_to_whoever_has_most(self) -> None:
        """B24: never to the node itself."""
        cluster = self.cluster(3)
        behind = cluster.followers[0].address
        cluster.isolate(behind)
        cluster.apply(b"one")
        old = cluster.leader
        best = ({"a", "b", "c"} - {behind, old.address}).pop()

        cluster.result(old.raft.transfer_leadership())
        cluster.advance(0.2)

        self.assertEqual(cluster.leader.address, best)
        cluster.heal()

    def test_transfer_refused(self) -> None:
        """B26, B29, B31: nobody else, a stranger, itself, or not the leader."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        for target in ("z", cluster.leader.address):
            outcome = self.outcome(raft.transfer_leadership(target))
            self.assertFailedWith(outcome, TransferFailed)
        lone = self.cluster(1)
        outcome = self.outcome(lone.leader.raft.transfer_leadership())
        self.assertFailedWith(outcome, TransferFailed)
        follower = cluster.followers[0].raft
        self.assertFailedWith(self.outcome(follower.transfer_leadership()), NotLeader)

    def test_nothing_is_accepted_meanwhile(self) -> None:
        """B33: commands and a second transfer get TransferInProgress."""
        cluster = self.cluster(3)
        old = cluster.leader
        target = cluster.followers[0].address
        cluster.isolate(target)

        transfer = self.outcome(old.raft.transfer_leadership(target))
        second = self.outcome(old.raft.transfer_leadership())
        self.assertFailedWith(second, TransferInProgress)
        self.outcome(old.raft.apply(b"before"))
        cluster.clock.advance(0)
        outcome = self.outcome(old.raft.apply(b"x"))
        cluster.clock.advance(0)
        if old.raft._shell and old.raft._shell.consensus.is_transferring:
            self.assertFailedWith(outcome, TransferInProgress)
        cluster.advance(1)

        self.assertFailedWith(transfer, TransferFailed)
        cluster.apply(b"accepted again")
        cluster.heal()

    def test_transfer_again_by_one_that_leads_again(self) -> None:
        """Nothing of the first one is left that would refuse commands or the next."""
        cluster = self.cluster(3)
        first = cluster.leader
        cluster.result(first.raft.transfer_leadership())
        second = cluster.wait_for_leader()
        cluster.result(second.raft.transfer_leadership(first.address))
        cluster.wait_for_leader()
        self.assertIs(cluster.leader, first)

        cluster.apply(b"one")
        cluster.result(first.raft.transfer_leadership(second.address))

        self.assertIs(cluster.wait_for_leader(), second)

    def test_shutdown_is_no_success_of_a_transfer(self) -> None:
        """The caller must not take it for a hand-over."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        transfer = self.outcome(raft.transfer_leadership())

        raft.shutdown()

        self.assertFailedWith(transfer, RaftShutdown)

    def test_cancelled_transfer_leaves_no_timer(self) -> None:
        """Cancelling stops the wait; a new transfer may begin after it."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        transfer = raft.transfer_leadership()
        outcome = self.outcome(transfer)

        transfer.cancel()
        cluster.advance(0.2)

        self.assertFailedWith(outcome, CancelledError)


class TwoClusters(ClusterCase):
    def meet(self, one: Cluster, stranger: Node) -> None:
        """Let *stranger*, of another cluster, be reached from *one*."""
        for node in one.nodes.values():
            node.transport.connect(stranger.address, stranger.transport)
            stranger.transport.connect(node.address, node.transport)

    def test_foreign_entries_are_refused_and_the_way_out_is_named(self) -> None:
        """Before and after the restart of the one that was added by mistake."""
        cluster = self.cluster(3)
        cluster.apply(b"ours")
        other = self.unstarted(1)
        other.clock = cluster.clock
        stranger = other.start_node("z", ["z"])
        other.wait_for_leader()
        other.result(stranger.raft.apply(b"theirs"))
        for _ in range(2):
            self.meet(cluster, stranger)
            with capturedLogs() as events:
                outcome = self.outcome(cluster.leader.raft.add_peer("z"))
                cluster.advance(1)
            told = [formatEvent(e) for e in events if e["log_level"].name == "critical"]
            self.assertEqual(len(told), 1, "once for each leader, not per message")
            self.assertIn("z refuses entries", told[0])
            self.assertIn("join: true", told[0])

            self.assertEqual(len(outcome), 1)
            self.assertNotEqual(stranger.raft.leader, cluster.leader.address)
            last = stranger.raft._shell
            assert last is not None
            commands = stranger.fsm.commands  # type: ignore[attr-defined]
            self.assertEqual(commands, [b"theirs"])
            self.assertIn("z", cluster.leader.raft.peers())
            cluster.result(cluster.leader.raft.remove_peer("z"))
            stranger = other.restart("z")
            other.wait_for_leader()
            cluster.advance(0.5)
        cluster.apply(b"on")

    def test_data_of_another_cluster_under_the_same_name(self) -> None:
        """Nothing in a node's files tells that they were exchanged; its peers do."""
        cluster, other = self.cluster(3), self.cluster(3, seed=1)
        cluster.apply(b"ours")
        other.apply(b"theirs")
        name = cluster.followers[0].address
        cluster.crash(name)
        other.crash(name)
        cluster._stores[name] = other._stores[name]

        with capturedLogs() as events:
            stranger = cluster.start_node(name)
            cluster.advance(3)

        told = [formatEvent(e) for e in events if e["log_level"].name == "critical"]
        self.assertIn(f"{name} refuses entries", told[0])
        self.assertIn("so it is in another cluster", told[0])
        self.assertIn("take its data directory away", told[0])
        self.assertNotIn(b"ours", commands_of(stranger))
        self.assertEqual(cluster.leader.raft.stats()["refused_peers"], name)
        cluster.apply(b"on")
