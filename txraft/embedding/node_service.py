"""`NodeService`: a node under `twisted.application`, for as long as the process lives.

    application = Application("jobs")
    node = Node("data", Counter(), address="127.0.0.1:8400")
    NodeService(node).setServiceParent(application)

A start that fails because of a port in use, a locked directory or a damaged log is
logged in one sentence, and the process ends with status 1. It also ends with status 1
when the node stops itself.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall, IReactorCore, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.embedding.systemd import Supervisor
from txraft.errors import NodeRemoved, RaftError

STOP_TIMEOUT = 4.0
"""Seconds for an orderly stop, after the wait for clients has ended."""


class RunnableNode(Protocol):
    """A node that a `NodeService` runs."""

    def start(self) -> Deferred[None]:
        """Open everything and take part; fails with the error that prevents it."""

    def when_ready(self) -> Deferred[str]:
        """Fire with the leader's address, once one is known; fails with RaftError."""

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Fire when the node begins to stop, with the reason if it stops itself."""

    def when_stopped(self) -> Deferred[Any]:
        """Fire when the node has stopped, with a RaftError if it stopped itself.

        It may as well fail with that.
        """

    def stop(self) -> Deferred[None]:
        """Answer the requests in flight, then close all that `start` opened."""


class StartFailed(SystemExit, Exception):
    """The node cannot start; the log says why and the process ends with status 1.

    It is a SystemExit, for which the interpreter prints no traceback, and an
    Exception, for which twistd tells whoever started a daemon and removes its pid
    file.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class ProcessEnd:
    """Ends the process through its reactor, with an exit status."""

    def __init__(self, reactor: IReactorCore) -> None:
        self._reactor = reactor
        self._status = 0
        atexit.register(self._leave)

    def __call__(self, status: int) -> None:
        """Stop the reactor; the process then ends with *status*."""
        self._status = status
        with suppress(ReactorNotRunning):  # it is being stopped already
            self._reactor.stop()

    def _leave(self) -> None:
        # twistd returns 0 whenever its reactor was stopped; no option changes that.
        # This runs last, when pid file and log are closed. os._exit skips the handlers
        # that were registered before it, and the flushing of buffers: hence the two
        # flushes.
        if self._status:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._status)


class NodeService(Service):
    """Runs a node for as long as the process lives, and ends the process with the node.

    *supervisor* is told when the node is ready, which is when it knows a leader; by
    default systemd is. At a stop, clients have *patience* seconds to get their answers.
    *clock* and *end*, which ends the process with a status, are by default Twisted's
    reactor and a `ProcessEnd` of it.
    """

    _log = Logger()

    def __init__(
        self,
        node: RunnableNode,
        clock: IReactorTime | None = None,
        end: Callable[[int], object] | None = None,
        supervisor: Supervisor | None = None,
        patience: float = 0.0,
    ) -> None:
        self._supervisor = supervisor or Supervisor(os.environ)
        self._longest = patience + STOP_TIMEOUT
        self._node = node
        self._given_clock = clock
        self._given_end = end
        self._entered = False
        self._refusal: str | None = None
        self._deadline: IDelayedCall | None = None

    def startService(self) -> None:
        """Start the node.

        Raises: StartFailed if the start fails before this returns. A later failure is
            logged and ends the process.
        """
        Service.startService(self)
        self._clock, self._end = self._means()
        self._node.start().addCallbacks(self._started, self._not_started)
        # A failure so far could not end the process through the reactor, which does not
        # run yet: it is raised, and twistd ends. Later ones go through `_end`.
        self._entered = True
        if self._refusal is not None:
            raise StartFailed(self._refusal)

    def stopService(self) -> Deferred[None]:
        """Stop the node, within `STOP_TIMEOUT` seconds after the last client.

        Returns: a Deferred that always fires.
        """
        Service.stopService(self)
        self._forget_deadline()
        # systemd must allow for the drain, which may be longer than its TimeoutStopSec.
        microseconds = round(self._longest * 1e6)
        self._supervisor.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={microseconds}")
        stopping = self._node.stop()
        stopping.addTimeout(self._longest, self._clock)
        stopping.addErrback(self._not_stopped)
        return stopping

    def _started(self, _: None) -> None:
        self._node.when_stopping().addCallback(self._stopping_itself)
        self._node.when_stopped().addCallbacks(self._stopped, self._failed)
        self._node.when_ready().addCallbacks(self._ready, _trap_raft_error)

    def _means(self) -> tuple[IReactorTime, Callable[[int], object]]:
        """Return clock and end; Twisted's reactor is loaded only if one is missing."""
        clock, end = self._given_clock, self._given_end
        if clock is None or end is None:
            from twisted.internet import reactor

            clock = clock or cast(IReactorTime, reactor)
            end = end or ProcessEnd(cast(IReactorCore, reactor))
        return clock, end

    def _ready(self, leader: str) -> None:
        self._supervisor.tell("READY=1", f"STATUS=The leader was {leader} at the start")

    def _not_started(self, failure: Failure) -> None:
        if not self.running:
            return
        reason = failure.getErrorMessage()
        if failure.check(CannotListenError):
            reason += " Stop what uses that address, or change listen or http.listen"
        if failure.check(RaftError, OSError, CannotListenError):
            self._log.critical("The node cannot start: {reason}", reason=reason)
        else:
            self._log.failure("The node cannot start", failure)
        if self._entered:
            self._end(1)
        else:
            self._refusal = reason

    def _stopping_itself(self, error: RaftError | None) -> None:
        """Give the node a limited time to stop: its disk or a thread may hang.

        Meanwhile it neither serves nor votes, but the process still lives, and whoever
        watches the process takes it for a working node.
        """
        if self.running:
            self._deadline = self._clock.callLater(STOP_TIMEOUT, self._give_up, error)

    def _forget_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _give_up(self, error: RaftError | None) -> None:
        self._log.critical(
            "The node did not stop in order within {seconds} s, and the process ends: "
            "{reason}. What was acknowledged is on disk; the next start recovers it",
            seconds=STOP_TIMEOUT,
            reason=str(error) if error is not None else "it was shut down",
        )
        self._end(1)

    def _failed(self, failure: Failure) -> None:
        failure.trap(RaftError)
        self._stopped(failure.value)

    def _stopped(self, error: BaseException | None) -> None:
        self._forget_deadline()
        if not self.running:
            return
        is_gone = error is None or isinstance(error, NodeRemoved)
        if is_gone:
            self._log.info("The node has left the cluster and shut down")
        else:
            self._log.critical("The node stopped itself: {reason}", reason=str(error))
        self._end(0 if is_gone else 1)

    def _not_stopped(self, failure: Failure) -> None:
        self._log.critical(
            "The node did not stop in order: {reason}. What was acknowledged is on "
            "disk; the next start recovers it",
            reason=failure.getErrorMessage() or f"{self._longest} s were not enough",
        )


def _trap_raft_error(failure: Failure) -> None:
    """Ignore a node that stops before it is ready: `when_stopped` reports it."""
    failure.trap(RaftError)
