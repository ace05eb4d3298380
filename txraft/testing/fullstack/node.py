"""One simulated machine: a disk that outlives its node, and the node while it runs."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.consensus import Consensus
from txraft.errors import NodeRemoved, RaftError, StorageError
from txraft.node.raft import Raft
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.pairing import identity_of
from txraft.storage.peer_stores import JSONPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.clock import HeapClock
from txraft.testing.fullstack.claims import Claims
from txraft.testing.fullstack.damage import Cut, Damage, cut, strike
from txraft.testing.fullstack.disk import Chance, SimulatedDisk
from txraft.testing.fullstack.streams import Host
from txraft.testing.fullstack.watch import WatchedLog, WatchedTransport
from txraft.testing.fullstack.workers import DiskWorker

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation

DATA = Path("/data")
MAX_WAITING = 5_000
"""Events that wait for a node that hangs; what comes after them is lost."""

RETAINED_SNAPSHOTS = 2

PROCESS_ID = 30_001
"""What the lock of each directory names. One of this process would have more or fewer
digits at times, and so another byte of the disk would go bad."""

T = TypeVar("T")

CHANGES = ("write_at", "sync", "sync_data", "sync_directory", "create", "rename")
"""What fails on a disk that is broken or full."""

UPGRADED = 0.4
"""Share of the starts at which a node may come with another protocol version."""


class Life:
    """One run of a node's process, from its start to its crash or shutdown."""

    def __init__(self, machine: Machine, disk: SimulatedDisk) -> None:
        simulation = machine.simulation
        self.machine = machine
        self.disk = disk
        self.is_over = False
        self.hangs = False
        self.waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.claims = Claims(self)
        self.clock = HeapClock(simulation.schedule, self.act, machine.pace)
        self.host = Host(simulation.streams, machine.address, self.act)
        self.promises: Counter[str] = Counter()
        self.fsm = simulation.make_fsm(
            simulation.oracles,
            lambda: not self.is_over,
            self.clock,
            simulation.found,
        )
        self.workers: list[DiskWorker] = []
        self.raft: Raft | None = None
        self._open: list[Callable[[], object]] = []

    def act(self, function: Callable[..., object], *arguments: object) -> None:
        """Do something as this process, now or when it no longer hangs; then check."""
        if self.is_over:
            return
        if self.hangs:
            if len(self.waiting) < MAX_WAITING:
                self.waiting.append((function, arguments))
            return
        function(*arguments)
        if not self.is_over:
            self.claims.check()
        self.machine.simulation.raise_findings()

    @property
    def consensus(self) -> Consensus | None:
        """The consensus inside, once there is one."""
        shell = self.raft._shell if self.raft is not None else None
        return shell.consensus if shell is not None else None

    def start(self, config: Config, founders: list[str]) -> Deferred[None]:
        """Open everything as `twistd raft` does, and take part."""
        machine, disk = self.machine, self.disk
        address, random = machine.address, Random(machine.random.getrandbits(32))
        directory = DataDirectory(DATA, address, disk, PROCESS_ID)
        self._open.append(directory.close)
        peers = JSONPeers(DATA, disk)
        stable = FileStableStore(directory.state, address, disk)
        if not stable.exists and founders and not peers.peers():
            peers.set_peers(founders)
        self.log = WatchedLog(
            directory.log,
            address,
            disk,
            segment_bytes=machine.segment_bytes,
            random_bytes=random.randbytes,
            identity=identity_of(disk, directory.log, stable, random.randbytes),
        )
        self.log.stored = self.claims.stored
        self._open.append(self.log.close)
        transport = WatchedTransport(self.clock, self.host, timeout=2.0)
        transport.asks, transport.answers = self.claims.asks, self.claims.answers
        self.raft = Raft(
            config,
            self.fsm,
            self.log,
            stable,
            FileSnapshotStore(
                DATA, RETAINED_SNAPSHOTS, disk, milliseconds=machine.milliseconds
            ),
            peers,
            None,
            transport,
            clock=self.clock,
            workers=Workers(*(self._worker() for _ in range(4))),
            random=random,
        )
        transport.listen()
        return self.raft.start()

    def promised(self, kind: str, deferred: Deferred[T]) -> Deferred[T]:
        """Count *deferred* as one that has to fire while this life lasts."""
        self.promises[kind] += 1

        def fired(outcome: T | Failure) -> T | Failure:
            self.promises[kind] -= 1
            return outcome

        return deferred.addBoth(fired)

    def _worker(self) -> DiskWorker:
        machine = self.machine
        worker = DiskWorker(
            machine.simulation.schedule,
            self.act,
            machine.random,
            machine.disk_delay,
            self.disk,
        )
        self.workers.append(worker)
        return worker

    def end(self, power_off: bool) -> None:
        """End at once: whatever is under way is cut in two."""
        self.is_over = True
        self.clock.stop()
        for worker in self.workers:
            worker.die()
        self.host.die(power_off)

    def close(self) -> None:
        """Close the files, after a shutdown."""
        for close in reversed(self._open):
            close()


