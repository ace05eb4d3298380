"""The clients of whole nodes: they make operations and record the outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txraft.errors import RaftError
from txraft.node.pending import ApplyResult
from txraft.testing.fullstack.node import SimulatedNode
from txraft.testing.linearizability import ClientOperation, ClientOperationKind, Value
from txraft.testing.simulation.registers import encode
from txraft.testing.simulation.workload import (
    MAX_IN_BURSTS,
    MAX_OPERATIONS,
    MENU,
    PATIENCE,
    Waiting,
)

if TYPE_CHECKING:
    from txraft.testing.fullstack.simulation import FullSimulation

Then = Callable[[], None] | None
"""A function that is called when the outcome of an operation is known or given up."""

DEADLINES = (0.05, 1.0, 2.9, 2.9)
"""Seconds that operations on any member have."""

FORWARDED_COMMANDS = "commands on followers"
FORWARDED_READS = "reads on followers"
"""What is counted of operations on members that do not lead: neither is a fault."""

T = TypeVar("T")

Answer = tuple[object, int]
"""The result of an operation, and the index at which it took effect."""


class FullWorkload:
    """The clients, the history of their operations, and the outcomes they were told."""

    def __init__(self, simulation: FullSimulation) -> None:
        self._simulation = simulation
        self.history: list[ClientOperation] = []
        self.acknowledged: dict[bytes, int] = {}
        self.refused: dict[bytes, int] = {}
        self._bursts = 0
        self._numbers = 0
        self._moments = 0
        self._known: dict[str, Value] = {}

    def start(self) -> None:
        """Start all clients, a millisecond apart."""
        for client in range(self._simulation.circumstances.clients):
            self._simulation.schedule.after(1_000 * client, self._next)

    def _moment(self) -> int:
        """Return the next moment: no two calls or returns share one."""
        self._moments += 1
        return self._moments

    def _next(self) -> None:
        simulation = self._simulation
        asked = self._numbers - self._bursts
        if simulation.ended or asked >= MAX_OPERATIONS:
            return
        key = simulation.random.choice(tuple(MENU))
        kind = simulation.random.choice(MENU[key])
        self.ask(self._find_node(), kind, key, self._think)

    def burst(self, node: SimulatedNode, count: int) -> None:
        """Make *count* writes at *node* at once; no client waits for them."""
        if self._bursts < MAX_IN_BURSTS:
            self._bursts += count
            for _ in range(count):
                self.ask(node, ClientOperationKind.WRITE, "b")

    def _think(self) -> None:
        simulation = self._simulation
        delay = int(2 * simulation.random.random() * simulation.circumstances.think)
        simulation.schedule.after(1_000 + delay, self._next)

    def _find_node(self) -> SimulatedNode | None:
        """Pick a node: mostly one that is leader in its own opinion."""
        simulation = self._simulation
        leaders, random = simulation.leaders, simulation.random
        if leaders and random.random() < (0.3 if simulation.forwards else 0.9):
            return random.choice(leaders)
        nodes = simulation.nodes
        return random.choice(nodes) if nodes else None

    def ask(
        self,
        node: SimulatedNode | None,
        kind: ClientOperationKind,
        key: str,
        then: Then = None,
    ) -> Waiting:
        """Make an operation at *node*; call *then* when it is settled."""
        self._numbers += 1
        operation = ClientOperation(kind, key, self._moment())
        if kind not in (ClientOperationKind.READ, ClientOperationKind.DELETE):
            operation.argument = self._numbers
        if kind is ClientOperationKind.CAS:
            known = self._known.get(key)
            operation.expected = known if isinstance(known, int) else None
        waiting = Waiting(operation, encode(self._numbers, operation))
        # From the call on: one that is never settled may still have taken effect.
        self.history.append(operation)
        if node is None:
            self._refuse(waiting, then)
            return waiting
        self._simulation.note(node.machine, "is asked to", kind.name, waiting.command)
        self._simulation.schedule.after(PATIENCE, self._give_up, waiting, then)
        node.act(self._deliver, node, waiting, then)
        return waiting

    def _deliver(self, node: SimulatedNode, waiting: Waiting, then: Then) -> None:
        asked: Deferred[Answer]
        if waiting.operation.kind is ClientOperationKind.READ:
            asked = self._linearizable(node).addCallback(self._read, node, waiting)
        else:
            applied = self._apply(node, waiting.command)
            asked = applied.addCallback(lambda done: (done.response, done.index))
        node.promised(waiting.operation.kind.name, asked)
        asked.addCallback(self._settle, waiting, then)
        asked.addErrback(self._failed, waiting, then)
        asked.addErrback(self._simulation.found_failure)
        # Some callers lose interest: the operation goes on, with nobody to tell.
        if self._simulation.random.random() < 0.02:
            asked.cancel()

    def _apply(self, node: SimulatedNode, command: bytes) -> Deferred[ApplyResult]:
        random = self._simulation.random
        assert node.raft is not None, "it takes part"
        if node.forwarder is None:
            return node.raft.apply(command, random.choice((None, 0.01, 1.0)))
        deadline = node.clock.seconds() + random.choice(DEADLINES)
        applied = node.forwarder.apply(command, deadline)
        return applied.addCallback(self._count, node, FORWARDED_COMMANDS)

    def _linearizable(self, node: SimulatedNode) -> Deferred[int]:
        assert node.raft is not None, "it takes part"
        if node.forwarder is None:
            return node.raft.linearizable()
        deadline = node.clock.seconds() + self._simulation.random.choice(DEADLINES)
        confirmed = node.forwarder.linearizable(deadline)
        return confirmed.addCallback(self._count, node, FORWARDED_READS)

    def _count(self, result: T, node: SimulatedNode, name: str) -> T:
        """Count what a member has done that does not lead."""
        if node.consensus is not None and not node.consensus.is_leader:
            self._simulation.tally[name] += 1
        return result

    def _read(self, index: int, node: SimulatedNode, waiting: Waiting) -> Answer:
        return node.fsm.state.values.get(waiting.operation.key), index

    def _settle(self, answer: Answer, waiting: Waiting, then: Then) -> None:
        """Record that an operation took effect, with its result."""
        result, index = answer
        operation = waiting.operation
        # Also after the client gave up: the node said so, and it must be true.
        if operation.kind is not ClientOperationKind.READ:
            self.acknowledged[waiting.command] = index
        if waiting.settled:
            return
        assert result is None or isinstance(result, int | tuple), "a value"
        operation.result = result
        operation.returned = self._moment()
        if operation.kind in (ClientOperationKind.READ, ClientOperationKind.CAS):
            self._known[operation.key] = result
        self._finish(waiting, then)

    def _failed(self, failure: Failure, waiting: Waiting, then: Then) -> None:
        """Record the failure of an operation: refused, or with an unknown outcome."""
        error = failure.value
        if isinstance(error, RaftError) and error.outcome == "not-applied":
            self._refuse(waiting, then)
        elif isinstance(error, RaftError | CancelledError):
            self._give_up(waiting, then)
        else:
            failure.raiseException()

    def _refuse(self, waiting: Waiting, then: Then) -> None:
        """Record that an operation was refused: it has not and will not take effect."""
        # Also after the client gave up: the node has promised that it never takes
        # effect.
        self.refused[waiting.command] = 0
        if not waiting.settled:
            self.history = [o for o in self.history if o is not waiting.operation]
            self._finish(waiting, then)

    def _give_up(self, waiting: Waiting, then: Then) -> None:
        """Stop waiting: the outcome stays unknown."""
        if not waiting.settled:
            self._finish(waiting, then)

    def _finish(self, waiting: Waiting, then: Then) -> None:
        waiting.settled = True
        if then is not None:
            then()
