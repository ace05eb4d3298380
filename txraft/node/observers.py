"""Observers: who is told of changes of role and leader, and of vote requests.

Source: hashicorp/raft `observer.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from txraft.node.raft import Raft


@dataclass(frozen=True, slots=True)
class LeaderObservation:
    """The leader is now *leader*; None: none is known."""

    leader: str | None


@dataclass(frozen=True, slots=True)
class Observation:
    """What *raft* has to tell: a RaftState, LeaderObservation or RequestVoteRequest."""

    raft: Raft
    data: object


class Observer:
    """Calls *callback* with each observation that *filter* lets through.

    `num_observed` counts those delivered, `num_dropped` those whose callback raised.
    """

    def __init__(
        self,
        callback: Callable[[Observation], object],
        filter: Callable[[Observation], bool] | None = None,
    ) -> None:
        self._callback = callback
        self._filter = filter
        self.num_observed = 0
        self.num_dropped = 0

    def observe(self, observation: Observation) -> None:
        """Deliver *observation* if the filter lets it through."""
        if self._filter is None or self._filter(observation):
            self._callback(observation)
            self.num_observed += 1


class Observers:
    """The observers of one node, told in the order they registered."""

    log = Logger()

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def register(self, observer: Observer) -> None:
        """Tell *observer* from now on."""
        if observer not in self._observers:
            self._observers.append(observer)

    def deregister(self, observer: Observer) -> None:
        """Tell *observer* no more; idempotent."""
        if observer in self._observers:
            self._observers.remove(observer)

    def tell(self, observation: Observation) -> None:
        """Tell every observer; one that raises does not keep it from the others."""
        for observer in list(self._observers):
            try:
                observer.observe(observation)
            except Exception:
                observer.num_dropped += 1
                self.log.failure("an observer raised")
