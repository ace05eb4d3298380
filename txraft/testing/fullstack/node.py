"""A simulated machine: a disk that outlives its nodes, and the node while it runs."""

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
from txraft.node.forwarding import Forwarder
from txraft.node.raft import Raft
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.pairing import identity_of
from txraft.storage.peer_stores import JSONPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.claims import Claims
from txraft.testing.fullstack.damage import Cut, Damage, cut, strike
from txraft.testing.fullstack.disk import Chance, SimulatedDisk
from txraft.testing.fullstack.streams import SimulatedHost
from txraft.testing.fullstack.watched import WatchedLog, WatchedTransport
from txraft.testing.fullstack.workers import DiskWorker
from txraft.testing.heap_clock import HeapClock

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation

DATA = Path("/data")
MAX_WAITING = 5_000
"""Events that wait for a node that hangs at most; more are lost."""

RETAINED_SNAPSHOTS = 2

PROCESS_ID = 30_001
"""The process id in the lock of each directory.

The real one would have more or fewer digits at times, so that damage would hit another
byte and the seed would make another run."""

T = TypeVar("T")

CHANGES = ("write_at", "sync", "sync_data", "sync_directory", "create", "rename")
"""Operations that fail on a disk that is broken or full."""

UPGRADED = 0.4
"""The chance that a node starts with another protocol version than before."""


class SimulatedNode:
    """A node from its start to its crash or shutdown: one run of its process.

    The same machine makes a new one for the next start.
    """

    def __init__(self, machine: SimulatedMachine, disk: SimulatedDisk) -> None:
        simulation = machine.simulation
        self.machine = machine
        self.disk = disk
        self.is_over = False
        self.hangs = False
        self.waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.claims = Claims(self)
        self.clock = HeapClock(simulation.schedule, self.act, machine.pace)
        self.host = SimulatedHost(simulation.streams, machine.address, self.act)
        self.promises: Counter[str] = Counter()
        self.fsm = simulation.make_fsm(
            simulation.oracles,
            lambda: not self.is_over,
            self.clock,
            simulation.found,
        )
        self.workers: list[DiskWorker] = []
        self.raft: Raft | None = None
        self.forwarder: Forwarder | None = None
        self._open: list[Callable[[], object]] = []

    def act(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* as a part of this process, and check the claims after it.

        If the process hangs, the call waits; if it has ended, there is none.
        """
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
        """The node's consensus, None until it has started."""
        shell = self.raft._shell if self.raft is not None else None
        return shell.consensus if shell is not None else None

    def start(self, config: Config, bootstrap_peers: list[str]) -> Deferred[None]:
        """Open directory, log and stores as `twistd raft` does, and start the node.

        Raises: StorageError
        Returns: the Deferred of `Raft.start`.
        """
        machine, disk = self.machine, self.disk
        address, random = machine.address, Random(machine.random.getrandbits(32))
        directory = DataDirectory(DATA, address, disk, PROCESS_ID)
        self._open.append(directory.close)
        peers = JSONPeers(DATA, disk)
        stable = FileStableStore(directory.state, address, disk)
        if not stable.exists and bootstrap_peers and not peers.peers():
            peers.set_peers(bootstrap_peers)
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
            log_store=self.log,
            stable_store=stable,
            snapshots=FileSnapshotStore(
                DATA, RETAINED_SNAPSHOTS, disk, milliseconds=machine.milliseconds
            ),
            peer_store=peers,
            local_addr=None,
            transport=transport,
            clock=self.clock,
            workers=Workers(*(self._worker() for _ in range(4))),
            random=random,
        )
        if self.machine.simulation.forwards:
            self.forwarder = Forwarder(self.raft, transport, self.clock)
        transport.listen()
        return self.raft.start()

    def promised(self, kind: str, deferred: Deferred[T]) -> Deferred[T]:
        """Count *deferred* as one that must fire before this node has shut down."""
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
        """End at once, in the middle of all work; cut the power too if *power_off*."""
        # First of all: whatever the steps below still call is dropped by `act`.
        self.is_over = True
        self.clock.stop()
        for worker in self.workers:
            worker.die()
        self.host.die(power_off)

    def close(self) -> None:
        """Close the files after a shutdown, the last one opened first."""
        for close in reversed(self._open):
            close()


