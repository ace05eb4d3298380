"""Real `twistd raft` processes on loopback, for tests: each ends with its test."""

from __future__ import annotations

import os
import random
import socket
import sys
from itertools import cycle, islice
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import HTTPConnectionPool

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
REQUEST_TIMEOUT = 30.0
"""Each is far more than it takes, as other work may have most of the machine."""

TWISTD = "from twisted.scripts.twistd import run; run()"
QUICK = (
    "raft: {heartbeat_timeout: 200ms, election_timeout: 200ms,"
    " leader_lease_timeout: 100ms}\n"
)

_ALL_PORTS = range(21000, 32000)
_OWN_PORTS = 1000


class _Ports:
    """Ports that no other process asks for: tests may run side by side.

    A port is often taken long before somebody listens on it, so that it is not enough
    to see that it is free. A name of an abstract socket, which ends with the process,
    keeps a thousand ports for this one.
    """

    def __init__(self) -> None:
        firsts = random.sample(_ALL_PORTS[::_OWN_PORTS], len(_ALL_PORTS) // _OWN_PORTS)
        self._mark = socket.socket(socket.AF_UNIX)
        first = next((first for first in firsts if self._is_mine(first)), None)
        assert first is not None, f"{len(firsts)} others run tests: no ports are left"
        self.shuffled = cycle(
            random.sample(range(first, first + _OWN_PORTS), _OWN_PORTS)
        )

    def _is_mine(self, first: int) -> bool:
        try:
            self._mark.bind(f"\0txraft-tests-{first}")
        except OSError:
            return False
        return True


_ports = _Ports()


def free_port() -> int:
    """Return a port of 127.0.0.1, below the ephemeral ones, that nobody uses."""
    for port in islice(_ports.shuffled, _OWN_PORTS):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port is left")


class Twistd(ProcessProtocol):
    """One process: what it writes, and how it ends."""

    transport: IProcessTransport

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()
        self.output = ""
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        """Keep what was written, and tell those who wait for it."""
        self.output += data.decode()
        for waiting in list(self._waiting):
            text, deferred = waiting
            if text in self.output:
                self._waiting.remove(waiting)
                deferred.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Tell how the process ended."""
        for text, deferred in self._waiting:
            problem = f"ended without writing {text!r}:\n{self.output}"
            deferred.errback(AssertionError(problem))
        self._waiting.clear()
        ending = reason.value
        self.ended.callback(-ending.signal if ending.signal else ending.exitCode)

    async def written(self, text: str) -> None:
        """Wait until *text* is in what the process wrote."""
        from twisted.internet import reactor

        if text not in self.output:
            waiter: Deferred[None] = Deferred()
            self._waiting.append((text, waiter))
            await waiter.addTimeout(START_TIMEOUT, reactor)

    async def status(self, within: float = START_TIMEOUT) -> int:
        """Wait for the end; return the exit status, or the signal as -N."""
        from twisted.internet import reactor

        return await self.ended.addTimeout(within, reactor)

    async def terminate(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.transport.signalProcess("TERM")
        return await self.status(STOP_TIMEOUT)


class TwistdTestCase(TestCase):
    """Starts processes in a directory of its own, and ends them, come what may."""

    timeout = 300
    package = CHECKOUT
    """Where the package is that processes run."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)

    def spawn(self, *arguments: str, shell_prefix: str = "") -> Twistd:
        """Start `twistd` with *arguments*; *shell_prefix* runs in a shell before."""
        from twisted.internet import reactor

        command = [sys.executable, "-c", TWISTD, *arguments]
        if shell_prefix:
            command = ["/bin/sh", "-c", f'{shell_prefix}; exec "$@"', "sh", *command]
        protocol = Twistd()
        reactor.spawnProcess(  # type: ignore[attr-defined]
            protocol,
            command[0],
            command,
            env={**os.environ, "PYTHONPATH": str(self.package)},
            path=str(self.directory),
        )
        self.addCleanup(self._end, protocol)
        return protocol

    async def _end(self, process: Twistd) -> None:
        try:
            process.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return
        await process.ended

    def settings(self, name: str = "n1", **settings: str) -> tuple[Path, int]:
        """Write quick settings on free ports; return the file and the HTTP port."""
        peers, http = free_port(), free_port()
        path = self.directory / f"{name}.yaml"
        path.write_text(
            QUICK
            + f"data_dir: {settings.get('data_dir', name)}\n"
            + f"listen: tcp:{settings.get('listen', peers)}:interface=127.0.0.1\n"
            + settings.get("members", "")
            + "http:\n"
            + f"  listen: tcp:{settings.get('http', http)}:interface=127.0.0.1\n"
        )
        return path, http

    async def node(
        self, config: Path, *arguments: str, shell_prefix: str = ""
    ) -> Twistd:
        """Start a node in the foreground, and wait until it takes part."""
        process = self.spawn(
            *("-n", "--pidfile=", "raft", "--config", str(config), *arguments),
            shell_prefix=shell_prefix,
        )
        await process.written("takes part")
        return process

    async def request(
        self, port: int, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, bytes]:
        """Make one request; return status and body."""
        from twisted.internet import reactor

        response: Any = await treq.request(
            method,
            f"http://127.0.0.1:{port}{path}",
            data=data,
            pool=HTTPConnectionPool(reactor, persistent=False),
            timeout=REQUEST_TIMEOUT,
        )
        return response.code, await response.content()
