"""Snapshot stores, in memory and in directories that Go peers can read."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import UNSYNCED, Disk, PowerFailed
from tests.support.snapshots import BASE, SNAPSHOTS, Clock, file_store
from txraft.errors import DataCorrupted, StorageError
from txraft.interfaces import SnapshotSink, SnapshotStore
from txraft.storage.filesystem import OsFileSystem
from txraft.storage.memory import InmemSnapshotStore
from txraft.storage.snapshots import (
    DiscardSnapshotStore,
    FileSnapshotSink,
    FileSnapshotStore,
)
from txraft.testing.contracts import SnapshotStoreContract
from txraft.testing.contracts.samples import TRIO
from txraft.testing.contracts.snapshots import read, write


class InMemory(SnapshotStoreContract, SynchronousTestCase):
    """The contract, in memory."""

    def make_store(self) -> SnapshotStore:
        return InmemSnapshotStore()


class InFiles(SnapshotStoreContract, SynchronousTestCase):
    """The contract, in files in memory."""

    def make_store(self) -> SnapshotStore:
        return file_store(Disk())


class OnTheOperatingSystem(SnapshotStoreContract, SynchronousTestCase):
    """The contract, in real files."""

    def make_store(self) -> SnapshotStore:
        return FileSnapshotStore(self.mktemp(), 2)


class Discarded(SynchronousTestCase):
    """The store that keeps nothing."""

    def test_discard(self) -> None:
        """Everything is taken and nothing is there."""
        store = DiscardSnapshotStore()

        self.assertEqual(write(store, 1, b"data"), "discard")
        store.create(1, 1, TRIO, 1).cancel()

        self.assertEqual(store.list(), [])
        error = self.assertRaises(StorageError, store.open, "discard")
        self.assertIn("open is not supported", str(error))


class Directories(SynchronousTestCase):
    """Names, order and clean-up."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.clock = Clock()

    def open(self, retain: int = 2) -> FileSnapshotStore:
        return FileSnapshotStore(BASE, retain, self.disk, milliseconds=self.clock)

    def test_names(self) -> None:
        """A name is term, index and time; it ends in .tmp until it is complete."""
        sink = self.open().create(10, 3, TRIO, 5)
        self.assertEqual(sink.id, "3-10-1000")
        self.assertEqual(self.disk.list(SNAPSHOTS), ["3-10-1000.tmp"])
        begun = self.disk.content(SNAPSHOTS / "3-10-1000.tmp" / "meta.json").data
        self.assertIn(b'"Size":0,"CRC":null}\n', begun)

        sink.close()

        self.assertEqual(self.disk.list(SNAPSHOTS), ["3-10-1000"])
        self.assertEqual(
            self.disk.list(SNAPSHOTS / "3-10-1000"), ["meta.json", "state.bin"]
        )

    def test_time_that_goes_back(self) -> None:
        """Later names stay later, also after a restart."""
        store = self.open()
        first = write(store, 10, b"one")
        self.clock.now = 500
        second = write(store, 10, b"two")
        third = write(self.open(), 10, b"three")

        self.assertEqual(
            [first, second, third], [f"1-10-{n}" for n in (1000, 1001, 1002)]
        )
        self.assertEqual([meta.id for meta in store.list()], [third, second])

    def test_retain(self) -> None:
        """Only the newest are kept."""
        store = self.open(retain=2)

        ids = [write(store, index, b"%d" % index) for index in (1, 2, 3)]

        self.assertEqual([meta.id for meta in store.list()], ids[:0:-1])
        self.assertEqual(self.disk.list(SNAPSHOTS), ids[1:])
        self.assertEqual([meta.id for meta in self.open(retain=1).list()], ids[2:])

    def test_cluster(self) -> None:
        """A snapshot names its cluster in a key of its own, if that is known."""
        store = self.open()
        store.create_for(b"C" * 16, 10, 3, TRIO, 5).close()
        write(store, 11, b"state")

        metas = self.open().list()

        self.assertEqual([meta.cluster for meta in metas], [b"C" * 16, b""])
        self.assertNotIn("Cluster", self.description(metas[1].id))
        self.assertEqual(
            self.description(metas[0].id)["Cluster"], "Q0NDQ0NDQ0NDQ0NDQ0NDQw=="
        )

    def description(self, id: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            bytes(self.disk.content(SNAPSHOTS / id / "meta.json").data)
        )
        return found

    def test_reap_in_order(self) -> None:
        """A snapshot has lost its name for good before anything of it is removed."""
        store = self.open(retain=2)
        for index in (1, 2):
            write(store, index, b"x")
        again = self.open(retain=1)
        self.disk.operations.clear()

        again.reap()

        self.assertEqual(
            self.disk.operations,
            ["rename", "sync_directory", "unlink", "unlink", "remove_directory"],
        )

    def test_retain_of_none(self) -> None:
        """At least one is kept."""
        self.assertRaises(ValueError, self.open, 0)

    def test_sweep(self) -> None:
        """Unfinished ones are removed at the next start, other things stay."""
        self.open().create(10, 3, TRIO, 5).write(b"x")
        self.disk.make_directory(SNAPSHOTS / "notes.tmp")
        self.disk.create(SNAPSHOTS / "1-1-1.tmp")

        store = self.open()

        self.assertEqual(self.disk.list(SNAPSHOTS), ["1-1-1.tmp", "notes.tmp"])
        self.assertEqual(store.list(), [])
        self.assertEqual(store.warnings, [])

    def test_list_skips_what_cannot_be_read(self) -> None:
        """A damaged description is left out with a warning, the older one stays."""
        store = self.open(retain=3)
        good, bad, gone, new = (write(store, index, b"s") for index in (1, 2, 3, 4))
        del good
        self.disk.content(SNAPSHOTS / bad / "meta.json").data[0] = 0
        self.disk.unlink(SNAPSHOTS / gone / "meta.json")

        self.assertEqual([meta.id for meta in store.list()], [new])
        self.assertEqual(len(store.warnings), 2)
        self.assertIn(f"{bad}/meta.json", store.warnings[0])
        self.assertIn(gone, store.warnings[1])

    def test_descriptions_that_are_refused(self) -> None:
        """A description that is wrong in any field is no snapshot."""
        store = self.open()
        id = write(store, 1, b"state")
        data = self.disk.content(SNAPSHOTS / id / "meta.json").data
        fields = json.loads(bytes(data))
        del fields["Check"]
        changes: list[tuple[str, object]] = [
            ("Version", 2),
            ("Version", "1"),
            ("ID", "1-1-999"),
            ("Index", -1),
            ("Index", 1.5),
            ("Term", None),
            ("Term", True),
            ("Configuration", None),
            ("Configuration", {"Servers": 1}),
            ("Configuration", {"Servers": [1]}),
            ("Configuration", {"Servers": [{"ID": "a", "Address": 5, "Suffrage": 0}]}),
            (
                "Configuration",
                {"Servers": [{"ID": "a", "Address": "a", "Suffrage": 9}]},
            ),
            ("Size", 2**64),
            ("CRC", None),
            ("CRC", "AAAA"),
            ("CRC", "!"),
            ("Cluster", 1),
            ("Cluster", "!"),
        ]
        for key, value in changes:
            data[:] = json.dumps({**fields, key: value}).encode()
            self.assertEqual(store.list(), [])
            self.assertRaises(StorageError, store.open, id)
        for text in (b"", b"null", b"[]", b"[" * 5000, b"\xff", b"{}" + bytes(1 << 20)):
            data[:] = text
            self.assertEqual(store.list(), [])
        data[:] = json.dumps(fields).encode()
        self.assertEqual(len(store.list()), 1)

    def test_any_byte_of_a_description_flipped(self) -> None:
        """It is refused, or says the same: not another term, index or membership."""
        store = self.open()
        id = write(store, 1, b"state")
        data = self.disk.content(SNAPSHOTS / id / "meta.json").data
        [meta] = store.list()
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                self.assertIn(store.list(), ([], [meta]), (at, bit))
                data[at] ^= 1 << bit
        self.assertEqual(store.list(), [meta])

    def test_directory_without_permission(self) -> None:
        """A store that cannot write says so at once."""
        self.open()
        self.disk.failures["create"] = errno.EACCES

        self.assertRaises(PermissionError, self.open)


