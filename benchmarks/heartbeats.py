"""How soon a follower answers heartbeats while it has other work.

    python -m benchmarks.heartbeats [--snapshot-mib 200]

A Go leader steps down when a follower answers nothing for 500 ms, whatever keeps that
follower busy. This program is the leader of one follower, a process of its own with the
key-value state machine: it sends a heartbeat every 10 ms on a connection of its own and
times each answer, while the follower is idle, writes 64 MiB to its log, applies a
backlog of 100 000 commands, and installs and restores a snapshot.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cluster import MemberProcess, syncs_per_second
from txraft import Configuration, Log, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
)
from txraft.kv.commands import encode_put
from txraft.kv.state import KeyValueFSM
from txraft.wire.entries import encode_new
from txraft.wire.requests import encode_request, request_kind
from txraft.wire.stream import ResponseReader

LEADER, FOLLOWER, OTHER = "127.0.0.1:18311", "127.0.0.1:18312", "127.0.0.1:18313"
MEMBERS = [LEADER, FOLLOWER, OTHER]
TERM = 2
HEADER = Header(1)
INTERVAL = 0.01
WRITTEN_MIB = 64
BACKLOG = 100_000
VALUE_BYTES = 4096
INFLIGHT = 2


class Peer:
    """One connection to the follower, requests and answers in order."""

    def __init__(self) -> None:
        host, port = FOLLOWER.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = ResponseReader()

    def send(self, request: Request, body: bytes = b"") -> None:
        """Send one request, and *body* behind it."""
        self._socket.sendall(encode_request(request))
        if body:
            self._socket.sendall(body)

    def answer(self, request: Request) -> Response:
        """Wait for the answer to *request*."""
        while (answer := self._reader.read(request_kind(request))) is None:
            data = self._socket.recv(1 << 16)
            if not data:
                raise SystemExit("the follower closed a connection")
            self._reader.feed(data)
        error, response = answer
        if error or response is None:
            raise SystemExit(f"the follower refused: {error}")
        return response


class Heartbeats(threading.Thread):
    """Sends heartbeats until stopped and keeps how long each answer took."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peer = Peer()
        self._running = True
        self.seconds: list[float] = []

    def run(self) -> None:
        """Send one, wait for its answer, rest."""
        heartbeat = AppendEntriesRequest(TERM, LEADER, header=HEADER)
        while self._running:
            began = time.perf_counter()
            self._peer.send(heartbeat)
            answer = self._peer.answer(heartbeat)
            assert isinstance(answer, AppendEntriesResponse)
            if not answer.success:
                raise SystemExit("the follower has another term")
            took = time.perf_counter() - began
            self.seconds.append(took)
            time.sleep(max(0.0, INTERVAL - took))

    def stop(self) -> None:
        """Send no more."""
        self._running = False
        self.join()


class Leader:
    """Sends entries and a snapshot to the follower."""

    def __init__(self) -> None:
        self._peer = Peer()
        self._last, self._last_term = 1, 1

    def append(self, commands: list[bytes], each: int) -> None:
        """Have *commands* written, *each* of them to a request, and not applied."""
        inflight: list[Request] = []
        for at in range(0, len(commands), each):
            entries = []
            for data in commands[at : at + each]:
                self._last += 1
                entry = Log(self._last, TERM, LogType.COMMAND, data)
                encode_new(entry)
                entries.append(entry)
            previous = entries[0].index - 1
            request = AppendEntriesRequest(
                TERM, LEADER, previous, self._last_term, entries, 0, HEADER
            )
            self._last_term = TERM
            self._peer.send(request)
            inflight.append(request)
            if len(inflight) >= INFLIGHT:
                self._take(inflight.pop(0))
        for request in inflight:
            self._take(request)

    def commit(self) -> int:
        """Tell the follower that everything is committed; return the index."""
        request = AppendEntriesRequest(
            TERM, LEADER, self._last, self._last_term, (), self._last, HEADER
        )
        self._peer.send(request)
        self._take(request)
        return self._last

    def install(self, state: bytes) -> None:
        """Send a snapshot that goes beyond the log, and wait until it is restored."""
        request = InstallSnapshotRequest(
            TERM,
            LEADER,
            self._last + 1000,
            TERM,
            len(state),
            Configuration.of_voters(MEMBERS),
            1,
            tuple(MEMBERS),
            header=HEADER,
        )
        self._peer.send(request, state)
        answer = self._peer.answer(request)
        assert isinstance(answer, InstallSnapshotResponse)
        if not answer.success:
            raise SystemExit("the snapshot was not installed")

    def _take(self, request: Request) -> None:
        answer = self._peer.answer(request)
        assert isinstance(answer, AppendEntriesResponse)
        if not answer.success:
            raise SystemExit(f"entries were refused: {answer}")


class Sink(io.BytesIO):
    """A snapshot in memory."""

    @property
    def id(self) -> str:
        """Its name."""
        return "memory"

    def cancel(self) -> None:
        """Do nothing."""


def make_state(mib: int) -> bytes:
    """Make a snapshot of about *mib* MiB: values of 4 KiB."""
    fsm = KeyValueFSM()
    for index in range(1, mib * (1 << 20) // VALUE_BYTES):
        command = encode_put(f"key-{index:08d}", os.urandom(VALUE_BYTES))
        fsm.apply(Log(index, 1, LogType.COMMAND, command))
    sink = Sink()
    fsm.snapshot().persist(sink)  # type: ignore[arg-type]
    return sink.getvalue()


def measure(what: str, work: Callable[[], None]) -> None:
    """Time heartbeats during *work* and print a line."""
    heartbeats = Heartbeats()
    heartbeats.start()
    began = time.perf_counter()
    work()
    elapsed = time.perf_counter() - began
    heartbeats.stop()
    found = sorted(heartbeats.seconds)
    count = len(found)
    print(
        f"{what:34} {elapsed:6.1f} s  {count:5} heartbeats   p50 "
        f"{found[count // 2] * 1e3:6.1f}  p99 {found[int(count * 0.99)] * 1e3:6.1f}  "
        f"worst {found[-1] * 1e3:6.1f} ms",
        flush=True,
    )


def main() -> None:
    """Run every kind of work and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--snapshot-mib", type=int, default=200)
    arguments = parser.parse_args()
    state = make_state(arguments.snapshot_mib)
    with tempfile.TemporaryDirectory() as base:
        print(
            f"{syncs_per_second(Path(base)):.0f} syncs/s here, load {os.getloadavg()}"
        )
        follower = MemberProcess(Path(base) / "n", FOLLOWER, MEMBERS, {})
        follower.read()
        try:
            run(follower, state)
        finally:
            follower.stop()


def run(follower: MemberProcess, state: bytes) -> None:
    """Give the follower one kind of work after the other."""
    leader = Leader()
    piece = 64 << 10
    large = [encode_put(f"large-{n}", bytes(piece)) for n in range(WRITTEN_MIB * 16)]
    small = [encode_put(f"key-{n % 5000}", b"v" * 100) for n in range(BACKLOG)]

    def apply() -> None:
        index = leader.commit()
        while follower.ask(do="status")["applied"] < index:
            time.sleep(0.05)

    measure("idle", lambda: time.sleep(2))
    measure(f"writes {WRITTEN_MIB} MiB", lambda: leader.append(large, 16))
    measure(f"writes {BACKLOG} entries", lambda: leader.append(small, 64))
    measure(f"applies {BACKLOG + len(large)} commands", apply)
    measure(
        f"installs {len(state) >> 20} MiB and restores", lambda: leader.install(state)
    )


if __name__ == "__main__":
    main()
