"""Leadership transfer: choose a successor, and wait until this node leads no more.

Consensus does the work: it brings the successor up to date, tells it to campaign, and
gives up by itself after an election timeout. Here is what the caller of
`Raft.transfer_leadership` sees of it.

Source: Raft dissertation §3.10.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.core.consensus import Consensus
from txraft.errors import RaftShutdown, TransferFailed
from txraft.node.events import Observation, Observer, Observers, RaftState


class LeadershipTransfer:
    """One attempt to transfer leadership to *target*, for at most *patience* seconds.

    `done` fires when this node no longer leads, and fails with TransferFailed, or
    with RaftShutdown when the node stops before. *ended* is called in any case.
    Cancelling `done` stops the wait, not the attempt.
    """

    def __init__(
        self,
        target: str,
        *,
        observers: Observers,
        clock: IReactorTime,
        patience: float,
        ended: Callable[[], None],
    ) -> None:
        self._observers = observers
        self._ended = ended
        self._observer = Observer(self._observe)
        self._target = target
        self.done: Deferred[None] = Deferred(lambda _: self._end())
        self._timer = clock.callLater(patience, self._give_up)
        observers.register(self._observer)

    def _end(self) -> None:
        self._observers.deregister(self._observer)
        if self._timer.active():
            self._timer.cancel()
        self._ended()

    def _observe(self, observation: Observation) -> None:
        # A change of state is the end of it: this node no longer leads. Whether the
        # successor does is not known here, and whoever wins then is a leader all right.
        state = observation.data
        if not isinstance(state, RaftState):
            return
        self._end()
        if state is RaftState.SHUTDOWN:
            self.done.errback(RaftShutdown())
        else:
            self.done.callback(None)

    def _give_up(self) -> None:
        self._end()
        self.done.errback(TransferFailed(f"{self._target} did not take over in time"))


def choose_successor(
    consensus: Consensus, target: str | None, *, own_address: str, tick: float
) -> str:
    """Return whom to transfer leadership to: *target*, or the most complete voter.

    *tick* is in seconds.
    Raises: TransferFailed, if nobody there would take it.
    """
    others = set(consensus.configuration.voters) - {own_address}
    if not others or target == own_address:
        raise TransferFailed("there is no other voter to transfer leadership to")
    chosen = target or consensus.best_successor()
    if chosen is None:
        raise TransferFailed("no other voter has answered of late")
    if chosen not in others:
        raise TransferFailed(f"{chosen} is not a voter")
    silence = consensus.silence_of(chosen) * tick
    if silence:
        raise TransferFailed(f"{chosen} has not answered for {silence:.1f} s")
    return chosen
