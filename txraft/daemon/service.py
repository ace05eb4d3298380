"""`twistd raft`: command line options, and the service that a process runs.

    twistd -n raft                            a single node on loopback
    twistd -n raft --config node.yaml         a member of a cluster

The configuration is checked before anything is opened. A start that fails later,
because of a port in use, a locked directory or a damaged log, is logged in one
sentence, and the process ends with status 1. It also ends with status 1 when the node
stops itself.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.interfaces import (
    IReactorFromThreads,
    IReactorTime,
)
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
)
from twisted.python import usage
from twisted.python.components import Componentized

from txraft._twisted import log_observer
from txraft.clock import use_monotonic_time
from txraft.daemon.garbage import ShortPauses
from txraft.embedding.node_service import NodeService
from txraft.errors import ConfigError
from txraft.settings.settings import Settings, effective, load_settings

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


class StoppingNode(Protocol):
    """The part of `KVNode` that signals reach."""

    def reload(self) -> None:
        """Reread certificates and tokens."""

    def hurry(self) -> None:
        """Let a stop that is under way wait for clients no longer."""


class Impatience(Service):
    """Makes a node that is stopping hurry, at a second SIGTERM or SIGINT.

    The reactor handles only the first one.
    """

    def __init__(self, node: StoppingNode, reactor: IReactorFromThreads) -> None:
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

    def __init__(self, node: StoppingNode, reactor: IReactorFromThreads) -> None:
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
    http = options.settings.http
    patience = options.settings.limits.http.drain_timeout if http is not None else 0.0
    service = NodeService(node, patience=patience)
    Service.setServiceParent(service, root)
    signals = cast(IReactorFromThreads, reactor)
    Service.setServiceParent(HangUp(node, signals), root)
    Service.setServiceParent(Impatience(node, signals), root)
    return root