class SimulatedMachine:
    """The machine at *address*; *bootstrap_peers*, if any, bootstrap a cluster."""

    data = DATA

    def __init__(
        self, simulation: FullSimulation, address: str, bootstrap_peers: list[str]
    ) -> None:
        self.simulation = simulation
        self.address = address
        self.random = random = simulation.random
        self.pace = random.uniform(0.9, 1.1) if simulation.circumstances.drifts else 1.0
        self.segment_bytes = random.choice((300, 2_000, 1 << 20))
        versions = simulation.versions  # who bootstrap agree on the first entry
        self.version = versions[0] if bootstrap_peers else random.choice(versions)
        self.node: SimulatedNode | None = None
        self.broken = False
        self.damage: Damage | Cut | None = None
        # A generator of its own: its draws change no other draw of the seed.
        self._cuts = Random(f"cuts of {address}, {simulation.seed}")
        self.disk = SimulatedDisk()
        self.disk.make_directory(DATA)
        self.disk.sync_directory(Path("/"))
        self._bootstrap_peers = bootstrap_peers
        self.has_entries = False

    @property
    def running(self) -> SimulatedNode | None:
        """The node, if it has started."""
        node = self.node
        return node if node is not None and node.consensus is not None else None

    def milliseconds(self) -> int:
        """Return the time of a wall clock that goes back at times."""
        return 1_000 + self.simulation.schedule.now // 1_000 % 7_000

    def disk_delay(self) -> int:
        """Draw the microseconds that the next piece of work on the disk takes."""
        delay: int = self.random.choice(self.simulation.circumstances.disk_delays)
        return delay + 1_500_000 * self.simulation.buggify("slow work on the disk")

    def start(self) -> None:
        """Start the node, if it is down."""
        if self.node is not None:
            return
        simulation = self.simulation
        # A cluster is upgraded only after its first entry is stored, as its shape
        # depends on the version of those who bootstrap.
        if self.has_entries and self.random.random() < UPGRADED:
            self.version = self.random.choice(simulation.versions)
        self._damage_sometimes()
        self._cut_sometimes()
        simulation.note(self, "starts, at protocol version", self.version)
        self.disk.before = None
        node = self.node = SimulatedNode(self, self.disk)
        config = replace(simulation.config, protocol_version=self.version)
        try:
            started = node.start(config, self._bootstrap_peers)
        except StorageError:
            self._refused(Failure(), node)
            return
        started.addErrback(self._refused, node)
        assert node.raft is not None, "it was just made"
        node.raft.when_stopped().addCallback(self._stopped, node)
        started.addCallback(lambda _: self._takes_part(node))

    def _damage_sometimes(self) -> None:
        """Damage a byte on the disk, at the rate of the circumstances."""
        simulation = self.simulation
        rate = simulation.circumstances.damage_rate
        if simulation.calm or self.damage or self.random.random() >= rate:
            return
        self.damage = strike(self.disk, DATA, self.address, self.random)
        if self.damage is not None:
            simulation.tally["damaged files"] += 1
            simulation.note(self, "has damage in", self.damage.path, self.damage.offset)

    def _cut_sometimes(self) -> None:
        """Cut the newest entries off the log, at the rate `cut_logs`."""
        simulation = self.simulation
        if simulation.calm or self.damage or self._cuts.random() >= simulation.cut_logs:
            return
        self.damage = cut(self.disk, DATA, self.address, self._cuts)
        if self.damage is not None:
            simulation.tally["cut logs"] += 1
            simulation.note(self, "has a log that was", self.damage.kind)

    def repair(self) -> None:
        """Undo the damage, as with a copy of the file."""
        if self.damage is not None:
            self.damage.undo(self.disk)
            self.damage = None

    def _refused(self, failure: Failure, node: SimulatedNode) -> None:
        """Crash a node that refuses to start because of damage; fail the run otherwise.

        A power failure alone takes nothing from the disk that a start needs.
        """
        if node.is_over:
            return
        simulation = self.simulation
        if self.damage is None or not isinstance(failure.value, Exception):
            simulation.found(f"{self.address} does not start: {failure.value!r}")
        else:
            self._judge(self.damage.check_refused, failure.value)
        simulation.note(self, "refuses to start:", failure.getErrorMessage())
        simulation.tally["damage refused"] += 1
        simulation.schedule.after(0, simulation.fault_schedule.crash, self, True)

    def _stopped(self, error: RaftError | None, node: SimulatedNode) -> None:
        """Crash a node that stopped by itself, in an event of its own."""
        simulation = self.simulation
        if error is None or isinstance(error, NodeRemoved) or node.is_over:
            return
        if not self.broken or "invariant" in str(error):
            simulation.found(f"{self.address} stopped: {error}")
        simulation.schedule.after(0, simulation.fault_schedule.crash, self)

    def _judge(self, check: Callable[[T], None], found: T) -> None:
        """Let the run fail if *check* raises AssertionError for what was *found*."""
        try:
            check(found)
        except AssertionError as finding:
            self.simulation.found(f"{self.address}: {finding}")

    def _takes_part(self, node: SimulatedNode) -> None:
        consensus = node.consensus
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
        node.disk.before = partial(self._before, node)

    def _before(self, node: SimulatedNode, operation: str) -> None:
        """Raise OSError at the rate of the circumstances: the disk is broken or full.

        It stays so until the node has crashed.
        """
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
        """End the node: cut the power of the machine, or only kill the process."""
        # A half of a job may run in `end`; nothing may find the machine up meanwhile.
        node, self.node = self.node, None
        if node is None:
            return
        node.end(power_off)
        old = node.disk
        self.disk = (
            old.after_power_failure(Chance(self.random))
            if power_off
            else old.after_kill()
        )
        self.broken = False

    def hang(self, time: int) -> None:
        """Let the process hang for *time* microseconds."""
        node = self.node
        if node is not None and not node.hangs:
            node.hangs = True
            self.simulation.schedule.after(time, self.resume, node)

    def resume(self, node: SimulatedNode) -> None:
        """Let the process go on, and handle the events that have waited."""
        node.hangs = False
        while node.waiting and not node.hangs and not node.is_over:
            function, arguments = node.waiting.popleft()
            node.act(function, *arguments)
