"""Recovery and import, on stores in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_levels import LeveledListFSM
from tests.support.failing_disk import Disk
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState
from txraft.errors import (
    ApplicationError,
    ConfigurationRefused,
    ContractBroken,
    RaftError,
    SkipRefused,
    SnapshotFailed,
    StorageError,
    UpgradeNeeded,
    WrongApplication,
)
from txraft.interfaces import SnapshotSink
from txraft.node.cluster_recovery import import_snapshot, recover_cluster
from txraft.node.ownership import APPLICATION, noted_application
from txraft.node.skipping import SkippedEntry, digest_of, noted_skips, read_skips
from txraft.node.startup import Restored, read_hard_state, recover
from txraft.node.synced_note import LogEnd, Noted, encoded_note, read_note
from txraft.node.writer import stored_state
from txraft.storage.memory import InmemStore
from txraft.storage.snapshots import (
    DiscardSnapshotStore,
    FileSnapshotStore,
    SnapshotReader,
)
from txraft.testing import ListFSM
from txraft.testing.cluster import ListSnapshot
from txraft.wire.decisions import encode_activation
from txraft.wire.entries import encode_new

SURVIVOR = Configuration.of_voters(["c"])
ALL = Configuration.of_voters(["a", "b", "c"])


class OfflineCase(SynchronousTestCase):
    """The stores of a stopped server."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = InmemStore()
        self.snapshots = FileSnapshotStore("/node", 2, self.disk)

    def append(self, *terms: int) -> None:
        """Fill the log: a membership entry, then commands, with these terms."""
        for index, term in enumerate(terms, 1):
            entry = Entry(index, term, LogType.COMMAND, b"%d" % index)
            if index == 1:
                entry = Entry(1, term, LogType.ADD_PEER, configuration=ALL)
            encode_new(entry)
            self.store.store_log(entry)

    def state(self, term: int, vote: str | None = None, cluster: bytes = b"") -> None:
        """Store term, vote and cluster."""
        state = HardState(term, vote, cluster or None)
        self.store.set_many(stored_state(state))

    def snapshot(self, index: int, term: int, *commands: bytes) -> None:
        """Store a snapshot of a ListFSM."""
        write_snapshot(self.snapshots, index, term, *commands)

    def restored(self) -> list[bytes]:
        """Return what a state machine has after the restore at start."""
        fsm = ListFSM()
        meta = self.snapshots.list()[0]
        with self.snapshots.open(meta.id)[1] as file:
            fsm.restore(file)
        return fsm.commands


def write_snapshot(
    store: FileSnapshotStore, index: int, term: int, *commands: bytes
) -> None:
    """Store a snapshot that holds *commands*."""
    fsm = ListFSM()
    for command in commands:
        fsm.apply(Entry(1, 1, LogType.COMMAND, command))
    sink = store.create(index, term, ALL, 1)
    fsm.snapshot().persist(sink)
    sink.close()


