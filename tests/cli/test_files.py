"""Commands on files: a stopped node's data directory, and backups."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.cli_commands import CommandCase
from txraft.cli.app import main
from txraft.cli.files import create_file
from txraft.cli.log import as_line
from txraft.cli.offline import opened
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState
from txraft.kv.commands import encode_put
from txraft.kv.snapshot import read_state
from txraft.node.incarnations import (
    KNOWN_INCARNATIONS,
    VOID,
    encode_known,
    read_incarnations,
    read_pardoned,
)
from txraft.node.ownership import APPLICATION
from txraft.node.skipping import digest_of, noted_failure, read_skips
from txraft.node.writer import stored_state
from txraft.storage.directory import DataDirectory
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stores import open_stores
from txraft.wire.decisions import encode_activation, encode_void
from txraft.wire.entries import encode_new

NODE = "127.0.0.1:8300"
OTHERS = ("127.0.0.1:8310", "127.0.0.1:8320")
VERSION = 1


class DirectoryCase(SynchronousTestCase):
    """The data directory of a node that was a member of three, and has stopped."""

    kind = "file"

    def setUp(self) -> None:
        self.path = Path(mkdtemp()) / "n1"
        self.addCleanup(rmtree, self.path.parent)
        members = Configuration.of_voters((NODE, *OTHERS))
        entries = [
            Entry(1, 1, LogType.ADD_PEER, configuration=members),
            Entry(2, 2, LogType.NOOP),
            Entry(3, 2, LogType.COMMAND, encode_put("a", b"x")),
            Entry(4, 2, LogType.COMMAND, encode_put("b", b"y" * 500)),
        ]
        for entry in entries:
            encode_new(entry, VERSION)
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        stores.stable.set_many(stored_state(HardState(2, NODE)))
        stores.log.store_logs(entries[:2])
        stores.log.store_logs(entries[2:])
        stores.close()
        directory.close()

    def txraft(self, *arguments: object) -> Result:
        """Run one command."""
        return CliRunner().invoke(
            main, [str(argument) for argument in arguments], catch_exceptions=False
        )

    def content(self) -> dict[str, bytes]:
        """Return every file and what is in it."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file()
        }


class Log(DirectoryCase):
    """`txraft log`."""

    def test_dump(self) -> None:
        """Each entry is a line; commands say what they do."""
        before = self.content()

        lines = self.txraft("log", "dump", self.path).stdout.splitlines()

        self.assertEqual(
            [line.split()[:3] for line in lines][:2],
            [["1", "1", "add_peer"], ["2", "2", "noop"]],
        )
        self.assertIn(OTHERS[1], lines[0])
        self.assertIn("Put(key='a', value=b'x'", lines[2])
        self.assertLess(len(lines[3]), 200)
        self.assertEqual(self.content(), before)

    def test_dump_as_json(self) -> None:
        """One object a line, within the bounds that were asked for."""
        result = self.txraft(
            "log", "dump", self.path, "--json", "--first", 3, "--last", 3
        )

        entry = json.loads(result.stdout)
        self.assertEqual((entry["index"], entry["type"]), (3, "command"))

    def test_decisions(self) -> None:
        """What a leader has decided in a no-op is told in words."""
        for data, meaning in (
            (encode_activation(2), "level 2 of the state machine is active"),
            (encode_void("b:1", b"B"), "incarnation 42 of b:1 is void"),
            (b"x", ""),
            (None, ""),
        ):
            line = as_line(Entry(7, 1, LogType.NOOP, data))
            self.assertEqual(line.split("noop")[1].strip(), meaning)

    def test_verify(self) -> None:
        """A sound directory is said to be, and left as it is."""
        before = self.content()

        result = self.txraft("log", "verify", self.path)

        self.assertEqual(result.exit_code, 0, result.output)
        for word in (NODE, "entries 1 to 4", "sound"):
            self.assertIn(word, result.stdout)
        self.assertEqual(self.content(), before)

    def test_of_a_running_node(self) -> None:
        """While a node runs its files are not looked at."""
        directory = DataDirectory(self.path, NODE)
        self.addCleanup(directory.close)

        result = self.txraft("log", "verify", self.path)

        self.assertEqual(result.exit_code, 5)
        self.assertIn("stop it first", result.stderr)

    def test_of_another_directory(self) -> None:
        """A directory of something else is told from a node's."""
        result = self.txraft("log", "dump", self.path.parent)

        self.assertEqual(result.exit_code, 5)
        self.assertIn("no data directory", result.stderr)


