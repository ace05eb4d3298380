"""The faults of whole nodes, and the operators who change the cluster meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.core.configuration import Suffrage
from txraft.errors import RaftError
from txraft.node.raft import Raft
from txraft.testing.fullstack.node import SimulatedMachine, SimulatedNode
from txraft.testing.simulation.circumstances import TICK
from txraft.testing.simulation.faults import LONGEST_PAUSE, LONGEST_REST
from txraft.testing.simulation.network import TOPOLOGIES

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
"""The points of `Buggify` here, each with the chance that it fires if it is armed."""

CONFIRMED = 0.05
"""The chance at each tick that an operator has a leader confirm that it leads."""


class NodeFaults:
    """Injects faults at every tick, at the rates of the seed's circumstances."""

    def __init__(self, simulation: FullSimulation) -> None:
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
        running = [m for m in simulation.machines.values() if m.node is not None]
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
        for node in simulation.leaders:
            self._operate(node)
        nodes = simulation.nodes
        if nodes and draw() < circumstances.snapshot_rate:
            node = self._random.choice(nodes)
            node.act(self._promise, node, "snapshot", Raft.snapshot)

    def _count(self, fault: str, machine: SimulatedMachine | None, event: str) -> None:
        self._simulation.tally[fault] += 1
        self._simulation.note(machine, event)

    # Faults ---------------------------------------------------------------------

    def _crash_somebody(self, running: list[SimulatedMachine]) -> None:
        if self._random.random() < 0.15:
            for machine in running:
                self.crash(machine)
        else:
            self.crash(self._random.choice(running))

    def crash(self, machine: SimulatedMachine, damaged: bool = False) -> None:
        """Kill a node's process or cut its power, and start it again after a while.

        A *damaged* one has refused to start; it is repaired first.
        """
        if machine.node is None:
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

    def _crash_soon(self, node: SimulatedNode, longest: int) -> None:
        """Crash *node* within *longest* microseconds, if it still runs then."""

        def crash() -> None:
            if not node.is_over:
                self.crash(node.machine)

        delay = self._random.randint(0, longest)
        self._simulation.schedule.after(delay, crash)

    def role_changed(self, node: SimulatedNode) -> None:
        """Crash a node that has just become leader, if the point fires."""
        leads = node.claims.leads
        self._simulation.note(node.machine, "leads" if leads else "leads no more")
        if leads and self._simulation.buggify("crash of a new leader"):
            self._crash_soon(node, 400_000)

    def voted(self, node: SimulatedNode) -> None:
        """Crash a node that has just voted, if the point fires."""
        if self._simulation.buggify("crash after a vote"):
            self._crash_soon(node, 0)

    def answered(self, node: SimulatedNode) -> None:
        """Break connections while an answer is under way, if the point fires."""
        if self._simulation.buggify("connection reset by an answer"):
            self._simulation.schedule.after(1, self._reset_connections, node.machine)

    def _cut(self) -> None:
        """Partition the network by a random topology, often around a leader."""
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
        for node in simulation.leaders:
            if simulation.buggify("crash of a leader as the network mends"):
                self.crash(node.machine)

    def _cut_off(self, leader: SimulatedNode) -> None:
        """Cut a leader off from most or all of the others."""
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

    def _degrade(self, running: list[SimulatedMachine]) -> None:
        """Let one direction lose and delay more, or break connections of one node."""
        links = self._simulation.network.links
        if links and self._random.random() < 0.5:
            self._count("links degraded", None, "degrades a link")
            link = links[self._random.choice(tuple(links))]
            link.loss = self._random.choice((0.0, 0.1, 0.3))
            link.longest_delay = self._random.choice((1_000, 100_000, 400_000))
        else:
            self._reset_connections(self._random.choice(running))

    def _reset_connections(self, machine: SimulatedMachine) -> None:
        """Break some connections of a node; bytes under way are lost."""
        ends = list(machine.node.host.ends.values()) if machine.node else []
        for end in ends:
            if not end.closed and self._random.random() < 0.5:
                self._count("connections reset", machine, "loses a connection")
                end.reset()

    # Operators ------------------------------------------------------------------

    def _operate(self, leader: SimulatedNode) -> None:
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

    def _transfer(self, leader: SimulatedNode) -> None:
        """Transfer leadership to a random server, or to the one the leader chooses."""
        target: str | None = self._random.choice(self._simulation.network.names)
        if self._random.random() < 0.5:
            target = None
        self._simulation.note(leader.machine, "hands over to", target or "the best")
        self._promise(leader, "transfer", Raft.transfer_leadership, target)

    def _change(self, leader: SimulatedNode) -> None:
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

    def _changed(self, index: int | None, leader: SimulatedNode) -> None:
        """Assert that an acknowledged change is committed."""
        if index is not None:
            consensus = leader.consensus
            assert consensus is not None, "it was a leader"
            assert index <= consensus.commit_index, "a change is told once committed"

    def _promise(
        self,
        node: SimulatedNode,
        kind: str,
        method: Callable[..., Deferred[Any]],
        *arguments: object,
    ) -> Deferred[Any]:
        """Call a method of a node; its Deferred must fire, and may fail with RaftError.

        Returns: a Deferred that fires with the result, or with None after a RaftError.
        """
        promised = node.promised(kind, method(node.raft, *arguments))
        return promised.addErrback(self._expected)

    def _expected(self, failure: Failure) -> None:
        if not failure.check(RaftError):
            self._simulation.found_failure(failure)
