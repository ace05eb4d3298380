"""One run: everything that a seed decides, from the first election to the last check.

A run is a storm of at least `STORM` microseconds, then all faults end and within a
bound there must be a leader, progress, and one state everywhere; then the clients'
history must have an order.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from txraft.core.configuration import Configuration
from txraft.testing.linearizability import Kind, check
from txraft.testing.schedule import Schedule
from txraft.testing.simulation.buggify import Buggify
from txraft.testing.simulation.calls import LONGEST_CALL, Calls
from txraft.testing.simulation.circumstances import TICK, draw
from txraft.testing.simulation.network import Link, Network
from txraft.testing.simulation.oracles import Oracles
from txraft.testing.simulation.server import SimulatedServer
from txraft.testing.simulation.storm import Storm
from txraft.testing.simulation.workload import Waiting, Workload

if TYPE_CHECKING:
    from txraft.testing.simulation.conversation import Conversation

STORM = 20_000_000
"""Microseconds of faults in every run."""

PATIENCE_TICKS = {True: 200, False: 500}
"""Ticks for a cluster to recover after the storm, with pre-vote and without: without,
a stale candidate and the only one that can win may duel for long."""


class Simulation:
    """The run of *seed*; a *conversation* writes down what happens."""

    def __init__(self, seed: int, conversation: Conversation | None = None) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.circumstances = draw(seed, random)
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
        self.calls = Calls(self)
        self.storm = Storm(self)
        self.workload = Workload(self)
        names = self.circumstances.names
        first = Configuration.of_voters(names[: self.circumstances.founders])
        self.servers: dict[str, SimulatedServer] = {}
        for name in names:
            founder = name in first.addresses
            bootstrap = first if founder else Configuration()
            self.servers[name] = SimulatedServer(self, name, bootstrap)

    def _link(self) -> Link:
        circumstances = self.circumstances
        return Link(
            longest_delay=circumstances.longest_delay,
            loss=circumstances.loss,
            repeats=circumstances.repeats,
            late=circumstances.late,
            tail=circumstances.tail,
            in_order=circumstances.in_order,
        )

    @property
    def running(self) -> list[SimulatedServer]:
        """The servers that are up."""
        return [server for server in self.servers.values() if server.running]

    @property
    def faults(self) -> int:
        """How many faults of any kind there were."""
        operated = ("membership changes", "transfers")
        counted = sum(n for name, n in self.tally.items() if name not in operated)
        return counted + self.buggify.faults

    @property
    def fingerprint(self) -> int:
        """A number that two different runs hardly share."""
        states = [server.state.digest for server in self.servers.values()]
        parts = (self.schedule.events, self.schedule.now, self.random.random(), states)
        return crc32(repr(parts).encode())

    def note(self, server: SimulatedServer | None, event: str, *about: object) -> None:
        """Write down what happens, if somebody reads it."""
        if self._conversation is not None:
            who = server.address if server is not None else "*"
            self._conversation.note(self.schedule.now, who, event, about)

    # The phases -----------------------------------------------------------------

    def run(self) -> None:
        """Live through the storm, heal, and demand what must follow.

        Raises: AssertionError, if anything is wrong.
        """
        self.workload.start()
        self.schedule.after(TICK, self.storm.step)
        self.schedule.run_until(STORM)
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
        """End all faults and start what is down."""
        self.note(None, "ends the storm")
        self.calm = self.buggify.calm = True
        self.ended = True
        self.network.calm(10_000)
        self.circumstances.disk_delays = (100, 2_000)
        for server in self.servers.values():
            server.effects_left = None
            self.storm.restart(server)
            server.resume(server.life)
        self.schedule.run_until(self.schedule.now + LONGEST_CALL)

    def _demand_recovery(self) -> None:
        """Demand a leader, a write of its own, and one state everywhere."""
        ticks = PATIENCE_TICKS[self.circumstances.options.pre_vote]
        backlog = 4 * len(self.workload.history)
        deadline = self.schedule.now + (ticks + backlog) * TICK
        while not self._converged(self._write_one()):
            assert self.schedule.now < deadline, (
                "no leader, progress and agreement after healing"
            )

    def _write_one(self) -> Waiting | None:
        leader = self.leader()
        waiting = self.workload.ask(leader, Kind.WRITE, "x") if leader else None
        self._let(12 * TICK)
        return waiting

    def _let(self, time: int) -> None:
        self.schedule.run_until(self.schedule.now + time)

    def leader(self) -> SimulatedServer | None:
        """Return the leader of the highest term, if any."""
        leaders = [s for s in self.running if s.consensus.is_leader]
        return max(leaders, key=lambda s: s.consensus.term, default=None)

    def _converged(self, waiting: Waiting | None) -> bool:
        """Tell whether a write was done and all members are equal."""
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
        """Demand that the leader now in office stays there."""
        leader = self.leader()
        assert leader is not None, "there was one a moment ago"
        term = leader.consensus.term
        self._let(5 * self.circumstances.options.election_timeout_ticks * TICK)
        assert leader.consensus.is_leader, "a leader that all can hear stays leader"
        assert leader.consensus.term == term, "terms do not grow while all is well"

    def _check_outcomes(self) -> None:
        """Hold what clients were told against what was committed."""
        workload = self.workload
        self.oracles.check_outcomes(workload.acknowledged, workload.refused)
        self.undecided = check(workload.history)
