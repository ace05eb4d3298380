"""Handing leadership over, as the one who asked for it sees it.

Consensus does the work and gives up by itself; this only waits for the outcome.

Source: Raft dissertation §3.10.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.errors import RaftShutdown, TransferFailed
from txraft.node.events import Observation, Observer, Observers, RaftState


class LeadershipTransfer:
    """One attempt to hand leadership to *target*, for at most *patience* seconds.

    `done` fires when this node no longer leads, and fails with TransferFailed, or
    with RaftShutdown when the node stops before. *ended* is called in any case.
    Cancelling `done` stops the wait, not the attempt.
    """

    def __init__(
        self,
        target: str,
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
