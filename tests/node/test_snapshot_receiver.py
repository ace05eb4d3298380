"""A leader's snapshot: staged, restored, listed, and only then the log is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_raft_snapshots import SnapshotCase, numbers
from tests.node.test_snapshot_order import Body
from txraft.core.configuration import Configuration
from txraft.core.messages import Header, InstallSnapshotRequest
from txraft.core.ready import Install, SnapshotMark
from txraft.errors import NodeFailed, RaftError, StorageError, UpgradeNeeded
from txraft.interfaces import SnapshotSink
from txraft.node.applier import Applier
from txraft.node.snapshots import Snapshots
from txraft.node.startup import restore_newest
from txraft.node.worker import MemoryWorker
from txraft.storage.memory import InmemSnapshotSink, InmemSnapshotStore
from txraft.testing import ListFSM

ALONE = Configuration.of_voters(["a"])


class Told(InmemSnapshotStore):
    """A store that tells *events* what becomes of its snapshots.

    The step named *broken* fails.
    """

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events
        self.broken = ""

    def create_for(self, cluster: bytes, *covered: object) -> InmemSnapshotSink:
        made = super().create_for(cluster, *covered)  # type: ignore[arg-type]
        return _ToldSink(self, made._meta)


class _ToldSink(InmemSnapshotSink):
    _store: Told

    def _tell(self, event: str) -> None:
        self._store.events.append(event)
        if self._store.broken == event:
            raise OSError(28, "no space left")

    def stage(self) -> BinaryIO:
        self._tell("stage")
        return super().stage()

    def set_aside(self) -> str:
        self._tell("set aside")
        InmemSnapshotSink.cancel(self)
        return "/data/snapshots/1-7-1.unrestored"

    def close(self) -> None:
        self._tell("close")
        super().close()

    def cancel(self) -> None:
        self._tell("cancel")
        super().cancel()


class PlainStore:
    """A store of somebody's own: create, list and open, and sinks that do no more."""

    def __init__(self, store: Told) -> None:
        self._store = store
        self.list, self.open = store.list, store.open

    def create(self, *covered: object) -> SnapshotSink:
        sink = self._store.create(*covered)  # type: ignore[arg-type]
        return _PlainSink(sink)


class _PlainSink:
    def __init__(self, sink: InmemSnapshotSink) -> None:
        self.id, self.write = sink.id, sink.write
        self.close, self.cancel = sink.close, sink.cancel


