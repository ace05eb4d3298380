"""Load on an HTTP server: connections that are kept alive, one request each at a time.

    python -m benchmarks.members.http_load

Takes `load` commands as JSON lines. It writes ready-made requests and reads no more of
an answer than its status and where it ends, so that it costs little beside the server.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import react

from benchmarks.members.control import take_commands
from benchmarks.members.load import pause, summary

HEAD_END = b"\r\n\r\n"
CHUNKED_END = b"0\r\n\r\n"
SHOWN_BYTES = 300


def answer_end(data: bytes) -> int | None:
    """Return where the first answer in *data* ends, or None if more is to come.

    Raises: ValueError, if it is no success or says nothing of its length.
    """
    head_end = data.find(HEAD_END)
    if head_end < 0:
        return None
    if not data.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"refused: {data[:SHOWN_BYTES]!r}")
    head = data[:head_end].lower()
    body = head_end + len(HEAD_END)
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        value = head[at + 17 :].split(b"\r\n", 1)[0]
        end = body + int(value)
        return end if len(data) >= end else None
    if b"transfer-encoding: chunked" in head:
        return len(data) if data.endswith(CHUNKED_END) else None
    raise ValueError(f"an answer without its length: {data[:SHOWN_BYTES]!r}")


class Connection(Protocol):
    """One connection, which sends the next request when it has its answer."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._data = b""
        self._began = 0.0
        self._stops = False
        self.latencies: list[float] = []
        self.answered = 0
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Send small requests at once."""
        self.transport.setTcpNoDelay(True)

    def send(self) -> None:
        """Send the next request."""
        self._began = time.perf_counter()
        self.transport.write(next(self._requests))

    def stop(self) -> Deferred[None]:
        """Send no more; fires when the answer under way is here."""
        self._stops = True
        return self.over

    def dataReceived(self, data: bytes) -> None:
        """Take an answer, or a part of it."""
        self._data += data
        try:
            end = answer_end(self._data)
        except ValueError as error:
            self._end(error)
            return
        if end is None:
            return
        self._data = self._data[end:]
        self.answered += 1
        self.latencies.append(time.perf_counter() - self._began)
        if self._stops:
            self._end(None)
        else:
            self.send()

    def connectionLost(self, reason: object = None) -> None:
        """Fail, unless all is over."""
        self._end(ConnectionError("the server closed a connection"))

    def _end(self, error: Exception | None) -> None:
        if self.over.called:
            return
        if error is None:
            self.over.callback(None)
        else:
            self.over.errback(error)
        self.transport.loseConnection()


class Loader:
    """What can be asked of this process."""

    def __init__(self, reactor: ReactorBase) -> None:
        self._reactor = reactor

    async def load(
        self,
        address: str,
        connections: int,
        requests: list[str],
        seconds: float,
        warm_up: float,
    ) -> dict[str, Any]:
        """Send *requests*, in base64, over and over; tell rate and latency."""
        host, port = address.split(":")
        each = cycle([b64decode(request) for request in requests])
        endpoint = TCP4ClientEndpoint(self._reactor, host, int(port))
        made: list[Connection] = await gatherResults(
            [connectProtocol(endpoint, Connection(each)) for _ in range(connections)]
        )
        over = gatherResults([one.over for one in made], consumeErrors=True)
        for one in made:
            one.send()
        await pause(self._reactor, warm_up)
        for one in made:
            one.latencies = []
        began = time.perf_counter()
        await pause(self._reactor, seconds)
        elapsed = time.perf_counter() - began
        found = [latency for one in made for latency in one.latencies]
        for one in made:
            one.stop()
        await over
        return summary(found, elapsed, sum(one.answered for one in made))


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(take_commands(reactor, Loader(reactor))))
