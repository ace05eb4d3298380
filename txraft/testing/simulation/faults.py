"""The faults of the core simulation: crashes, pauses, disk errors, partitions.

Operators belong to it too: they change the membership and transfer leadership.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.configuration import Configuration, Server
from txraft.core.configuration import Suffrage as S
from txraft.core.entry import Entry, LogType
from txraft.errors import ConfigurationRefused
from txraft.testing.simulation.circumstances import TICK
from txraft.testing.simulation.network import TOPOLOGIES
from txraft.testing.simulation.simulated_server import SimulatedServer

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

LONGEST_REST = 3_000_000
"""Microseconds that a crashed server stays down at most."""

LONGEST_PAUSE = 3_000_000
"""Microseconds that a server is paused at most."""


class CoreFaults:
    """Injects faults at every tick, at the rates of the seed's circumstances."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random

    def step(self) -> None:
        """Inject the faults of one tick, and come again in the next one."""
        simulation = self._simulation
        if simulation.calm:
            return
        simulation.schedule.after(TICK, self.step)
        circumstances, draw = simulation.circumstances, self._random.random
        # The order of these draws is a part of every seed.
        running = simulation.running
        if not running:
            return
        if draw() < circumstances.crash_rate:
            self._crash_somebody(running)
        if draw() < circumstances.pause_rate:
            self._pause(self._random.choice(running))
        if draw() < circumstances.cut_rate:
            self._cut()
        if simulation.network.cuts and draw() < circumstances.heal_rate:
            self._mend()
        if draw() < circumstances.degrade_rate:
            self._degrade()
        if draw() < circumstances.snapshot_rate:
            server = self._random.choice(running)
            server.receive(server.snapshot, True)
        for server in running:
            if server.running and server.consensus.is_leader:
                self._operate(server)

    # Servers --------------------------------------------------------------------

    def _crash_somebody(self, running: list[SimulatedServer]) -> None:
        """Crash one server now, or in the middle of its next turn, or crash all."""
        choice = self._random.random()
        if choice < 0.1:
            for server in running:
                self.crash(server)
        elif choice < 0.4:
            server = self._random.choice(running)
            # It sends this many messages more and crashes ahead of the next one.
            server.effects_left = self._random.randint(0, 6)
        else:
            self.crash(self._random.choice(running))

    def crash(self, server: SimulatedServer, intact: bool = False) -> None:
        """Crash *server*, and start it again after a while."""
        if not server.running:
            return
        simulation = self._simulation
        simulation.tally["crashes"] += 1
        simulation.note(server, "crashes")
        server.crash(intact)
        # Some peers learn of it at once as their connection ends, others by timeouts.
        for other in simulation.running:
            if self._random.random() < 0.5:
                other.receive(self._hang_up, other, server.address)
        longest = self._random.choice((300_000, LONGEST_REST))
        delay = self._random.randint(0, longest)
        simulation.schedule.after(delay, self.restart, server)

    def _hang_up(self, server: SimulatedServer, peer: str) -> None:
        server.turn(server.consensus.disconnected, peer)

    def restart(self, server: SimulatedServer) -> None:
        """Start *server*, if it is down."""
        if not server.running:
            server.start()
            self._simulation.note(server, "starts")

    def _pause(self, server: SimulatedServer) -> None:
        if not server.paused:
            self._simulation.tally["pauses"] += 1
            self._simulation.note(server, "hangs")
            server.pause(self._random.randint(10_000, LONGEST_PAUSE))

    def breaks_disk(self, server: SimulatedServer) -> bool:
        """Let this sync fail at the seed's rate; a failed sync ends the server.

        Either the disk was full and nothing was written, or the sync itself failed and
        any part of the write may be on the disk.

        Returns: whether it failed.
        """
        rate = self._simulation.circumstances.disk_fault_rate
        if not rate or self._simulation.calm or self._random.random() >= rate:
            return False
        full = self._random.random() < 0.5
        self._simulation.tally["disks full" if full else "failed syncs"] += 1
        self.crash(server, intact=full)
        return True

    def vote_left(self, server: SimulatedServer) -> None:
        """Crash a server that has just voted, if the point fires."""
        if self._simulation.buggify("crash after a vote"):
            server.effects_left = 0

    # Network --------------------------------------------------------------------

    def _cut(self) -> None:
        """Partition the network by a random topology, often around a leader."""
        simulation, random = self._simulation, self._random
        leaders = [s.address for s in simulation.running if s.consensus.is_leader]
        centre = random.choice(simulation.network.names)
        if leaders and random.random() < 0.6:
            centre = random.choice(leaders)
        name = random.choice(tuple(TOPOLOGIES))
        if len(simulation.network.names) > 1:
            simulation.tally["cuts"] += 1
            simulation.note(None, f"cuts the network: {name} around {centre}")
            TOPOLOGIES[name](simulation.network, centre, random)

    def _mend(self) -> None:
        simulation = self._simulation
        simulation.note(None, "mends the network")
        simulation.network.mend()
        leader = simulation.leader()
        if leader is not None and (
            simulation.buggify("crash of a leader as the network mends")
        ):
            self.crash(leader)

    def _degrade(self) -> None:
        """Let one direction of a link lose and delay more."""
        links = self._simulation.network.links
        if links:
            self._simulation.tally["links degraded"] += 1
            link = links[self._random.choice(tuple(links))]
            link.loss = self._random.choice((0.0, 0.1, 0.5))
            link.longest_delay = self._random.choice((1_000, 100_000, 500_000))

    def _cut_off(self, leader: SimulatedServer) -> None:
        if self._simulation.calm:
            return
        self._simulation.tally["cuts"] += 1
        self._simulation.note(leader, "is cut off")
        names = self._simulation.network.names
        others = [n for n in names if n != leader.address]
        keep = [n for n in others if self._random.random() < 0.2]
        self._simulation.network.separate(
            [leader.address, *keep], [n for n in others if n not in keep]
        )

    # Operators ------------------------------------------------------------------

    def _operate(self, leader: SimulatedServer) -> None:
        simulation, draw = self._simulation, self._random.random
        circumstances = simulation.circumstances
        if draw() < circumstances.burst_rate:
            simulation.workload.burst(leader, self._random.randint(1, 4))
        if draw() < circumstances.change_rate:
            leader.receive(self._change, leader)
        if draw() < circumstances.transfer_rate:
            target = self._random.choice(circumstances.names)
            simulation.tally["transfers"] += 1
            simulation.note(leader, "hands over to", target)
            leader.receive(self._transfer, leader, target)
        if simulation.buggify("leader cut off with entries of its own"):
            simulation.workload.burst(leader, 2)
            self._cut_off(leader)
            simulation.workload.burst(leader, 8)

    def _transfer(self, leader: SimulatedServer, target: str) -> None:
        leader.turn(leader.consensus.transfer, target)

    def _change(self, leader: SimulatedServer) -> None:
        leader.turn(self._propose_change, leader)
        if self._simulation.buggify("leader cut off after a change"):
            self._cut_off(leader)

    def _propose_change(self, leader: SimulatedServer) -> None:
        consensus = leader.consensus
        if not consensus.is_leader:
            return
        new = self._draw_change(consensus.configuration)
        entry = Entry(0, 0, LogType.CONFIGURATION, configuration=new)
        try:
            consensus.change_configuration(entry)
        except ConfigurationRefused:
            return
        if entry.index:
            self._simulation.tally["membership changes"] += 1
            self._simulation.note(leader, "changes the members", *new.voters)

    def _draw_change(self, now: Configuration) -> Configuration:
        name = self._random.choice(self._simulation.circumstances.names)
        suffrage = self._random.choice((S.VOTER, S.VOTER, S.NONVOTER))
        if now.server(name) is not None and self._random.random() < 0.6:
            return now.without(name)
        return now.with_server(Server(name, name, suffrage))
