"""The store in LMDB: what outlives a process, what is refused, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import (
    DataCorrupted,
    FormatTooNew,
    LogNotFound,
    StorageError,
    WrongNode,
)
from txraft.storage import lmdbstore
from txraft.storage.lmdbstore import LMDBStore
from txraft.testing.contracts.samples import command, commands

CHECKOUT = Path(__file__).parents[2]


class Environments(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def open(self, name: str = "n1", **options: int) -> LMDBStore:
        store = LMDBStore(self.path, name, **options)
        self.addCleanup(store.close)
        return store

    def put(self, database: bytes, key: bytes, value: bytes | None) -> None:
        """Change what is on disk, past the store."""
        with lmdb.open(str(self.path), max_dbs=3) as environment:
            db = environment.open_db(database)
            with environment.begin(write=True) as transaction:
                if value is None:
                    transaction.delete(key, db=db)
                else:
                    transaction.put(key, value, db=db)

    def test_reopened(self) -> None:
        """Log and state are there after a restart."""
        store = self.open()
        store.store_logs(commands(5, 9))
        store.delete_range(5, 6)
        store.set_many({b"CurrentTerm": b"12345678", b"": b"empty key"})
        store.close()

        store = self.open()

        self.assertEqual((store.first_index(), store.last_index()), (7, 9))
        self.assertEqual(store.get_logs(7, 9, 1 << 20), commands(7, 9))
        self.assertEqual(store.get_log(8).encoded, command(8).encoded)
        self.assertEqual(store.get(b"CurrentTerm"), b"12345678")
        self.assertEqual(store.get(b""), b"empty key")

    def test_reopened_after_a_tail_was_replaced(self) -> None:
        """Nothing of what was replaced comes back."""
        store = self.open()
        store.store_logs(commands(1, 9))
        store.store_logs(commands(4, 5, term=2))
        store.close()

        store = self.open()

        self.assertEqual(store.last_index(), 5)
        self.assertEqual(store.get_logs(4, 9, 1 << 20), commands(4, 5, term=2))

    def test_durable_without_close(self) -> None:
        """What was stored is there although the process ended without a word."""
        program = (
            "import os, sys;"
            "from txraft.storage.lmdbstore import LMDBStore;"
            "from txraft.testing.contracts.samples import commands;"
            "store = LMDBStore(sys.argv[1], 'n1');"
            "store.store_logs(commands(1, 3)); store.set(b'k', b'v');"
            "os._exit(7)"
        )
        arguments = [sys.executable, "-c", program, str(self.path.absolute())]
        ended = subprocess.run(arguments, cwd=CHECKOUT, check=False)
        self.assertEqual(ended.returncode, 7)

        store = self.open()

        self.assertEqual(store.get_logs(1, 3, 1 << 20), commands(1, 3))
        self.assertEqual(store.get(b"k"), b"v")

    def test_mode(self) -> None:
        """The file is for its owner alone."""
        self.open()
        self.assertEqual((self.path / "data.mdb").stat().st_mode & 0o777, 0o600)

    def test_map_grows(self) -> None:
        """A full map is made larger, and the write that found it full is done."""
        store = self.open(map_bytes=1 << 16)

        for index in range(1, 41):
            store.store_log(command(index, data=bytes(16384)))
        store.set(b"k", bytes(100_000))

        self.assertEqual(store.last_index(), 40)
        self.assertEqual(store.get_log(40), command(40, data=bytes(16384)))
        store.close()
        self.assertEqual(self.open().last_index(), 40)

    def test_reads_beside_writes(self) -> None:
        """Another thread reads whole entries while the log and its map grow."""
        store = self.open(map_bytes=1 << 16)
        store.store_log(command(1))
        wrong: list[object] = []
        done = Event()

        def read() -> None:
            while not done.is_set():
                first, last = store.first_index(), store.last_index()
                try:
                    found = store.get_logs(first, last, 1 << 16)
                except LogNotFound:
                    continue
                except Exception as error:
                    wrong.append(error)
                    return
                if [entry.index for entry in found] != [
                    *range(first, first + len(found))
                ]:
                    wrong.append(found)

        reader = Thread(target=read)
        reader.start()
        for index in range(2, 200):
            store.store_log(command(index, data=bytes(8192)))
            if index % 50 == 0:
                store.delete_range(store.first_index(), index - 25)
        done.set()
        reader.join()

        self.assertEqual(wrong, [])

    def test_failed_write_is_final(self) -> None:
        """A map at its bound fails the write, whole, and all later ones."""
        store = self.open(map_bytes=1 << 18, max_map_bytes=1 << 18)
        store.store_logs(commands(1, 2))
        large = [command(3), command(4, data=bytes(1 << 18))]

        error = self.assertRaises(StorageError, store.store_logs, large)
        self.assertIn("max_map_bytes", str(error))
        for write in (
            lambda: store.store_log(command(3)),
            lambda: store.set(b"k", b"v"),
            lambda: store.delete_range(1, 1),
        ):
            self.assertIs(self.assertRaises(StorageError, write), error)

        self.assertEqual(store.last_index(), 2)
        store.close()
        self.assertEqual(self.open().get_logs(1, 9, 1 << 20), commands(1, 2))

    def test_large_deletions_go_in_pieces(self) -> None:
        """Both ends can lose more entries than one transaction deletes."""
        self.patch(lmdbstore, "MAX_DELETED_ENTRIES", 3)
        store = self.open()
        store.store_logs(commands(1, 20))

        store.delete_range(1, 8)
        store.delete_range(13, 20)

        self.assertEqual(store.get_logs(9, 20, 1 << 20), commands(9, 12))
        store.close()
        again = self.open()
        self.assertEqual((again.first_index(), again.last_index()), (9, 12))

    def test_another_node(self) -> None:
        """The store of another node is refused, naming both."""
        self.open().close()

        error = self.assertRaises(WrongNode, self.open, "n2")

        self.assertIn("belongs to node 'n1' and this is node 'n2'", str(error))

    def test_newer_format(self) -> None:
        """A format to come is refused by its number."""
        self.open().close()
        self.put(b"about", b"format", bytes([0, 0, 0, 9]))

        self.assertIn("format 9", str(self.assertRaises(FormatTooNew, self.open)))

    def test_no_format(self) -> None:
        """A store that has lost what it is, is damaged."""
        self.open().close()
        self.put(b"about", b"format", None)

        self.assertRaises(DataCorrupted, self.open)

    def test_not_an_environment(self) -> None:
        """A file that LMDB does not know is damage, and names the directory."""
        self.path.mkdir()
        (self.path / "data.mdb").write_bytes(b"nonsense" * 1024)

        error = self.assertRaises(DataCorrupted, self.open)

        self.assertIn(f"{self.path}: its data.mdb is no file of LMDB's", str(error))

    def test_damaged_entry(self) -> None:
        """An entry that has changed, or stands at another's place, is refused."""
        store = self.open()
        store.store_logs(commands(1, 2))
        stored = {}
        with store._environment.begin(store._log) as transaction:
            stored = dict(transaction.cursor())
        store.close()
        one, two = sorted(stored)
        flipped = stored[one][:-1] + bytes([stored[one][-1] ^ 1])
        for value in (flipped, stored[two], b"", b"abc"):
            self.put(b"log", one, value)
            damaged = self.open()
            self.assertRaises(DataCorrupted, damaged.get_log, 1)
            self.assertEqual(damaged.get_log(2), command(2))
            damaged.close()

    def test_damaged_state(self) -> None:
        """A term or vote that has changed is refused."""
        store = self.open()
        store.set(b"CurrentTerm", bytes(8))
        store.close()
        self.put(b"state", b"=CurrentTerm", bytes(12))

        self.assertRaises(DataCorrupted, self.open().get, b"CurrentTerm")

    def test_gap(self) -> None:
        """A log that misses an entry in its middle is refused."""
        store = self.open()
        store.store_logs(commands(1, 3))
        store.close()
        self.put(b"log", bytes(7) + b"\x02", None)

        self.assertRaises(DataCorrupted, self.open)


