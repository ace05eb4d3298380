"""Clients of a simulated cluster: each asks, waits, and remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from txraft.core.entry import Entry, LogType
from txraft.testing.linearizability import Kind, Operation, Value
from txraft.testing.simulation.registers import Registers, encode
from txraft.testing.simulation.server import Asked, SimulatedServer

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

PATIENCE = 3_000_000
"""Microseconds after which a client no longer waits."""

MAX_OPERATIONS = 600
"""Operations of one run; a search for their order must not take for ever."""

MAX_IN_BURSTS = 1_000
"""Writes of one run for whose outcome no client waits."""

Then = Callable[[], None] | None
"""What goes on once an operation is settled."""

MENU = {
    "x": (Kind.WRITE, Kind.READ, Kind.READ),
    "y": (Kind.WRITE, Kind.READ),
    "z": (Kind.CAS, Kind.CAS, Kind.READ, Kind.DELETE, Kind.WRITE),
    "l": (Kind.APPEND, Kind.READ),
}
"""What clients do with each key."""


@dataclass(slots=True)
class Waiting:
    """One operation under way, until its client knows or gives up."""

    operation: Operation
    command: bytes
    settled: bool = False


class Workload:
    """The clients, and the history of all that they asked for."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._asked: dict[int, Operation] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.refused: dict[bytes, int] = {}
        self.outcomes = 0
        self._numbers = 0
        self._moments = 0
        self._bursts = 0
        self._known: dict[str, Value] = {}

    @property
    def history(self) -> list[Operation]:
        """All that took effect, or may have."""
        return list(self._asked.values())

    def start(self) -> None:
        """Let all clients begin."""
        circumstances = self._simulation.circumstances
        for client in range(circumstances.clients):
            self._simulation.schedule.after(1_000 * client, self._next)

    def _moment(self) -> int:
        """Return a time that no other call or return has."""
        self._moments += 1
        return self._moments

    def _next(self) -> None:
        """Let one client ask for one thing, then think, and so on."""
        simulation = self._simulation
        asked = self._numbers - self._bursts
        if simulation.ended or asked >= MAX_OPERATIONS:
            return
        random = simulation.random
        key = random.choice(tuple(MENU))
        self.ask(self._find_server(), random.choice(MENU[key]), key, self._think)

    def burst(self, server: SimulatedServer, count: int) -> None:
        """Have *server* do writes that hold nobody up, so that they pile up there."""
        if self._bursts < MAX_IN_BURSTS:
            self._bursts += count
            for _ in range(count):
                self.ask(server, Kind.WRITE, "b")

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
        kind: Kind,
        key: str,
        then: Then = None,
    ) -> Waiting:
        """Have *server* do one thing; *then* is called once that is settled."""
        self._numbers += 1
        number = self._numbers
        operation = Operation(kind, key, self._moment())
        if kind not in (Kind.READ, Kind.DELETE):
            operation.argument = number
        if kind is Kind.CAS:
            known = self._known.get(key)
            operation.expected = known if isinstance(known, int) else None
        waiting = Waiting(operation, encode(number, operation))
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
        if waiting.operation.kind is Kind.READ:
            accepted = server.read(number, asked)
        else:
            entry = Entry(0, 0, LogType.COMMAND, waiting.command)
            accepted = server.propose(entry, asked)
        if not accepted:
            self._refuse(waiting, then)

    def _settle(self, waiting: Waiting, result: object, index: int, then: Then) -> None:
        """Tell a client that its operation took effect."""
        if waiting.settled:
            return
        operation = waiting.operation
        if isinstance(result, Registers):
            result = result.values.get(operation.key)
        assert result is None or isinstance(result, int | tuple), "a value"
        operation.result = result
        operation.returned = self._moment()
        if operation.kind is not Kind.READ:
            assert waiting.command not in self.acknowledged, "an outcome is told once"
            self.acknowledged[waiting.command] = index
        if operation.kind in (Kind.READ, Kind.CAS):
            self._known[operation.key] = result
        self._finish(waiting, then)

    def _refuse(self, waiting: Waiting, then: Then) -> None:
        """Tell a client that its operation has not and will not take effect."""
        if waiting.settled:
            return
        del self._asked[waiting.operation.called]
        self.refused[waiting.command] = 0
        self._finish(waiting, then)

    def _give_up(self, waiting: Waiting, then: Then) -> None:
        """Tell a client that nobody knows."""
        if not waiting.settled:
            self._finish(waiting, then)

    def _finish(self, waiting: Waiting, then: Then) -> None:
        waiting.settled = True
        self.outcomes += 1
        if then is not None:
            then()
