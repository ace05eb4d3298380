"""Clients of whole nodes: each asks one, waits, and remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txraft.errors import RaftError
from txraft.testing.fullstack.node import Life
from txraft.testing.linearizability import Kind, Operation, Value
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
"""What goes on once an operation is settled."""

Answer = tuple[object, int]
"""The result of an operation, and the index at which it took effect."""


class FullWorkload:
    """The clients, and the history of all that they asked for."""

    def __init__(self, simulation: FullSimulation) -> None:
        self._simulation = simulation
        self.history: list[Operation] = []
        self.acknowledged: dict[bytes, int] = {}
        self.refused: dict[bytes, int] = {}
        self._bursts = 0
        self._numbers = 0
        self._moments = 0
        self._known: dict[str, Value] = {}

    def start(self) -> None:
        """Let all clients begin."""
        for client in range(self._simulation.circumstances.clients):
            self._simulation.schedule.after(1_000 * client, self._next)

    def _moment(self) -> int:
        """Return a time that no other call or return has."""
        self._moments += 1
        return self._moments

    def _next(self) -> None:
        simulation = self._simulation
        asked = self._numbers - self._bursts
        if simulation.ended or asked >= MAX_OPERATIONS:
            return
        key = simulation.random.choice(tuple(MENU))
        kind = simulation.random.choice(MENU[key])
        self.ask(self._find_life(), kind, key, self._think)

    def burst(self, life: Life, count: int) -> None:
        """Have a node do writes that hold nobody up, so that they pile up there."""
        if self._bursts < MAX_IN_BURSTS:
            self._bursts += count
            for _ in range(count):
                self.ask(life, Kind.WRITE, "b")

    def _think(self) -> None:
        simulation = self._simulation
        delay = int(2 * simulation.random.random() * simulation.circumstances.think)
        simulation.schedule.after(1_000 + delay, self._next)

    def _find_life(self) -> Life | None:
        """Pick a leader most of the time: any that takes itself for one."""
        simulation = self._simulation
        leaders, random = simulation.leaders, simulation.random
        if leaders and random.random() < 0.9:
            return random.choice(leaders)
        lives = simulation.lives
        return random.choice(lives) if lives else None

    def ask(
        self, life: Life | None, kind: Kind, key: str, then: Then = None
    ) -> Waiting:
        """Have the node of *life* do one thing; *then* is called when that is done."""
        self._numbers += 1
        operation = Operation(kind, key, self._moment())
        if kind not in (Kind.READ, Kind.DELETE):
            operation.argument = self._numbers
        if kind is Kind.CAS:
            known = self._known.get(key)
            operation.expected = known if isinstance(known, int) else None
        waiting = Waiting(operation, encode(self._numbers, operation))
        self.history.append(operation)
        if life is None:
            self._refuse(waiting, then)
            return waiting
        self._simulation.note(life.machine, "is asked to", kind.name, waiting.command)
        self._simulation.schedule.after(PATIENCE, self._give_up, waiting, then)
        life.act(self._deliver, life, waiting, then)
        return waiting

    def _deliver(self, life: Life, waiting: Waiting, then: Then) -> None:
        assert life.raft is not None, "it takes part"
        asked: Deferred[Answer]
        if waiting.operation.kind is Kind.READ:
            asked = life.raft.linearizable().addCallback(self._read, life, waiting)
        else:
            timeout = self._simulation.random.choice((None, 0.01, 1.0))
            applied = life.raft.apply(waiting.command, timeout)
            asked = applied.addCallback(lambda done: (done.response, done.index))
        life.promised(waiting.operation.kind.name, asked)
        asked.addCallback(self._settle, waiting, then)
        asked.addErrback(self._failed, waiting, then)
        asked.addErrback(self._simulation.found_failure)
        if self._simulation.random.random() < 0.02:
            asked.cancel()

    def _read(self, index: int, life: Life, waiting: Waiting) -> Answer:
        return life.fsm.state.values.get(waiting.operation.key), index

    def _settle(self, answer: Answer, waiting: Waiting, then: Then) -> None:
        """Tell a client that its operation took effect."""
        result, index = answer
        operation = waiting.operation
        if operation.kind is not Kind.READ:
            self.acknowledged[waiting.command] = index
        if waiting.settled:
            return
        assert result is None or isinstance(result, int | tuple), "a value"
        operation.result = result
        operation.returned = self._moment()
        if operation.kind in (Kind.READ, Kind.CAS):
            self._known[operation.key] = result
        self._finish(waiting, then)

    def _failed(self, failure: Failure, waiting: Waiting, then: Then) -> None:
        """Tell a client what the node knows of its operation."""
        error = failure.value
        if isinstance(error, RaftError) and error.outcome == "not-applied":
            self._refuse(waiting, then)
        elif isinstance(error, RaftError | CancelledError):
            self._give_up(waiting, then)
        else:
            failure.raiseException()

    def _refuse(self, waiting: Waiting, then: Then) -> None:
        """Tell a client that its operation has not and will not take effect."""
        self.refused[waiting.command] = 0
        if not waiting.settled:
            self.history = [o for o in self.history if o is not waiting.operation]
            self._finish(waiting, then)

    def _give_up(self, waiting: Waiting, then: Then) -> None:
        """Tell a client that nobody knows."""
        if not waiting.settled:
            self._finish(waiting, then)

    def _finish(self, waiting: Waiting, then: Then) -> None:
        waiting.settled = True
        if then is not None:
            then()
