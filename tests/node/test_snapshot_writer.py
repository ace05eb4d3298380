"""A snapshot counts when the store lists it, and the log is cut for no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase
from txraft.core.configuration import Configuration
from txraft.core.ready import SnapshotMark
from txraft.errors import ContractBroken, RaftShutdown, SnapshotFailed
from txraft.interfaces import SnapshotMeta, SnapshotSink
from txraft.node.snapshot_writer import write_snapshot
from txraft.storage.memory import InmemSnapshotSink, InmemSnapshotStore
from txraft.storage.snapshots import DiscardSnapshotStore
from txraft.testing import ListFSM
from txraft.testing.cluster import ListSnapshot

MARK = SnapshotMark(7, 2, Configuration.of_voters(["a"]), 1)


class Captured:
    """A capture whose `persist` is *persist*."""

    def __init__(self, persist: Callable[[SnapshotSink], Any]) -> None:
        self._persist = persist

    def persist(self, sink: SnapshotSink) -> None:
        """Do as was said, and return what comes of it."""
        return self._persist(sink)  # type: ignore[no-any-return]

    def release(self) -> None:
        """Do nothing."""


def cancelling(sink: SnapshotSink) -> None:
    sink.write(b"half of i")
    sink.cancel()


async def asynchronous(sink: SnapshotSink) -> None:
    sink.write(b"all of it")


def generating(sink: SnapshotSink) -> Iterator[int]:
    yield sink.write(b"all of it")


def deferring(sink: SnapshotSink) -> Deferred[None]:
    sink.write(b"half of i")
    return Deferred()


def idle(sink: SnapshotSink) -> None:
    pass


class Writing(SynchronousTestCase):
    """`write_snapshot`."""

    def setUp(self) -> None:
        self.store = InmemSnapshotStore()

    def write(self, persist: Callable[[SnapshotSink], Any]) -> SnapshotMeta:
        """Write what *persist* gives."""
        return write_snapshot(self.store, Captured(persist), MARK, b"cluster")

    def test_what_the_store_lists_is_returned(self) -> None:
        """Index, term, size and cluster."""
        meta = self.write(lambda sink: sink.write(b"state") and None)

        self.assertEqual(self.store.list(), [meta])
        self.assertEqual((meta.index, meta.term, meta.size), (7, 2, 5))
        self.assertEqual(meta.cluster, b"cluster")

    def test_empty_state(self) -> None:
        """It is written as no bytes, and so it was written."""
        self.assertEqual(self.write(lambda sink: sink.write(b"") and None).size, 0)

    def test_what_is_no_snapshot(self) -> None:
        """Cancelled, never written, or not yet: nothing is kept, nothing counts."""
        cases: list[tuple[Callable[[SnapshotSink], Any], type[Exception], str]] = [
            (cancelling, SnapshotFailed, "cancelled its sink"),
            (idle, SnapshotFailed, "wrote nothing"),
            (asynchronous, ContractBroken, "a coroutine: it runs on a thread"),
            (generating, ContractBroken, "a generator"),
            (deferring, ContractBroken, "a Deferred: it runs on a thread"),
        ]
        for persist, error, reason in cases:
            refused = self.assertRaises(error, self.write, persist)
            self.assertIn(reason, str(refused))
            self.assertEqual(self.store.list(), [])
        self.assertEqual(self.flushWarnings(), [], "no coroutine is left behind")

    def test_failure_after_persist_has_closed_the_sink(self) -> None:
        """Half a state must not be what the next start restores."""

        def closing(sink: SnapshotSink) -> None:
            sink.write(b"half of i")
            sink.close()
            raise OSError("the rest")

        self.assertRaises(OSError, self.write, closing)
        self.assertEqual(self.store.list(), [])

    def test_persist_that_closes_its_sink(self) -> None:
        """It has nothing more to write, which is fine."""

        def closing(sink: SnapshotSink) -> None:
            sink.write(b"state")
            sink.close()

        self.assertEqual(self.write(closing).size, 5)

    def test_sink_takes_nothing_after_the_end(self) -> None:
        """A thread that `persist` left behind writes to no file that is closed."""
        lent: list[SnapshotSink] = []

        def lending(sink: SnapshotSink) -> None:
            sink.write(b"state")
            lent.append(sink)

        self.write(lending)
        self.patch(InmemSnapshotSink, "write", lambda sink, data: len(data))

        self.assertRaises(ValueError, lent[0].write, b"late")
        self.assertEqual(self.store.list()[0].size, 5)

    def test_stopping(self) -> None:
        """The sink takes no more, and nothing is kept."""

        def write(sink: SnapshotSink) -> None:
            sink.write(b"state")

        self.assertRaises(
            RaftShutdown,
            write_snapshot,
            self.store,
            Captured(write),
            MARK,
            b"",
            lambda: True,
        )
        self.assertEqual(self.store.list(), [])

    def test_store_that_lists_something_else(self) -> None:
        """Nothing, or another index, term or size: it is not what was captured."""

        class Lying(InmemSnapshotStore):
            changes: dict[str, Any] | None = None

            def list(self) -> list[SnapshotMeta]:
                if self.changes is None:
                    return []
                return [replace(meta, **self.changes) for meta in super().list()]

        self.store = store = Lying()

        def write(sink: SnapshotSink) -> None:
            sink.write(b"state")

        refused = self.assertRaises(SnapshotFailed, self.write, write)
        self.assertIn("is not listed", str(refused))
        for changed in ({"index": 6}, {"term": 1}, {"size": 4}):
            store.changes = changed
            refused = self.assertRaises(SnapshotFailed, self.write, write)
            self.assertIn("is listed with", str(refused))

    def test_store_that_discards_on_purpose(self) -> None:
        """It lists nothing, and says so."""
        store = DiscardSnapshotStore()

        meta = write_snapshot(store, ListFSM().snapshot(), MARK, b"")

        self.assertEqual((meta.index, meta.term, meta.size), (7, 2, 2))


class LogBehind(ClusterCase):
    """What a node does with its log."""

    def test_log_is_kept_without_a_snapshot(self) -> None:
        """All entries are there, and a restart has all commands."""

        for persist in (cancelling, idle, asynchronous, deferring):

            class Faulty(ListFSM):
                def snapshot(self, persist: Any = persist) -> ListSnapshot:
                    return Captured(persist)  # type: ignore[return-value]

            cluster = self.cluster(1, make_fsm=Faulty, trailing_logs=0)
            cluster.apply(b"one")
            node = cluster.leader

            outcome = self.outcome(node.raft.snapshot())
            cluster.advance(0.1)

            self.assertFailedWith(outcome, SnapshotFailed)
            self.assertEqual(node.store.first_index(), 1)
            self.assertEqual(node.snapshots.list(), [])
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            cluster.restart("a")
            cluster.wait_for_leader()
            self.assertSameState(cluster, [b"one"])
            again = self.outcome(cluster.leader.raft.snapshot())
            cluster.advance(0.1)
            self.assertFailedWith(again, SnapshotFailed)
            self.flushLoggedErrors()

    def test_capture_that_is_none(self) -> None:
        """What `snapshot` returns must persist and release."""

        class Empty(ListFSM):
            captured: Any = None

            def snapshot(self) -> ListSnapshot:
                return self.captured  # type: ignore[no-any-return]

        cluster = self.cluster(1, make_fsm=Empty, trailing_logs=0)
        cluster.apply(b"one")
        for captured in (None, asynchronous(ListSnapshot([]))):  # type: ignore[arg-type]
            Empty.captured = captured
            refused = self.outcome(cluster.leader.raft.snapshot())
            error = self.assertFailedWith(refused, SnapshotFailed)
            self.assertIn("Empty.snapshot returned", str(error))
        self.assertEqual(len(self.flushLoggedErrors(ContractBroken)), 2)

    def test_release_that_fails(self) -> None:
        """The snapshot is on disk, and the log is cut for it."""

        class Clinging(ListSnapshot):
            def release(self) -> None:
                raise RuntimeError("no")

        class ClingingFSM(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return Clinging(list(self.commands))

        cluster = self.cluster(1, make_fsm=ClingingFSM, trailing_logs=0)
        last = cluster.apply(b"one").index

        meta = cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.1)

        self.assertEqual(meta.index, last)
        self.assertEqual(cluster.leader.store.first_index(), 0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
