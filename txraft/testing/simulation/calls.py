"""Requests and their answers, as connections bring them.

An answer comes back paired with its request, or the sender learns that there will be
none: at once, after a while, or because the peer hung up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from txraft.core.messages import (
    Request,
    RequestPreVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.core.ready import OutgoingRequest, Refusal
from txraft.testing.simulation.server import Parcel, SimulatedServer

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

LONGEST_CALL = 1_200_000
"""Microseconds after which a request that was not answered has failed."""


@dataclass(slots=True)
class Call:
    """One request on its way, and who waits for the answer."""

    source: SimulatedServer
    life: int
    target: str
    request: OutgoingRequest
    travels: Request
    answered: bool = False


@dataclass(slots=True)
class ReplyTo:
    """Where an answer goes: to a call, from the life that was asked."""

    call: Call
    life: int


class Calls:
    """All calls of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def send(self, source: SimulatedServer, target: str, message: object) -> None:
        """Send a request."""
        simulation, random = self._simulation, self._simulation.random.random
        request, travels = source.body(message)  # type: ignore[arg-type]
        bare = travels.request if isinstance(travels, Parcel) else travels
        simulation.oracles.check_request(source, bare)
        simulation.note(source, "asks", target, bare)
        call = Call(source, source.life, target, request, bare)
        network = simulation.network
        on_its_way = target in simulation.servers and network.carry(
            source.address, target, type(request), self._arrive, call, travels
        )
        if not on_its_way and random() < 0.5:
            source.later(1_000, self._give_up, call)
            return
        patience = LONGEST_CALL - int(random() * 400_000)
        source.later(patience, self._give_up, call)
        if on_its_way:
            again = Call(source, -1, target, request, bare, answered=True)
            network.repeat(source.address, target, self._arrive, again, travels)

    def _arrive(self, call: Call, travels: Request | Parcel) -> None:
        target = self._simulation.servers[call.target]
        if target.running:
            target.receive(self._ask, target, call, travels)
        elif not call.answered and self._simulation.random.random() < 0.5:
            call.source.later(1_000, self._give_up, call)

    def _ask(
        self, target: SimulatedServer, call: Call, travels: Request | Parcel
    ) -> None:
        if isinstance(call.travels, RequestPreVoteRequest) and (
            self._simulation.buggify("connection closed on a pre-vote")
        ):
            call.source.later(1_000, self._give_up, call, True)
            return
        if isinstance(travels, Parcel):
            travels = target.take_parcel(travels)
        target.turn(target.consensus.request, travels, ReplyTo(call, target.life))

    def answer(self, source: SimulatedServer, to: object, message: object) -> None:
        """Send an answer back."""
        assert isinstance(to, ReplyTo), "an answer goes where the request came from"
        simulation, call = self._simulation, to.call
        assert to.life == source.life, "an answer is of the life that was asked"
        simulation.oracles.check_answer(source, call.travels, message)
        simulation.note(source, "answers", call.source.address, message)
        if simulation.buggify("answer lost"):
            return
        if isinstance(message, RequestVoteResponse) and message.granted:
            simulation.storm.vote_left(source)
        channel = (type(call.request), "answer")
        if call.source is not source:
            simulation.network.carry(
                source.address,
                call.source.address,
                channel,
                self._answered,
                call,
                message,
            )

    def _answered(self, call: Call, message: Response | Refusal) -> None:
        source = call.source
        if call.answered or source.life != call.life:
            return
        call.answered = True
        source.receive(self._take_answer, source, call, message)

    def _take_answer(
        self, source: SimulatedServer, call: Call, message: Response | Refusal
    ) -> None:
        if isinstance(message, Refusal):
            source.turn(source.consensus.unreachable, call.target, call.request)
        else:
            source.turn(source.consensus.response, call.target, call.request, message)

    def _give_up(self, call: Call, closed: bool = False) -> None:
        source = call.source
        if not call.answered and source.life == call.life:
            call.answered = True
            source.turn(source.consensus.unreachable, call.target, call.request, closed)
