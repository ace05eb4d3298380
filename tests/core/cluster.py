"""Whole clusters of `Consensus` objects in one process, driven by one seed.

Each machine has a disk that loses what was not synced when it crashes, and a
network that loses, delays, repeats and reorders requests; an answer always comes
back paired with its request. After every event the invariants are checked. Nothing
here reads a clock, and every choice comes from one `random.Random`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.core.machine import Machine
from txraft.core.configuration import Configuration, Server
from txraft.core.configuration import Suffrage as S
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.invariants import History
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
    Options,
    OutgoingRequest,
    Refusal,
    SendSnapshot,
)
from txraft.errors import ConfigurationRefused

MAX_EVENTS = 400_000
"""Events in one run: more than this is a storm of messages."""


LONGEST_CALL_TICKS = 12
"""After this long a request that was not answered has failed."""


@dataclass(slots=True)
class Call:
    """One request on its way, and who waits for the answer."""

    source: Machine
    life: int
    target: str
    request: OutgoingRequest
    answered: bool = False


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

    # Time ---------------------------------------------------------------------

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

    # Network ------------------------------------------------------------------

    def send(self, source: Machine, target: str, message: object) -> None:
        """Send a request; it is answered, or its sender learns that it was not."""
        sent, travels = source.body(message)
        call = Call(source, source.life, target, sent)
        if not self.calm:
            self._check_snapshot_travels(sent)
        lost = (source.address, target) in self.cuts or self._loses()
        self.later(
            self.random.randint(8, LONGEST_CALL_TICKS), source, self._give_up, call
        )
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

    # Checks -------------------------------------------------------------------

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

    # What happens -------------------------------------------------------------

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

    # The two phases -----------------------------------------------------------

    def run(self, ticks: int = 250) -> None:
        """Live through a storm, then heal and demand a leader, progress, agreement."""
        self.run_until(self.now + ticks, self.storm)
        self.heal()
        self.run_until(self.now + LONGEST_CALL_TICKS, lambda: None)
        patience = 20 if self.options.pre_vote else 50
        backlog = 4 * self.proposed
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
        if not consensus.configuration.is_voter(consensus.address):
            return False
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