class Skip(DirectoryCase):
    """`txraft log skip`, of a node that has stopped at entry 4."""

    def setUp(self) -> None:
        super().setUp()
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        poison = stores.log.get_log(4)
        stores.stable.set_many(noted_failure([poison]))
        stores.close()
        directory.close()
        self.digest = digest_of(poison).hex()

    def skip_it(self, *more: object, index: int = 4) -> Result:
        """Name the entry at *index* by the digest of the poison."""
        named = ("--index", index, "--term", 2, "--digest", self.digest[:16])
        return self.txraft("log", "skip", self.path, *named, *more)

    def test_dump_has_what_names_it(self) -> None:
        """Lines have as much of the digest as is needed, JSON has all of it."""
        lines = self.txraft("log", "dump", self.path).stdout.splitlines()
        named = json.loads(
            self.txraft("log", "dump", self.path, "--json", "--first", 4).stdout
        )

        self.assertEqual(lines[3].split()[:4], ["4", "2", "command", self.digest[:16]])
        self.assertEqual(named["digest"], self.digest)

    def test_dry_run(self) -> None:
        """Without --yes it shows the entry, and changes nothing."""
        before = self.content()

        result = self.skip_it()

        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("Put(key='b'", result.stdout)
        self.assertIn("Nothing was changed", result.stdout)
        self.assertEqual(self.content(), before)

    def test_skip(self) -> None:
        """With --yes it is on record, and the same again is, too."""
        for _ in range(2):
            result = self.skip_it("--yes")

            self.assertEqual(result.exit_code, 0, result.output)
            self.assertIn(f"{NODE} skips 4:2:{self.digest[:16]}", result.stdout)
        with opened(self.path) as stores:
            skipped = read_skips(stores.stable)
        self.assertEqual([(each.index, each.term) for each in skipped], [(4, 2)])

    def test_refused(self) -> None:
        """Another entry than the one at which the node has stopped is not skipped."""
        before = self.content()

        result = self.skip_it("--yes", index=3)

        self.assertEqual(result.exit_code, 5)
        self.assertIn("the digest of entry 3 is", result.stderr)
        self.assertEqual(self.content(), before)


class SkipInLMDB(Skip):
    """The same on a store in LMDB."""

    kind = "lmdb"


class LogInLMDB(Log):
    """The same of a log in LMDB."""

    kind = "lmdb"

    def test_verify_damaged(self) -> None:
        """Damage is status 1, and names the directory."""
        (data,) = self.path.rglob("data.mdb")
        value = b"y" * 100
        self.assertEqual(data.read_bytes().count(value), 5)
        data.write_bytes(data.read_bytes().replace(value, b"z" * 100))

        result = self.txraft("log", "verify", self.path)

        self.assertEqual(result.exit_code, 1)
        self.assertIn("checksum", result.stderr)
        self.assertIn(str(data.parent), result.stderr)

    def test_of_no_environment(self) -> None:
        (data,) = self.path.rglob("data.mdb")
        for content in (b"", b"no environment" * 1000):
            data.write_bytes(content)

            result = self.txraft("log", "dump", self.path)

            self.assertEqual(result.exit_code, 5)
            self.assertIn(str(data.parent), result.stderr)
            self.assertEqual(data.read_bytes(), content)


class Damage(DirectoryCase):
    """`txraft log verify`, of a log in files that are not whole."""

    def test_verify_torn(self) -> None:
        """A torn last write is told, and is no damage; it is not cut off here."""
        (segment,) = (self.path / "log").glob("*.seg")
        segment.write_bytes(segment.read_bytes()[:-3])
        before = self.content()

        result = self.txraft("log", "verify", self.path, "--json")

        told = json.loads(result.stdout)
        self.assertEqual((result.exit_code, told["last"], told["sound"]), (0, 2, True))
        self.assertIn("torn", told["warnings"][0])
        self.assertEqual(self.content(), before)

    def test_verify_damaged(self) -> None:
        """Damage is status 1, with file and offset."""
        (segment,) = (self.path / "log").glob("*.seg")
        data = bytearray(segment.read_bytes())
        data[200] ^= 1
        segment.write_bytes(data)

        result = self.txraft("log", "verify", self.path)

        self.assertEqual(result.exit_code, 1)
        self.assertIn(segment.name, result.stderr)
        self.assertIn("damaged at byte", result.stderr)


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


