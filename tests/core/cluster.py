"""Whole clusters of `Consensus` objects in one process, driven by one seed.

Each machine has a disk that loses what was not synced when it crashes, and a
network that loses, delays, repeats and reorders requests; an answer always comes
back paired with its request. After every event the invariants are checked. Nothing
here reads a clock, and every choice comes from one `random.Random`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from zlib import crc32

from txraft.core.configuration import Configuration, ConfigurationHistory, Server
from txraft.core.configuration import Suffrage as S
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.invariants import History, Seen, check_ready, check_server
from txraft.core.log import Log
from txraft.core.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    Request,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    TimeoutNowRequest,
)
from txraft.core.ready import (
    HardState,
    Heartbeat,
    Install,
    Options,
    OutgoingRequest,
    Ready,
    Refusal,
    Replicate,
    SendSnapshot,
    SnapshotMark,
)
from txraft.errors import ConfigurationRefused

MAX_EVENTS = 400_000
"""Events in one run: more than this is a storm of messages."""


@dataclass(slots=True)
class Call:
    """One request on its way, and who waits for the answer."""

    source: Machine
    life: int
    target: str
    request: OutgoingRequest
    answered: bool = False


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    state: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict)
    base: tuple[int, int] = (0, 0)
    mark: SnapshotMark = field(default_factory=SnapshotMark)
    digest: int = 0

    @property
    def last_index(self) -> int:
        """The index of the newest entry, or of the base."""
        return max(self.entries, default=self.base[0])

    def drop_from(self, index: int) -> None:
        """Delete the entry at *index* and all after it."""
        self.entries = {i: e for i, e in self.entries.items() if i < index}

    def compact_to(self, index: int, term: int) -> None:
        """Delete the entries up to *index*."""
        if index > self.base[0]:
            self.entries = {i: e for i, e in self.entries.items() if i > index}
            self.base = (index, term)

    def recover(self) -> None:
        """Drop a log that ends before the snapshot or disagrees with it."""
        mark = self.mark
        entry = self.entries.get(mark.index)
        term = self.base[1] if mark.index == self.base[0] else entry and entry.term
        if mark.index > self.base[0] and term != mark.term:
            self.entries = {}
            self.base = (mark.index, mark.term)

    def log(self) -> Log:
        """Return the log as consensus sees it."""
        runs: list[tuple[int, int]] = []
        for index in sorted(self.entries):
            term = self.entries[index].term
            if not runs or runs[-1][1] != term:
                runs.append((index, term))
        return Log(runs, self.last_index, *self.base)

    def configurations(self, bootstrap: Configuration) -> ConfigurationHistory:
        """Return the memberships that snapshot and log assert."""
        if self.mark.index:
            history = ConfigurationHistory(
                self.mark.configuration_index, self.mark.configuration
            )
        else:
            history = ConfigurationHistory(0, bootstrap)
        for index in sorted(self.entries):
            made = self.entries[index].configuration
            if made is not None and index > history.latest_index:
                history.append(index, made)
        return history


class Machine:
    """One server: its disk, and its consensus while it runs."""

    def __init__(self, cluster: Cluster, address: str, bootstrap: Configuration):
        self.cluster = cluster
        self.address = address
        self.bootstrap = bootstrap
        self.disk = Disk()
        self.life = 0
        self.running = False
        self.start()

    def start(self) -> None:
        """Recover from disk and run."""
        cluster, disk = self.cluster, self.disk
        disk.recover()
        self.life += 1
        self.running = True
        self.parts: deque[tuple[int, Callable[[], None]]] = deque()
        self.held: deque[tuple[int, object, object]] = deque()
        self.synced_number = 0
        self.stalled_until = 0
        self.memory = dict(disk.entries)
        self.applied, self.digest = disk.mark.index, disk.digest
        self.consensus = Consensus(
            self.address,
            Random(cluster.random.getrandbits(32)),
            cluster.options,
            disk.state,
            disk.log(),
            disk.configurations(self.bootstrap),
            disk.mark,
            fit=self._fit,
        )
        self.consensus.cluster_proposals = {
            i: e.cluster for i, e in self.memory.items() if e.cluster is not None
        }
        self.consensus.now = cluster.random.randrange(1, 50)
        self.seen: Seen | None = None

    def _fit(self, first: int, last: int) -> int:
        return self.cluster.random.randint(first, last)

    def crash(self) -> None:
        """Stop at once; of the writes under way a part may have reached the disk."""
        survivors = self.cluster.random.randint(0, len(self.parts))
        if self.cluster.random.random() < 0.5:
            survivors = 0
        for _ in range(survivors):
            self.parts.popleft()[1]()
        self.running = False
        self.life += 1
        self.seen = None

    # One turn -----------------------------------------------------------------------

    def turn(self, function: Callable[..., object], *arguments: object) -> None:
        """Hand one input to consensus and act on what follows."""
        if not self.running:
            return
        function(*arguments)
        if self.cluster.random.random() < self.cluster.batching:
            return
        self.flush()

    def flush(self) -> None:
        """Act on what follows from the inputs so far."""
        consensus, cluster = self.consensus, self.cluster
        changes = consensus.log_changes
        if changes.reset_log is not None:
            reset = changes.reset_log
            kept = {i: e for i, e in self.memory.items() if i > reset.index}
            self.memory = kept if reset.keep_suffix else {}
        if changes.truncate_from is not None:
            cut = changes.truncate_from
            self.memory = {i: e for i, e in self.memory.items() if i < cut}
        for entry in changes.append:
            self.memory[entry.index] = entry
            cluster.check_entry(entry)
        last = consensus.log.last_index
        consensus.resident_from = max(1, last + 1 - cluster.resident_entries)
        ready = consensus.ready()
        check_ready(consensus, ready)
        self.seen = check_server(consensus, self.seen)
        others = [m.consensus for m in cluster.running if m is not self]
        cluster.history.observe(consensus, others)
        self._act(ready)

    def _act(self, ready: Ready) -> None:
        for to, message in ready.send:
            self._dispatch(to, message)
        if ready.has_write:
            self._write(ready)
        for to, message in ready.after_sync:
            if ready.write_number <= self.synced_number:
                self._dispatch(to, message)
            else:
                self.held.append((ready.write_number, to, message))
        self._apply(ready.commit_index)
        for token, index in ready.verified:
            self.cluster.check_read(token, index)
        if ready.install is not None:
            delay = self.cluster.random.randint(1, 8)
            self.cluster.later(delay, self, self._install, ready.install)
        self._snapshot()

    def _dispatch(self, to: object, message: object) -> None:
        if isinstance(to, str):
            self.cluster.send(self, to, message)
        else:
            self.cluster.answer(self, to, message)

    # Disk -----------------------------------------------------------------------------

    def _write(self, ready: Ready) -> None:
        number, disk = ready.write_number, self.disk
        if ready.reset_log is not None:
            index = ready.reset_log.index
            term = self.consensus.log.term_at(index) or 0
            if not ready.reset_log.keep_suffix:
                self.parts.append((number, lambda: disk.drop_from(0)))
            self.parts.append((number, lambda: disk.compact_to(index, term)))
        if ready.hard_state is not None:
            state = ready.hard_state
            self.parts.append((number, lambda: setattr(disk, "state", state)))
        if ready.truncate_from is not None:
            cut = ready.truncate_from
            self.parts.append((number, lambda: disk.drop_from(cut)))
        for entry in ready.append:
            self.parts.append((number, lambda e=entry: self._store(e)))
        random = self.cluster.random
        delay = random.choice(self.cluster.disk_delays)
        self.stalled_until = max(self.stalled_until, self.cluster.now + delay)
        self.cluster.at(self.stalled_until, self, self._synced, number)

    def _store(self, entry: Entry) -> None:
        disk = self.disk
        if entry.index > disk.base[0]:
            assert entry.index == disk.last_index + 1, "the log on disk has no gap"
            disk.entries[entry.index] = entry

    def _synced(self, number: int) -> None:
        while self.parts and self.parts[0][0] <= number:
            self.parts.popleft()[1]()
        self.synced_number = number
        while self.held and self.held[0][0] <= number:
            _, to, message = self.held.popleft()
            self._dispatch(to, message)
        self.turn(self.consensus.synced, number)

    # State machine and snapshots --------------------------------------------------------

    def _apply(self, commit: int) -> None:
        while self.applied < commit:
            self.applied += 1
            entry = self.memory[self.applied]
            term = self.consensus.log.term_at(self.applied)
            assert entry.term == term, "what is applied is what was agreed on"
            self.digest = crc32(b"%d %d" % (entry.term, entry.index), self.digest)
            self.digest = crc32(entry.data or b"", self.digest)
            self.cluster.check_applied(self.applied, self.digest)

    def _snapshot(self) -> None:
        """Take a snapshot of what is applied and synced, and cut the log."""
        cluster, disk, consensus = self.cluster, self.disk, self.consensus
        due = self.applied - disk.mark.index >= cluster.snapshot_threshold
        if not due or disk.last_index < self.applied or consensus.installing:
            return
        entry = disk.entries.get(self.applied)
        if entry is None or entry.term != consensus.log.term_at(self.applied):
            return
        made, configuration = consensus.configurations.at(self.applied)
        mark = SnapshotMark(self.applied, entry.term, configuration, made)
        disk.mark, disk.digest = mark, self.digest
        consensus.snapshotted(mark)
        keep = cluster.random.randint(0, cluster.trailing)
        index = mark.index - keep
        if index > consensus.log.base_index:
            term = consensus.log.term_at(index)
            assert term is not None
            consensus.compacted(index)
            disk.compact_to(index, term)
            self.memory = {i: e for i, e in self.memory.items() if i > index}

    def _install(self, install: Install) -> None:
        request, cluster, disk = install.request, self.cluster, self.disk
        if cluster.random.random() < 0.15:
            self.turn(self.consensus.installed, install, None)
            return
        mark = SnapshotMark(
            request.last_log_index,
            request.last_log_term,
            request.configuration,
            request.configuration_index,
        )
        if mark.index > disk.mark.index:
            disk.mark, disk.digest = mark, cluster.digests[mark.index]
        if mark.index > self.applied:
            self.applied, self.digest = mark.index, cluster.digests[mark.index]
        self.turn(self.consensus.installed, install, mark)

    # Bodies ---------------------------------------------------------------------------

    def body(self, request: OutgoingRequest) -> tuple[OutgoingRequest, Request]:
        """Return *request* as it is really sent, and as it travels."""
        match request:
            case Heartbeat():
                return request, AppendEntriesRequest(request.term, self.address)
            case Replicate():
                return self._entries(request)
            case SendSnapshot():
                return self._newest_snapshot(request)
            case _:
                return request, request

    def _entries(self, request: Replicate) -> tuple[OutgoingRequest, Request]:
        last = request.last
        if request.may_shorten and last > request.prev_index:
            last = self.cluster.random.randint(request.prev_index + 1, last)
        sent = replace(request, last=last, commit=min(request.commit, last))
        entries = [
            replace(self.memory[index])
            for index in range(request.prev_index + 1, last + 1)
        ]
        return sent, AppendEntriesRequest(
            sent.term,
            self.address,
            sent.prev_index,
            sent.prev_term,
            entries,
            sent.commit,
        )

    def _newest_snapshot(
        self, request: SendSnapshot
    ) -> tuple[OutgoingRequest, Request]:
        mark = self.disk.mark
        assert mark.index >= request.index, "a snapshot covers what is compacted"
        return replace(request, index=mark.index), InstallSnapshotRequest(
            term=request.term,
            leader=self.address,
            last_log_index=mark.index,
            last_log_term=mark.term,
            size=0,
            configuration=mark.configuration,
            configuration_index=mark.configuration_index,
        )


class Cluster:
    """Machines, the network between them, and what happens to both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.now = 0
        self.events = 0
        self._queue: list[
            tuple[int, int, Machine | None, int, Callable[[], object]]
        ] = []
        self.history = History()
        self.digests: dict[int, int] = {0: 0}
        self.entries: dict[tuple[int, int], object] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.channels: dict[object, int] = {}
        self.proposed = self.reads = self.crashes = self.changes = self.transfers = 0
        self.calm = False
        protected = random.random() >= 1 / 3
        self.protected = protected
        self.options = Options(
            heartbeat_timeout_ticks=10,
            election_timeout_ticks=10,
            heartbeat_interval_ticks=2,
            commit_interval_ticks=1,
            lease_ticks=8,
            max_append_entries=random.choice((1, 2, 8, 64)),
            max_inflight_requests=random.choice((1, 2, 4)),
            pre_vote=protected or random.random() < 0.3,
            check_quorum=protected or random.random() < 0.3,
            opening_entry_lists_members=random.random() < 0.2,
        )
        self.batching = random.choice((0.0, 0.0, 0.3))
        self.resident_entries = random.choice((0, 2, 8, 1000))
        self.snapshot_threshold = random.choice((3, 10, 30, 10**9))
        self.trailing = random.choice((0, 2, 10))
        self.disk_delays = random.choice(((0,), (0, 1, 2), (1, 1, 2, 5), (0, 1, 30)))
        self.loss = random.choice((0.0, 0.02, 0.1, 0.25))
        self.repeats = random.choice((0.0, 0.05))
        self.longest_delay = random.choice((1, 2, 4))
        self.in_order = random.random() < 0.5
        self.crash_rate = random.choice((0.0, 0.005, 0.02))
        self.change_rate = random.choice((0.0, 0.02, 0.1))
        self.cut_rate = random.choice((0.0, 0.01, 0.03))
        self.transfer_rate = random.choice((0.0, 0.01))
        self.proposal_rate = random.choice((0.2, 0.7))
        self.names = "abcdefg"[: random.randint(1, 7)]
        founders = random.randint(1, min(5, len(self.names)))
        first = Configuration.of_voters(self.names[:founders])
        self.machines = {
            name: Machine(
                self, name, first if name in first.addresses else Configuration()
            )
            for name in self.names
        }

    @property
    def running(self) -> list[Machine]:
        """The machines that are up."""
        return [m for m in self.machines.values() if m.running]

    # Time -----------------------------------------------------------------------------

    def at(
        self, time: int, machine: Machine | None, f: Callable[..., object], *a: object
    ) -> None:
        """Call *f* at *time*, unless *machine* has crashed by then."""
        self.events += 1
        life = machine.life if machine else 0
        entry = (time, self.events, machine, life, lambda: f(*a))
        heapq.heappush(self._queue, entry)

    def later(
        self, delay: int, machine: Machine | None, f: Callable[..., object], *a: object
    ) -> None:
        """Call *f* after *delay* ticks."""
        self.at(self.now + delay, machine, f, *a)

    def run_until(self, time: int, happens: Callable[[], object]) -> None:
        """Let time pass; *happens* is asked for faults and load at every tick."""
        while self.now < time:
            self.now += 1
            for machine in self.running:
                machine.turn(machine.consensus.tick, self._ticks())
            happens()
            while self._queue and self._queue[0][0] <= self.now:
                _, _, owner, life, call = heapq.heappop(self._queue)
                if owner is None or owner.life == life:
                    call()
            if self.batching:
                for machine in self.running:
                    machine.flush()
            assert self.events < MAX_EVENTS, "a storm of messages"

    def _ticks(self) -> int:
        if self.calm:
            return 1
        return 1 if self.random.random() < 0.95 else self.random.choice((0, 2, 5))

    # Network --------------------------------------------------------------------------

    def send(self, source: Machine, target: str, message: object) -> None:
        """Send a request; it is answered, or its sender learns that it was not."""
        sent, travels = source.body(message)
        call = Call(source, source.life, target, sent)
        if not self.calm:
            self._check_snapshot_travels(sent)
        lost = (source.address, target) in self.cuts or self._loses()
        self.later(self.random.randint(8, 12), source, self._give_up, call)
        if lost or target not in self.machines:
            if self.random.random() < 0.5:
                self.later(1, source, self._give_up, call)
            return
        arrival = self._arrival((source.address, target, type(sent)))
        self.at(arrival, None, self._arrive, call, travels)
        if not self.calm and self.random.random() < self.repeats:
            late = arrival + self.random.randint(1, 20)
            again = replace(call, answered=True)
            self.at(late, None, self._arrive, again, travels)

    def _check_snapshot_travels(self, sent: OutgoingRequest) -> None:
        if isinstance(sent, SendSnapshot):
            assert sent.index in self.digests, "a snapshot is of an applied state"

    def _loses(self) -> bool:
        return not self.calm and self.random.random() < self.loss

    def _arrival(self, channel: object) -> int:
        arrival = self.now + self.random.randint(0, self.longest_delay)
        if self.in_order:
            arrival = max(arrival, self.channels.get(channel, 0))
            self.channels[channel] = arrival
        return arrival

    def _arrive(self, call: Call, travels: Request) -> None:
        target = self.machines[call.target]
        if (call.source.address, call.target) in self.cuts:
            return
        if not target.running:
            if self.random.random() < 0.5:
                self.later(1, call.source, self._give_up, call)
            return
        target.turn(target.consensus.request, _copy(travels), (call, target.life))

    def answer(self, source: Machine, to: object, message: object) -> None:
        """Send an answer back, paired with its request."""
        call, life = to
        assert life == source.life, "an answer is of the life that was asked"
        self._check_vote(source, call, message)
        if (source.address, call.source.address) in self.cuts or self._loses():
            return
        channel = (source.address, call.source.address, type(call.request), "answer")
        self.at(self._arrival(channel), None, self._answered, call, message)

    def _answered(self, call: Call, message: Response | Refusal) -> None:
        if call.answered or call.source.life != call.life:
            return
        call.answered = True
        consensus = call.source.consensus
        if isinstance(message, Refusal):
            call.source.turn(consensus.unreachable, call.target, call.request)
        else:
            call.source.turn(consensus.response, call.target, call.request, message)

    def _give_up(self, call: Call) -> None:
        if not call.answered:
            call.answered = True
            closed = self.random.random() < 0.3
            call.source.turn(
                call.source.consensus.unreachable, call.target, call.request, closed
            )

    # Checks ---------------------------------------------------------------------------

    def _check_vote(self, source: Machine, call: Call, message: object) -> None:
        if isinstance(message, RequestVoteResponse) and message.granted:
            assert isinstance(call.request, RequestVoteRequest)
            self.check_vote(source.address, call.request.term, call.request.candidate)

    def check_vote(self, voter: str, term: int, candidate: str) -> None:
        """Assert that nobody votes twice in a term, not even across crashes."""
        known = self.votes.setdefault((voter, term), candidate)
        assert known == candidate, f"{voter} voted for {known} and {candidate}"

    def check_entry(self, entry: Entry) -> None:
        """Assert that an index and a term name one entry, everywhere and for ever."""
        content = (entry.type, entry.data, entry.configuration, entry.cluster)
        known = self.entries.setdefault((entry.index, entry.term), content)
        assert known == content, f"two entries {entry.index} of term {entry.term}"

    def check_applied(self, index: int, digest: int) -> None:
        """Assert that every state machine goes through the same states."""
        known = self.digests.setdefault(index, digest)
        assert known == digest, f"state machines differ after {index}"

    def check_read(self, token: object, index: int) -> None:
        """Assert that a read sees what was committed when it was asked for."""
        assert index >= token, f"read at {index} of what was committed to {token}"
        self.reads += 1

    # What happens -----------------------------------------------------------------------

    def storm(self) -> None:
        """Do what this seed likes to do: load, faults, changes."""
        random = self.random
        if random.random() < self.crash_rate and self.running:
            self._crash(random.choice(self.running))
        if random.random() < self.cut_rate:
            self._cut()
        if self.cuts and random.random() < 0.03:
            self.cuts.clear()
        for machine in self.running:
            self._load(machine)

    def _crash(self, machine: Machine) -> None:
        self.crashes += 1
        machine.crash()
        for other in self.running:
            if self.random.random() < 0.5:
                other.turn(other.consensus.disconnected, machine.address)
        self.later(self.random.randint(0, 40), None, self._restart, machine)

    def _restart(self, machine: Machine) -> None:
        if not machine.running:
            machine.start()

    def _cut(self) -> None:
        names, random = self.names, self.random
        if random.random() < 0.3:
            self.cuts.add((random.choice(names), random.choice(names)))
            return
        side = {name for name in names if random.random() < 0.5}
        self.cuts |= {
            (a, b) for a in names for b in names if (a in side) != (b in side)
        }

    def _load(self, machine: Machine) -> None:
        consensus, random = machine.consensus, self.random
        if not consensus.is_leader:
            return
        if random.random() < self.proposal_rate:
            count = random.randint(1, 4)
            machine.turn(consensus.propose, [self.command() for _ in range(count)])
        if random.random() < 0.2:
            machine.turn(consensus.verify, self.history.max_committed)
        if random.random() < self.change_rate and consensus.may_change_configuration:
            machine.turn(self._change, consensus)
        if random.random() < self.transfer_rate:
            self.transfers += 1
            machine.turn(consensus.transfer, random.choice(self.names))

    def command(self) -> Entry:
        """Make a command unlike any other."""
        self.proposed += 1
        return Entry(0, 0, LogType.COMMAND, b"%d" % self.proposed)

    def _change(self, consensus: Consensus) -> None:
        name, now = self.random.choice(self.names), consensus.configuration
        known = now.server(name)
        suffrage = self.random.choice((S.VOTER, S.VOTER, S.NONVOTER))
        new = now.with_server(Server(name, name, suffrage))
        if known is not None and self.random.random() < 0.6:
            new = now.without(name)
        entry = Entry(0, 0, LogType.CONFIGURATION, configuration=new)
        try:
            consensus.change_configuration(entry)
        except ConfigurationRefused:
            return
        self.changes += 1

    # The two phases ---------------------------------------------------------------------

    def run(self, ticks: int = 250) -> None:
        """Live through a storm, then heal and demand a leader, progress, agreement."""
        self.run_until(self.now + ticks, self.storm)
        self.heal()
        patience = 20 if self.options.pre_vote else 50
        backlog = 4 * (self.proposed - self.history.max_committed)
        deadline = self.now + backlog + patience * self.options.election_timeout_ticks
        goal = self.proposed + 1
        while not self.has_converged(goal):
            assert self.now < deadline, (
                "no leader, progress and agreement after healing"
            )
            self._propose_one()
            self.run_until(self.now + 12, lambda: None)
        if self.options.pre_vote and self.options.check_quorum:
            self._demand_stability()

    def heal(self) -> None:
        """End all faults and start what is down."""
        self.calm = True
        self.cuts.clear()
        self.disk_delays = (0, 1)
        self.longest_delay = 1
        for machine in self.machines.values():
            if not machine.running:
                machine.start()

    def _propose_one(self) -> None:
        for machine in self.running:
            if machine.consensus.is_leader:
                machine.turn(machine.consensus.propose, [self.command()])

    def leader(self) -> Machine | None:
        """Return the leader of the highest term, if any."""
        leaders = [m for m in self.running if m.consensus.is_leader]
        return max(leaders, key=lambda m: m.consensus.term, default=None)

    def has_converged(self, goal: int) -> bool:
        """Tell whether all members have applied what was proposed since *goal*."""
        leader = self.leader()
        if leader is None or self.proposed < goal:
            return False
        consensus = leader.consensus
        members = [self.machines[a] for a in consensus.configuration.addresses]
        if consensus.commit_index < consensus.configurations.latest_index:
            return False
        marks = {(m.applied, m.digest) for m in members}
        newest = consensus.log.last_index
        return marks == {(newest, leader.digest)} and newest == consensus.commit_index

    def _demand_stability(self) -> None:
        """Demand that the leader now in office stays there."""
        leader = self.leader()
        assert leader is not None
        term = leader.consensus.term
        until = self.now + 5 * self.options.election_timeout_ticks
        self.run_until(until, lambda: None)
        assert leader.consensus.is_leader, "a leader that all can hear stays leader"
        assert leader.consensus.term == term, "terms do not grow while all is well"


def _copy(request: Request) -> Request:
    """Return *request* with entries of its own, as if it had been bytes."""
    match request:
        case AppendEntriesRequest():
            return replace(request, entries=[replace(e) for e in request.entries])
        case (
            RequestVoteRequest()
            | RequestPreVoteRequest()
            | InstallSnapshotRequest()
            | TimeoutNowRequest()
        ):
            return request
