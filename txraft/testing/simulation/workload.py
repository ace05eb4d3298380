"""The clients of the core simulation: they make operations and record the outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txraft.core.entry import Entry, LogType
from txraft.testing.linearizability import ClientOperation, ClientOperationKind, Value
from txraft.testing.simulation.registers import Registers, encode
from txraft.testing.simulation.simulated_server import Asked, SimulatedServer

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

PATIENCE = 3_000_000
"""Microseconds that a client waits for an outcome."""

MAX_OPERATIONS = 600
"""Operations in one run at most: more would make the check of the history slow."""

MAX_IN_BURSTS = 1_000
"""Writes in one run at most that are made in bursts."""

Then = Callable[[], None] | None
"""A function that is called when the outcome of an operation is known or given up."""

MENU = {
    "x": (
        ClientOperationKind.WRITE,
        ClientOperationKind.READ,
        ClientOperationKind.READ,
    ),
    "y": (ClientOperationKind.WRITE, ClientOperationKind.READ),
    "z": (
        ClientOperationKind.CAS,
        ClientOperationKind.CAS,
        ClientOperationKind.READ,
        ClientOperationKind.DELETE,
        ClientOperationKind.WRITE,
    ),
    "l": (ClientOperationKind.APPEND, ClientOperationKind.READ),
}
"""The kinds of operation that clients make on each key; a kind listed twice is
twice as likely."""


@dataclass(slots=True)
class Waiting:
    """One operation whose outcome its client waits for."""

    operation: ClientOperation
    command: bytes
    settled: bool = False


class Workload:
    """The clients, the history of their operations, and the outcomes they were told."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._asked: dict[int, ClientOperation] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.refused: dict[bytes, int] = {}
        self.outcomes = 0
        self._numbers = 0
        self._moments = 0
        self._bursts = 0
        self._known: dict[str, Value] = {}

    @property
    def history(self) -> list[ClientOperation]:
        """All operations that took effect or may have; not those that were refused."""
        return list(self._asked.values())

    def start(self) -> None:
        """Start all clients, a millisecond apart."""
        circumstances = self._simulation.circumstances
        for client in range(circumstances.clients):
            self._simulation.schedule.after(1_000 * client, self._next)

    def _moment(self) -> int:
        """Return the next moment: no two calls or returns share one."""
        self._moments += 1
        return self._moments

    def _next(self) -> None:
        """Let a client make one operation; it thinks once that is settled."""
        simulation = self._simulation
        asked = self._numbers - self._bursts
        if simulation.ended or asked >= MAX_OPERATIONS:
            return
        random = simulation.random
        key = random.choice(tuple(MENU))
        self.ask(self._find_server(), random.choice(MENU[key]), key, self._think)

    def burst(self, server: SimulatedServer, count: int) -> None:
        """Make *count* writes at *server* at once; no client waits for them."""
        if self._bursts < MAX_IN_BURSTS:
            self._bursts += count
            for _ in range(count):
                self.ask(server, ClientOperationKind.WRITE, "b")

    def _think(self) -> None:
        simulation = self._simulation
        delay = int(2 * simulation.random.random() * simulation.circumstances.think)
        simulation.schedule.after(1_000 + delay, self._next)

    def _find_server(self) -> SimulatedServer | None:
        """Pick a leader most of the time: any that takes itself for one."""
        simulation = self._simulation
        running = simulation.running
        leaders = [s for s in running if s.consensus.is_leader]
        if leaders and simulation.random.random() < 0.9:
            return simulation.random.choice(leaders)
        return simulation.random.choice(running) if running else None

    def ask(
        self,
        server: SimulatedServer | None,
        kind: ClientOperationKind,
        key: str,
        then: Then = None,
    ) -> Waiting:
        """Make an operation at *server*; call *then* when it is settled."""
        self._numbers += 1
        number = self._numbers
        operation = ClientOperation(kind, key, self._moment())
        if kind not in (ClientOperationKind.READ, ClientOperationKind.DELETE):
            operation.argument = number
        if kind is ClientOperationKind.CAS:
            known = self._known.get(key)
            operation.expected = known if isinstance(known, int) else None
        waiting = Waiting(operation, encode(number, operation))
        # Kept from the call on: an operation that is never settled may still have taken
        # effect.
        self._asked[operation.called] = operation
        if server is None:
            self._refuse(waiting, then)
            return waiting
        self._simulation.note(server, "is asked to", kind.name, waiting.command)
        asked = Asked(
            0,
            waiting.command,
            lambda result, index: self._settle(waiting, result, index, then),
            lambda: self._give_up(waiting, then),
        )
        self._simulation.schedule.after(PATIENCE, self._give_up, waiting, then)
        server.receive(self._deliver, server, number, asked, waiting, then)
        return waiting

    def _deliver(
        self,
        server: SimulatedServer,
        number: int,
        asked: Asked,
        waiting: Waiting,
        then: Then,
    ) -> None:
        if waiting.operation.kind is ClientOperationKind.READ:
            accepted = server.read(number, asked)
        else:
            entry = Entry(0, 0, LogType.COMMAND, waiting.command)
            accepted = server.propose(entry, asked)
        if not accepted:
            self._refuse(waiting, then)

    def _settle(self, waiting: Waiting, result: object, index: int, then: Then) -> None:
        """Record that an operation took effect, with its result."""
        if waiting.settled:
            return
        operation = waiting.operation
        if isinstance(result, Registers):
            result = result.values.get(operation.key)
        assert result is None or isinstance(result, int | tuple), "a value"
        operation.result = result
        operation.returned = self._moment()
        if operation.kind is not ClientOperationKind.READ:
            assert waiting.command not in self.acknowledged, "an outcome is told once"
            self.acknowledged[waiting.command] = index
        if operation.kind in (ClientOperationKind.READ, ClientOperationKind.CAS):
            self._known[operation.key] = result
        self._finish(waiting, then)

    def _refuse(self, waiting: Waiting, then: Then) -> None:
        """Record that an operation was refused: it has not and will not take effect."""
        if waiting.settled:
            return
        # A refusal says that it never takes effect, so no checker may suppose that it
        # has. `refused` has it, to see that it does not.
        del self._asked[waiting.operation.called]
        self.refused[waiting.command] = 0
        self._finish(waiting, then)

    def _give_up(self, waiting: Waiting, then: Then) -> None:
        """Stop waiting: the outcome stays unknown."""
        if not waiting.settled:
            self._finish(waiting, then)

    def _finish(self, waiting: Waiting, then: Then) -> None:
        waiting.settled = True
        self.outcomes += 1
        if then is not None:
            then()