class Machine:
    """One machine at *address*; *founders* are whom it founds a cluster with."""

    data = DATA

    def __init__(
        self, simulation: FullSimulation, address: str, founders: list[str]
    ) -> None:
        self.simulation = simulation
        self.address = address
        self.random = random = simulation.random
        self.pace = random.uniform(0.9, 1.1) if simulation.circumstances.drifts else 1.0
        self.segment_bytes = random.choice((300, 2_000, 1 << 20))
        versions = simulation.versions  # who found a cluster agree on the first entry
        self.version = versions[0] if founders else random.choice(versions)
        self.life: Life | None = None
        self.broken = False
        self.damage: Damage | Cut | None = None
        # A stream of its own: whoever draws from it changes nothing else.
        self._cuts = Random(f"cuts of {address}, {simulation.seed}")
        self.disk = SimulatedDisk()
        self.disk.make_directory(DATA)
        self.disk.sync_directory(Path("/"))
        self._founders = founders
        self.has_entries = False

    @property
    def running(self) -> Life | None:
        """The life that is under way, if it takes part."""
        life = self.life
        return life if life is not None and life.consensus is not None else None

    def milliseconds(self) -> int:
        """Tell a wall clock that at times goes back."""
        return 1_000 + self.simulation.schedule.now // 1_000 % 7_000

    def disk_delay(self) -> int:
        """Draw how long the next piece of work takes."""
        delay: int = self.random.choice(self.simulation.circumstances.disk_delays)
        return delay + 1_500_000 * self.simulation.buggify("slow work on the disk")

    def start(self) -> None:
        """Start the node, if it is down."""
        if self.life is not None:
            return
        simulation = self.simulation
        # Nobody moves a cluster to another version before its first entry is stored.
        if self.has_entries and self.random.random() < UPGRADED:
            self.version = self.random.choice(simulation.versions)
        self._damage_sometimes()
        self._cut_sometimes()
        simulation.note(self, "starts, at protocol version", self.version)
        self.disk.before = None
        life = self.life = Life(self, self.disk)
        config = replace(simulation.config, protocol_version=self.version)
        try:
            started = life.start(config, self._founders)
        except StorageError:
            self._refused(Failure(), life)
            return
        started.addErrback(self._refused, life)
        assert life.raft is not None, "it was just made"
        life.raft.when_stopped().addCallback(self._stopped, life)
        started.addCallback(lambda _: self._takes_part(life))

    def _damage_sometimes(self) -> None:
        """Let a byte of what is at rest on the disk go bad."""
        simulation = self.simulation
        rate = simulation.circumstances.damage_rate
        if simulation.calm or self.damage or self.random.random() >= rate:
            return
        self.damage = strike(self.disk, DATA, self.address, self.random)
        if self.damage is not None:
            simulation.tally["damaged files"] += 1
            simulation.note(self, "has damage in", self.damage.path, self.damage.offset)

    def _cut_sometimes(self) -> None:
        """Let the log lose its newest entries."""
        simulation = self.simulation
        if simulation.calm or self.damage or self._cuts.random() >= simulation.cut_logs:
            return
        self.damage = cut(self.disk, DATA, self.address, self._cuts)
        if self.damage is not None:
            simulation.tally["cut logs"] += 1
            simulation.note(self, "has a log that was", self.damage.kind)

    def repair(self) -> None:
        """Undo the damage, as who has a copy of the file does."""
        if self.damage is not None:
            self.damage.undo(self.disk)
            self.damage = None

    def _refused(self, failure: Failure, life: Life) -> None:
        """Take it for the end of this life, if there is damage; else report it.

        A disk that lost only what it may has everything that a start needs.
        """
        if life.is_over:
            return
        simulation = self.simulation
        if self.damage is None or not isinstance(failure.value, Exception):
            simulation.found(f"{self.address} does not start: {failure.value!r}")
        else:
            self._judge(self.damage.check_refused, failure.value)
        simulation.note(self, "refuses to start:", failure.getErrorMessage())
        simulation.tally["damage refused"] += 1
        simulation.schedule.after(0, simulation.storm.crash, self, True)

    def _stopped(self, error: RaftError | None, life: Life) -> None:
        """Let a node that stopped by itself crash, once what it does is done."""
        simulation = self.simulation
        if error is None or isinstance(error, NodeRemoved) or life.is_over:
            return
        if not self.broken or "invariant" in str(error):
            simulation.found(f"{self.address} stopped: {error}")
        simulation.schedule.after(0, simulation.storm.crash, self)

    def _judge(self, check: Callable[[T], None], found: T) -> None:
        """Report what *check* asserts of what was *found* at a start."""
        try:
            check(found)
        except AssertionError as finding:
            self.simulation.found(f"{self.address}: {finding}")

    def _takes_part(self, life: Life) -> None:
        consensus = life.consensus
        if consensus is not None:
            if isinstance(self.damage, Cut):
                last = max(consensus.log.last_index, consensus.snapshot.index)
                self._judge(self.damage.check_started, last)
                self.damage = None
            options = self.simulation.circumstances.options
            consensus.options = replace(
                consensus.options, check_quorum=options.check_quorum
            )
        self.broken = False
        life.disk.before = partial(self._before, life)

    def _before(self, life: Life, operation: str) -> None:
        """Let the disk fail or be full, at the rate of the circumstances."""
        rate = self.simulation.circumstances.disk_fault_rate / 3
        if self.simulation.calm or not rate or operation not in CHANGES:
            return
        if self.broken or self.random.random() < rate:
            self.broken = True
            number = self.random.choice((errno.EIO, errno.ENOSPC))
            name = "disks full" if number == errno.ENOSPC else "disk errors"
            self.simulation.tally[name] += 1
            self.simulation.note(self, f"fails to {operation}")
            raise OSError(number, os.strerror(number))

    def crash(self, power_off: bool) -> None:
        """End the node: kill its process, or cut the power of its machine."""
        life, self.life = self.life, None
        if life is None:
            return
        life.end(power_off)
        old = life.disk
        self.disk = (
            old.after_power_failure(Chance(self.random))
            if power_off
            else old.after_kill()
        )
        self.broken = False

    def hang(self, time: int) -> None:
        """Let the process stand still for *time* microseconds."""
        life = self.life
        if life is not None and not life.hangs:
            life.hangs = True
            self.simulation.schedule.after(time, self.resume, life)

    def resume(self, life: Life) -> None:
        """Let the process go on, with all that has waited for it."""
        life.hangs = False
        while life.waiting and not life.hangs and not life.is_over:
            function, arguments = life.waiting.popleft()
            life.act(function, *arguments)
