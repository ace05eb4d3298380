"""The start: files on disk become the state of consensus, or are refused."""

from __future__ import annotations

import io
from typing import BinaryIO

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState
from txraft.errors import DataCorrupted, WrongCluster
from txraft.interfaces import SnapshotMeta
from txraft.node.ownership import noted_application
from txraft.node.startup import (
    Recovered,
    Restored,
    read_hard_state,
    recover,
    restore_newest,
)
from txraft.node.tail import read_range, up_to
from txraft.node.writer import stored_state
from txraft.storage.memory import InmemStore
from txraft.testing import ListFSM
from txraft.wire.entries import encode_new

LISTED = Configuration.of_voters(["a", "b", "c"])
MEMBERS = Configuration.of_voters(["a", "b"])


def entry(index: int, term: int, **fields: object) -> Entry:
    made = Entry(index, term, LogType.COMMAND, b"x")
    for name, value in fields.items():
        setattr(made, name, value)
    encode_new(made)
    return made


def snapshot(index: int, term: int, cluster: bytes = b"") -> SnapshotMeta:
    return SnapshotMeta("newest", index, term, MEMBERS, 1, 0, cluster=cluster)


class BootCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = InmemStore()
        self.listed = LISTED

    def state(self, term: int, vote: str | None = None) -> None:
        self.store.set_many(stored_state(HardState(term, vote)))

    def log(self, *terms: int, first: int = 1) -> None:
        self.store.store_logs([entry(i, t) for i, t in enumerate(terms, first)])

    def recover(
        self,
        snapshot: SnapshotMeta | None = None,
        version: int = 1,
        lost: int = 0,
        application: str = "",
    ) -> Recovered:
        return recover(
            self.store,
            self.store,
            Restored(snapshot, lost=lost),
            read_membership=lambda: self.listed,
            protocol_version=version,
            encode=lambda made: encode_new(made, version),
            application=application,
        )


class Clusters(BootCase):
    """Snapshots that say which cluster they are of."""

    def test_snapshot_of_another_cluster(self) -> None:
        """It is refused, with the way out, and nothing has been changed."""
        self.store.set_many(stored_state(HardState(2, None, b"A" * 16)))
        self.log(1, 1, 1)

        error = self.assertRaises(WrongCluster, self.recover, snapshot(9, 2, b"B" * 16))

        self.assertIn("snapshot newest is of cluster 4242", str(error))
        self.assertIn("here are of cluster 4141", str(error))
        self.assertIn("put back the snapshots that belong", str(error))
        self.assertIn("add it again with join: true", str(error))
        self.assertEqual(self.store.last_index(), 3)

    def test_snapshot_of_this_cluster(self) -> None:
        """So is one that names none, as those of Go peers."""
        for cluster in (b"A" * 16, b""):
            self.setUp()
            self.store.set_many(stored_state(HardState(2, None, b"A" * 16)))

            recovered = self.recover(snapshot(9, 2, cluster))

            self.assertEqual(recovered.hard_state.cluster, b"A" * 16)

    def test_cluster_is_learned_from_a_snapshot(self) -> None:
        """What is restored makes a node one of the cluster that it comes from."""
        self.state(2)

        recovered = self.recover(snapshot(9, 2, b"B" * 16))

        self.assertEqual(recovered.hard_state, HardState(2, None, b"B" * 16))


