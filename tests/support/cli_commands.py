"""Runs commands against nodes in memory, on a clock."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from click.testing import CliRunner, Result
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.support.http_network import HTTPCase, Network
from txraft.cli.app import main
from txraft.cli.running import ClientCredentials, Main
from txraft.client import Client, ClientLimits
from txraft.node.worker import MemoryWorker

STEP = 0.05
STEPS = 1000


class MemoryRunner:
    """Runs a command on *clock*, its client on *network*."""

    def __init__(self, network: Network, clock: Clock, worker: MemoryWorker) -> None:
        self._network = network
        self._clock = clock
        self._worker = worker

    def run(self, main: Main) -> int:
        """Run *main*, carrying bytes and letting time pass."""
        results: list[Any] = []
        Deferred.fromCoroutine(main(self._clock)).addBoth(results.append)
        for _ in range(STEPS):
            self._network.flush()
            while self._worker.perform():
                self._network.flush()
            if results:
                break
            self._clock.advance(STEP)
        assert results, "the command does not end"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return int(results[0])

    def client(
        self,
        urls: list[str],
        reactor: Any,
        access: ClientCredentials,
        limits: ClientLimits,
    ) -> Client:
        """Make a client on the network in memory."""
        http = HTTPClient(self._network)
        return Client(urls, reactor, token=access.token, limits=limits, http=http)


class CommandCase(HTTPCase):
    """Two nodes with the whole HTTP API, and commands that are told of both."""

    def txraft(self, *arguments: str, stdin: bytes = b"") -> Result:
        """Run one command."""
        return CliRunner().invoke(
            main,
            [str(argument) for argument in arguments],
            input=stdin,
            env={"TXRAFT_HTTP_ADDR": "http://n1:8500,http://n2:8500"},
            obj=MemoryRunner(self.network, self.clock, self.worker),
            catch_exceptions=False,
        )

    def file(self, data: bytes) -> Path:
        """Write a file of *data* that ends with the test."""
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        path = directory / "file"
        path.write_bytes(data)
        return path

    def passed(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that succeeds; return what it has written."""
        result = self.txraft(*arguments, stdin=stdin)
        self.assertEqual((result.exit_code, result.stderr), (0, ""), result.output)
        return result.stdout
