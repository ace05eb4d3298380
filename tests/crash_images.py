"""Crash images: the disk after a power failure, at every operation of the stores.

    python -m tests.crash_images --images 20000

A seed makes a story of appends, truncations, compactions, rotations, snapshots, terms
and votes, failed syncs and restarts. Ahead of every change and sync in it, images of
the disk are made: nothing unsynced is there, all of it, or sectors and names by chance.
The real recovery reads each; it must find what was acknowledged, or that and the step
under way. Some images are lived on with.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.storage.filelog import FileLog
from txraft.storage.pairing import identity_of
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import (
    READS,
    Chance,
    Naming,
    SimulatedDisk,
    Survival,
    Write,
)
from txraft.wire.entries import encode_new

DATA = Path("/data")
LOG = DATA / "log"
STATE = DATA / "state"
OWNER = "n1"
STEPS = 25
CHANCES = 3
KEY = b"CurrentTerm"
MEMBERS = Configuration.of_voters(("n1", "n2", "n3"))

Entries = tuple[tuple[int, int, bytes | None], ...]
"""A log as (index, term, data) of each entry."""


class Everything(Survival):
    """All is there, as if it had been synced in time."""

    def of_writes(self, writes: list[Write]) -> list[Write]:
        return writes

    def of_namings(self, namings: list[Naming]) -> list[Naming]:
        return namings


@dataclass(slots=True)
class Truth:
    """What may be found: any of these logs, terms and newest snapshots."""

    logs: list[Entries] = field(default_factory=lambda: [()])
    terms: list[int] = field(default_factory=lambda: [0])
    snapshots: list[int] = field(default_factory=lambda: [0])


class Stores:
    """The three stores of a node, opened on *disk*."""

    def __init__(self, disk: SimulatedDisk, random: Random, segment: int) -> None:
        self.disk = disk
        self.stable = FileStableStore(STATE, OWNER, disk)
        self.log = FileLog(
            LOG,
            OWNER,
            disk,
            segment_bytes=segment,
            random_bytes=random.randbytes,
            identity=identity_of(disk, LOG, self.stable, random.randbytes),
        )
        self.snapshots = FileSnapshotStore(DATA, 2, disk, milliseconds=lambda: 1_000)

    def entries(self) -> Entries:
        first, last = self.log.first_index(), self.log.last_index()
        found = self.log.get_logs(first, last, 1 << 30) if last else []
        return tuple((e.index, e.term, e.data) for e in found)

    def newest(self) -> int:
        """Read the newest snapshot whole, and return its index."""
        found = self.snapshots.list()
        lost = max(self.snapshots.left_out, default=0)
        assert lost <= max((meta.index for meta in found), default=0), "one is left out"
        for meta in found:
            with self.snapshots.open(meta.id)[1] as file:
                assert file.read() == content(meta.index), f"snapshot {meta.id}"
            return meta.index
        return 0

    def close(self) -> None:
        self.log.close()


def content(index: int) -> bytes:
    return b"state at %d " % index * (1 + index % 90)


class Story:
    """The story of *seed*.

    `images` counts the images that were recovered, `two_steps` the writes whose sync
    was a step of its own.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.images = self.two_steps = 0
        self.truth = Truth()
        self.segment = self.random.choice((300, 1_500, 1 << 20))
        self.term = 1
        disk = SimulatedDisk()
        disk.make_directory(DATA)
        disk.sync_directory(Path("/"))
        self.open(disk)

    def open(self, disk: SimulatedDisk) -> None:
        """Open the stores on *disk*, at whose every operation power may fail."""
        disk.before = partial(self.before, disk)
        self.stores = Stores(disk, self.random, self.segment)
        self.settle()

    def settle(self) -> None:
        """Take what is there now for what must be there from now on."""
        stores = self.stores
        self.truth = Truth(
            [stores.entries()], [stores.stable.get_uint64(KEY)], [stores.newest()]
        )

    def run(self) -> None:
        """Go through all steps. Raises: AssertionError"""
        steps = [
            *(self.append, self.append, self.append, self.truncate, self.compact),
            *(self.save_term, self.save_term, self.save_snapshot),
        ]
        for _ in range(STEPS):
            if self.random.random() < 0.1:
                self.break_disk(self.random.choice(steps))
            else:
                self.random.choice(steps)()
            self.settle()
            if self.random.random() < 0.15:
                self.restart()

    # Steps ----------------------------------------------------------------------

    def append(self) -> None:
        here, log = self.truth.logs[0], self.stores.log
        last = here[-1][0] if here else log.last_index() or self.truth.snapshots[0]
        self.term += self.random.random() < 0.2
        entries = []
        for number in range(self.random.choice((1, 1, 3, 20))):
            data = self.random.randbytes(self.random.choice((0, 1, 40, 700)))
            entry = Entry(last + 1 + number, self.term, LogType.COMMAND, data)
            encode_new(entry, 1)
            entries.append(entry)
        new = [(e.index, e.term, e.data) for e in entries]
        self.truth.logs = [(*here, *new[:count]) for count in range(len(new) + 1)]
        if self.random.random() < 0.7:
            self.append_in_two_steps(entries)
        else:
            log.store_logs(entries)
        assert self.stores.entries() == self.truth.logs[-1], "the log after a write"

    def append_in_two_steps(self, entries: list[Entry]) -> None:
        """Append where the log has room, and sync that as the writer has it done."""
        log = self.stores.log
        file = log.write_logs(entries)
        if file is None:
            log.store_logs(entries)
            return
        self.two_steps += 1
        assert self.stores.entries() == self.truth.logs[0], "read before its sync"
        try:
            file.sync_data()
        except OSError as error:
            log.logs_synced(error)
            raise
        log.logs_synced()

    def truncate(self) -> None:
        here = self.truth.logs[0]
        if here:
            cut = self.random.randrange(len(here))
            self.truth.logs = [here, here[:cut]]
            self.stores.log.delete_range(here[cut][0], here[-1][0])

    def compact(self) -> None:
        here = self.truth.logs[0]
        if here:
            cut = self.random.randrange(len(here))
            self.truth.logs = [here, here[cut + 1 :]]
            self.stores.log.delete_range(here[0][0], here[cut][0])

    def save_term(self) -> None:
        term = self.truth.terms[0] + self.random.randint(1, 5)
        self.truth.terms.append(term)
        vote = b"n%d" % self.random.randint(1, 9)
        values = {KEY: term.to_bytes(8, "big"), b"LastVoteCand": vote}
        self.stores.stable.set_many(values)

    def save_snapshot(self) -> None:
        index = self.truth.snapshots[0] + self.random.randint(1, 50)
        self.truth.snapshots.append(index)
        sink = self.stores.snapshots.create(index, self.term, MEMBERS, 1)
        sink.write(content(index))
        sink.close()

    def break_disk(self, step: Callable[[], None]) -> None:
        """Let one operation of *step* fail, and every one after it; then restart."""
        left, disk = self.random.randint(0, 6), self.stores.disk

        def before(operation: str) -> None:
            nonlocal left
            left -= 1
            if left < 0 and operation != "read_at":
                raise OSError(errno.EIO, "broken")

        disk.before = before
        with suppress(OSError):
            step()
        disk.before = None
        self.lives_on(disk.after_kill())

    def restart(self) -> None:
        """Go on with an image of a power failure, or as another process."""
        disk = self.stores.disk
        if self.random.random() < 0.5:
            self.lives_on(disk.after_kill())
        else:
            self.lives_on(disk.after_power_failure(Chance(self.random)))

    def lives_on(self, disk: SimulatedDisk) -> None:
        self.check(disk)
        truth = self.truth
        self.open(disk)
        assert self.truth.logs[0] in truth.logs, "a second recovery differs"

    # Images ---------------------------------------------------------------------

    def before(self, disk: SimulatedDisk, operation: str) -> None:
        """Recover what a power failure ahead of *operation* may leave."""
        if operation in READS:
            return
        for survival in (Survival(), Everything()):
            self.check(disk.after_power_failure(survival))
        for _ in range(CHANCES):
            self.check(disk.after_power_failure(Chance(self.random)))

    def check(self, disk: SimulatedDisk) -> None:
        """Recover from *disk*, hold that against the truth, and recover once more."""
        self.images += 1
        image = disk.after_power_failure(Everything())
        found = Stores(image, Random(0), self.segment)
        entries, term = found.entries(), found.stable.get_uint64(KEY)
        truth = self.truth
        assert entries in truth.logs, f"{len(entries)} entries, not the right ones"
        assert term in truth.terms, f"term {term}, not one of {truth.terms}"
        newest = found.newest()
        assert newest in truth.snapshots, f"snapshot {newest} of {truth.snapshots}"
        again = Stores(image.after_power_failure(Survival()), Random(1), self.segment)
        assert again.entries() == entries, "what was recovered is not durable"
        assert again.stable.get_uint64(KEY) == term, "the term is not durable"
        assert again.newest() == newest, "the snapshot is not durable"
        again.close()
        found.close()


def tell(stories: int, images: int, failed: list[int], seconds: float) -> str:
    """Return the figures as one line of JSON."""
    figures = {
        "stories": stories,
        "images": images,
        "failures": len(failed),
        "failed_seeds": failed,
        "cpu_seconds": round(seconds, 2),
    }
    return json.dumps(figures)


def main(arguments: list[str] | None = None) -> int:
    """Recover as many images as are asked for; 1 if one of them was not right."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash_images")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args(arguments)
    images, seed, failed = 0, options.first_seed, []
    began = time.process_time()
    while images < options.images:
        story = Story(seed)
        try:
            story.run()
        except Exception as error:
            failed.append(seed)
            sys.stdout.write(f"seed {seed}: {type(error).__name__}: {error}\n")
            sys.stdout.write(
                f"replay: python -m tests.crash_images --images 1 --first-seed {seed}\n"
            )
        images += story.images
        seed += 1
    seconds = time.process_time() - began
    stories = seed - options.first_seed
    sys.stdout.write(tell(stories, images, failed, seconds) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