class Bootstraps(BootCase):
    def test_found_stores_term_and_membership_before_the_first_election(self) -> None:
        """Versions 1 to 3 begin with term 1 and an entry that lists all."""
        for version, kind in ((1, LogType.ADD_PEER), (2, LogType.CONFIGURATION)):
            self.setUp()

            recovered = self.recover(version=version)

            first = self.store.get_log(1)
            self.assertEqual((first.term, first.type), (1, kind))
            self.assertEqual(first.configuration, LISTED)
            self.assertTrue(first.encoded)
            self.assertEqual(read_hard_state(self.store), HardState(1))
            self.assertEqual(recovered.log.last_index, 1)
            self.assertEqual(recovered.configurations.latest, LISTED)
            self.assertEqual(recovered.configurations.latest_index, 1)

    def test_found_at_version_0_stores_no_entry(self) -> None:
        """The members are known, the log is empty, and term 1 has no election."""
        recovered = self.recover(version=0)

        self.assertEqual(self.store.last_index(), 0)
        self.assertEqual(recovered.hard_state, HardState(1))
        self.assertEqual(recovered.configurations.latest, LISTED)
        self.assertEqual(recovered.configurations.latest_index, 0)

    def test_found_again_after_a_crash_between_the_two_writes(self) -> None:
        """A term without an entry is bootstrapped again."""
        self.state(1)

        self.recover()

        self.assertEqual(self.store.last_index(), 1)

    def test_a_vote_in_the_first_term_is_never_forgotten(self) -> None:
        """Peers that number from 0 elect in term 1; two votes there elect two."""
        self.state(1, "b")

        recovered = self.recover(version=0)

        self.assertEqual(recovered.hard_state, HardState(1, "b"))
        self.assertEqual(read_hard_state(self.store), HardState(1, "b"))
        self.assertEqual(recovered.configurations.latest, LISTED)

    def test_first_member_without_its_log_is_refused(self) -> None:
        """It had an entry before its first election, and may have had more."""
        for term, vote in ((1, "b"), (7, None)):
            self.setUp()
            self.state(term, vote)

            error = self.assertRaises(DataCorrupted, self.recover)

            self.assertIn("join: true", str(error))
            self.assertEqual(self.store.last_index(), 0)

    def test_without_peers_it_waits_to_be_added(self) -> None:
        """Nothing is stored, and nobody is a member."""
        self.listed = Configuration()

        recovered = self.recover()

        self.assertEqual(recovered.configurations.latest, Configuration())
        self.assertEqual(read_hard_state(self.store), HardState(0))

    def test_one_that_waits_keeps_its_vote(self) -> None:
        """A joining server may have voted before it got an entry."""
        self.listed = Configuration()
        self.state(4, "b")

        self.assertEqual(self.recover().hard_state, HardState(4, "b"))


class Refusing(BootCase):
    def test_log_or_snapshot_without_a_term_is_refused(self) -> None:
        """A server that forgets its vote can elect two leaders."""
        self.log(1, 1)
        self.assertIn("join: true", str(self.assertRaises(DataCorrupted, self.recover)))

        self.setUp()
        self.assertRaises(DataCorrupted, self.recover, snapshot(5, 1))

    def test_gap_between_snapshot_and_log_is_refused(self) -> None:
        """The message says which entries are missing, and the way out."""
        self.state(3)
        self.log(2, 2, first=7)

        error = self.assertRaises(DataCorrupted, self.recover, snapshot(5, 2))

        self.assertIn("begins at index 7", str(error))
        self.assertIn("ends at 5", str(error))
        self.assertEqual(self.store.first_index(), 7)

    def test_refused_start_leaves_no_name(self) -> None:
        """It may be that of a wrong application, which would keep the right one out."""
        self.state(1)
        self.log(1, 1, first=10)

        self.assertRaises(DataCorrupted, self.recover, application="wrong")

        self.assertEqual(noted_application(self.store), "")

    def test_refused_scan_leaves_no_name(self) -> None:
        """Nor does a log that turns out to be damaged when all of it is read."""
        self.state(1)
        self.log(1, 1)

        def read() -> list[tuple[int, int]]:
            raise DataCorrupted("entry 2 is torn")

        self.patch(self.store, "term_runs", read)

        self.assertRaises(DataCorrupted, self.recover, application="wrong")

        self.assertEqual(noted_application(self.store), "")

    def test_log_that_begins_late_without_a_snapshot_is_refused(self) -> None:
        """The snapshot that it followed on is gone."""
        self.state(3)
        self.log(2, first=7)
        self.assertRaises(DataCorrupted, self.recover)

    def test_damaged_snapshot_that_nothing_stands_for_is_refused(self) -> None:
        """What it covered was acknowledged; an older state is not passed off as it."""
        self.listed = Configuration()
        for older, log in ((None, ()), (snapshot(5, 2), ()), (snapshot(5, 2), (2, 2))):
            self.setUp()
            self.state(2)
            self.log(*log, first=6)

            error = self.assertRaises(DataCorrupted, self.recover, older, 1, 10)

            self.assertIn("up to 10 is damaged", str(error))
            self.assertEqual(self.store.last_index(), 7 if log else 0)

    def test_damaged_snapshot_whose_entries_are_in_the_log(self) -> None:
        """An older one and the log come to the same."""
        self.state(2)
        self.log(2, 2, 2, 2, 2, first=6)

        recovered = self.recover(snapshot(5, 2), lost=10)

        self.assertEqual(recovered.log.last_index, 10)
        self.assertEqual(recovered.snapshot.index, 5)


