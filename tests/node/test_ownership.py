"""A data directory names its application, and no other one uses it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import ContractBroken, WrongApplication
from txraft.kv.commands import encode_put
from txraft.kv.state import KeyValueFSM
from txraft.node.ownership import (
    APPLICATION,
    MAX_NAME_BYTES,
    PROBED_ENTRIES,
    check_application,
    noted_application,
)
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.testing import Cluster, ListFSM
from txraft.wire.entries import encode_new


class OneFSM(ListFSM):
    application_name = "one"


class TwoFSM(ListFSM):
    application_name = "two"


def command(index: int, data: bytes) -> Entry:
    entry = Entry(index, 1, LogType.COMMAND, data)
    encode_new(entry)
    return entry


class Check(SynchronousTestCase):
    """`check_application`."""

    def setUp(self) -> None:
        self.store = InmemStore()
        self.snapshots = InmemSnapshotStore()

    def check(self, fsm: object) -> None:
        check_application(fsm, self.store, self.store, self.snapshots)

    def refusal(self, fsm: object) -> str:
        return str(self.assertRaises(WrongApplication, self.check, fsm))

    def snapshot(self, *pieces: bytes) -> None:
        sink = self.snapshots.create(5, 1, Configuration(), 0)
        for piece in pieces:
            sink.write(piece)
        sink.close()

    def test_same_name(self) -> None:
        """The application that is noted is let in."""
        self.store.set(APPLICATION, b"one")

        self.check(OneFSM())

    def test_another_name(self) -> None:
        """Another one is refused, by both names and with the way out."""
        self.store.set(APPLICATION, b"one")

        self.assertIn("'one', not of 'two'. Give each", self.refusal(TwoFSM()))

    def test_no_name_where_one_is_noted(self) -> None:
        """Who names none is another application, too."""
        self.store.set(APPLICATION, b"one")

        self.assertIn("not of ListFSM, which names none", self.refusal(ListFSM()))

    def test_nothing_is_noted(self) -> None:
        """Data from before there were names are let to whoever cannot tell."""
        self.store.store_log(command(1, b"x"))

        for fsm in (ListFSM(), OneFSM()):
            self.check(fsm)

    def test_name_that_is_none(self) -> None:
        """A name that cannot be noted is refused."""
        for name in (7, "x" * (MAX_NAME_BYTES + 1)):
            fsm = ListFSM()
            fsm.application_name = name  # type: ignore[attr-defined]
            self.assertRaises(ContractBroken, self.check, fsm)

    def test_commands_of_another(self) -> None:
        """Where nothing is noted, commands at both ends of the log tell."""
        self.store.store_logs(
            [command(i, encode_put("a", b"")) for i in range(1, 2000)]
        )
        self.check(KeyValueFSM())
        for foreign in (1, PROBED_ENTRIES, 2000 - PROBED_ENTRIES, 1999):
            self.setUp()
            self.store.store_logs(
                [
                    command(i, b"1" if i == foreign else encode_put("a", b""))
                    for i in range(1, 2000)
                ]
            )
            self.assertIn(
                f"of another application than 'txraft-kv': entry {foreign} (term 1, 1 "
                "bytes) is none of it",
                self.refusal(KeyValueFSM()),
            )

    def test_own_commands_of_any_version(self) -> None:
        """Neither a newer command nor one that is refused makes data foreign."""
        for data in (b"\x92\x63\x01", b"\x92\x01\x01"):
            self.assertTrue(KeyValueFSM().is_own_command(data))
        for data in (
            b"",
            b"1",
            b"\x90",
            b"\x92\x01\xcc\xff",
            b"\x92\xa1x\x01",
            b"\xc1",
        ):
            self.assertFalse(KeyValueFSM().is_own_command(data), data)

    def test_snapshot_of_another(self) -> None:
        """So does the head of the newest snapshot, where the log is empty."""
        self.snapshot(b'["31"]')

        self.assertIn("snapshot 1-5-1 is none of it", self.refusal(KeyValueFSM()))

    def test_own_snapshot(self) -> None:
        """Its own, an empty one too, is known by its head."""
        self.snapshot(*KeyValueFSM().snapshot().pieces(1 << 20))

        self.check(KeyValueFSM())


class Start(SynchronousTestCase):
    """`Raft.start` notes the name, or refuses."""

    def setUp(self) -> None:
        self.made: type[ListFSM] = OneFSM
        self.cluster = Cluster(1, make_fsm=self.make_fsm)
        self.cluster.start()
        self.addCleanup(self.cluster.shutdown)
        self.cluster.apply(b"x")

    def make_fsm(self) -> ListFSM:
        """Make the state machine of a node."""
        return self.made()

    def test_name_is_noted(self) -> None:
        """From the first start on, and the same application goes on."""
        self.assertEqual(noted_application(self.cluster.nodes["a"].store), "one")

        self.cluster.restart("a")
        self.cluster.wait_for_leader()
        self.cluster.wait_for_all()

        self.assertEqual(self.cluster.nodes["a"].fsm.commands, [b"x"])

    def test_another_application(self) -> None:
        """It gets nothing to restore or apply, and nothing is written."""
        self.cluster.result(self.cluster.leader.raft.snapshot())
        self.made = TwoFSM
        last = self.cluster.leader.raft.last_index

        node = self.cluster.restart("a")
        self.cluster.advance(0.1)

        failure = self.failureResultOf(node.started, WrongApplication)
        self.assertIn("'one', not of 'two'", failure.getErrorMessage())
        self.assertEqual(node.fsm.commands, [])
        self.assertEqual(node.store.last_index(), last)
        self.assertEqual(noted_application(node.store), "one")

    def test_name_is_given_to_older_data(self) -> None:
        """Data without a name get that of the first who has one."""
        self.made = ListFSM
        cluster = Cluster(1, make_fsm=self.make_fsm)
        cluster.start()
        self.addCleanup(cluster.shutdown)
        self.assertEqual(noted_application(cluster.nodes["a"].store), "")

        self.made = OneFSM
        cluster.restart("a")
        cluster.wait_for_leader()

        self.assertEqual(noted_application(cluster.nodes["a"].store), "one")
