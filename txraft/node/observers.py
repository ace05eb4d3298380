"""Observers: who is told of changes of role and leader, and of vote requests.

Source: hashicorp/raft `observer.go`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, QueueOverflow
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.node.application import (
    AT_ONCE,
    awaited,
    is_unfinished,
    refuse_unfinished,
)
from txraft.node.state import RaftState

if TYPE_CHECKING:
    from txraft.node.raft import Raft


MAX_WAITING_OBSERVATIONS = 1024
"""Observations that a blocking observer keeps while its callback is busy."""


@dataclass(frozen=True, slots=True)
class LeaderObservation:
    """The leader is now *leader*; None: none is known."""

    leader: str | None


@dataclass(frozen=True, slots=True)
class Observation:
    """What *raft* has to tell: a RaftState, LeaderObservation or RequestVoteRequest."""

    raft: Raft
    data: object


FilterFn = Callable[[Observation], bool]
"""Tells whether an observer wants an observation."""


class Observer:
    """Calls *callback* with each observation that *filter* lets through.

    A callback that returns a Deferred, or is a coroutine, is busy until that has ended.
    Meanwhile an observer
    that is *blocking* keeps what comes, in its order, and at most *max_waiting* of it;
    others drop it. It is never entered twice: what comes while it is on the stack is
    delivered when it returns. The `put` of a `DeferredQueue` of limited size is a
    callback that drops what does not fit, as the seed's channel does. Without a
    callback, only the filter is called.

    `num_observed` counts what was delivered; `num_dropped` what was not, because the
    callback was busy, its queue full, or it raised. Where the seed's blocking observer
    holds the node up, ours never does.
    """

    log = Logger()

    def __init__(
        self,
        callback: Callable[[Observation], object] | None,
        filter: FilterFn | None = None,
        *,
        blocking: bool = False,
        max_waiting: int = MAX_WAITING_OBSERVATIONS,
    ) -> None:
        self._callback = callback
        self._filter = filter
        self._blocking = blocking
        self._most = max_waiting
        self._waiting: deque[Observation] = deque()
        self._busy = False
        self._entered = False
        self._draining = False
        self.num_observed = 0
        self.num_dropped = 0

    def observe(self, observation: Observation) -> None:
        """Deliver *observation* if the filter lets it through."""
        if self._filter is not None and not self._wants(observation):
            return
        if self._callback is None:
            return
        kept = self._most if self._blocking or self._entered else 0
        if not self._busy:
            self._deliver(observation)
        elif len(self._waiting) < kept:
            self._waiting.append(observation)
        else:
            self.num_dropped += 1

    def _wants(self, observation: Observation) -> bool:
        assert self._filter is not None, "there is somebody to ask"
        try:
            wanted = self._filter(observation)
            refuse_unfinished(wanted, "the filter of an observer", AT_ONCE)
        except Exception:
            self.num_dropped += 1
            self.log.failure("the filter of an observer raised")
            return False
        except BaseException:
            _stop(observation, "the filter of an observer")
            return False
        return wanted

    def _deliver(self, observation: Observation) -> None:
        self._busy = self._entered = True
        done = self._call(observation)
        self._entered = False
        if done is None:
            self._done(None)
            return
        if not self._blocking and not done.called:
            self.num_dropped += len(self._waiting)
            self._waiting.clear()
        done.addErrback(lambda f: self.log.failure("an observer failed", failure=f))
        done.addCallback(self._done)

    def _call(self, observation: Observation) -> Deferred[Any] | None:
        """Call, and return what to wait for, if anything."""
        assert self._callback is not None, "there is somebody to deliver to"
        try:
            done = self._callback(observation)
            waiting = awaited(done, "an observer") if is_unfinished(done) else None
        except Exception as error:
            self.num_dropped += 1
            if not isinstance(error, QueueOverflow):
                self.log.failure("an observer raised")
            return None
        except BaseException:
            self.num_dropped += 1
            _stop(observation, "an observer")
            return None
        self.num_observed += 1
        return waiting

    def _done(self, _: object) -> None:
        self._busy = False
        if self._draining:
            return
        self._draining = True
        while self._waiting and not self._busy:
            self._deliver(self._waiting.popleft())
        self._draining = False


class Edges:
    """Turns observed states into calls of *callback* with whether the node leads."""

    def __init__(self, callback: Callable[[bool], object]) -> None:
        self._callback = callback
        self._leads: bool | None = None

    def __call__(self, observation: Observation) -> object:
        """Call, if this is news."""
        leads = observation.data is RaftState.LEADER
        if leads is self._leads:
            return None
        self._leads = leads
        return self._callback(leads)


def is_state(observation: Observation) -> bool:
    """Let only changes of state through."""
    return isinstance(observation.data, RaftState)


class Observers:
    """The observers of one node, told in the order they registered."""

    log = Logger()

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._untold: deque[Observation] = deque()
        self._telling = False

    def register(self, observer: Observer) -> None:
        """Tell *observer* from now on."""
        if observer not in self._observers:
            self._observers.append(observer)

    def deregister(self, observer: Observer) -> None:
        """Tell *observer* no more; idempotent."""
        if observer in self._observers:
            self._observers.remove(observer)

    def tell(self, observation: Observation) -> None:
        """Tell every observer; one that raises does not keep it from the others.

        What is no Exception, such as SystemExit, stops the node, and all are told.
        All are told everything in the same order: what comes while one is being told
        waits until the others were.
        """
        self._untold.append(observation)
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                self._tell_all(self._untold.popleft())
        finally:
            self._telling = False

    def _tell_all(self, observation: Observation) -> None:
        for observer in list(self._observers):
            observer.observe(observation)


def _stop(observation: Observation, who: str) -> None:
    """Stop the node that *observation* is of, as *who* raised what is no Exception."""
    observation.raft.stop_because(f"{who} ended it", Failure())