class ToldFSM(ListFSM):
    """Tells *events* that it restores; *meanwhile* happens, and *error* ends it."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events
        self.error: BaseException | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def restore(self, source: BinaryIO) -> None:
        self.events.append("restore")
        self.meanwhile()
        if self.error is not None:
            raise self.error
        super().restore(source)


class DrainedBody(Body):
    """One that may be refused."""

    is_drained = False

    def drain(self) -> None:
        self.is_drained = True


class NamedListFSM(ToldFSM):
    """One that has a name."""

    application_name = "mine"


class DiscerningListFSM(ToldFSM):
    """One that takes nothing for its own; `heads` are what it was asked about."""

    def __init__(self, events: list[str]) -> None:
        super().__init__(events)
        self.heads: list[bytes] = []

    def is_own_command(self, data: bytes) -> bool:
        return False

    def is_own_snapshot(self, head: bytes) -> bool:
        self.heads.append(head)
        return False


class Installing(SynchronousTestCase):
    """`Snapshots.install`, step by step; this is its host, too."""

    def setUp(self) -> None:
        self.events: list[str] = []
        self.told = Told(self.events)
        self.store: object = self.told
        self.fsm = ToldFSM(self.events)
        self.worker = MemoryWorker()
        self.idle: Deferred[None] | None = None
        self.reasons: list[str] = []

    # Host

    def when_synced(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def snapshot_position(self) -> SnapshotMark:
        raise AssertionError("none is taken")

    def snapshot_taken(self, mark: SnapshotMark) -> None:
        raise AssertionError("none is taken")

    def snapshot_installed(self, install: Install, mark: SnapshotMark | None) -> None:
        self.events.append("installed" if mark else "not installed")

    def stop_because(self, reason: str, failure: Failure) -> None:
        self.events.append("stop")
        self.reasons.append(f"{reason}: {failure.getErrorMessage()}")

    # Applier

    def pause(self) -> Deferred[None]:
        if self.idle is not None:
            return self.idle
        return self.when_synced()

    def install(self, application: str = "") -> Snapshots:
        applier: Applier = self  # type: ignore[assignment]
        snapshots = Snapshots(
            address="a",
            fsm=self.fsm,
            store=self.store,  # type: ignore[arg-type]
            worker=self.worker,
            applier=applier,
            host=self,
            header=Header,
        )
        request = InstallSnapshotRequest(
            term=2,
            leader="b",
            last_log_index=7,
            last_log_term=2,
            size=6,
            configuration=ALONE,
            configuration_index=1,
            application=application,
        )
        self.body = DrainedBody()
        rpc = type("RPC", (), {"body": self.body, "command": request, "connection": 1})
        snapshots.install(Install(request, rpc), rpc)  # type: ignore[arg-type]
        return snapshots

    def perform(self) -> list[str]:
        while self.worker.perform():
            pass
        return self.events

    def test_order(self) -> None:
        """It is restored from where no start looks, and listed before the log goes."""
        self.install()

        self.assertEqual(self.perform(), ["stage", "restore", "close", "installed"])

        self.assertEqual(self.fsm.commands, [b"a"])
        self.assertEqual(self.told.list()[0].index, 7)

    def test_snapshot_of_another_name(self) -> None:
        """It is refused by name, its bytes are dropped, and nothing else happens."""
        self.fsm = NamedListFSM(self.events)

        self.install("other")

        self.assertEqual(self.perform(), ["not installed"])
        self.assertTrue(self.body.is_drained)
        self.assertEqual(self.told.list(), [])

    def test_snapshot_of_the_same_name_or_of_none(self) -> None:
        """A leader of an older release names none; nor has each state machine one."""
        for fsm, application in (
            (NamedListFSM(self.events), "mine"),
            (NamedListFSM(self.events), ""),
            (ToldFSM(self.events), "other"),
        ):
            self.events.clear()
            self.fsm = fsm
            self.install(application)
            self.assertEqual(self.perform()[-1], "installed")

    def test_snapshot_that_the_state_machine_does_not_know(self) -> None:
        """Its first bytes are looked at before it is staged."""
        self.fsm = DiscerningListFSM(self.events)

        self.install()

        self.assertEqual(self.perform(), ["cancel", "not installed"])
        self.assertEqual(self.fsm.heads, [b'["61"]'])

    def test_snapshot_that_does_not_restore(self) -> None:
        """It is set aside and the node stops; no start finds it."""
        self.fsm.error = ValueError("what is this")
        self.install()

        self.assertEqual(self.perform(), ["stage", "restore", "set aside", "stop"])

        self.assertEqual(self.told.list(), [])
        [reason] = self.reasons
        self.assertIn("did not restore a leader's snapshot", reason)
        self.assertIn("kept as /data/snapshots/1-7-1.unrestored", reason)
        self.assertIn("what is this", reason)

    def test_snapshot_that_cannot_be_set_aside(self) -> None:
        """Why it did not restore is told all the same."""
        self.fsm.error = ValueError("what is this")
        self.told.broken = "set aside"
        self.install()

        self.assertEqual(self.perform()[-1], "stop")

        self.assertIn("what is this", self.reasons[0])
        self.assertEqual(self.told.list(), [])

    def test_snapshot_that_cannot_be_staged(self) -> None:
        """Nothing has changed: the leader is told, and may send another."""
        self.told.broken = "stage"
        self.install()

        self.assertEqual(self.perform(), ["stage", "cancel", "not installed"])

    def test_snapshot_that_cannot_be_listed(self) -> None:
        """The state machine has it and the disk has not: the node stops."""
        self.told.broken = "close"
        self.install()

        self.assertEqual(self.perform(), ["stage", "restore", "close", "stop"])

        self.assertIn("was restored, but could not be stored", self.reasons[0])

    def test_store_that_cannot_stage(self) -> None:
        """Its snapshot is listed first, and restored from what it opens."""
        self.store = PlainStore(self.told)
        self.install()

        self.assertEqual(self.perform(), ["close", "restore", "installed"])

        self.assertEqual(self.fsm.commands, [b"a"])

    def test_store_that_cannot_stage_and_a_snapshot_that_does_not_restore(self) -> None:
        """The node stops; what is listed is for its owner to remove."""
        self.store = PlainStore(self.told)
        self.fsm.error = ValueError("what is this")
        self.install()

        self.assertEqual(self.perform(), ["close", "restore", "stop"])

    def test_stop_while_a_command_is_under_way(self) -> None:
        """What is staged is abandoned: its files must not stay open."""
        self.idle = Deferred()
        snapshots = self.install()
        self.perform()

        snapshots.stop()

        self.assertEqual(self.perform(), ["stage", "cancel"])
        self.idle.callback(None)
        self.assertEqual(self.perform(), ["stage", "cancel"])

    def test_stop_while_it_is_restored(self) -> None:
        """That is waited for, and the snapshot is there for the next start."""
        snapshots = self.install()
        self.fsm.meanwhile = snapshots.stop

        self.assertEqual(self.perform(), ["stage", "restore", "close", "cancel"])

        self.assertEqual(self.told.list()[0].index, 7)


class Starting(SynchronousTestCase):
    """A snapshot of this node's own that does not restore."""

    def restore(self, error: Exception) -> RaftError:
        store, fsm = InmemSnapshotStore(), ToldFSM([])
        sink = store.create(7, 2, ALONE, 1)
        sink.close()
        fsm.error = error
        return self.assertRaises(RaftError, restore_newest, store, fsm)

    def test_error_of_the_state_machine(self) -> None:
        """It is named, with the snapshot and the ways out."""
        error = self.restore(ValueError("what is this"))

        self.assertIsInstance(error, StorageError)
        self.assertIn("did not restore snapshot 2-7-1: what is this", str(error))
        self.assertIn("move the snapshot away", str(error))
        self.assertIn("join: true", str(error))

    def test_error_that_says_what_to_do(self) -> None:
        """It is passed on as it is."""
        error = UpgradeNeeded(3, 1)

        self.assertIs(self.restore(error), error)


