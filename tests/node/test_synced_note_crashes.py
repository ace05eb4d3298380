"""Power fails anywhere while the log grows, is cut and reset: no start is refused."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.crash_images import Everything
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState, Ready, ResetLog
from txraft.errors import DataCorrupted
from txraft.node.startup import Recovered, Restored, recover
from txraft.node.synced_note import LogEnd, read_note
from txraft.node.worker import MemoryWorker
from txraft.node.writer import HINT_SECONDS, Writer
from txraft.storage.filelog import FileLog
from txraft.storage.pairing import identity_of
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import READS, Chance, SimulatedDisk, Survival
from txraft.wire.entries import encode_new

DATA = Path("/data")
MEMBERS = Configuration.of_voters(("n1", "n2", "n3"))
STORIES = int(os.environ.get("TXRAFT_SEEDS", "4"))
STEPS = 30


class Disk:
    """The stores of a node on *disk*, and what a start makes of them."""

    def __init__(self, disk: SimulatedDisk, random: Random) -> None:
        self.disk = disk
        self.stable = FileStableStore(DATA / "state", "n1", disk)
        identity = identity_of(disk, DATA / "log", self.stable, random.randbytes)
        self.log = FileLog(
            DATA / "log",
            "n1",
            disk,
            segment_bytes=1_500,
            random_bytes=random.randbytes,
            identity=identity,
        )
        self.snapshots = FileSnapshotStore(DATA, 2, disk, milliseconds=lambda: 1)

    def recover(self) -> Recovered:
        """Start: raise DataCorrupted, or return what a node begins with."""
        newest = next(iter(self.snapshots.list()), None)
        return recover(
            self.log,
            self.stable,
            Restored(newest),
            read_membership=lambda: MEMBERS,
            protocol_version=1,
            encode=encode_new,
        )


class Story:
    """What *seed* does to the writer of a node; `images` counts what was started."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.images = self.refusals = self.number = 0
        disk = SimulatedDisk()
        disk.make_directory(DATA)
        disk.sync_directory(Path("/"))
        self.open(disk)

    def open(self, disk: SimulatedDisk) -> None:
        self.clock = Clock()
        self.here = here = Disk(disk, self.random)
        recovered = here.recover()
        self.worker = MemoryWorker()
        self.term = recovered.hard_state.term
        self.writer = _writer(self, recovered)
        self.covered = recovered.snapshot.index
        self.last, self.last_term = recovered.log.last_index, recovered.log.last_term
        disk.before = self.power_fails

    def run(self) -> None:
        steps = (
            *(self.append, self.append, self.append, self.vote, self.rest),
            *(self.truncate, self.snapshot, self.install, self.cut),
        )
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.settle()
            if self.random.random() < 0.15:
                self.restart()

    def settle(self) -> None:
        while self.worker.perform():
            pass

    def write(self, **parts: object) -> None:
        self.number += 1
        ready = Ready(write_number=self.number, has_write=True)
        for name, part in parts.items():
            setattr(ready, name, part)
        self.writer.write(ready)

    def entries(self, first: int) -> list[Entry]:
        made = []
        for index in range(first, first + self.random.choice((1, 1, 3, 12))):
            entry = Entry(index, self.term, LogType.COMMAND, self.random.randbytes(40))
            encode_new(entry, 1)
            made.append(entry)
        self.last = made[-1].index
        return made

    # Steps ----------------------------------------------------------------------

    def append(self) -> None:
        self.clock.advance(self.random.choice((0.001, HINT_SECONDS)))
        self.write(append=self.entries(self.last + 1))

    def vote(self) -> None:
        self.term += 1
        self.write(hard_state=HardState(self.term, "n2"))

    def rest(self) -> None:
        self.clock.advance(self.random.choice((0.1, 2.0, 20.0)))
        self.writer.tick()

    def truncate(self) -> None:
        if self.last <= self.covered:
            return
        first = self.random.randint(self.covered + 1, self.last)
        self.term += 1
        state = HardState(self.term)
        if self.random.random() < 0.5:
            self.write(hard_state=state)
            self.write(truncate_from=first, append=self.entries(first))
        else:
            entries = self.entries(first)
            self.write(hard_state=state, truncate_from=first, append=entries)

    def snapshot(self) -> None:
        if self.last <= self.covered:
            return
        self.settle()
        index = self.random.randint(self.covered + 1, self.last)
        self.keep_snapshot(index, self.here.log.get_log(index).term)
        self.writer.note()
        self.writer.delete_up_to(self.random.randint(1, index))

    def install(self) -> None:
        """Take a leader's snapshot, within the log or beyond, the same or another."""
        index = self.random.randint(self.covered + 1, self.last + 4)
        self.settle()
        is_here = self.here.log.first_index() <= index <= self.here.log.last_index()
        keep = is_here and self.random.random() < 0.5
        if not keep:
            self.vote()
            self.settle()
        term = self.here.log.get_log(index).term if keep else self.term
        self.keep_snapshot(index, term)
        self.write(reset_log=ResetLog(index, keep))
        if not keep:
            self.last = index

    def keep_snapshot(self, index: int, term: int) -> None:
        sink = self.here.snapshots.create(index, term, MEMBERS, 1)
        sink.write(b"state")
        if self.random.random() < 0.2:  # a leader's, which does not restore
            sink.stage().close()
            sink.set_aside()
            sink = self.here.snapshots.create(index, term, MEMBERS, 1)
        if self.random.random() < 0.5:
            sink.stage().close()
        sink.close()
        self.covered = index

    def cut(self) -> None:
        """Look whether a log that ends below its note would be refused."""
        self.settle()
        survival = self.random.choice((Survival(), Everything()))
        image = Disk(self.here.disk.after_power_failure(survival), Random(1))
        noted = read_note(image.stable).reaches.index
        if self.covered < noted:
            low = max(image.log.first_index(), 1)
            image.log.delete_range(self.random.randint(low, noted), self.last)
            try:
                image.recover()
            except DataCorrupted:
                self.refusals += 1
            else:
                raise AssertionError("a log that ends below its note was taken")

    def restart(self) -> None:
        disk = self.here.disk
        disk.before = None
        kind = self.random.random()
        if kind < 0.3:
            self.writer.finish()
            self.settle()
        self.here.log.close()
        if kind < 0.6:
            self.open(disk.after_kill())
        else:
            self.open(disk.after_power_failure(Chance(self.random)))

    def power_fails(self, operation: str) -> None:
        """Start from what a power failure ahead of *operation* may leave."""
        if operation in READS:
            return
        for survival in (Survival(), Everything(), Chance(self.random)):
            self.images += 1
            image = self.here.disk.after_power_failure(survival)
            Disk(image, Random(0)).recover()
            again = image.after_power_failure(Survival())
            Disk(again, Random(0)).recover()


def _writer(story: Story, recovered: Recovered) -> Writer:
    return Writer(
        story.worker,
        log_store=story.here.log,
        stable_store=story.here.stable,
        synced=lambda number: None,
        failed=_raise,
        end=LogEnd(recovered.log.last_index, recovered.log.last_term),
        seconds=story.clock.seconds,
        noted=recovered.noted,
        current_term=recovered.hard_state.term,
    )


def _raise(failure: object) -> None:
    raise AssertionError(failure)


class Crashes(SynchronousTestCase):
    def test_no_crash_makes_a_start_refuse(self) -> None:
        """What a healthy node leaves at any moment reaches as far as its note."""
        images = refusals = 0
        for seed in range(STORIES):
            story = Story(seed)
            try:
                story.run()
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
            images += story.images
            refusals += story.refusals

        self.assertGreater(images, 50 * STORIES)
        self.assertGreater(refusals, STORIES // 4)
