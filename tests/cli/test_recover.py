"""`txraft recover`: a stopped node gets another membership, and nothing else."""

from __future__ import annotations

from tests.support.data_directories import NODE, OTHERS, VERSION, DirectoryCase
from txraft.cli.offline import opened
from txraft.core.entry import Entry, LogType
from txraft.kv.snapshot import read_state
from txraft.node.ownership import APPLICATION
from txraft.node.skipping import digest_of, read_skips
from txraft.storage.directory import DataDirectory
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stores import open_stores
from txraft.wire.entries import encode_new


class Recover(DirectoryCase):
    """`txraft recover`."""

    def test_dry_run(self) -> None:
        """Without --yes it shows what there is, and changes nothing."""
        before = self.content()

        result = self.txraft("recover", self.path, "-m", NODE)

        self.assertEqual(result.exit_code, 0, result.output)
        for word in ("index 4, term 2", OTHERS[0], "Nothing was changed"):
            self.assertIn(word, result.stdout)
        self.assertEqual(self.content(), before)

    def test_recover(self) -> None:
        """With --yes a snapshot holds everything, with the new membership."""
        result = self.txraft("recover", self.path, "-m", NODE, "--yes")

        self.assertEqual(result.exit_code, 0, result.output)
        (meta,) = SnapshotReader(self.path).list()
        self.assertEqual((meta.index, meta.term), (4, 2))
        self.assertEqual(meta.configuration.addresses, (NODE,))

    def test_recover_without_a_command(self) -> None:
        """What is named with --skip is left out; what is not there is refused."""
        with opened(self.path) as stores:
            digest = digest_of(stores.log.get_log(4)).hex()
        arguments = ("recover", self.path, "-m", NODE, "--yes", "--skip")

        refused = self.txraft(*arguments, f"3:2:{digest}")
        result = self.txraft(*arguments, f"4:2:{digest[:16]}")

        self.assertEqual(refused.exit_code, 5)
        self.assertIn("the digest of entry 3 is", refused.stderr)
        self.assertEqual(result.exit_code, 0, result.output)
        with opened(self.path) as stores:
            self.assertEqual(len(read_skips(stores.stable)), 1)
            with stores.snapshots.open(stores.snapshots.list()[0].id)[1] as file:
                self.assertEqual([*read_state(file).rows], ["a"])

    def test_without_this_node(self) -> None:
        """A membership that leaves this node out is a mistake."""
        before = self.content()

        result = self.txraft("recover", self.path, "-m", OTHERS[0], "--yes")

        self.assertEqual(result.exit_code, 2)
        self.assertEqual(self.content(), before)


class RecoverInLMDB(Recover):
    """The same of a log in LMDB."""

    kind = "lmdb"


class OfAnotherApplication(DirectoryCase):
    """The data of an embedded application, with or without a name."""

    def setUp(self) -> None:
        super().setUp()
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        entry = Entry(5, 2, LogType.COMMAND, b"1")
        encode_new(entry, VERSION)
        stores.log.store_logs([entry])
        stores.close()
        directory.close()

    def name(self, application: bytes) -> None:
        """Note the name of an application."""
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        stores.stable.set_many({APPLICATION: application})
        stores.close()
        directory.close()

    def refusal(self) -> str:
        """Try to recover it; return what is said, once nothing has changed."""
        before = self.content()
        for more in ((), ("--yes",)):
            result = self.txraft("recover", self.path, "-m", NODE, *more)
            self.assertEqual(result.exit_code, 5, result.output)
            self.assertEqual(result.stdout, "")
        self.assertEqual(self.content(), before)
        return " ".join(result.stderr.split())

    def test_recover_without_a_name(self) -> None:
        """An entry tells; who can recover the data is said."""
        refusal = self.refusal()

        self.assertIn("entry 5 (term 2, 1 bytes) is none of it", refusal)
        self.assertIn("call txraft.recover_cluster", refusal)

    def test_recover_with_a_name(self) -> None:
        """The name tells, whatever the entries look like."""
        self.name(b"counter")

        self.assertIn("the application 'counter', not of 'txraft-kv'", self.refusal())

    def test_log(self) -> None:
        """The commands of another application are not interpreted; it is named."""
        self.name(b"counter")

        dump = self.txraft("log", "dump", self.path).stdout
        verify = self.txraft("log", "verify", self.path)

        self.assertEqual(dump.count("bytes of another application"), 3)
        self.assertNotIn("Put", dump)
        self.assertEqual(verify.exit_code, 0, verify.output)
        self.assertIn("counter", verify.stdout)
