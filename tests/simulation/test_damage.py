"""Damage at rest as whole nodes get it: it never passes for a torn write."""

from __future__ import annotations

from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.crash_images import LOG, STATE, Entries, Stores
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import DataCorrupted, StorageError
from txraft.node.synced_note import LogEnd, encoded_note
from txraft.testing.fullstack.damage import CUTS, cut, strike
from txraft.testing.fullstack.disk import SimulatedDisk, Survival
from txraft.testing.fullstack.simulation import FullSimulation
from txraft.wire.entries import encode_new

DATA = Path("/data")
MEMBERS = Configuration.of_voters(("n1", "n2"))
OWNER = "n1"
SEED_WITH_CUTS = 40


def made(segment: int) -> SimulatedDisk:
    """Return a disk with entries in one or many segments, a term and a snapshot."""
    disk = SimulatedDisk()
    disk.make_directory(DATA)
    stores = Stores(disk, Random(0), segment)
    for index in range(1, 9):
        entry = Entry(index, 1, LogType.COMMAND, b"command %d" % index)
        encode_new(entry, 1)
        stores.log.store_logs([entry])
    stores.stable.set_uint64(b"CurrentTerm", 7)
    sink = stores.snapshots.create(4, 1, MEMBERS, 1)
    sink.write(b"state" * 30)
    sink.close()
    stores.close()
    disk.sync_directory(DATA)
    disk.sync_directory(Path("/"))
    return disk


def read(disk: SimulatedDisk) -> tuple[Entries, int, bytes]:
    """Read all that is on *disk*. Raises: StorageError"""
    stores = Stores(disk, Random(1), 1 << 20)
    try:
        [meta] = stores.snapshots.list() or [None]
        if meta is None:
            raise StorageError("the snapshot is left out")
        with stores.snapshots.open(meta.id)[1] as file:
            state = file.read()
        return stores.entries(), stores.stable.get_uint64(b"CurrentTerm"), state
    finally:
        stores.close()


class Strikes(SynchronousTestCase):
    """A byte of any file that has a checksum, but for what may be torn."""

    def test_damage_is_refused_wherever_it_is(self) -> None:
        """No node starts with less than it had."""
        struck = set()
        for segment in (200, 1 << 20):
            good = made(segment)
            for seed in range(150):
                disk = good.after_power_failure(Survival())
                damage = strike(disk, DATA, OWNER, Random(seed))
                assert damage is not None
                struck.add(damage.path.name)

                self.assertRaises(StorageError, read, disk)

        self.assertTrue({"state", "meta.json", "state.bin"} < struck)
        self.assertGreater(len(struck), 5)

    def test_undone(self) -> None:
        """The right byte comes back, where the wrong one still is."""
        good = made(200)
        whole = read(good.after_power_failure(Survival()))
        for seed in range(30):
            disk = good.after_power_failure(Survival())
            damage = strike(disk, DATA, OWNER, Random(seed))
            assert damage is not None

            damage.undo(disk)

            self.assertEqual(read(disk), whole)

    def test_undone_after_the_file_was_replaced(self) -> None:
        """What is new is left alone, and what is gone is no fault."""
        disk = made(200)
        damage = strike(disk, DATA, OWNER, Random(0))
        assert damage is not None
        disk.file(damage.path).data[:] = b""

        damage.undo(disk)

        self.assertEqual(disk.file(damage.path).data, b"")
        disk.unlink(damage.path)
        damage.undo(disk)
        self.assertFalse(disk.exists(damage.path))

    def test_nothing_to_strike(self) -> None:
        """An empty disk has nothing that could be damaged."""
        disk = SimulatedDisk()
        disk.make_directory(DATA)

        self.assertIsNone(strike(disk, DATA, OWNER, Random(0)))
        self.assertFalse(disk.exists(LOG) or disk.exists(STATE))


class Cuts(SynchronousTestCase):
    """The newest entries of a log go, if it is noted that they were there."""

    def noted(self, end: int) -> SimulatedDisk:
        """Return a disk whose log of 8 entries is noted as synced up to *end*."""
        disk = made(200)
        stores = Stores(disk, Random(0), 200)
        stores.stable.set_many(encoded_note(LogEnd(end, 1), 7, 1))
        stores.close()
        return disk

    def test_each_kind_loses_what_is_noted(self) -> None:
        """And brought back, it is the log that it was."""
        whole = read(self.noted(8))
        kinds = set()
        for seed in range(30):
            disk = self.noted(8)
            found = cut(disk, DATA, OWNER, Random(seed))
            assert found is not None
            kinds.add(found.kind)

            entries, *others = read(disk)
            self.assertLess(len(entries), 8)
            self.assertEqual(others, [7, b"state" * 30])

            found.undo(disk)
            self.assertEqual(read(disk), whole)
        self.assertEqual(kinds, set(CUTS))

    def test_what_is_not_noted_is_not_cut(self) -> None:
        """Nobody could tell; nor where a snapshot stands for what would be lost."""
        for end in (0, 4, 7):
            disk = self.noted(end)
            self.assertIsNone(cut(disk, DATA, OWNER, Random(0)))
            self.assertEqual(read(disk), read(made(200)))

    def test_verdicts(self) -> None:
        """A start has to refuse in the right words, or to have lost nothing."""
        found = cut(self.noted(8), DATA, OWNER, Random(0))
        assert found is not None

        found.check_started(8)
        found.check_refused(DataCorrupted("the log was synced up to index 8 of term 1"))
        found.check_refused(DataCorrupted("1.seg: the file is missing, needed for 7"))

        self.assertRaises(AssertionError, found.check_started, 7)
        for wrong in (DataCorrupted("?"), StorageError("synced up to index 8")):
            self.assertRaises(AssertionError, found.check_refused, wrong)

    def test_whole_nodes_refuse_logs_that_were_cut(self) -> None:
        """Each start of a storm with many cuts."""
        simulation = FullSimulation(SEED_WITH_CUTS)

        simulation.run()

        self.flushLoggedErrors()
        self.assertGreater(simulation.tally["cut logs"], 3)
