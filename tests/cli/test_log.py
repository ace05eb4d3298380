"""`txraft log`: a stopped node's log is checked, shown, and one entry skipped."""

from __future__ import annotations

import json

from click.testing import Result

from tests.support.data_directories import NODE, OTHERS, DirectoryCase
from txraft.cli.log import as_line
from txraft.cli.offline import opened
from txraft.core.entry import Entry, LogType
from txraft.node.skipping import digest_of, noted_failure, read_skips
from txraft.storage.directory import DataDirectory
from txraft.storage.stores import open_stores
from txraft.wire.decisions import encode_activation, encode_void


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