class Fitting(BootCase):
    def test_log_behind_the_snapshot_is_dropped(self) -> None:
        """With a warning; the snapshot is newer than all of it."""
        self.state(3)
        self.log(1, 1, 2)

        recovered = self.recover(snapshot(5, 2))

        self.assertEqual(self.store.last_index(), 0)
        self.assertEqual((recovered.log.last_index, recovered.log.last_term), (5, 2))
        self.assertIn("ends before", recovered.warnings[0])

    def test_log_that_disagrees_with_the_snapshot_is_dropped(self) -> None:
        """Its entries were never committed: a snapshot holds what was."""
        self.state(3)
        self.log(1, 1, 1)

        recovered = self.recover(snapshot(2, 2))

        self.assertEqual(recovered.log.last_index, 2)
        self.assertIn("disagrees", recovered.warnings[0])

    def test_log_that_goes_on_behind_the_snapshot(self) -> None:
        """Terms before the first entry are known from the snapshot."""
        self.state(3)
        self.log(2, 3, first=6)

        recovered = self.recover(snapshot(5, 2))

        log = recovered.log
        self.assertEqual((log.base_index, log.base_term), (5, 2))
        self.assertEqual([log.term_at(i) for i in (5, 6, 7)], [2, 2, 3])
        self.assertEqual(recovered.configurations.latest, MEMBERS)

    def test_log_that_reaches_back_behind_the_snapshot(self) -> None:
        """The first entry stands for what lies before it."""
        self.state(3)
        self.log(1, 2, 2, 3, first=4)

        log = self.recover(snapshot(6, 2)).log

        self.assertEqual((log.base_index, log.base_term), (4, 1))
        self.assertEqual([log.term_at(i) for i in (4, 5, 6, 7)], [1, 2, 2, 3])
        self.assertEqual(log.runs, [(5, 2), (7, 3)])

    def test_log_of_nothing_but_its_first_entry(self) -> None:
        """The run that it began has no entries left."""
        self.state(3)
        self.log(2, first=5)

        log = self.recover(snapshot(5, 2)).log

        self.assertEqual((log.runs, log.last_index, log.last_term), ([], 5, 2))

    def test_newest_membership_of_the_log_is_in_force(self) -> None:
        """And that of the snapshot is what it falls back to."""
        self.state(3)
        newer = entry(7, 2, type=LogType.ADD_PEER, data=None, configuration=LISTED)
        self.store.store_logs([entry(6, 2), newer])

        history = self.recover(snapshot(5, 2)).configurations

        self.assertEqual((history.latest_index, history.latest), (7, LISTED))
        self.assertEqual(history.at(6)[1], MEMBERS)

    def test_membership_on_disk_counts_more_than_the_list_of_peers(self) -> None:
        """The list counts only while neither log nor snapshot holds any."""
        self.recover()
        self.listed = Configuration.of_voters(["x"])

        self.assertEqual(self.recover().configurations.latest, LISTED)

    def test_cluster_named_by_an_uncommitted_entry(self) -> None:
        """It becomes this server's when that entry is known to be committed."""
        self.state(2)
        self.store.store_logs(
            [entry(1, 1), entry(2, 2, type=LogType.NOOP, data=None, cluster=b"c" * 16)]
        )

        recovered = self.recover()

        self.assertIsNone(recovered.hard_state.cluster)
        self.assertEqual(recovered.cluster_proposals, {2: b"c" * 16})


class PlainStore:
    """A log store with nothing but what is required, over another."""

    def __init__(self, store: InmemStore) -> None:
        for name in (
            "first_index",
            "last_index",
            "get_log",
            "store_log",
            "store_logs",
            "delete_range",
        ):
            setattr(self, name, getattr(store, name))


