"""A snapshot from a leader is durable only after the term in which it came."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.core.ready import SnapshotMark
from txraft.node.snapshot_receiver import SnapshotReceiver
from txraft.node.worker import MemoryWorker
from txraft.storage.memory import InmemSnapshotStore
from txraft.testing import ListFSM


class Body:
    """A whole snapshot that has arrived."""

    size = 6

    def deliver_to(
        self, consume: Callable[[bytes], Deferred[None] | None]
    ) -> Deferred[None]:
        return consume(b'["61"]') or succeed(None)

    def drain(self) -> None:
        raise AssertionError("it is taken")


class Order(SynchronousTestCase):
    """`Snapshots.install`, as far as the disk goes."""

    def test_take_waits_for_the_term(self) -> None:
        """Else a crash leaves a snapshot of a term that this server never was in.

        Source: simulated seed 1212 of the core.
        """
        clock, store = Clock(), InmemSnapshotStore()
        synced: Deferred[None] = Deferred()
        worker = MemoryWorker(lambda call: clock.callLater(0, call))
        mark = SnapshotMark(7, 6, Configuration.of_voters(["a"]), 1)

        receiving = SnapshotReceiver(
            store,
            worker,
            mark=mark,
            cluster=b"",
            when_synced=lambda: synced,
            check_head=lambda head: None,
        )
        stored = receiving.take(Body())
        clock.pump([0.1] * 5)

        self.assertNoResult(stored)
        self.assertEqual(store.list(), [])
        synced.callback(None)
        clock.pump([0.1] * 5)
        self.successResultOf(stored)
        self.assertEqual(store.list(), [])
        receiving.restore_into(ListFSM())
        self.assertEqual([meta.index for meta in store.list()], [7])