class Picky(ListFSM):
    """Restores nothing while it is *picky*."""

    picky = False

    def restore(self, source: BinaryIO) -> None:
        if Picky.picky:
            raise ValueError("not for me")
        super().restore(source)


class Nodes(SnapshotCase):
    """Whole nodes, and a snapshot that one of them does not restore."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(setattr, Picky, "picky", False)

    def test_node_starts_again_with_what_it_had(self) -> None:
        """It stops, with all it had on disk; a later start takes the snapshot."""
        cluster = self.cluster(3, Picky, trailing_logs=0)
        self.apply_all(cluster, numbers(5))
        laggard = cluster.followers[0].address
        before = cluster.nodes[laggard].store.last_index()
        cluster.crash(laggard)
        self.apply_all(cluster, numbers(9)[5:])
        cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.1)

        Picky.picky = True
        node = cluster.start_node(laggard)
        stopped = self.outcome(node.raft.when_stopped())
        cluster.wait_until(lambda: bool(stopped))

        self.assertIsInstance(stopped[0], NodeFailed)
        self.assertIn("did not restore a leader's snapshot", str(stopped[0]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertGreaterEqual(node.store.last_index(), before)
        self.assertEqual(cluster._stores[laggard].snapshots.list(), [])
        del cluster.nodes[laggard]

        Picky.picky = False
        cluster.start_node(laggard)
        self.assertSameState(cluster, numbers(9))
