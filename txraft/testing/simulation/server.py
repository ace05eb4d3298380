"""One server of a simulation: its disk, its state machine, its consensus.

It does with a `Ready` what a node's shell does, and is killed and paused meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from txraft.core.configuration import Configuration
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry
from txraft.core.invariants import Seen
from txraft.core.messages import (
    AppendEntriesRequest,
    Header,
    InstallSnapshotRequest,
    Request,
)
from txraft.core.ready import (
    Heartbeat,
    Install,
    OutgoingRequest,
    Ready,
    Replicate,
    SendSnapshot,
    SnapshotMark,
)
from txraft.testing.simulation.circumstances import TICK
from txraft.testing.simulation.disk import Disk
from txraft.testing.simulation.registers import Registers

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

MAX_WAITING = 2_000
"""Events that wait for a server that is paused; what comes after them is lost."""


@dataclass(slots=True)
class Parcel:
    """A snapshot on its way: the announcement, and the state that follows it."""

    request: InstallSnapshotRequest
    state: Registers


@dataclass(slots=True)
class Asked:
    """What a client waits for here: the entry of *term*, or a read."""

    term: int
    command: bytes
    settle: Callable[[object, int], None]
    fail: Callable[[], None]


class SimulatedServer:
    """One server: what survives a crash, and its consensus while it runs."""

    def __init__(self, simulation: Simulation, address: str, first: Configuration):
        self.simulation = simulation
        self.address = address
        self.bootstrap = first
        self.disk = Disk()
        self.life = 0
        self.running = False
        self.pace = TICK
        if simulation.circumstances.drifts:
            self.pace = int(TICK * simulation.random.uniform(0.9, 1.1))
        self.start()

    def start(self) -> None:
        """Recover from disk and run."""
        simulation, disk = self.simulation, self.disk
        disk.recover()
        self.life += 1
        self.running = True
        self.paused = False
        self.missed_ticks = 0
        self.effects_left: int | None = None
        self.waiting: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.parts: deque[tuple[int, Callable[..., object], tuple[object, ...]]]
        self.parts = deque()
        self.held: deque[tuple[int, object, object]] = deque()
        self.asked: dict[int, Asked] = {}
        self.reads: list[tuple[int, Asked]] = []
        self.asking: dict[int, Asked] = {}
        self.synced_number = 0
        self.stalled_until = 0
        self.memory = dict(disk.entries)
        self.state = disk.snapshot.copy()
        self.parcels: dict[int, Registers] = {}
        self.consensus = Consensus(
            self.address,
            Random(simulation.random.getrandbits(32)),
            simulation.circumstances.options,
            disk.state,
            disk.log(),
            disk.configurations(self.bootstrap),
            disk.mark,
            fit=self._fit,
        )
        self.consensus.cluster_proposals = {
            i: e.cluster for i, e in self.memory.items() if e.cluster is not None
        }
        self.seen: Seen | None = None
        self.checked: tuple[object, ...] | None = None
        self._was_leader = False
        self.later(int(simulation.random.random() * self.pace), self._tick)

    def _fit(self, first: int, last: int) -> int:
        if self.simulation.buggify("one entry in a message"):
            return first
        if self.simulation.buggify("half of the entries in a message"):
            return (first + last) // 2
        return last

    def crash(self, intact: bool = False) -> None:
        """Stop at once; of the writes under way a part may have reached the disk.

        None of them, if *intact*.
        """
        random = self.simulation.random
        survivors = random.randint(0, len(self.parts))
        if intact or random.random() < 0.5:
            survivors = 0
        for _ in range(survivors):
            _, function, arguments = self.parts.popleft()
            function(*arguments)
        self.running = False
        self.life += 1
        self.seen = self.checked = None
        self._fail_all()

    # Time -----------------------------------------------------------------------

    def later(
        self, delay: int, function: Callable[..., object], *arguments: object
    ) -> None:
        """Call *function* in *delay* microseconds, unless this life has ended."""
        self.simulation.schedule.after(
            delay, self._call, self.life, function, arguments
        )

    def receive(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* now, or when this server goes on; not if it is down."""
        if self.running:
            self._call(self.life, function, arguments)

    def _call(
        self,
        life: int,
        function: Callable[..., object],
        arguments: tuple[object, ...],
    ) -> None:
        if life != self.life:
            return
        if not self.paused:
            function(*arguments)
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append((function, arguments))

    def pause(self, delay: int) -> None:
        """Let nothing happen here for *delay* microseconds."""
        self.paused = True
        self.simulation.schedule.after(delay, self.resume, self.life)

    def resume(self, life: int) -> None:
        """Go on: time first, then all that has waited."""
        if life != self.life or not self.paused:
            return
        self.paused = False
        waiting, self.waiting = self.waiting, deque()
        ticks = sum(function == self._tick for function, _ in waiting)
        if ticks:
            self.missed_ticks += ticks
        for function, arguments in waiting:
            if life == self.life:
                function(*arguments)

    def _tick(self) -> None:
        count, self.missed_ticks = 1 + self.missed_ticks, 0
        pace = self.pace
        if self.simulation.buggify("late tick"):
            self.missed_ticks = 3
            pace *= 4
        self.later(pace, self._tick)
        self.turn(self.consensus.tick, count)

    # One turn -------------------------------------------------------------------

    def turn(self, function: Callable[..., object], *arguments: object) -> None:
        """Hand one input to consensus and act on what follows."""
        function(*arguments)
        if not self.simulation.buggify("inputs in batches"):
            self.flush()

    def flush(self) -> None:
        """Act on what follows from the inputs so far."""
        consensus, simulation = self.consensus, self.simulation
        self._remember(consensus.coming)
        last = consensus.log.last_index
        resident = simulation.circumstances.resident_entries
        if simulation.buggify("nothing in memory"):
            resident = 0
        consensus.resident_from = max(1, last + 1 - resident)
        ready = consensus.ready()
        simulation.oracles.check_turn(self, ready)
        self._register_asked()
        life = self.life
        self._act(ready)
        if life != self.life:
            return
        if consensus.is_leader != self._was_leader:
            self._was_leader = consensus.is_leader
            self._role_changed()

    def _role_changed(self) -> None:
        simulation = self.simulation
        if not self._was_leader:
            self._fail_all()
        elif simulation.buggify("crash of a new leader"):
            delay = simulation.random.randint(2_000, 400_000)
            self.later(delay, simulation.storm.crash, self)
        simulation.note(
            self, "leads" if self._was_leader else "leads no more", self.consensus.term
        )

    def _remember(self, changes: Ready) -> None:
        memory = self.memory
        if changes.reset_log is not None:
            reset = changes.reset_log
            kept = {i: e for i, e in memory.items() if i > reset.index}
            self.memory = memory = kept if reset.keep_suffix else {}
        if changes.truncate_from is not None:
            cut = changes.truncate_from
            self.memory = memory = {i: e for i, e in memory.items() if i < cut}
        for entry in changes.append:
            memory[entry.index] = entry

    def _act(self, ready: Ready) -> None:
        life = self.life
        for to, message in ready.send:
            self._dispatch(to, message)
            if life != self.life:
                return
        if ready.has_write:
            self._write(ready)
        for to, message in ready.after_sync:
            if ready.write_number <= self.synced_number:
                self._dispatch(to, message)
            else:
                self.held.append((ready.write_number, to, message))
            if life != self.life:
                return
        if self.state.index < ready.commit_index:
            self._apply(ready.commit_index)
        for token, index in ready.verified:
            self._verified(token, index)
        if ready.install is not None:
            slow = self.simulation.buggify("slow installation")
            delay = self.simulation.random.randint(1_000, 800_000 if slow else 20_000)
            self.later(delay, self._install, ready.install)
        self.snapshot()

    def _dispatch(self, to: object, message: object) -> None:
        if self.effects_left is not None:
            self.effects_left -= 1
            if self.effects_left < 0:
                self.simulation.storm.crash(self)
                return
        if isinstance(to, str):
            self.simulation.calls.send(self, to, message)
        else:
            self.simulation.calls.answer(self, to, message)

    # Disk -----------------------------------------------------------------------

    def _write(self, ready: Ready) -> None:
        number, disk, parts = ready.write_number, self.disk, self.parts
        if ready.reset_log is not None:
            index = ready.reset_log.index
            term = self.consensus.log.term_at(index) or 0
            if not ready.reset_log.keep_suffix:
                parts.append((number, disk.drop_from, (0,)))
            parts.append((number, disk.compact_to, (index, term)))
        if ready.hard_state is not None:
            parts.append((number, disk.save_state, (ready.hard_state,)))
        if ready.truncate_from is not None:
            parts.append((number, disk.drop_from, (ready.truncate_from,)))
        for entry in ready.append:
            parts.append((number, disk.store, (entry,)))
        simulation = self.simulation
        delays = simulation.circumstances.disk_delays
        delay = delays[int(simulation.random.random() * len(delays))]
        if simulation.buggify("slow sync"):
            delay += 1_500_000
        now = simulation.schedule.now
        self.stalled_until = max(self.stalled_until, now + delay)
        self.later(self.stalled_until - now, self._synced, number)

    def _synced(self, number: int) -> None:
        if self.simulation.storm.breaks_disk(self):
            return
        while self.parts and self.parts[0][0] <= number:
            _, function, arguments = self.parts.popleft()
            function(*arguments)
        self.synced_number = number
        life = self.life
        while self.held and self.held[0][0] <= number:
            _, to, message = self.held.popleft()
            self._dispatch(to, message)
            if life != self.life:
                return
        self.turn(self.consensus.synced, number)

    # Clients --------------------------------------------------------------------

    def propose(self, entry: Entry, asked: Asked) -> bool:
        """Propose what a client wants; tell whether this server took it."""
        self.consensus.propose([entry])
        if entry.index == 0:
            self.turn(lambda: None)
            return False
        asked.term = entry.term
        self.asked[entry.index] = asked
        self.turn(lambda: None)
        return True

    def read(self, number: int, asked: Asked) -> bool:
        """Read for a client; tell whether this server leads."""
        if not self.consensus.is_leader:
            return False
        self.asking[number] = asked
        self.turn(self.consensus.verify, number)
        return True

    def _register_asked(self) -> None:
        if not self.consensus.is_leader and (self.asked or self.asking or self.reads):
            self._fail_all()

    def _fail_all(self) -> None:
        waiting = [*self.asked.values(), *self.asking.values()]
        waiting += [asked for _, asked in self.reads]
        self.asked, self.asking, self.reads = {}, {}, []
        for asked in waiting:
            asked.fail()

    def _verified(self, token: object, index: int) -> None:
        assert isinstance(token, int), "tokens are the numbers of operations"
        asked = self.asking.pop(token, None)
        if asked is not None:
            self.reads.append((index, asked))
            self._answer_reads()

    def _answer_reads(self) -> None:
        due = [asked for index, asked in self.reads if index <= self.state.index]
        self.reads = [r for r in self.reads if r[0] > self.state.index]
        for asked in due:
            asked.settle(self.state, self.state.index)

    # State machine and snapshots --------------------------------------------------

    def _apply(self, commit: int) -> None:
        state, oracles, log = self.state, self.simulation.oracles, self.consensus.log
        for index in range(state.index + 1, commit + 1):
            entry = self.memory[index]
            assert entry.term == log.term_at(index), "what is applied was agreed on"
            result = state.apply(entry)
            oracles.check_applied(index, state.digest, entry)
            asked = self.asked.pop(index, None)
            if asked is not None:
                if (asked.term, asked.command) == (entry.term, entry.data):
                    asked.settle(result, index)
                else:
                    asked.fail()
        self._answer_reads()

    def snapshot(self, at_once: bool = False) -> None:
        """Take a snapshot of what is applied, if all is synced, and cut the log."""
        simulation, disk = self.simulation, self.disk
        consensus, state = self.consensus, self.state
        grown = state.index - disk.mark.index
        due = grown >= simulation.circumstances.snapshot_threshold or at_once
        if self.parts or grown <= 0:  # a real node waits for what is written, too
            return
        if not (due or simulation.buggify("snapshot at once")):
            return
        term = consensus.log.term_at(state.index)
        if consensus.installing or disk.term_at(state.index) != term or term is None:
            return
        made, configuration = consensus.configurations.at(state.index)
        if not configuration.servers:  # real logs begin with the founding membership
            return
        mark = SnapshotMark(state.index, term, configuration, made)
        disk.save_snapshot(mark, state.copy())
        consensus.snapshotted(mark)
        keep = simulation.random.randint(0, simulation.circumstances.trailing)
        if simulation.buggify("log cut to nothing"):
            keep = 0
        self._compact(consensus.may_compact_to(mark.index - keep))

    def _compact(self, index: int) -> None:
        log = self.consensus.log
        if index <= log.base_index:
            return
        term = log.term_at(index)
        assert term is not None, "what is snapshotted was in the log"
        self.consensus.compacted(index)
        self.disk.compact_to(index, term)
        self.memory = {i: e for i, e in self.memory.items() if i > index}

    def _install(self, install: Install) -> None:
        request, disk = install.request, self.disk
        if self.parts:  # the term that it comes in is durable before it is
            self.later(1_000, self._install, install)
            return
        if self.simulation.buggify("failed installation"):
            self.turn(self.consensus.installed, install, None)
            return
        mark = SnapshotMark(
            request.last_log_index,
            request.last_log_term,
            request.configuration,
            request.configuration_index,
        )
        state = self.parcels.pop(mark.index)
        self.simulation.oracles.check_restored(mark.index, state.digest)
        disk.save_snapshot(mark, state.copy())
        if mark.index > self.state.index:
            self.state = state.copy()
            self._forget_covered()
        self.turn(self.consensus.installed, install, mark)

    def _forget_covered(self) -> None:
        """Nobody will be told of what a snapshot has brought."""
        for index in [i for i in self.asked if i <= self.state.index]:
            self.asked.pop(index).fail()

    def take_parcel(self, parcel: Parcel) -> InstallSnapshotRequest:
        """Keep the state that follows a snapshot's announcement."""
        if not self.consensus.installing:
            self.parcels = {parcel.request.last_log_index: parcel.state}
        return parcel.request

    # Bodies ---------------------------------------------------------------------

    def body(
        self, request: OutgoingRequest
    ) -> tuple[OutgoingRequest, Request | Parcel]:
        """Return *request* as it is really sent, and as it travels."""
        match request:
            case Heartbeat():
                header = Header(cluster=self.consensus.cluster)
                heartbeat = AppendEntriesRequest(
                    request.term, self.address, header=header
                )
                return request, heartbeat
            case Replicate():
                return self._entries(request)
            case SendSnapshot():
                return self._newest_snapshot(request)
            case _:
                return request, request

    def _entries(self, request: Replicate) -> tuple[OutgoingRequest, Request]:
        last, first = request.last, request.prev_index + 1
        if request.may_shorten and last > first:
            last = self._fit(first, last)
            request = replace(request, last=last, commit=min(request.commit, last))
        memory = self.memory
        entries = [memory[index] for index in range(first, last + 1)]
        return request, AppendEntriesRequest(
            request.term,
            self.address,
            request.prev_index,
            request.prev_term,
            entries,
            request.commit,
            Header(cluster=self.consensus.cluster),
        )

    def _newest_snapshot(self, request: SendSnapshot) -> tuple[OutgoingRequest, Parcel]:
        mark = self.disk.mark
        assert mark.index >= request.index, "a snapshot covers what is compacted"
        announced = InstallSnapshotRequest(
            term=request.term,
            leader=self.address,
            last_log_index=mark.index,
            last_log_term=mark.term,
            size=0,
            configuration=mark.configuration,
            configuration_index=mark.configuration_index,
        )
        return replace(request, index=mark.index), Parcel(announced, self.disk.snapshot)