class Damage(SynchronousTestCase):
    """A state whose checksum is wrong is never handed out."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = file_store(self.disk)
        self.id = write(self.store, 10, b"the whole state of a machine")
        self.state = SNAPSHOTS / self.id / "state.bin"

    def check(self) -> None:
        error = self.assertRaises(DataCorrupted, self.store.open, self.id)
        self.assertIn(str(self.state), str(error))
        self.assertEqual([meta.id for meta in self.store.list()], [self.id])

    def test_any_byte_flipped(self) -> None:
        """Every flip in the state is found."""
        data = self.disk.content(self.state).data
        for offset in range(len(data)):
            data[offset] ^= 1 << offset % 8
            self.check()
            data[offset] ^= 1 << offset % 8
        self.assertEqual(read(self.store, self.id), bytes(data))

    def test_cut_anywhere(self) -> None:
        """So is every cut, and what was added."""
        data = self.disk.content(self.state).data
        whole = bytes(data)
        for size in range(len(whole)):
            data[:] = whole[:size]
            self.check()
        data[:] = whole + b"\0"
        self.check()

    def test_any_byte_of_the_description_flipped(self) -> None:
        """A flip in the description never brings back another state."""
        data = self.disk.content(SNAPSHOTS / self.id / "meta.json").data
        whole = bytes(data)
        for offset in range(len(whole)):
            data[offset] ^= 1 << offset % 8
            with contextlib.suppress(StorageError):
                self.assertEqual(read(self.store, self.id)[:9], b"the whole")
            data[:] = whole

    def test_state_missing(self) -> None:
        """A description without a state is damage."""
        self.disk.unlink(self.state)
        self.check()

    def test_several_pieces(self) -> None:
        """A large state is checked to its end."""
        state = bytes(range(256)) * 12_000
        id = write(self.store, 11, state)
        self.assertEqual(read(self.store, id), state)
        self.disk.content(SNAPSHOTS / id / "state.bin").data[-1] ^= 1

        self.assertRaises(DataCorrupted, self.store.open, id)


class Failures(SynchronousTestCase):
    """A snapshot that cannot be finished leaves nothing behind."""

    def take(self, disk: Disk, operation: str) -> None:
        store = file_store(disk)
        sink: SnapshotSink | None = None
        disk.failures[operation] = errno.ENOSPC
        try:
            sink = store.create(10, 1, TRIO, 5)
            sink.write(b"x" * 200_000)
        except OSError:
            if sink is not None:
                self.assertRaises(OSError, sink.close)
            raise
        sink.close()

    def test_every_operation(self) -> None:
        """Errors of each kind are raised, and the older snapshot stays alone."""
        for operation in ("make_directory", "create", "write_at", "sync", "rename"):
            disk = Disk()
            older = write(file_store(disk), 5, b"older")

            error = self.assertRaises(OSError, self.take, disk, operation)

            self.assertEqual(error.errno, errno.ENOSPC, operation)
            self.assertEqual(disk.list(SNAPSHOTS), [older])

    def test_failed_write_is_not_forgotten(self) -> None:
        """A sink that lost bytes cannot be closed into a snapshot."""
        disk = Disk()
        store = file_store(disk)
        sink = store.create(10, 1, TRIO, 5)
        disk.failures["write_at"] = errno.EIO
        self.assertRaises(OSError, sink.write, b"x" * 200_000)

        self.assertRaises(OSError, sink.close)

        self.assertEqual(disk.list(SNAPSHOTS), [])

    def test_power_cuts(self) -> None:
        """After any cut a listed snapshot is whole, and an acknowledged one is
        there, or a newer one."""
        states = {1: b"one" * 30_000, 2: b"two", 3: b"three"}

        def life(disk: Disk) -> int:
            done = 0
            with contextlib.suppress(PowerFailed):
                store = file_store(disk, retain=1)
                for index, state in states.items():
                    write(store, index, state)
                    done = index
            return done

        def check(store: FileSnapshotStore, least: int) -> int:
            found = store.list()
            self.assertEqual(store.warnings, [])
            for meta in found:
                self.assertEqual(read(store, meta.id), states[meta.index])
            newest = found[0].index if found else 0
            self.assertGreaterEqual(newest, least)
            return newest

        disk = Disk()
        self.assertEqual(life(disk), 3)
        for cut in range(1, len(disk.operations) + 1):
            for unsynced in UNSYNCED:
                disk = Disk()
                disk.cut_after = cut
                done = life(disk)

                check(file_store(disk.after_power_cut(unsynced)), done)

                disk.cut_after = None
                seen = check(file_store(disk), done)
                check(file_store(disk.after_power_cut(unsynced)), seen)


class Modes(SynchronousTestCase):
    """Files on the operating system."""

    def test_modes(self) -> None:
        """Snapshots are for their owner alone."""
        base = Path(self.mktemp())
        id = write(FileSnapshotStore(base, 1, OsFileSystem()), 1, b"x")

        folder = base / "snapshots" / id
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        for name in ("meta.json", "state.bin"):
            self.assertEqual((folder / name).stat().st_mode & 0o777, 0o600)


class Staged(SynchronousTestCase):
    """A snapshot that is read before it has its name."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.store = file_store(self.disk)

    def names(self, disk: Disk | None = None) -> list[str]:
        return (disk or self.disk).list(SNAPSHOTS)

    def staged(self, index: int, data: bytes = b"state") -> FileSnapshotSink:
        sink = self.store.create(index, 1, TRIO, 5)
        sink.write(data)
        with sink.stage() as source:
            self.assertEqual(source.read(), data)
        return sink

    def test_stage_is_durable_but_for_the_name(self) -> None:
        """So `close` has no data to sync; a start does away with what is staged."""
        sink = self.staged(7)
        image = self.disk.after_power_cut("names")
        file_store(image)
        self.assertEqual(self.names(image), [])
        before = len(self.disk.operations)

        sink.close()

        self.assertEqual(self.disk.operations[before:], ["rename", "sync_directory"])
        self.assertEqual(
            read(file_store(self.disk.after_power_cut("lost")), sink.id), b"state"
        )

    def test_damage_is_found_before_it_is_read(self) -> None:
        """What the disk does not give back as it was written is not restored."""
        sink = self.store.create(7, 1, TRIO, 5)
        sink.write(b"state")
        path = SNAPSHOTS / f"{sink.id}.tmp" / "state.bin"
        syncing = sink._sync

        def sync() -> None:
            syncing()
            self.disk.content(path).data[2] ^= 1

        sink._sync = sync  # type: ignore[method-assign]

        self.assertRaises(DataCorrupted, sink.stage)

        sink.cancel()
        self.assertEqual(self.names(), [])

    def test_set_aside(self) -> None:
        """The latest one is kept, beside what is listed; its files are closed."""
        listed = write(self.store, 5, b"whole")
        self.staged(7).set_aside()

        sink = self.staged(8, b"bad")
        where = sink.set_aside()

        self.assertEqual(where, str(SNAPSHOTS / f"{sink.id}.unrestored"))
        self.assertEqual(self.names(), [listed, f"{sink.id}.unrestored"])
        self.assertEqual(self.disk.open_files, 0)
        again = file_store(self.disk.after_power_cut("lost"))
        self.assertEqual([meta.id for meta in again.list()], [listed])
        self.assertEqual((again.left_out, again.warnings), ([], []))
        self.assertEqual(
            bytes(self.disk.content(Path(where) / "state.bin").data), b"bad"
        )

    def test_set_aside_after_the_end(self) -> None:
        """The first end wins."""
        sink = self.staged(7)
        sink.close()

        self.assertEqual(sink.set_aside(), "")

        self.assertEqual(self.names(), [sink.id])

    def test_power_cut_anywhere(self) -> None:
        """What is set aside is never taken for a snapshot; what is closed is one."""
        for end, indexes in (("set_aside", ([5],)), ("close", ([5], [7, 5]))):
            operations = 0
            while True:
                self.setUp()
                write(self.store, 5, b"whole")
                self.disk.cut_after = len(self.disk.operations) + operations
                try:
                    getattr(self.staged(7), end)()
                except PowerFailed:
                    pass
                else:
                    break
                for unsynced in UNSYNCED:
                    again = file_store(self.disk.after_power_cut(unsynced))
                    found = [meta.index for meta in again.list()]
                    self.assertIn(found, indexes)
                    if found[0] == 7:
                        self.assertEqual(read(again, again.list()[0].id), b"state")
                operations += 1
            self.assertGreater(operations, 8)