class PlainStores(BootCase):
    def test_store_without_an_index_is_read_through(self) -> None:
        """Runs and memberships are found all the same."""
        self.state(3)
        self.store.store_logs([entry(i, 1 + i // 3) for i in range(1, 9)])
        named = entry(9, 4, type=LogType.ADD_PEER, data=None, configuration=MEMBERS)
        self.store.store_logs([named])

        plain = PlainStore(self.store)
        recovered = recover(
            plain,  # type: ignore[arg-type]
            self.store,
            Restored(),
            read_membership=lambda: LISTED,
            protocol_version=1,
            encode=encode_new,
        )

        self.assertEqual(recovered.log.runs, [(1, 1), (3, 2), (6, 3), (9, 4)])
        self.assertEqual(recovered.configurations.latest, MEMBERS)

    def test_read_range_is_bounded_by_bytes(self) -> None:
        """At least one entry, and about as many bytes as are asked for."""
        self.log(1, 1, 1, 1)
        size = len(self.store.get_log(1).encoded)
        for store in (self.store, PlainStore(self.store)):
            few = read_range(store, 1, 4, 1)  # type: ignore[arg-type]
            half = read_range(store, 1, 4, 2 * size)  # type: ignore[arg-type]
            everything = read_range(store, 2, 4, 1 << 20)  # type: ignore[arg-type]
            self.assertEqual([e.index for e in few], [1])
            self.assertEqual([e.index for e in half], [1, 2])
            self.assertEqual([e.index for e in everything], [2, 3, 4])


class DamagedSnapshots:
    """A snapshot store of which some cannot be opened; *left_out* are not listed."""

    def __init__(self, left_out: list[int], **snapshots: bool) -> None:
        self.left_out = left_out
        self.snapshots = snapshots

    def list(self) -> list[SnapshotMeta]:
        newest = len(self.snapshots)
        return [
            SnapshotMeta(id, newest - age, 1, MEMBERS, 1, 0)
            for age, id in enumerate(self.snapshots)
        ]

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        if not self.snapshots[id]:
            raise DataCorrupted(f"{id} is damaged")
        return self.list()[0], io.BytesIO(f'["{id.encode().hex()}"]'.encode())


class RestoringTheNewest(SynchronousTestCase):
    def setUp(self) -> None:
        self.fsm = ListFSM()

    def restore(self, *left_out: int, **snapshots: bool) -> Restored:
        store = DamagedSnapshots([*left_out], **snapshots)
        return restore_newest(store, self.fsm)  # type: ignore[arg-type]

    def test_newest_that_is_whole_is_restored(self) -> None:
        """A damaged one is passed over with a warning that names it."""
        restored = self.restore(new=True, old=True)

        assert restored.snapshot is not None
        self.assertEqual((restored.snapshot.id, restored.lost), ("new", 0))
        self.assertEqual(self.fsm.commands, [b"new"])

    def test_what_a_damaged_one_reached_is_told(self) -> None:
        """Whoever goes on must make sure that something else reaches as far."""
        restored = self.restore(new=False, old=True)

        assert restored.snapshot is not None
        self.assertEqual((restored.snapshot.id, restored.lost), ("old", 2))
        self.assertEqual(self.fsm.commands, [b"old"])
        self.assertIn("new is damaged", restored.warnings[0])
        self.assertEqual(self.restore(9, 3, old=True).lost, 9)
        self.assertEqual(self.restore(9), Restored(lost=9))

    def test_none_that_is_whole_is_refused(self) -> None:
        """To begin empty would forget what was committed."""
        error = self.assertRaises(DataCorrupted, self.restore, new=False, old=False)
        self.assertIn("new is damaged", str(error))
        self.assertIn("old is damaged", str(error))

    def test_no_snapshot_is_no_fault(self) -> None:
        """The FSM begins empty."""
        self.assertEqual(self.restore(), Restored())
        self.assertEqual(self.fsm.commands, [])


class Reading(SynchronousTestCase):
    """Entries that are read for a message."""

    def test_no_more_than_a_message_holds(self) -> None:
        """A store may bring one more; but there is always one."""
        entries = [Entry(i, 1, LogType.COMMAND, encoded=b"x" * 10) for i in range(1, 6)]

        self.assertEqual(up_to(30, entries), entries[:3])
        self.assertEqual(up_to(29, entries), entries[:2])
        self.assertEqual(up_to(5, entries), entries[:1])
        self.assertEqual(up_to(100, entries), entries)