class Sentences(SynchronousTestCase):
    """What LMDB refuses is told as a sentence that names the environment."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_every_error_of_lmdb(self) -> None:
        """Damage is told from what is none; LMDB's own words come along."""
        kinds = [
            kind
            for kind in vars(lmdb).values()
            if isinstance(kind, type) and issubclass(kind, lmdb.Error)
        ]
        damage = []
        for kind in kinds:
            error = lmdbstore.sentence_of(kind("MDB_X"), self.path)
            self.assertTrue(str(error).startswith(f"{self.path}: "), str(error))
            self.assertIn("MDB_X", str(error))
            if isinstance(error, DataCorrupted):
                damage.append(kind)
                self.assertIn("restore the data directory", str(error))

        self.assertCountEqual(
            damage,
            [
                lmdb.InvalidError,
                lmdb.VersionMismatchError,
                lmdb.CorruptedError,
                lmdb.PageNotFoundError,
            ],
        )

    def test_open_twice(self) -> None:
        """An environment that is open already is no damage."""
        store = LMDBStore(self.path, "n1")
        self.addCleanup(store.close)

        error = self.assertRaises(StorageError, LMDBStore, self.path, "n1")

        self.assertNotIsInstance(error, DataCorrupted)
        self.assertIn(f"{self.path}: LMDB refuses", str(error))

    def test_read_of_a_file_that_was_cut(self) -> None:
        """What a read finds out is told as the rest is."""
        store = LMDBStore(self.path, "n1")
        self.addCleanup(store.close)

        def broken(*_: object) -> object:
            raise lmdb.PageNotFoundError("MDB_PAGE_NOTFOUND")

        environment, store._environment = store._environment, Broken(broken)  # type: ignore[assignment]
        self.addCleanup(environment.close)

        for read in (lambda: store.get(b"k"), lambda: store.get_logs(1, 1, 0)):
            error = self.assertRaises(DataCorrupted, read)
            self.assertIn("a page is missing", str(error))


class Broken:
    """An environment none of whose transactions begins, and that is never open."""

    def __init__(self, begin: object) -> None:
        self.begin = begin

    def close(self) -> None:
        """Have nothing to close."""