class Recovery(OfflineCase):
    """`recover_cluster`."""

    def recover(self, fsm: Any = None, *skip: str) -> Any:
        return recover_cluster(
            fsm or ListFSM(), self.store, self.store, self.snapshots, SURVIVOR, skip
        )

    def test_log_that_was_cut(self) -> None:
        """It counts as it is: the node starts, and no hint from before fits again."""
        self.append(1, 1, 2)
        self.state(2)
        self.store.set_many(encoded_note(LogEnd(9, 2), 2, 7))

        self.recover()

        self.assertEqual(read_note(self.store), Noted(number=8))

    def test_log_only(self) -> None:
        """All of the log is applied, committed or not; the membership is the given."""
        self.append(1, 1, 2)
        self.state(3, "c", b"x" * 16)

        meta = self.recover()

        self.assertEqual((meta.index, meta.term), (3, 2))
        self.assertEqual(meta.configuration, SURVIVOR)
        self.assertEqual(self.restored(), [b"2", b"3"])
        self.assertEqual(self.store.last_index(), 0)

    def test_another_application(self) -> None:
        """Its log is not given to the state machine, and stays as it is."""
        self.append(1, 1)
        self.state(1)
        self.store.set(APPLICATION, b"another")

        self.assertRaises(WrongApplication, self.recover)

        self.assertEqual(self.snapshots.list(), [])
        self.assertEqual(self.store.last_index(), 2)

    def test_entry_that_is_skipped(self) -> None:
        """What the node skips a recovery skips, too."""
        self.append(1, 1, 1)
        self.state(1)
        poison = self.store.get_log(2)
        self.store.set_many(noted_skips([SkippedEntry(2, 1, digest_of(poison))]))

        self.recover()

        self.assertEqual(self.restored(), [b"3"])
        self.assertEqual(len(read_skips(self.store)), 1)

    def test_command_that_cannot_be_applied(self) -> None:
        """It is named in a note, by what leaves it out, here and ever after."""

        class FragileFSM(ListFSM):
            def apply(self, log: Entry) -> object:
                if log.index == 2:
                    raise ZeroDivisionError
                return super().apply(log)

        self.append(1, 1, 1)
        self.state(1)
        error = self.assertRaises(ZeroDivisionError, self.recover, FragileFSM())
        [note] = error.__notes__
        name = note.split()[4].rstrip(",")
        self.assertEqual(self.store.last_index(), 3)
        self.assertEqual(read_skips(self.store), [])

        for wrong in ("2", "2:1:", "3:1:" + name.split(":")[2], "9" + name):
            self.assertRaises(SkipRefused, self.recover, FragileFSM(), wrong)
        self.recover(FragileFSM(), name)

        self.assertEqual(self.restored(), [b"3"])
        self.assertEqual([str(each) for each in read_skips(self.store)], [name])

    def test_skip_again_after_a_crash(self) -> None:
        """A recovery that leaves something out can be repeated, wherever it ended."""
        self.append(1, 1, 1)
        self.state(1)
        name = str(SkippedEntry(2, 1, digest_of(self.store.get_log(2))))
        for method in ("set_many", "delete_range"):
            with self.assertRaises(ZeroDivisionError):
                recover_cluster(
                    ListFSM(),
                    _Failing(self.store, method),
                    _Failing(self.store, method),
                    self.snapshots,
                    SURVIVOR,
                    [name],
                )
        for _ in range(2):
            self.recover(None, name)

        self.assertEqual(self.restored(), [b"3"])
        self.assertEqual([str(each) for each in read_skips(self.store)], [name])

    def test_application_is_noted(self) -> None:
        """What was recovered is of the application that did it from then on."""
        self.append(1, 1)
        self.state(1)
        fsm = ListFSM()
        fsm.application_name = "lists"  # type: ignore[attr-defined]

        self.recover(fsm)

        self.assertEqual(noted_application(self.store), "lists")

    def test_term_and_vote_are_kept_and_the_cluster_is_another(self) -> None:
        """No second vote in a term; servers left behind are foreign from now on."""
        self.append(1, 1)
        self.state(3, "b", b"x" * 16)

        self.recover()

        state = read_hard_state(self.store)
        self.assertEqual((state.term, state.voted_for), (3, "b"))
        self.assertNotIn(state.cluster, (None, b"x" * 16))

    def test_identity_is_the_same_for_all_with_the_same_membership(self) -> None:
        """In whatever order they list it; and there is none where there was none."""
        found = []
        for addresses, cluster in (
            (["a", "b"], b"x" * 16),
            (["b", "a"], b"x" * 16),
            (["a", "c"], b"x" * 16),
            (["a", "b"], b"y" * 16),
            (["a", "b"], b""),
        ):
            self.setUp()
            self.append(1)
            self.state(1, None, cluster)
            members = Configuration.of_voters(addresses)
            recover_cluster(ListFSM(), self.store, self.store, self.snapshots, members)
            found.append(read_hard_state(self.store).cluster)

        self.assertEqual(found[0], found[1])
        self.assertEqual(len(set(found)), 4)
        self.assertIsNone(found[4])

    def test_snapshot_and_log(self) -> None:
        """The log goes on where the snapshot ends."""
        self.append(1, 1, 1, 2)
        self.snapshot(3, 1, b"2", b"3")
        self.state(2)

        meta = self.recover()

        self.assertEqual((meta.index, meta.term), (4, 2))
        self.assertEqual(self.restored(), [b"2", b"3", b"4"])

    def test_again(self) -> None:
        """What a crash has interrupted is repeated without harm."""
        self.append(1, 1)
        self.state(1, None, b"x" * 16)
        self.recover()
        state = read_hard_state(self.store)
        self.append(1, 1)

        meta = self.recover()

        self.assertEqual((meta.index, meta.term), (2, 1))
        self.assertEqual(self.restored(), [b"2"])
        self.assertEqual(read_hard_state(self.store), state)

    def test_another_time(self) -> None:
        """After a life in between it is another cluster once more."""
        self.append(1, 1)
        self.state(1, None, b"x" * 16)
        self.recover()
        first = read_hard_state(self.store)
        self.append(1, 1, 2)

        self.recover()

        self.assertNotEqual(read_hard_state(self.store), first)

    def test_node_starts_with_it(self) -> None:
        """The node takes it for its past, whatever `peers.json` says."""
        self.append(1, 1, 2)
        self.state(2)
        meta = self.recover()

        recovered = recover(
            self.store,
            self.store,
            Restored(meta),
            read_membership=lambda: ALL,
            protocol_version=1,
            encode=lambda _: None,
        )

        self.assertEqual(recovered.configurations.latest, SURVIVOR)
        self.assertEqual((recovered.log.last_index, recovered.log.last_term), (3, 2))

    def test_nothing_there(self) -> None:
        """A directory that is empty by mistake is not made a cluster."""
        with self.assertRaises(StorageError):
            self.recover()

    def test_no_voter(self) -> None:
        """A membership that nobody can lead is refused before anything changes."""
        self.append(1)
        with self.assertRaises(ConfigurationRefused):
            recover_cluster(
                ListFSM(), self.store, self.store, self.snapshots, Configuration()
            )
        self.assertEqual((self.store.last_index(), self.snapshots.list()), (1, []))

    def test_responses(self) -> None:
        """Refusals are part of the history; what fails or waits ends the recovery."""
        waiting: Deferred[None] = Deferred()
        for response, error in (
            (ApplicationError("no"), None),
            (succeed(1), None),
            (waiting, StorageError),
            (ZeroDivisionError(), ZeroDivisionError),
        ):
            self.setUp()
            self.append(1, 1)
            self.state(1)
            fsm = Answering(response)
            if error is None:
                self.recover(fsm)
                continue
            with self.assertRaises(error):
                self.recover(fsm)
            self.assertEqual((self.store.last_index(), self.snapshots.list()), (2, []))

    def test_snapshot_that_is_none(self) -> None:
        """The log is the last copy: it stays until the store lists a snapshot."""

        async def later(sink: SnapshotSink) -> None:
            ListSnapshot([]).persist(sink)

        def cancelled(sink: SnapshotSink) -> None:
            sink.write(b"[]")
            sink.cancel()

        self.append(1, 1)
        self.state(1)
        for persist in (later, cancelled):

            class Faulty(ListFSM):
                def snapshot(self, persist: Any = persist) -> ListSnapshot:
                    captured: Any = ListSnapshot(self.commands)
                    captured.persist = persist
                    return captured  # type: ignore[no-any-return]

            refused = self.assertRaises(RaftError, self.recover, Faulty())

            self.assertIsInstance(refused, (SnapshotFailed, ContractBroken))
            self.assertEqual(self.store.last_index(), 2)
            self.assertEqual(self.snapshots.list(), [])
            self.assertEqual(self.flushWarnings(), [])

    def test_store_that_discards(self) -> None:
        """There would be nothing left."""
        self.append(1, 1)
        self.state(1)

        self.assertRaises(
            StorageError,
            recover_cluster,
            ListFSM(),
            self.store,
            self.store,
            DiscardSnapshotStore(),
            SURVIVOR,
        )
        self.assertEqual(self.store.last_index(), 2)


