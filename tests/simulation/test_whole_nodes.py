"""Whole nodes in a simulated world, and the parts of that world by themselves."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.campaign import run_full
from txraft.testing.fullstack.disk import (
    Chance,
    PowerFailed,
    SimulatedDisk,
    Survival,
)
from txraft.testing.fullstack.faults import POINTS
from txraft.testing.fullstack.register_fsm import KINDS
from txraft.testing.fullstack.simulation import FullSimulation
from txraft.testing.fullstack.workload import FORWARDED_COMMANDS, FORWARDED_READS

SEEDS = range(60, 84)
SEED_WITH_DAMAGE = 6
"""A byte of some file goes bad, and which one hangs on the sizes of all."""

FILE = Path("/file")


class WholeNodes(SynchronousTestCase):
    """Storms over nodes as users run them, and what must follow."""

    def test_nodes_live_through_the_storms_of_some_seeds(self) -> None:
        """Faults lose nothing, and when they end all nodes agree and shut down.

        And each kind of fault is there, each kind of state machine, clusters of mixed
        versions, and commands and reads on members that do not lead.
        """
        tally: Counter[str] = Counter()
        fired: Counter[str] = Counter()
        machines, mixes = set(), set()
        for seed in SEEDS:
            simulation = FullSimulation(seed)
            try:
                simulation.run()
            except AssertionError as error:
                self.fail(f"seed {seed}: {error}")
            self.flushLoggedErrors()
            tally += simulation.tally
            fired += simulation.buggify.fired
            machines.add(simulation.make_fsm)
            mixes.add(simulation.versions)

        for fault in (
            *("power failures", "kills", "pauses", "cuts", "disk errors", "disks full"),
            *("damage refused", "connections reset", "links degraded"),
            *("membership changes", "transfers"),
            *(FORWARDED_COMMANDS, FORWARDED_READS),
        ):
            self.assertGreater(tally[fault], len(SEEDS) / 8, fault)
        self.assertEqual(set(fired), set(POINTS))
        self.assertEqual(machines, set(KINDS))
        self.assertTrue(any(len(versions) > 1 for versions in mixes))

    def test_seed_replays_the_same_run(self) -> None:
        """Two runs of a seed are the same, event for event."""
        outcomes = [run_full(3) for _ in range(2)]
        self.flushLoggedErrors()

        self.assertEqual(outcomes[0], outcomes[1])

    def test_seed_is_the_same_in_every_process(self) -> None:
        """Nothing of this process gets to the disks: not its number, which has more
        digits at one time than at another."""
        outcomes = []
        for number in (7, 99_999):
            self.patch(os, "getpid", lambda number=number: number)
            outcomes.append(run_full(SEED_WITH_DAMAGE))
        self.flushLoggedErrors()

        self.assertEqual(outcomes[0], outcomes[1])


class PowerFailures(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.file = self.disk.create(FILE)

    def names_and_content(self, survival: Survival) -> dict[str, bytes]:
        after = self.disk.after_power_failure(survival)
        root = Path("/")
        return {name: bytes(after.file(root / name).data) for name in after.list(root)}

    def test_name_is_lost_without_a_sync_of_its_directory(self) -> None:
        """A file whose content is synced has no durable name by that."""
        self.file.write_at(b"content", 0)
        self.file.sync()

        self.assertEqual(self.names_and_content(Survival()), {})

    def test_content_is_lost_without_a_sync(self) -> None:
        """A durable name may belong to an empty file."""
        self.file.write_at(b"content", 0)
        self.disk.sync_directory(Path("/"))

        self.assertEqual(self.names_and_content(Survival()), {"file": b""})

    def test_failed_sync_is_not_made_good_by_the_next(self) -> None:
        """What a failed sync covered is taken for written, and is not."""

        def fail(operation: str) -> None:
            raise OSError(5, "broken")

        self.disk.sync_directory(Path("/"))
        self.file.write_at(b"lost", 0)
        self.disk.before = fail
        self.assertRaises(OSError, self.file.sync)
        self.disk.before = None

        self.file.write_at(b"+kept", 4)
        self.file.sync()

        expected = {"file": b"\0\0\0\0+kept"}
        self.assertEqual(self.names_and_content(Survival()), expected)
        self.assertEqual(bytes(self.file.inode.data), b"lost+kept")

    def test_chance_leaves_sectors_out(self) -> None:
        """An unsynced write may arrive without its middle."""
        self.disk.sync_directory(Path("/"))
        self.file.write_at(b"x" * 2048, 0)

        left = {
            self.names_and_content(Chance(Random(seed)))["file"] for seed in range(200)
        }

        self.assertIn(b"", left)
        self.assertIn(b"x" * 2048, left)
        self.assertTrue(any(b"\0" in data.rstrip(b"\0") for data in left))

    def test_power_fails_within_a_write(self) -> None:
        """Half of a write may be in the cache when the power goes."""

        def fail(operation: str) -> None:
            raise PowerFailed

        self.disk.before = fail
        self.assertRaises(PowerFailed, self.file.write_at, b"abcd", 0)

        self.assertEqual(bytes(self.file.inode.data), b"ab")
