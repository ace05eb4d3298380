"""A simulation of the core: one seed decides the cluster, its faults and its clients.

For `FAULT_MICROSECONDS` there are faults. Then all of them end, and within a bound the
cluster must have a leader, commit a write and be in one state everywhere. Last, the
history of its clients must be linearizable. `oracles` checks safety after every event.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from txraft.core.configuration import Configuration
from txraft.testing.linearizability import ClientOperationKind, check
from txraft.testing.schedule import Schedule
from txraft.testing.simulation.buggify import Buggify
from txraft.testing.simulation.circumstances import TICK, draw
from txraft.testing.simulation.exchanges import LONGEST_EXCHANGE, Exchanges
from txraft.testing.simulation.faults import CoreFaults
from txraft.testing.simulation.network import DirectedLink, Network
from txraft.testing.simulation.oracles import Oracles
from txraft.testing.simulation.simulated_server import SimulatedServer
from txraft.testing.simulation.workload import Waiting, Workload

if TYPE_CHECKING:
    from txraft.testing.simulation.conversation import Conversation

FAULT_MICROSECONDS = 20_000_000
"""Time with faults in every run."""

PATIENCE_TICKS = {True: 200, False: 500}
"""Ticks that a cluster has to recover, with pre-vote and without.

Without, a candidate with an old log and the only one that can win may depose each other
for long."""


UPGRADED = 0.25
"""Share of the seeds in which servers come to understand a level, one after another."""


class Simulation:
    """The run that *seed* makes; *conversation* records its events."""

    def __init__(self, seed: int, conversation: Conversation | None = None) -> None:
        self.seed = seed
        # The one source of chance. Whoever draws once more or in another order changes
        # the runs of all seeds: those named in tests and planted bugs find nothing
        # then.
        self.random = random = Random(seed)
        self.circumstances = draw(seed, random)
        # From a stream of its own, so that most seeds are what they were.
        upgrades = Random(f"levels, {seed}")
        in_levels = upgrades.random() < UPGRADED and not self.circumstances.fault_free
        self.upgrades = upgrades if in_levels else None
        self.schedule = Schedule()
        self.tally: Counter[str] = Counter()
        self.calm = self.ended = False
        self.undecided = 0
        self._conversation = conversation
        self.buggify = Buggify(random, self.circumstances.armed)
        self.oracles = Oracles()
        self.network = Network(
            self.schedule, random, self.circumstances.names, self._link, self.tally
        )
        self.exchanges = Exchanges(self)
        self.fault_schedule = CoreFaults(self)
        self.workload = Workload(self)
        names = self.circumstances.names
        first = Configuration.of_voters(names[: self.circumstances.bootstrap_size])
        self.servers: dict[str, SimulatedServer] = {}
        for name in names:
            bootstrap = first if name in first.addresses else Configuration()
            self.servers[name] = SimulatedServer(self, name, bootstrap)

    def _link(self) -> DirectedLink:
        circumstances = self.circumstances
        return DirectedLink(
            longest_delay=circumstances.longest_delay,
            loss=circumstances.loss,
            repeats=circumstances.repeats,
            late=circumstances.late,
            tail=circumstances.tail,
            in_order=circumstances.in_order,
        )

    @property
    def running(self) -> list[SimulatedServer]:
        """The servers that run, even if they are paused."""
        return [server for server in self.servers.values() if server.running]

    @property
    def faults(self) -> int:
        """The number of faults of all kinds; operators' changes are none."""
        operated = ("membership changes", "transfers")
        counted = sum(n for name, n in self.tally.items() if name not in operated)
        return counted + self.buggify.faults

    @property
    def fingerprint(self) -> int:
        """A checksum of the run: two different runs hardly have the same."""
        states = [server.state.digest for server in self.servers.values()]
        # The next draw stands for all draws before it.
        parts = (self.schedule.events, self.schedule.now, self.random.random(), states)
        return crc32(repr(parts).encode())

    def note(self, server: SimulatedServer | None, event: str, *about: object) -> None:
        """Record an event, if there is a conversation."""
        if self._conversation is not None:
            who = server.address if server is not None else "*"
            self._conversation.note(self.schedule.now, who, event, about)

    # The phases -----------------------------------------------------------------

    def run(self) -> None:
        """Run with faults, then without; check that the cluster recovers.

        Raises: AssertionError, with the first thing that is wrong.
        """
        self.workload.start()
        self.schedule.after(TICK, self.fault_schedule.step)
        self.schedule.run_until(FAULT_MICROSECONDS)
        self._heal()
        self._demand_recovery()
        if self.circumstances.protected:
            self._demand_stability()
        self.ended = True
        self._check_outcomes()
        if self.circumstances.fault_free:
            elections = self.oracles.history.leaderships
            assert elections == 1, f"{elections} elections where nothing went wrong"

    def _heal(self) -> None:
        """End all faults, and start the servers that are down."""
        self.note(None, "ends all faults")
        # Calm first: a restart below must not meet another fault.
        self.calm = self.buggify.calm = True
        self.ended = True
        self.network.calm(10_000)
        self.circumstances.disk_delays = (100, 2_000)
        for server in self.servers.values():
            server.effects_left = None
            self.fault_schedule.restart(server)
            server.resume(server.run_number)
        # Requests that were lost fail only after this time; until then a leader may
        # wait.
        self.schedule.run_until(self.schedule.now + LONGEST_EXCHANGE)

    def _demand_recovery(self) -> None:
        """Check that soon a leader commits a write and all members have one state."""
        ticks = PATIENCE_TICKS[self.circumstances.options.pre_vote]
        # With one entry in a message, a server that is behind catches up in many ticks.
        backlog = 4 * len(self.workload.history)
        deadline = self.schedule.now + (ticks + backlog) * TICK
        while not self._converged(self._write_one()):
            assert self.schedule.now < deadline, (
                "no leader, progress and agreement after healing"
            )

    def _write_one(self) -> Waiting | None:
        leader = self.leader()
        waiting = (
            self.workload.ask(leader, ClientOperationKind.WRITE, "x")
            if leader
            else None
        )
        self._let(12 * TICK)
        return waiting

    def _let(self, time: int) -> None:
        self.schedule.run_until(self.schedule.now + time)

    def leader(self) -> SimulatedServer | None:
        """Return the leader of the highest term, None if there is no leader."""
        leaders = [s for s in self.running if s.consensus.is_leader]
        return max(leaders, key=lambda s: s.consensus.term, default=None)

    def _converged(self, waiting: Waiting | None) -> bool:
        """Tell whether the write took effect and all members have the same state."""
        leader = self.leader()
        if leader is None or waiting is None or not waiting.operation.is_known:
            return False
        consensus = leader.consensus
        if not consensus.configuration.is_voter(leader.address):
            return False
        newest = consensus.log.last_index
        members = [self.servers[a] for a in consensus.configuration.addresses]
        states = {(m.state.index, m.state.digest) for m in members}
        return consensus.commit_index == newest and states == {
            (newest, leader.state.digest)
        }

    def _demand_stability(self) -> None:
        """Check that the leader stays leader and its term does not change."""
        leader = self.leader()
        assert leader is not None, "there was one a moment ago"
        term = leader.consensus.term
        self._let(5 * self.circumstances.options.election_timeout_ticks * TICK)
        assert leader.consensus.is_leader, "a leader that all can hear stays leader"
        assert leader.consensus.term == term, "terms do not grow while all is well"

    def _check_outcomes(self) -> None:
        """Compare the outcomes that clients were told with what was committed."""
        workload = self.workload
        self.oracles.check_outcomes(workload.acknowledged, workload.refused)
        self.undecided = check(workload.history)
