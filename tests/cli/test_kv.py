"""`txraft kv`, against the HTTP API itself."""

from __future__ import annotations

import json

from tests.support.cli_commands import CommandCase
from txraft.cli.kv import MAX_OPERATIONS, batches
from txraft.client import Operation


class OneKey(CommandCase):
    """`kv get`, `put` and `delete`."""

    def test_put_and_get(self) -> None:
        """A value comes back byte for byte, with nothing added."""
        self.passed("kv", "put", "a", "hello")

        self.assertEqual(self.passed("kv", "get", "a"), "hello")

    def test_put_from_standard_input(self) -> None:
        """Any byte goes in that way, and out again."""
        self.passed("kv", "put", "a", stdin=b"\x00\xff\n")

        self.assertEqual(self.txraft("kv", "get", "a").stdout_bytes, b"\x00\xff\n")

    def test_put_from_a_file(self) -> None:
        """`@FILE` is the file's content; one that is not there is wrong usage."""
        path = self.file(b"from a file")

        self.passed("kv", "put", "a", f"@{path}")

        self.assertEqual(self.passed("kv", "get", "a"), "from a file")
        self.assertEqual(self.txraft("kv", "put", "a", "@/not/there").exit_code, 2)

    def test_get_of_an_absent_key(self) -> None:
        """Status 1, nothing on standard output, and a sentence beside it."""
        result = self.txraft("kv", "get", "a")

        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("there is no key 'a'", result.stderr)

    def test_get_as_json(self) -> None:
        """JSON has the shape of the HTTP API."""
        self.passed("kv", "put", "a", "x", "--flags", "7")

        found = json.loads(self.passed("kv", "get", "a", "--json"))

        self.assertEqual(
            (found["Key"], found["Value"], found["Flags"]), ("a", "eA==", 7)
        )

    def test_cas(self) -> None:
        """An index that has passed is status 1, and nothing is written."""
        self.passed("kv", "put", "a", "1", "--cas", "0")

        result = self.txraft("kv", "put", "a", "2", "--cas", "0")

        self.assertEqual(result.exit_code, 1)
        self.assertEqual(self.passed("kv", "get", "a"), "1")
        self.assertEqual(self.txraft("kv", "delete", "a", "--cas", "999").exit_code, 1)

    def test_delete(self) -> None:
        """A key, or all that begin with it."""
        for key in ("a", "d/1", "d/2"):
            self.passed("kv", "put", key, "x")

        self.passed("kv", "delete", "a")
        self.passed("kv", "delete", "d/", "--recurse")

        self.assertEqual(self.passed("kv", "list"), "")


class ManyKeys(CommandCase):
    """`kv list`, `export`, `import` and `watch`."""

    def setUp(self) -> None:
        super().setUp()
        for key, value in {"a/1": "x", "a/2": "", "b": "y"}.items():
            self.passed("kv", "put", key, f"{value}" or "@/dev/null")

    def test_list(self) -> None:
        """One name a line; with a separator, one level of names."""
        self.assertEqual(self.passed("kv", "list"), "a/1\na/2\nb\n")
        self.assertEqual(self.passed("kv", "list", "-s", "/"), "a/\nb\n")
        self.assertEqual(
            json.loads(self.passed("kv", "list", "a", "--json")), ["a/1", "a/2"]
        )

    def test_list_long(self) -> None:
        """A table for people, records for machines."""
        table = self.passed("kv", "list", "--long").splitlines()
        records = json.loads(self.passed("kv", "list", "--long", "--json"))

        self.assertEqual(table[0].split()[:3], ["KEY", "BYTES", "FLAGS"])
        self.assertEqual(
            [line.split()[:2] for line in table[1:]],
            [["a/1", "1"], ["a/2", "0"], ["b", "1"]],
        )
        self.assertEqual([r["Value"] for r in records], ["eA==", "", "eQ=="])

    def test_export_and_import(self) -> None:
        """What was exported can be imported, under another prefix too."""
        exported = self.passed("kv", "export", "a/")

        said = self.passed(
            "kv", "import", str(self.file(exported.encode())), "--prefix", "c/"
        )

        self.assertEqual(said, "Imported 2 keys.\n")
        self.assertEqual(self.passed("kv", "get", "c/a/1"), "x")
        self.assertEqual(self.passed("kv", "get", "c/a/2"), "")

    def test_import_of_what_consul_writes(self) -> None:
        """The form of `consul kv export`: tabs, base64, flags."""
        fields = ('"key": "old"', '"flags": 42', '"value": "AAE="')
        exported = ("[\n\t{\n\t\t" + ",\n\t\t".join(fields) + "\n\t}\n]\n").encode()

        self.passed("kv", "import", "-", stdin=exported)

        found = json.loads(self.passed("kv", "get", "old", "--json"))
        self.assertEqual((found["Value"], found["Flags"]), ("AAE=", 42))

    def test_import_of_something_else(self) -> None:
        """What is no export is wrong usage, and nothing is written."""
        for data in (b"", b"{}", b"[1]", b'[{"key": "z", "value": "!"}]', b"[{}]"):
            before = self.passed("kv", "list")
            result = self.txraft("kv", "import", "-", stdin=data)
            self.assertEqual(result.exit_code, 2, data)
            self.assertEqual(self.passed("kv", "list"), before)

    def test_watch(self) -> None:
        """The present state at once; as JSON, one line each."""
        self.assertEqual(self.passed("kv", "watch", "b", "--count", "1"), "y\n")
        lines = self.passed("kv", "watch", "a/", "--prefix", "--count", "1", "--json")
        self.assertEqual([r["Key"] for r in json.loads(lines)], ["a/1", "a/2"])


class Batches(CommandCase):
    """Transactions of an import."""

    def test_batches(self) -> None:
        """No more operations, and hardly more bytes, than a node takes at once."""
        many = [Operation.set(f"k{i}", b"") for i in range(2 * MAX_OPERATIONS + 1)]
        large = [Operation.set(f"k{i}", bytes(100_000)) for i in range(6)]

        self.assertEqual([len(b) for b in batches(many)], [64, 64, 1])
        self.assertEqual([len(b) for b in batches(large)], [2, 2, 2])
        self.assertEqual(list(batches([])), [])
