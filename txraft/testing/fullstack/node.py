"""One simulated machine: a disk that outlives its node, and the node while it runs."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.consensus import Consensus
from txraft.core.invariants import Seen, check_server
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.errors import RaftError
from txraft.node.boot import read_hard_state
from txraft.node.raft import Raft
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.peers import JSONPeers
from txraft.storage.snapshots import FileSnapshotStore, SnapshotReader
from txraft.storage.stable import FileStableStore
from txraft.testing.clock import HeapClock
from txraft.testing.fullstack.disk import Chance, SimulatedDisk, Survival
from txraft.testing.fullstack.machine import RegisterFSM
from txraft.testing.fullstack.streams import Host
from txraft.testing.fullstack.watch import WatchedTransport
from txraft.testing.fullstack.workers import DiskWorker

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation

DATA = Path("/data")
MAX_WAITING = 5_000
"""Events that wait for a node that hangs; what comes after them is lost."""

RETAINED_SNAPSHOTS = 2

CHANGES = ("write_at", "sync", "sync_data", "sync_directory", "create", "rename")
"""What fails on a disk that is broken or full."""


class Life:
    """One run of a node's process, from its start to its crash or shutdown."""

    def __init__(self, machine: Machine, disk: SimulatedDisk) -> None:
        simulation = machine.simulation
        self.machine = machine
        self.disk = disk
        self.is_over = False
        self.hangs = False
        self.waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.seen: Seen | None = None
        self.checked: object = None
        self.clock = HeapClock(simulation.schedule, self.act, machine.pace)
        self.host = Host(simulation.streams, machine.address, self.act)
        self.fsm = RegisterFSM(simulation.oracles, lambda: not self.is_over)
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
            self.check()
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
        directory = DataDirectory(DATA, address, disk)
        self._open.append(directory.close)
        peers = JSONPeers(DATA, disk)
        self.log = FileLog(
            directory.log,
            address,
            disk,
            segment_bytes=machine.segment_bytes,
            random_bytes=random.randbytes,
        )
        self._open.append(self.log.close)
        stable = FileStableStore(directory.state, address, disk)
        if not stable.exists and founders and not peers.peers():
            peers.set_peers(founders)
        transport = WatchedTransport(self.clock, self.host, timeout=2.0)
        transport.asks, transport.answers = self._asks, self._answers
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
            workers=Workers(*(self._worker() for _ in range(3))),
            random=random,
        )
        transport.listen()
        return self.raft.start()

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

    # Oracles --------------------------------------------------------------------

    def check(self) -> None:
        """Check this node, and the past of the cluster, if anything has changed."""
        consensus = self.consensus
        if consensus is None:
            return
        key = (
            consensus.role,
            consensus.term,
            consensus.voted_for,
            consensus.commit_index,
            consensus.log.last_index,
            consensus.log.last_term,
            consensus.snapshot.index,
        )
        if not consensus.is_leader and key == self.checked:
            return
        self.checked = key
        self.seen = check_server(consensus, self.seen)
        self.machine.simulation.oracles.history.observe(consensus)

    def _asks(self, target: str, request: Request) -> None:
        self.machine.simulation.note(self.machine, "asks", target, request)
        if isinstance(request, RequestVoteRequest):
            self._check_vote(request.term, self.machine.address)

    def _answers(self, request: Request, response: Response) -> None:
        self.machine.simulation.note(self.machine, "answers", request, response)
        match request, response:
            case RequestVoteRequest(), RequestVoteResponse(granted=True):
                self._check_vote(request.term, request.candidate)
            case AppendEntriesRequest(), AppendEntriesResponse(success=True):
                if request.entries:
                    last = request.entries[-1]
                    self._check_stored(last.index)
            case InstallSnapshotRequest(), InstallSnapshotResponse(success=True):
                self._check_covered(request.last_log_index)

    def _durable(self) -> SimulatedDisk:
        return self.disk.after_power_failure(Survival())

    def _check_vote(self, term: int, candidate: str) -> None:
        """Assert that a vote that leaves is durable, and the only one of its term."""
        machine = self.machine
        store = FileStableStore(DATA / "state", machine.address, self._durable())
        state = read_hard_state(store)
        assert state.term >= term, f"{machine.address} votes before it is durable"
        assert state.term > term or state.voted_for == candidate, (
            f"{machine.address} votes for {candidate} before that is durable"
        )
        machine.simulation.one_vote(machine.address, term, candidate)

    def _check_stored(self, index: int) -> None:
        """Assert that what a success answer promises is durable."""
        assert self.disk.is_synced(DATA / "log"), "success waits for its sync"
        assert index <= max(self.log.last_index(), self._covered()), (
            f"{self.machine.address} promises entry {index} before it is stored"
        )

    def _check_covered(self, index: int) -> None:
        """Assert that the snapshot that an answer promises is durable."""
        found = SnapshotReader(DATA, self._durable()).list()
        newest = max((meta.index for meta in found), default=0)
        assert max(newest, self.log.last_index()) >= index, (
            f"{self.machine.address} promises a snapshot before it is durable"
        )

    def _covered(self) -> int:
        consensus = self.consensus
        return consensus.snapshot.index if consensus is not None else 0


class Machine:
    """One machine at *address*; *founders* are whom it founds a cluster with."""

    def __init__(
        self, simulation: FullSimulation, address: str, founders: list[str]
    ) -> None:
        self.simulation = simulation
        self.address = address
        self.random = random = simulation.random
        self.pace = random.uniform(0.9, 1.1) if simulation.circumstances.drifts else 1.0
        self.segment_bytes = random.choice((300, 2_000, 1 << 20))
        self.life: Life | None = None
        self.disk = SimulatedDisk()
        self.disk.make_directory(DATA)
        self.disk.sync_directory(Path("/"))
        self._founders = founders
        self._milliseconds = 0

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
        return self.random.choice(self.simulation.circumstances.disk_delays)

    def start(self) -> None:
        """Start the node, if it is down."""
        if self.life is not None:
            return
        simulation = self.simulation
        simulation.note(self, "starts")
        self.disk.before = None
        life = self.life = Life(self, self.disk)
        config = replace(simulation.config)
        started = life.start(config, self._founders)
        started.addErrback(self._refused, life)
        assert life.raft is not None, "it was just made"
        life.raft.when_stopped().addCallback(self._stopped, life)
        started.addCallback(lambda _: self._break_sometimes(life))

    def _refused(self, failure: Failure, life: Life) -> None:
        """Report it: a disk that lost only what it may has everything it needs."""
        if not life.is_over:
            self.simulation.found(f"{self.address} does not start: {failure.value!r}")

    def _stopped(self, error: RaftError | None, life: Life) -> None:
        """Let a node that stopped by itself crash, once what it does is done."""
        simulation = self.simulation
        if error is None or life.is_over:
            return
        if not self.broken:
            simulation.found(f"{self.address} stopped: {error}")
        simulation.schedule.after(0, simulation.storm.crash, self)

    def _break_sometimes(self, life: Life) -> None:
        self.broken = False
        life.disk.before = partial(self._before, life)

    broken = False

    def _before(self, life: Life, operation: str) -> None:
        """Let the disk fail or be full, at the rate of the circumstances."""
        rate = self.simulation.circumstances.disk_fault_rate / 3
        if self.simulation.calm or not rate or operation not in CHANGES:
            return
        if self.broken or self.random.random() < rate:
            self.broken = True
            number = self.random.choice((errno.EIO, errno.ENOSPC))
            self.simulation.tally["disk errors"] += 1
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