class Strays(SynchronousTestCase):
    """Directories that somebody else has made among the snapshots."""

    def test_stray_in_a_snapshot(self) -> None:
        """It does not keep others from being taken; it stays, and is told of."""
        disk = Disk()
        store = file_store(disk, retain=1)
        old = write(store, 5, b"old")
        stray = SNAPSHOTS / old / "stray"
        disk.make_directory(stray)

        new = write(store, 6, b"new")

        left = SNAPSHOTS / f"{old}.tmp"
        self.assertEqual([meta.id for meta in store.list()], [new])
        self.assertEqual(disk.list(left), ["stray"])
        self.assertIn(str(left / "stray"), store.warnings[0])
        again = file_store(disk, retain=1)
        self.assertEqual([meta.id for meta in again.list()], [new])
        self.assertIn(
            f"{left / 'stray'}: this directory is not ours", again.warnings[0]
        )
        self.assertIn("move it away", again.warnings[0])

    def test_stray_beside_the_snapshots(self) -> None:
        """It does not matter."""
        disk = Disk()
        store = file_store(disk)
        disk.make_directory(SNAPSHOTS / "lost+found")
        id = write(store, 5, b"state")

        again = file_store(disk)

        self.assertEqual([meta.id for meta in again.list()], [id])
        self.assertEqual(again.warnings, [])

    def test_stray_in_the_place_of_a_file(self) -> None:
        """It is named, with what to do."""
        disk = Disk()
        file_store(disk)
        disk.make_directory(SNAPSHOTS / "permTest")

        error = self.assertRaises(StorageError, file_store, disk)

        self.assertIn("permTest: a directory is in the way", str(error))