class Incarnations(DirectoryCase):
    """`txraft incarnations`."""

    def setUp(self) -> None:
        super().setUp()
        known = {OTHERS[0]: b"B" * 16, OTHERS[1]: VOID + b"C" * 16}
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        stores.stable.set_many({KNOWN_INCARNATIONS: encode_known(known)})
        self.own, _ = read_incarnations(stores.stable, bytes)
        stores.close()
        directory.close()

    def test_show(self) -> None:
        """It tells its own, those it knows, and which are void."""
        before = self.content()

        result = self.txraft("incarnations", self.path, "--relearn")
        told = self.txraft("incarnations", self.path, "--json")

        self.assertEqual(result.exit_code, 0, result.output)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], f"{NODE}  {self.own.hex()}  (this node)")
        self.assertEqual(lines[1], f"{OTHERS[0]}  {'42' * 16}")
        self.assertEqual(lines[2], f"{OTHERS[1]}  {'43' * 16}  void: it is refused")
        self.assertIn("Nothing was changed", lines[3])
        known = json.loads(told.stdout)["known"]
        self.assertEqual(known[OTHERS[1]], {"incarnation": "43" * 16, "void": True})
        self.assertEqual(self.content(), before)

    def test_relearn(self) -> None:
        """It forgets the others' and what the log says of them, not its own."""
        result = self.txraft("incarnations", self.path, "--relearn", "--yes")

        self.assertEqual(result.exit_code, 0, result.output)
        directory = DataDirectory(self.path, NODE)
        stores = open_stores(self.kind, directory, NODE)
        self.addCleanup(directory.close)
        self.addCleanup(stores.close)
        self.assertEqual(read_incarnations(stores.stable, bytes), (self.own, {}))
        self.assertEqual(read_pardoned(stores.stable), 4)


class IncarnationsInLMDB(Incarnations):
    """The same of a log in LMDB."""

    kind = "lmdb"


class RecoverInLMDB(Recover):
    """The same of a log in LMDB."""

    kind = "lmdb"


class Snapshots(CommandCase):
    """`txraft snapshot`."""

    def setUp(self) -> None:
        super().setUp()
        for i in range(3):
            self.passed("kv", "put", f"k{i}", "v")
        self.saved = self.file(b"").with_name("backup.tgz")
        self.passed("snapshot", "save", self.saved)

    def test_save(self) -> None:
        """The file is whole, for its owner alone, and nothing lies beside it."""
        told = json.loads(self.passed("snapshot", "inspect", self.saved, "--json"))

        self.assertEqual(told["keys"], 3)
        self.assertEqual(self.saved.stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            {path.name for path in self.saved.parent.iterdir()}, {"backup.tgz", "file"}
        )

    def test_save_beside_a_link(self) -> None:
        """A link in the place of the unfinished file is not followed."""
        victim = self.file(b"precious")
        self.saved.with_name("backup.tgz.unfinished").symlink_to(victim)

        self.passed("snapshot", "save", self.saved)

        self.assertEqual(victim.read_bytes(), b"precious")
        self.assertFalse(self.saved.is_symlink())
        self.assertEqual(self.saved.stat().st_mode & 0o777, 0o600)

    def test_save_for_its_owner_at_once(self) -> None:
        """Nobody can open the file in between, whatever the umask says."""
        self.addCleanup(os.umask, os.umask(0))
        path = self.saved.with_name("new")
        with create_file(path, 0o600) as stream:
            self.assertEqual(os.fstat(stream.fileno()).st_mode & 0o777, 0o600)
        self.assertRaises(FileExistsError, create_file, path, 0o600)

    def test_save_in_vain(self) -> None:
        """A backup that does not come leaves the one before as it is."""
        before = self.saved.read_bytes()
        self.network.refusing = {"n1:8500", "n2:8500"}

        result = self.txraft("snapshot", "save", self.saved)

        self.assertEqual(result.exit_code, 3)
        self.assertEqual(self.saved.read_bytes(), before)
        self.assertEqual(len(list(self.saved.parent.iterdir())), 2)

    def test_restore(self) -> None:
        """Everything is as it was; without --yes it is asked for first."""
        self.passed("kv", "put", "later", "x")

        refused = self.txraft("snapshot", "restore", self.saved, stdin=b"n\n")
        self.assertEqual(refused.exit_code, 1)
        self.assertEqual(self.passed("kv", "get", "later"), "x")

        self.passed("snapshot", "restore", self.saved, "--yes")
        self.assertEqual(self.passed("kv", "list"), "k0\nk1\nk2\n")

    def test_inspect_damaged(self) -> None:
        """Whatever is changed in a backup is noticed, and told by name."""
        for change in (
            lambda files: files.__setitem__("state.bin", files["state.bin"] + b"x"),
            lambda files: files.pop("SHA256SUMS"),
            lambda files: files.__setitem__("meta.json", b"{}"),
            lambda files: files.__setitem__("more", b""),
        ):
            path = self.changed(change)
            result = self.txraft("snapshot", "inspect", path)
            self.assertEqual(result.exit_code, 5, result.output)
            self.assertIn(str(path), result.stderr)

    def test_inspect_cut(self) -> None:
        """So is what is missing at the end, be it a byte."""
        whole = self.saved.read_bytes()
        for missing in (1, 20, len(whole) // 2, len(whole)):
            path = self.file(whole[:-missing])
            result = self.txraft("snapshot", "inspect", path)
            self.assertEqual(result.exit_code, 5, missing)

    def changed(self, change: Callable[[dict[str, bytes]], object]) -> Path:
        """Write the backup anew with other files in it."""
        files = {}
        with tarfile.open(self.saved) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                files[member.name] = file.read()
        change(files)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return self.file(gzip.compress(made.getvalue()))
