"""Exchanges between simulated servers: a request, and its answer or a failure.

An answer returns together with its request. If there is none, the sender learns that
the peer was unreachable: at once, after a timeout, or because the connection ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from txraft.core.messages import (
    Header,
    Request,
    RequestPreVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.core.ready import OutgoingRequest, Refusal
from txraft.testing.simulation.simulated_server import Parcel, SimulatedServer

if TYPE_CHECKING:
    from txraft.testing.simulation.simulation import Simulation

LONGEST_EXCHANGE = 1_200_000
"""Microseconds after which a request without an answer has failed."""


@dataclass(slots=True)
class Exchange:
    """One request under way; *source* waits for its answer, if that run still lasts.

    *request* is what consensus handed out, *travels* what the peer gets.
    """

    source: SimulatedServer
    run_number: int
    target: str
    request: OutgoingRequest
    travels: Request
    answered: bool = False


@dataclass(slots=True)
class ReplyTo:
    """The way back of an answer: its exchange, and the run of who was asked."""

    exchange: Exchange
    run_number: int


class Exchanges:
    """Carries all requests and answers of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def send(self, source: SimulatedServer, target: str, message: object) -> None:
        """Send a request."""
        simulation, random = self._simulation, self._simulation.random.random
        request, travels = source.body(message)  # type: ignore[arg-type]
        bare = travels.request if isinstance(travels, Parcel) else travels
        # Checked as it leaves, not as it arrives: a promise counts even if it gets
        # lost.
        simulation.oracles.check_request(source, bare)
        simulation.note(source, "asks", target, bare)
        exchange = Exchange(source, source.run_number, target, request, bare)
        network = simulation.network
        on_its_way = target in simulation.servers and network.carry(
            source.address, target, type(request), self._arrive, exchange, travels
        )
        if not on_its_way and random() < 0.5:
            source.later(1_000, self._give_up, exchange)
            return
        patience = LONGEST_EXCHANGE - int(random() * 400_000)
        source.later(patience, self._give_up, exchange)
        if on_its_way:
            # Answered from the start: the answer to a copy must not reach consensus.
            again = Exchange(source, -1, target, request, bare, answered=True)
            network.repeat(source.address, target, self._arrive, again, travels)

    def _arrive(self, exchange: Exchange, travels: Request | Parcel) -> None:
        target = self._simulation.servers[exchange.target]
        if target.running:
            target.receive(self._ask, target, exchange, travels)
        elif not exchange.answered and self._simulation.random.random() < 0.5:
            exchange.source.later(1_000, self._give_up, exchange)

    def _ask(
        self, target: SimulatedServer, exchange: Exchange, travels: Request | Parcel
    ) -> None:
        if isinstance(exchange.travels, RequestPreVoteRequest) and (
            self._simulation.buggify("connection closed on a pre-vote")
        ):
            exchange.source.later(1_000, self._give_up, exchange, True)
            return
        if isinstance(travels, Parcel):
            travels = target.take_parcel(travels)
        target.turn(
            target.consensus.request, travels, ReplyTo(exchange, target.run_number)
        )

    def answer(self, source: SimulatedServer, to: object, message: object) -> None:
        """Send an answer back to the source of its request."""
        assert isinstance(to, ReplyTo), "an answer goes where the request came from"
        simulation, exchange = self._simulation, to.exchange
        assert to.run_number == source.run_number, "the run that was asked answers"
        if simulation.upgrades is not None and not isinstance(message, Refusal):
            message = replace(message, header=Header(level=source.level))  # type: ignore[type-var]
        simulation.oracles.check_answer(source, exchange.travels, message)
        simulation.note(source, "answers", exchange.source.address, message)
        if simulation.buggify("answer lost"):
            return
        if isinstance(message, RequestVoteResponse) and message.granted:
            simulation.fault_schedule.vote_left(source)
        channel = (type(exchange.request), "answer")
        if exchange.source is not source:
            simulation.network.carry(
                source.address,
                exchange.source.address,
                channel,
                self._answered,
                exchange,
                message,
            )

    def _answered(self, exchange: Exchange, message: Response | Refusal) -> None:
        source = exchange.source
        if exchange.answered or source.run_number != exchange.run_number:
            return
        exchange.answered = True
        source.receive(self._take_answer, source, exchange, message)

    def _take_answer(
        self, source: SimulatedServer, exchange: Exchange, message: Response | Refusal
    ) -> None:
        if isinstance(message, Refusal):
            source.turn(source.consensus.unreachable, exchange.target, exchange.request)
        else:
            source.turn(
                source.consensus.response, exchange.target, exchange.request, message
            )

    def _give_up(self, exchange: Exchange, closed: bool = False) -> None:
        source = exchange.source
        if not exchange.answered and source.run_number == exchange.run_number:
            exchange.answered = True
            source.turn(
                source.consensus.unreachable, exchange.target, exchange.request, closed
            )
