"""`twistd raft`: command line options, and the service that a process runs.

    twistd -n raft                            a single node on loopback
    twistd -n raft --config node.yaml         a member of a cluster

The configuration is checked before anything is opened. A start that fails later,
because of a port in use, a locked directory or a damaged log, is logged in one
sentence, and the process ends with status 1. It also ends with status 1 when the node
stops itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol, cast

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from txraft._twisted import log_observer
from txraft.clock import use_monotonic_time
from txraft.daemon.garbage import ShortPauses
from txraft.daemon.systemd import Supervisor
from txraft.errors import ConfigError, NodeRemoved, RaftError
from txraft.settings.settings import Settings, effective, load_settings

STOP_TIMEOUT = 4.0
"""Seconds for an orderly stop, after the wait for clients has ended."""

_FLAGS = (
    ("data-dir", "Directory of the log and the snapshots."),
    ("listen", "Twisted endpoint for peers, such as tcp:8300:interface=127.0.0.1."),
    ("advertise", "This node's host:port as its peers dial it."),
    ("peers", "First members, separated by commas, this node included."),
    ("http-listen", "Twisted endpoint for HTTP; null turns HTTP off."),
    ("http-advertise", "URL at which other nodes reach this node's HTTP."),
    ("log-level", "Lowest level to log: debug, info, warn, error or critical."),
)


class Options(usage.Options):
    """The options of `twistd raft`; `settings` holds the settings read from them."""

    synopsis = "[--config node.yaml] [options]"
    longdesc = (
        "Run a node of a durable, replicated key-value store. Without options it is "
        "a single node on loopback with its data in ./txraft-data. Flags override "
        "the settings file."
    )
    optParameters = [  # noqa: RUF012 - the form that usage.Options wants
        ["config", "c", None, "Settings file (YAML)."],
        *([flag, None, None, doc] for flag, doc in _FLAGS),
    ]
    optFlags = [  # noqa: RUF012 - likewise
        ["join", None, "Start empty and wait to be added, instead of --peers."],
        [
            "check-config",
            None,
            "Check all that a start needs, print the settings, exit.",
        ],
    ]

    settings: Settings

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse *options*; under twistd a fault is printed and ends the process.

        Raises: under twistd SystemExit with status 1; otherwise usage.UsageError.
        """
        # Older releases of Twisted end with status 0 after a usage error, which a
        # supervisor takes for a node that did its work.
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as fault:
            if self.parent is None:
                raise
            if not isinstance(fault.__cause__, ConfigError):  # which says enough
                sys.stderr.write(f"{self}\n")
            sys.stderr.write(f"twistd raft: {fault}\n")
            raise SystemExit(1) from fault

    def postOptions(self) -> None:
        """Load and check the settings, before anything is opened.

        Raises: usage.UsageError with every fault; SystemExit for `--check-config`.
        """
        flags = {flag: self[flag] for flag, _ in _FLAGS if self[flag] is not None}
        if self["join"]:
            flags["join"] = "true"
        directory = self.parent.get("rundir", ".") if self.parent else "."
        try:
            if self["check-config"]:
                self._check(self["config"], flags, directory)
            self.settings = load_settings(self["config"], flags, directory)
        except ConfigError as error:
            raise usage.UsageError("\n".join(error.problems)) from error

    def _check(
        self, path: str | None, flags: Mapping[str, str], directory: str
    ) -> NoReturn:
        """Check what a start needs, and print warnings and the effective settings.

        Raises: ConfigError; SystemExit, when nothing is wrong
        """
        from txraft.daemon.preflight import check_settings

        self.settings, hints = check_settings(path, flags, directory)
        for hint in hints:
            sys.stderr.write(f"warning: {hint}\n")
        sys.stdout.write(effective(self.settings))
        raise SystemExit(0)