class Levels(OfflineCase):
    """Recovery of a state machine whose rules have changed."""

    def test_activation_is_replayed(self) -> None:
        """What comes after an activation is applied by its rules, as on a node."""
        self.append(1, 1)
        data = encode_activation(2)
        for index, type, said in ((3, LogType.NOOP, data), (4, LogType.COMMAND, b"4")):
            entry = Entry(index, 1, type, said)
            encode_new(entry)
            self.store.store_log(entry)
        self.state(1)
        fsm = LeveledListFSM(2)

        recover_cluster(fsm, self.store, self.store, self.snapshots, SURVIVOR)

        self.assertEqual(fsm.commands, [b"2", b"level 2", b"4"])

    def test_beyond(self) -> None:
        """A version that knows less recovers nothing, and says what it needs."""
        self.append(1)
        entry = Entry(2, 1, LogType.NOOP, encode_activation(2))
        encode_new(entry)
        self.store.store_log(entry)
        self.state(1)
        for fsm in (ListFSM(), LeveledListFSM(1)):
            with self.assertRaises(UpgradeNeeded):
                recover_cluster(fsm, self.store, self.store, self.snapshots, SURVIVOR)
        self.assertEqual(self.snapshots.list(), [])


class Answering(ListFSM):
    """Answers every command with the same."""

    def __init__(self, response: object) -> None:
        super().__init__()
        self._response = response

    def apply(self, log: Entry) -> object:
        """Return the response, or raise it."""
        super().apply(log)
        if isinstance(self._response, Exception):
            raise self._response
        return self._response


