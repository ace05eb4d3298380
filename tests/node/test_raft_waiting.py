"""Giving up on a wait: the work goes on, and nothing is left behind."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.entry import Entry
from txraft.errors import NothingNewToSnapshot
from txraft.interfaces import FSMSnapshot, SnapshotSink
from txraft.node.pending import MAX_WAITING, waiter_for
from txraft.storage.snapshots import DiscardSnapshotStore
from txraft.testing import ListFSM
from txraft.testing.cluster import ListSnapshot, _NodeStores


class Recording(ListSnapshot):
    """A capture that notes whether it was written before it was released."""

    def persist(self, sink: SnapshotSink) -> None:
        assert not self.released, "it is needed until it is written"
        super().persist(sink)


class RecordingFSM(ListFSM):
    def snapshot(self) -> FSMSnapshot:  # type: ignore[override]
        return Recording(list(self.commands))


class GivingUp(ClusterCase):
    def cancelled(self, deferred: Deferred[Any]) -> None:
        """Cancel *deferred* and see that its waiter is told at once."""
        outcome = self.outcome(deferred)
        deferred.cancel()
        self.assertFailedWith(outcome, CancelledError)

    def test_snapshot(self) -> None:
        """It is taken all the same, and the capture is not released too early."""
        cluster = self.cluster(1, make_fsm=RecordingFSM, disk_seconds=0.02)
        node = cluster.leader
        cluster.apply(b"one")

        self.cancelled(node.raft.snapshot())
        cluster.advance(0.2)

        self.assertEqual(len(node.snapshots.list()), 1)
        again = self.outcome(node.raft.snapshot())
        self.assertFailedWith(again, NothingNewToSnapshot)

    def test_start(self) -> None:
        """The node takes part."""
        cluster = self.unstarted(1, disk_seconds=0.02)
        node = cluster.start_node("a", ["a"])

        self.cancelled(node.started)
        cluster.wait_for_leader()
        cluster.apply(b"one")

        self.assertEqual(commands_of(node), [b"one"])

    def test_shutdown(self) -> None:
        """The node stops, and others who wait for it are told."""
        cluster = self.cluster(1, disk_seconds=0.02)
        raft = cluster.leader.raft
        other = self.outcome(raft.shutdown())

        self.cancelled(raft.shutdown())
        self.cancelled(raft.when_stopped())
        cluster.advance(0.2)

        self.assertSucceeded(other)

    def test_every_other_wait(self) -> None:
        """Reads, barriers, changes and hand-overs leave the node as it was."""
        cluster = self.cluster(3, disk_seconds=0.02)
        raft = cluster.leader.raft
        for deferred in (
            raft.verify_leader(),
            raft.linearizable(),
            raft.barrier(),
            raft.add_peer("d"),
            raft.remove_peer("a"),
            raft.transfer_leadership(),
        ):
            self.cancelled(deferred)
        cluster.advance(1)

        cluster.wait_for_leader()
        cluster.apply(b"on")

        for node in cluster.nodes.values():
            self.assertEqual(node.raft.peers(), ["a", "b", "c"])

    def test_waits_without_end(self) -> None:
        """Those that were given up are not kept while a leader is not found."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        cluster.isolate(cluster.leader.address)
        cluster.advance(2)
        for _ in range(10):
            self.cancelled(raft.when_leader())
            self.cancelled(raft.when_stopped())
        kept = self.outcome(raft.when_leader()), self.outcome(raft.when_stopped())

        self.assertEqual(len(raft._events._waiting), 1)
        self.assertEqual(len(raft._stopping), 1)
        cluster.heal()
        cluster.wait_for_leader()
        self.assertSucceeded(kept[0])

    def test_membership_changes(self) -> None:
        """Those that were given up keep no place in the queue."""
        cluster = self.cluster(3)
        raft = cluster.leader.raft
        first = self.outcome(raft.add_peer("d"))
        for number in range(2 * MAX_WAITING):
            self.cancelled(raft.add_peer(f"more-{number}"))

        last = self.outcome(raft.remove_peer("d"))
        cluster.advance(1)

        self.assertSucceeded(first)
        self.assertSucceeded(last)

    def test_waiter_for(self) -> None:
        """It gets the result or the failure; cancelled, the work does not notice."""
        for outcome in ("done", Failure(ZeroDivisionError())):
            work: Deferred[str] = Deferred()
            waiter = self.outcome(waiter_for(work))
            work.callback(outcome)  # type: ignore[arg-type]
            self.assertEqual(waiter, [outcome])
            dropped: Deferred[str] = Deferred()
            self.cancelled(waiter_for(dropped))
            self.assertFalse(dropped.called)
            dropped.callback(outcome)  # type: ignore[arg-type]


class Discarding(ClusterCase):
    def test_discarded_snapshot_cuts_the_log(self) -> None:
        """The store that keeps nothing lets snapshots succeed."""
        cluster = self.unstarted(1, trailing_logs=1)
        store: Any = DiscardSnapshotStore()
        cluster._stores["a"] = _NodeStores(snapshots=store)
        cluster.start()
        for _ in range(5):
            cluster.apply(b"x")
        last: Entry = cluster.leader.store.get_log(cluster.leader.raft.last_index)

        meta = cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.1)

        self.assertEqual((meta.id, meta.index), ("discard", last.index))
        self.assertEqual(cluster.leader.store.first_index(), last.index)
        cluster.apply(b"on")