class RunnableNode(Protocol):
    """A node that a `NodeService` runs."""

    def start(self) -> Deferred[None]:
        """Open everything and take part; fails with the error that prevents it."""

    def when_ready(self) -> Deferred[str]:
        """Fire with the leader's address, once one is known; fails with RaftError."""

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Fire when the node begins to stop, with the reason if it stops itself."""

    def when_stopped(self) -> Deferred[RaftError | None]:
        """Fire when the node has stopped, with the reason if it stopped itself."""

    def reload(self) -> None:
        """Reread certificates and tokens."""

    def stop(self) -> Deferred[None]:
        """Answer the requests in flight, then close all that `start` opened."""

    def hurry(self) -> None:
        """Let a stop that is under way wait for clients no longer."""


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

    *supervisor* is told when the node is ready, which is when it knows a leader. At a
    stop, clients have *patience* seconds to get their answers.
    """

    _log = Logger()

    def __init__(
        self,
        node: RunnableNode,
        clock: IReactorTime,
        end: Any,
        supervisor: Supervisor,
        patience: float = 0.0,
    ) -> None:
        self._supervisor = supervisor
        self._longest = patience + STOP_TIMEOUT
        self._node = node
        self._clock = clock
        self._end = end
        self._entered = False
        self._refusal: str | None = None
        self._deadline: IDelayedCall | None = None

    def startService(self) -> None:
        """Start the node.

        Raises: StartFailed if the start fails before this returns. A later failure is
            logged and ends the process.
        """
        Service.startService(self)
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
        self._node.when_stopped().addCallback(self._stopped)
        self._node.when_ready().addCallbacks(self._ready, _trap_raft_error)

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

    def _stopped(self, error: RaftError | None) -> None:
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


class Impatience(Service):
    """Makes a node that is stopping hurry, at a second SIGTERM or SIGINT.

    The reactor handles only the first one.
    """

    def __init__(self, node: RunnableNode, reactor: IReactorFromThreads) -> None:
        self._node = node
        self._reactor = reactor

    def stopService(self) -> None:
        """Handle the signals from now on, until the process ends."""
        Service.stopService(self)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, _number: int, _frame: object) -> None:
        # A signal handler may run in the middle of any bytecode: only the reactor may
        # enter the node, and callFromThread also wakes it.
        self._reactor.callFromThread(self._node.hurry)


class HangUp(Service):
    """Makes a node reread its certificates and tokens at SIGHUP."""

    def __init__(self, node: RunnableNode, reactor: IReactorFromThreads) -> None:
        self._node = node
        self._reactor = reactor
        self._before: Any = None

    def startService(self) -> None:
        """Handle the signal from now on."""
        Service.startService(self)
        self._before = signal.signal(signal.SIGHUP, self._received)

    def stopService(self) -> None:
        """Put back the handler that was there before."""
        Service.stopService(self)
        signal.signal(signal.SIGHUP, self._before)

    def _received(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._node.reload)


def _trap_raft_error(failure: Failure) -> None:
    """Ignore a node that stops before it is ready: `when_stopped` reports it."""
    failure.trap(RaftError)


class RaftService(MultiService):
    """The services of `twistd raft`; it also sets the log level of the process."""

    def __init__(self, options: Options) -> None:
        MultiService.__init__(self)
        self._options = options

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join *parent*; an application also gets an observer with our log level.

        `twistd` looks for an observer once all services are made, and then opens the
        log.
        """
        if isinstance(parent, Componentized) and self._options.parent:
            Componentized.setComponent(parent, ILogObserver, self._observer())
        MultiService.setServiceParent(self, parent)

    def _observer(self) -> ILogObserver:
        observer = log_observer(self._options.parent)
        level = LogLevel.levelWithName(self._options.settings.log_level)
        return FilteringLogObserver(observer, [LogLevelFilterPredicate(level)])


def makeService(options: Options) -> MultiService:
    """Make the service that `twistd raft` runs."""
    from twisted.internet import reactor

    from txraft.daemon.kvnode import KVNode

    clock = cast(IReactorTime, reactor)
    use_monotonic_time(clock)
    root = RaftService(options)
    # A MultiService starts its parts in this order and stops them in the reverse one.
    # So the signal handlers of Impatience stand ready before the node begins to stop.
    Service.setServiceParent(ShortPauses(clock.seconds), root)
    node = KVNode(reactor, options.settings)
    end = ProcessEnd(cast(IReactorCore, reactor))
    supervisor = Supervisor(os.environ)
    http = options.settings.http
    patience = options.settings.limits.http.drain_timeout if http is not None else 0.0
    service = NodeService(node, clock, end, supervisor, patience)
    Service.setServiceParent(service, root)
    signals = cast(IReactorFromThreads, reactor)
    Service.setServiceParent(HangUp(node, signals), root)
    Service.setServiceParent(Impatience(node, signals), root)
    return root
