"""What goes wrong for whole nodes, and what operators do to them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.core.configuration import Suffrage
from txraft.errors import RaftError
from txraft.node.raft import Raft
from txraft.testing.fullstack.node import Life, Machine
from txraft.testing.simulation.circumstances import TICK
from txraft.testing.simulation.network import TOPOLOGIES
from txraft.testing.simulation.storm import LONGEST_PAUSE, LONGEST_REST

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation

POINTS = {
    "slow work on the disk": 0.02,
    "crash of a new leader": 0.4,
    "crash after a vote": 0.2,
    "crash of a leader as the network mends": 0.5,
    "leader cut off after a change": 0.4,
    "leader cut off with entries of its own": 0.03,
    "connection reset by an answer": 0.03,
}
"""Named points as those of the core simulation, and how often they fire if armed."""


CONFIRMED = 0.05
"""Share of the steps at which an operator asks a leader whether it is one."""


class FullStorm:
    """Does at every step what the circumstances of a seed are likely to do."""

    def __init__(self, simulation: FullSimulation) -> None:
        self._simulation = simulation
        self._random = simulation.random

    def step(self) -> None:
        """Let one tick of trouble pass, and come again until the storm is over."""
        simulation = self._simulation
        if simulation.calm:
            return
        simulation.schedule.after(TICK, self.step)
        circumstances, draw = simulation.circumstances, self._random.random
        running = [m for m in simulation.machines.values() if m.life is not None]
        if not running:
            return
        if draw() < circumstances.crash_rate:
            self._crash_somebody(running)
        if draw() < circumstances.pause_rate:
            machine = self._random.choice(running)
            self._count("pauses", machine, "hangs")
            machine.hang(self._random.randint(10_000, LONGEST_PAUSE))
        if draw() < circumstances.cut_rate and len(simulation.machines) > 1:
            self._cut()
        if simulation.network.cuts and draw() < circumstances.heal_rate:
            self._mend()
        if draw() < circumstances.degrade_rate:
            self._degrade(running)
        for life in simulation.leaders:
            self._operate(life)
        lives = simulation.lives
        if lives and draw() < circumstances.snapshot_rate:
            life = self._random.choice(lives)
            life.act(self._promise, life, "snapshot", Raft.snapshot)

    def _count(self, fault: str, machine: Machine | None, event: str) -> None:
        self._simulation.tally[fault] += 1
        self._simulation.note(machine, event)

    # Faults ---------------------------------------------------------------------

    def _crash_somebody(self, running: list[Machine]) -> None:
        if self._random.random() < 0.15:
            for machine in running:
                self.crash(machine)
        else:
            self.crash(self._random.choice(running))

    def crash(self, machine: Machine, damaged: bool = False) -> None:
        """Kill a node or cut its power, and start it again after a while.

        One that is *damaged* refused to start; it is repaired first.
        """
        if machine.life is None:
            return
        power_off = not damaged and self._random.random() < 0.6
        if power_off:
            self._count("power failures", machine, "loses power")
        else:
            self._count("kills", machine, "is killed")
        machine.crash(power_off)
        if damaged:
            machine.repair()
        delay = self._random.randint(0, LONGEST_REST)
        self._simulation.schedule.after(delay, machine.start)

    def _crash_soon(self, life: Life, longest: int) -> None:
        """Crash the node of *life* within *longest* microseconds, if it still lives."""

        def crash() -> None:
            if not life.is_over:
                self.crash(life.machine)

        delay = self._random.randint(0, longest)
        self._simulation.schedule.after(delay, crash)

    def role_changed(self, life: Life) -> None:
        """Perhaps crash who has just become the leader."""
        leads = life.claims.leads
        self._simulation.note(life.machine, "leads" if leads else "leads no more")
        if leads and self._simulation.buggify("crash of a new leader"):
            self._crash_soon(life, 400_000)

    def voted(self, life: Life) -> None:
        """Perhaps crash who has just voted."""
        if self._simulation.buggify("crash after a vote"):
            self._crash_soon(life, 0)

    def answered(self, life: Life) -> None:
        """Perhaps break a connection on which an answer is on its way."""
        if self._simulation.buggify("connection reset by an answer"):
            self._simulation.schedule.after(1, self._reset_connections, life.machine)

    def _cut(self) -> None:
        """Cut the network in a named way, often around a leader."""
        simulation, random = self._simulation, self._random
        centre = random.choice(simulation.network.names)
        leaders = simulation.leaders
        if leaders and random.random() < 0.6:
            centre = random.choice(leaders).machine.address
        name = random.choice(tuple(TOPOLOGIES))
        self._count("cuts", None, f"cuts the network: {name} around {centre}")
        TOPOLOGIES[name](simulation.network, centre, random)

    def _mend(self) -> None:
        simulation = self._simulation
        simulation.note(None, "mends the network")
        simulation.network.mend()
        for life in simulation.leaders:
            if simulation.buggify("crash of a leader as the network mends"):
                self.crash(life.machine)

    def _cut_off(self, leader: Life) -> None:
        """Leave a leader with few of the others, or none."""
        if self._simulation.calm:
            return
        self._count("cuts", leader.machine, "is cut off")
        others = [
            name
            for name in self._simulation.network.names
            if name != leader.machine.address
        ]
        kept = [name for name in others if self._random.random() < 0.2]
        self._simulation.network.separate(
            [leader.machine.address, *kept], [n for n in others if n not in kept]
        )

    def _degrade(self, running: list[Machine]) -> None:
        """Make one direction slow and lossy, or break connections of one node."""
        links = self._simulation.network.links
        if links and self._random.random() < 0.5:
            self._count("links degraded", None, "degrades a link")
            link = links[self._random.choice(tuple(links))]
            link.loss = self._random.choice((0.0, 0.1, 0.3))
            link.longest_delay = self._random.choice((1_000, 100_000, 400_000))
        else:
            self._reset_connections(self._random.choice(running))

    def _reset_connections(self, machine: Machine) -> None:
        """Break some connections of a node in the middle of what they carry."""
        ends = list(machine.life.host.ends.values()) if machine.life else []
        for end in ends:
            if not end.closed and self._random.random() < 0.5:
                self._count("connections reset", machine, "loses a connection")
                end.reset()

    # Operators ------------------------------------------------------------------

    def _operate(self, leader: Life) -> None:
        simulation, draw = self._simulation, self._random.random
        circumstances = simulation.circumstances
        if draw() < circumstances.burst_rate / 2:
            simulation.workload.burst(leader, self._random.randint(1, 4))
        if draw() < circumstances.change_rate:
            leader.act(self._change, leader)
        if draw() < circumstances.transfer_rate:
            simulation.tally["transfers"] += 1
            leader.act(self._transfer, leader)
        if draw() < CONFIRMED:
            ask = self._random.choice((Raft.barrier, Raft.verify_leader))
            leader.act(self._promise, leader, ask.__name__, ask)
        if simulation.buggify("leader cut off with entries of its own"):
            simulation.workload.burst(leader, 2)
            self._cut_off(leader)
            simulation.workload.burst(leader, 8)

    def _transfer(self, leader: Life) -> None:
        """Hand leadership to the most complete voter, or to anybody."""
        target: str | None = self._random.choice(self._simulation.network.names)
        if self._random.random() < 0.5:
            target = None
        self._simulation.note(leader.machine, "hands over to", target or "the best")
        self._promise(leader, "transfer", Raft.transfer_leadership, target)

    def _change(self, leader: Life) -> None:
        """Add, promote, demote or remove a server."""
        assert leader.consensus is not None, "it leads"
        address = self._random.choice(self._simulation.network.names)
        known = leader.consensus.configuration.server(address)
        choices: list[tuple[Callable[..., Deferred[int]], str]]
        if known is None:
            choices = [(Raft.add_voter, "voter"), (Raft.add_nonvoter, "nonvoter")]
        elif known.suffrage is Suffrage.VOTER:
            choices = [(Raft.remove_peer, "removal"), (Raft.demote_voter, "demotion")]
        else:
            choices = [(Raft.add_voter, "promotion"), (Raft.remove_peer, "removal")]
        change, kind = self._random.choice(choices)
        self._simulation.tally["membership changes"] += 1
        self._simulation.note(leader.machine, "changes the members:", kind, address)
        arguments = (address, address) if "add" in change.__name__ else (address,)
        done = self._promise(leader, kind, change, *arguments)
        done.addCallback(self._changed, leader)
        if self._simulation.buggify("leader cut off after a change"):
            self._cut_off(leader)

    def _changed(self, index: int | None, leader: Life) -> None:
        """Assert that a change that was acknowledged is committed."""
        if index is not None:
            consensus = leader.consensus
            assert consensus is not None, "it was a leader"
            assert index <= consensus.commit_index, "a change is told once committed"

    def _promise(
        self,
        life: Life,
        kind: str,
        method: Callable[..., Deferred[Any]],
        *arguments: object,
    ) -> Deferred[Any]:
        """Call a method of a node, whose Deferred has to fire, as a RaftError at worst.

        Returns: a Deferred of its result, None if it failed.
        """
        promised = life.promised(kind, method(life.raft, *arguments))
        return promised.addErrback(self._expected)

    def _expected(self, failure: Failure) -> None:
        if not failure.check(RaftError):
            self._simulation.found_failure(failure)
