"""A rolling restart under writers, none of whose requests may fail.

    python -m tests.process.rolling --rounds 10

Each writer knows every member, keeps its connection as long as it can, and goes on to
the next member when a connection is refused. Every answer but 200, and every connection
that ends without an answer, is a failed request. A ninth one uses `txraft.client`.
"""

from __future__ import annotations

import argparse
import sys
from http.client import HTTPConnection, HTTPException
from random import Random
from threading import Event, Thread
from typing import Any
from unittest import TestResult

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.reporter import VerboseTextReporter
from twisted.trial.runner import TrialRunner

from tests.support.process_clusters import ClusterTestCase, Member
from txraft.client import Client, ClientError, ClientLimits

WRITERS = 8
PATIENCE = 30.0
"""Seconds that a writer waits for an answer."""

LONGEST_PAUSE = 0.05
"""Some writers rest for so long at most between two requests, connected."""


class Writer(Thread):
    """Writes ever higher numbers to one key until it is told to stop.

    Every second one rests between its requests, so that some connections are idle when
    a member stops.
    """

    def __init__(self, number: int, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self.key = f"writer{number}"
        self.written = 0
        self.failed: list[str] = []
        self._ports = ports[number % len(ports) :] + ports[: number % len(ports)]
        self._random = Random(number)
        self._rests = number % 2 == 1
        self._ended = Event()

    def end(self) -> None:
        """Write no more after the request at hand."""
        self._ended.set()

    def run(self) -> None:
        """Write until the end."""
        while not self._ended.is_set():
            connection = HTTPConnection("127.0.0.1", self._ports[0], timeout=PATIENCE)
            try:
                connection.connect()
            except ConnectionRefusedError:
                self._ports.append(self._ports.pop(0))
                # All of them refuse for a moment, if the machine is slow.
                self._ended.wait(0.01)
                continue
            except OSError as error:
                self._fail(f"not connected: {error!r}")
                continue
            self._write_on(connection)
            connection.close()

    def _write_on(self, connection: HTTPConnection) -> None:
        """Write through *connection* until the member closes it in good order."""
        while not self._ended.is_set():
            body = str(self.written + 1).encode()
            try:
                connection.request("PUT", f"/v1/kv/{self.key}", body)
                response = connection.getresponse()
                said = response.read()
            except (OSError, HTTPException) as error:
                self._fail(f"no answer: {error!r}")
                return
            if response.status != 200 or said != b"true":
                outcome = response.headers.get("X-Txraft-Outcome")
                self._fail(f"{response.status} ({outcome}): {said.decode().strip()}")
                return
            self.written += 1
            if connection.sock is None:  # the answer said that it was the last one
                return
            if self._rests:
                self._ended.wait(self._random.random() * LONGEST_PAUSE)

    def _fail(self, how: str) -> None:
        self.failed.append(f"{self.key}={self.written + 1} at {self._ports[0]}: {how}")


class ClientWriter:
    """Writes likewise, through the client of this package, which repeats no write."""

    def __init__(self, urls: list[str], reactor: Any) -> None:
        self.key = "client"
        self.written = 0
        self.failed: list[str] = []
        self._client = Client(urls, reactor, limits=ClientLimits(timeout=PATIENCE))
        self._ended = False
        self.running = Deferred.fromCoroutine(self._run())

    def end(self) -> None:
        """Write no more after the request at hand."""
        self._ended = True

    async def _run(self) -> None:
        while not self._ended:
            try:
                await self._client.put(self.key, str(self.written + 1).encode())
            except ClientError as error:
                self.failed.append(f"{self.key}={self.written + 1}: {error}")
            else:
                self.written += 1
        await self._client.close()


class RollingCase(ClusterTestCase):
    """Restarts each of three members in turn, some *rounds*, under writers."""

    rounds = 3
    timeout = 900
    election, lease = "3s", "2s"
    """Long, so that a busy machine is no reason to lose a leader: the stop is meant."""

    async def restart_all(self) -> list[Writer | ClientWriter]:
        """Do it. Returns: the writers, who have ended."""
        from twisted.internet import reactor

        await self.found(3)
        ports = [member.http_port for member in self.members]
        writers = [Writer(number, ports) for number in range(WRITERS)]
        self.addCleanup(lambda: [writer.end() for writer in writers])
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        client = ClientWriter(urls, reactor)
        self.addCleanup(client.end)
        for writer in writers:
            writer.start()
        for _ in range(self.rounds):
            for member in self.members:
                await self.restart(member, writers)
        for writer in writers:
            writer.end()
            await deferToThread(writer.join)
        client.end()
        await client.running
        return [*writers, client]

    async def restart(self, member: Member, writers: list[Writer]) -> None:
        """Stop *member* in order, start it again, and wait until all write on."""
        assert member.process is not None, "it runs"
        process, member.process = member.process, None
        process.transport.signalProcess("TERM")
        await process.status()
        await self.start(member)
        await self.until(member, "/readyz", (200, b"ready\n"))
        before = [writer.written for writer in writers]
        for writer, written in zip(writers, before, strict=True):
            while writer.written == written and writer.is_alive():
                await self.sleep(0.05)

    async def stored(self, writer: Writer | ClientWriter) -> int:
        """Return the number that is stored for *writer*."""
        path = f"/v1/kv/{writer.key}?raw"
        status, body = await self.ask(self.members[0], "GET", path)
        assert status == 200, body
        return int(body)


def main() -> int:
    """Restart as often as the command line says; 0 if no request has failed."""
    from tests.process.test_rolling import RollingRestart

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    RollingRestart.rounds = rounds = parser.parse_args().rounds
    RollingRestart.timeout = 300 * rounds
    result: TestResult = TrialRunner(VerboseTextReporter).run(
        RollingRestart("test_no_request_fails")
    )
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