class Import(OfflineCase):
    """`import_snapshot`."""

    def setUp(self) -> None:
        super().setUp()
        self.elsewhere = FileSnapshotStore("/other", 3, self.disk)

    def load(self) -> Any:
        source = SnapshotReader("/other", self.disk)
        return import_snapshot(source, self.store, self.store, self.snapshots, SURVIVOR)

    def test_newest(self) -> None:
        """State, index and term are the snapshot's, the membership is the given."""
        write_snapshot(self.elsewhere, 5, 2, b"old")
        write_snapshot(self.elsewhere, 9, 4, b"old", b"new")

        meta = self.load()

        self.assertEqual((meta.index, meta.term), (9, 4))
        self.assertEqual(meta.configuration, SURVIVOR)
        self.assertEqual(self.restored(), [b"old", b"new"])
        self.assertEqual(read_hard_state(self.store), HardState(4))

    def test_source_is_left_alone(self) -> None:
        """Not even what is unfinished in it is touched: its owner may be running."""
        write_snapshot(self.elsewhere, 5, 2, b"old")
        self.elsewhere.create(6, 2, ALL, 1)
        before = sorted(self.disk.list(Path("/other/snapshots")))

        self.load()

        self.assertEqual(sorted(self.disk.list(Path("/other/snapshots"))), before)
        self.assertEqual(len(before), 2)

    def test_damaged(self) -> None:
        """The next older one is taken; without one, the error names what was wrong."""
        write_snapshot(self.elsewhere, 5, 2, b"old")
        write_snapshot(self.elsewhere, 9, 4, b"new")
        newest = self.elsewhere.list()[0].id
        state = Path("/other/snapshots") / newest / "state.bin"
        self.disk.content(state).data[0] ^= 1

        self.assertEqual(self.load().index, 5)

        self.setUp()
        with self.assertRaisesRegex(StorageError, "no snapshot to import"):
            self.load()
        self.assertEqual(read_hard_state(self.store), HardState())

    def test_node_with_data_of_its_own(self) -> None:
        """A snapshot is never how a member restarts."""
        write_snapshot(self.elsewhere, 5, 2, b"old")
        for used in (
            lambda: self.append(1),
            lambda: self.state(3, "c"),
            lambda: self.state(3, None, b"x" * 16),
            lambda: self.snapshot(3, 1, b"own"),
        ):
            super().setUp()
            self.elsewhere = FileSnapshotStore("/other", 3, self.disk)
            write_snapshot(self.elsewhere, 5, 2, b"old")
            used()
            with self.assertRaisesRegex(StorageError, "empty data directory"):
                self.load()

    def test_again_after_a_crash(self) -> None:
        """A term without a snapshot is what a crash half way leaves."""
        write_snapshot(self.elsewhere, 5, 2, b"old")
        self.state(2)

        self.assertEqual(self.load().index, 5)


class _Failing:
    """A store of which one method fails."""

    def __init__(self, store: InmemStore, method: str) -> None:
        self._store = store
        self._method = method

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            raise ZeroDivisionError
        return getattr(self._store, name)
