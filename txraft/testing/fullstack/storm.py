"""What goes wrong for whole nodes, and what operators do to them meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from txraft.errors import RaftError
from txraft.testing.fullstack.node import Life, Machine
from txraft.testing.simulation.circumstances import TICK
from txraft.testing.simulation.network import TOPOLOGIES
from txraft.testing.simulation.storm import LONGEST_PAUSE, LONGEST_REST

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation


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
            simulation.note(None, "mends the network")
            simulation.network.mend()
        if draw() < circumstances.degrade_rate:
            self._reset_connections(self._random.choice(running))
        for life in simulation.leaders:
            self._operate(life)
        lives = simulation.lives
        if lives and draw() < circumstances.snapshot_rate:
            life = self._random.choice(lives)
            life.act(self._snapshot, life)

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

    def crash(self, machine: Machine) -> None:
        """Kill a node or cut its power, and start it again after a while."""
        if machine.life is None:
            return
        power_off = self._random.random() < 0.6
        if power_off:
            self._count("power failures", machine, "loses power")
        else:
            self._count("kills", machine, "is killed")
        machine.crash(power_off)
        delay = self._random.randint(0, LONGEST_REST)
        self._simulation.schedule.after(delay, machine.start)

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

    def _reset_connections(self, machine: Machine) -> None:
        """Break some connections of a node in the middle of what they carry."""
        ends = list(machine.life.host.ends.values()) if machine.life else []
        for end in ends:
            if not end.closed and self._random.random() < 0.5:
                self._count("connections reset", machine, "loses a connection")
                end.reset()

    # Operators ------------------------------------------------------------------

    def _operate(self, leader: Life) -> None:
        draw, circumstances = self._random.random, self._simulation.circumstances
        if draw() < circumstances.change_rate / 3:
            leader.act(self._change, leader)
        if draw() < circumstances.transfer_rate:
            self._simulation.tally["transfers"] += 1
            leader.act(self._transfer, leader)

    def _transfer(self, leader: Life) -> None:
        assert leader.raft is not None, "it leads"
        leader.raft.transfer_leadership().addErrback(self._expected)

    def _snapshot(self, life: Life) -> None:
        assert life.raft is not None, "it takes part"
        life.raft.snapshot().addErrback(self._expected)

    def _change(self, leader: Life) -> None:
        assert leader.raft is not None, "it leads"
        address = self._random.choice(self._simulation.network.names)
        self._simulation.tally["membership changes"] += 1
        self._simulation.note(leader.machine, "changes the membership of", address)
        if address in leader.raft.peers() and self._random.random() < 0.7:
            change = leader.raft.remove_peer(address)
        else:
            change = leader.raft.add_peer(address)
        change.addErrback(self._expected)

    def _expected(self, failure: Failure) -> None:
        if not failure.check(RaftError):
            self._simulation.found_failure(failure)
