"""A server of the core simulation: its disk, its state machine and its consensus.

It acts on each `Ready` in the order that a node's shell does; the simulation crashes
and pauses it meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from txraft.core.configuration import Configuration
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
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
from txraft.wire.decisions import activated_level, encode_activation

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

MAX_WAITING = 2_000
"""Events that wait for a paused server at most; more are lost."""


@dataclass(slots=True)
class Parcel:
    """A snapshot under way: the request that announces it, and its state."""

    request: InstallSnapshotRequest
    state: Registers


@dataclass(slots=True)
class Asked:
    """An operation that waits for its outcome: the entry of *term*, or a read."""

    term: int
    command: bytes
    settle: Callable[[object, int], None]
    fail: Callable[[], None]


class SimulatedServer:
    """One server: its disk, which survives a crash, and its consensus while it runs.

    `run_number` grows with each start and each crash. What was scheduled in an earlier
    run does nothing in a later one.
    """

    def __init__(self, simulation: Simulation, address: str, first: Configuration):
        self.simulation = simulation
        self.address = address
        self.bootstrap = first
        self.disk = Disk()
        self.run_number = 0
        self.running = False
        self.level = 0
        self._is_behind = False
        self.pace = TICK
        if simulation.circumstances.drifts:
            self.pace = int(TICK * simulation.random.uniform(0.9, 1.1))
        self.start()

    def start(self) -> None:
        """Recover from the disk and run."""
        simulation, disk = self.simulation, self.disk
        disk.recover()
        self.run_number += 1
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
        options = simulation.circumstances.options
        if simulation.upgrades is not None:
            self._upgrade_sometimes(simulation.upgrades)
            options = replace(options, level=self.level)
        self.consensus = Consensus(
            self.address,
            # A generator of its own, so that a draw more in consensus moves no draw of
            # the world's.
            Random(simulation.random.getrandbits(32)),
            options=options,
            hard_state=disk.state,
            log=disk.log(),
            configurations=disk.configurations(self.bootstrap),
            snapshot=disk.mark,
            fit=self._fit,
        )
        self.consensus.cluster_proposals = {
            i: e.cluster for i, e in self.memory.items() if e.cluster is not None
        }
        self.consensus.activated(self.state.level)
        self.seen: Seen | None = None
        self.checked: tuple[object, ...] | None = None
        self._was_leader = False
        self.later(int(simulation.random.random() * self.pace), self._tick)

    def _upgrade_sometimes(self, random: Random) -> None:
        """Start as a version that understands the level, or as the one before it.

        A server that had to stop for lack of the level always starts as the newer one.
        """
        if self._is_behind or random.random() < 0.8:
            self.level, self._is_behind = 1, False

    def _fit(self, first: int, last: int) -> int:
        if self.simulation.buggify("one entry in a message"):
            return first
        if self.simulation.buggify("half of the entries in a message"):
            return (first + last) // 2
        return last

    def crash(self, intact: bool = False) -> None:
        """Stop at once; a part of the writes under way may reach the disk.

        If the disk is *intact*, none of them does.
        """
        random = self.simulation.random
        survivors = random.randint(0, len(self.parts))
        if intact or random.random() < 0.5:
            survivors = 0
        for _ in range(survivors):
            _, function, arguments = self.parts.popleft()
            function(*arguments)
        self.running = False
        # Down before clients are told: none of them may find it running.
        self.run_number += 1
        self.seen = self.checked = None
        self._fail_all()

    # Time -----------------------------------------------------------------------

    def later(
        self, delay: int, function: Callable[..., object], *arguments: object
    ) -> None:
        """Call *function* in *delay* microseconds, unless this run ends before."""
        self.simulation.schedule.after(
            delay, self._call, self.run_number, function, arguments
        )

    def receive(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* now, or after a pause; never if the server is down."""
        if self.running:
            self._call(self.run_number, function, arguments)

    def _call(
        self,
        run_number: int,
        function: Callable[..., object],
        arguments: tuple[object, ...],
    ) -> None:
        if run_number != self.run_number:
            return
        if not self.paused:
            function(*arguments)
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append((function, arguments))

    def pause(self, delay: int) -> None:
        """Hold all events back for *delay* microseconds."""
        self.paused = True
        self.simulation.schedule.after(delay, self.resume, self.run_number)

    def resume(self, run_number: int) -> None:
        """Go on after a pause: handle all events that have waited, in order."""
        if run_number != self.run_number or not self.paused:
            return
        self.paused = False
        waiting, self.waiting = self.waiting, deque()
        ticks = sum(function == self._tick for function, _ in waiting)
        if ticks:
            self.missed_ticks += ticks
        for function, arguments in waiting:
            if run_number == self.run_number:
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
        """Give one input to consensus and act on its `Ready`."""
        function(*arguments)
        if not self.simulation.buggify("inputs in batches"):
            self.flush()

    def flush(self) -> None:
        """Act on the `Ready` of all inputs since the last one."""
        consensus, simulation = self.consensus, self.simulation
        if simulation.upgrades is not None:
            self._activate()
        # Ahead of `ready`, as in the shell: `ready` sizes requests by what is in
        # memory, and the entries of this turn may be among them.
        self._remember(consensus.coming)
        last = consensus.log.last_index
        resident = simulation.circumstances.resident_entries
        if simulation.buggify("nothing in memory"):
            resident = 0
        consensus.resident_from = max(1, last + 1 - resident)
        ready = consensus.ready()
        # Ahead of every effect: what breaks a rule must not get out first.
        simulation.oracles.check_turn(self, ready)
        self._register_asked()
        run_number = self.run_number
        self._act(ready)
        # A crash in the middle of it ended this run; no line below may touch the next.
        if run_number != self.run_number:
            return
        if consensus.is_leader != self._was_leader:
            self._was_leader = consensus.is_leader
            self._role_changed()

    def _activate(self) -> None:
        """Append the activation of a level that all members understand.

        A node does this at the end of a turn, too.
        """
        level = self.consensus.level_due(self.state.index)
        if level:
            entry = Entry(0, 0, LogType.NOOP, encode_activation(level))
            self.consensus.append_activation(entry, level)

    def _role_changed(self) -> None:
        simulation = self.simulation
        if not self._was_leader:
            self._fail_all()
        elif simulation.buggify("crash of a new leader"):
            delay = simulation.random.randint(2_000, 400_000)
            self.later(delay, simulation.fault_schedule.crash, self)
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
        run_number = self.run_number
        for to, message in ready.send:
            self._dispatch(to, message)
            if run_number != self.run_number:
                return
        # The write is queued ahead of `after_sync`: those messages wait for it.
        if ready.has_write:
            self._write(ready)
        for to, message in ready.after_sync:
            if ready.write_number <= self.synced_number:
                self._dispatch(to, message)
            else:
                self.held.append((ready.write_number, to, message))
            if run_number != self.run_number:
                return
        if self.state.index < ready.commit_index:
            self._apply(ready.commit_index)
            if run_number != self.run_number:
                return
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
                self.simulation.fault_schedule.crash(self)
                return
        if isinstance(to, str):
            self.simulation.exchanges.send(self, to, message)
        else:
            self.simulation.exchanges.answer(self, to, message)

    # Disk -----------------------------------------------------------------------

    def _write(self, ready: Ready) -> None:
        # The order in which the parts reach the disk: a crash keeps the first ones.
        # Term and vote are ahead of entries, and a truncation ahead of what replaces
        # it.
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
        # Syncs end in the order in which they began, also behind a slow one.
        now = simulation.schedule.now
        self.stalled_until = max(self.stalled_until, now + delay)
        self.later(self.stalled_until - now, self._synced, number)

    def _synced(self, number: int) -> None:
        if self.simulation.fault_schedule.breaks_disk(self):
            return
        while self.parts and self.parts[0][0] <= number:
            _, function, arguments = self.parts.popleft()
            function(*arguments)
        # Durable now. Answers that waited for it leave before consensus hears of it,
        # so that one of the next turn cannot overtake them.
        self.synced_number = number
        run_number = self.run_number
        while self.held and self.held[0][0] <= number:
            _, to, message = self.held.popleft()
            self._dispatch(to, message)
            if run_number != self.run_number:
                return
        self.turn(self.consensus.synced, number)

    # Clients --------------------------------------------------------------------

    def propose(self, entry: Entry, asked: Asked) -> bool:
        """Propose an entry of a client.

        Returns: whether this server accepted it, as a leader does.
        """
        self.consensus.propose([entry])
        if entry.index == 0:
            self.turn(lambda: None)
            return False
        asked.term = entry.term
        self.asked[entry.index] = asked
        self.turn(lambda: None)
        return True

    def read(self, number: int, asked: Asked) -> bool:
        """Begin a read of a client.

        Returns: whether this server leads.
        """
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
            level = activated_level(entry.data or b"") if entry.data else 0
            if level > state.level:
                if self._stops_at(level):
                    return
                self._activated(index, level)
            result = state.apply(entry)
            oracles.check_applied(index, state.digest, entry)
            oracles.check_level(index, state.level)
            asked = self.asked.pop(index, None)
            if asked is not None:
                if (asked.term, asked.command) == (entry.term, entry.data):
                    asked.settle(result, index)
                else:
                    asked.fail()
        self._answer_reads()

    def _activated(self, index: int, level: int) -> None:
        """Hold the activation of *level* against what the members understand."""
        servers, oracles = self.simulation.servers, self.simulation.oracles
        _, configuration = self.consensus.configurations.at(index)
        members = {a: servers[a].level for a in configuration.addresses}
        oracles.check_activated(level, members)
        self.consensus.activated(level)

    def _stops_at(self, level: int) -> bool:
        """Stop, if this version does not understand *level*; tell whether it did."""
        if level <= self.level:
            return False
        self._is_behind = True
        self.simulation.note(self, "does not understand level", level)
        self.simulation.fault_schedule.crash(self)
        return True

    def snapshot(self, at_once: bool = False) -> None:
        """Take a snapshot if it is due and all writes are synced; compact the log."""
        simulation, disk = self.simulation, self.disk
        consensus, state = self.consensus, self.state
        grown = state.index - disk.mark.index
        due = grown >= simulation.circumstances.snapshot_threshold or at_once
        if self.parts or grown <= 0:  # a node too waits for its writes
            return
        if not (due or simulation.buggify("snapshot at once")):
            return
        term = consensus.log.term_at(state.index)
        if consensus.installing or disk.term_at(state.index) != term or term is None:
            return
        made, configuration = consensus.configurations.at(state.index)
        if not configuration.servers:  # a log begins with the bootstrap configuration
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
        if self.parts:  # its term must be durable before it is
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
        if self._stops_at(state.level):
            return
        self.simulation.oracles.check_restored(mark.index, state.digest)
        self.simulation.oracles.check_level(mark.index, state.level)
        disk.save_snapshot(mark, state.copy())
        if mark.index > self.state.index:
            self.state = state.copy()
            self.consensus.activated(self.state.level)
            self._forget_covered()
        self.turn(self.consensus.installed, install, mark)

    def _forget_covered(self) -> None:
        """Give up on entries that the snapshot covers: no result is known here."""
        for index in [i for i in self.asked if i <= self.state.index]:
            self.asked.pop(index).fail()

    def take_parcel(self, parcel: Parcel) -> InstallSnapshotRequest:
        """Keep the state of a snapshot until it is installed; return its request."""
        if not self.consensus.installing:
            self.parcels = {parcel.request.last_log_index: parcel.state}
        return parcel.request

    # Bodies ---------------------------------------------------------------------

    def body(
        self, request: OutgoingRequest
    ) -> tuple[OutgoingRequest, Request | Parcel]:
        """Fill *request* from memory or disk.

        Returns: the request as it was cut to what is sent, and what the peer gets.
        """
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
            prev_log_index=request.prev_index,
            prev_log_term=request.prev_term,
            entries=entries,
            leader_commit=request.commit,
            header=Header(cluster=self.consensus.cluster),
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
            header=Header(cluster=self.consensus.cluster),
        )
        return replace(request, index=mark.index), Parcel(announced, self.disk.snapshot)
