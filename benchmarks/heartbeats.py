"""Measures how soon a follower answers heartbeats while it has other work.

    python -m benchmarks heartbeats [--snapshot-mib 200] [--times 1]

A Go leader steps down when a follower answers nothing for 500 ms, whatever keeps that
follower busy. This program is the leader of one follower, a process of its own with the
key-value state machine. Another process sends a heartbeat every 10 ms and times each
answer, while the follower is idle, writes 64 MiB to its log, applies a backlog of
100 000 commands, and installs and restores a snapshot.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.children import Child, free_address
from benchmarks.figures import percentile, short
from benchmarks.machine import syncs_per_second
from benchmarks.options import make_parser
from benchmarks.report import Report
from benchmarks.systems.txraft import TXRAFT_SYSTEMS
from benchmarks.tables import Table
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

LEADER, FOLLOWER, OTHER = MEMBERS = [free_address() for _ in range(3)]
TERM = 2
HEADER = Header(1)
INTERVAL = 0.01
VALUE_BYTES = 4096
INFLIGHT = 2


class Peer:
    """One connection to the follower, requests and answers in order."""

    def __init__(self, follower: str) -> None:
        host, port = follower.split(":")
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


class Heartbeats:
    """A process that sends heartbeats, and nothing else that could delay it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.heartbeats", LEADER, FOLLOWER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def take(self) -> list[float]:
        """Return how many seconds each answer took since this was last called."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            raise SystemExit(self._process.wait())
        seconds: list[float] = json.loads(told)
        return seconds

    def stop(self) -> None:
        """Send no more."""
        self._process.communicate()


def send_heartbeats(leader: str, follower: str) -> None:
    """Send heartbeats until stdin is closed; print a line once the first is answered.

    For each line of stdin print how long the answers since the line before took.
    """
    heartbeat = AppendEntriesRequest(TERM, leader, header=HEADER)
    peer = Peer(follower)
    seconds: list[float] = []
    gc.disable()
    peer.send(heartbeat)
    peer.answer(heartbeat)
    print(flush=True)
    while True:
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps(seconds), flush=True)
            seconds.clear()
        began = time.perf_counter()
        peer.send(heartbeat)
        answer = peer.answer(heartbeat)
        assert isinstance(answer, AppendEntriesResponse)
        if not answer.success:
            raise SystemExit("the follower has another term")
        took = time.perf_counter() - began
        seconds.append(took)
        time.sleep(max(0.0, INTERVAL - took))


class Leader:
    """Sends entries and a snapshot to the follower."""

    def __init__(self) -> None:
        self._peer = Peer(FOLLOWER)
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


def measure(
    what: str, work: Callable[[], None], heartbeats: Heartbeats, table: Table
) -> None:
    """Time *heartbeats* during *work* and add a row."""
    heartbeats.take()
    began = time.perf_counter()
    work()
    elapsed = time.perf_counter() - began
    found = sorted(heartbeats.take())
    shares = [percentile(found, 0.5), percentile(found, 0.99), found[-1]]
    table.add(
        what,
        short(elapsed),
        str(len(found)),
        *(short(seconds * 1e3) for seconds in shares),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every kind of work and print a table."""
    parser = make_parser("heartbeats", __doc__)
    parser.add_argument("--snapshot-mib", type=int, default=200)
    parser.add_argument("--written-mib", type=int, default=64)
    parser.add_argument("--backlog", type=int, default=100_000, help="entries")
    parser.add_argument("--per-request", type=int, default=64, help="small entries")
    parser.add_argument("--times", type=int, default=1, help="followers measured")
    options = parser.parse_args(arguments)
    report = Report("heartbeats", options, TXRAFT_SYSTEMS[:1])
    header = ["while the follower", "seconds", "heartbeats", "p50", "p99", "worst"]
    table = Table("From a heartbeat to its answer, ms", header)
    state = make_state(options.snapshot_mib)
    for _ in range(options.times):
        measure_all(state, options, table)
    report.add(table)
    report.finish()


def measure_all(state: bytes, options: argparse.Namespace, table: Table) -> None:
    """Start a follower, give it every kind of work and add rows."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        syncs = syncs_per_second(base)
        table.notes += [f"{short(syncs)} syncs/s, load {os.getloadavg()[0]:.1f}."]
        follower = Child(
            [
                sys.executable,
                "-m",
                "benchmarks.members.txraft",
                str(base / "n"),
                FOLLOWER,
                ",".join(MEMBERS),
                "{}",
            ],
            base / "log",
        )
        try:
            follower.read()
            run(follower, state, options, table)
        finally:
            follower.stop()


def run(
    follower: Child, state: bytes, options: argparse.Namespace, table: Table
) -> None:
    """Give the follower one kind of work after the other."""
    written_mib, backlog = options.written_mib, options.backlog
    per_request = options.per_request
    heartbeats = Heartbeats()
    piece = 64 << 10
    large = [encode_put(f"large-{n}", bytes(piece)) for n in range(written_mib * 16)]
    small = [encode_put(f"key-{n % 5000}", b"v" * 100) for n in range(backlog)]

    def during(what: str, work: Callable[[], None]) -> None:
        measure(what, work, heartbeats, table)

    def apply() -> None:
        index = leader.commit()
        while follower.ask(do="status")["applied"] < index:
            time.sleep(0.05)

    during("is idle", lambda: time.sleep(2))
    leader = Leader()
    during(f"writes {written_mib} MiB to its log", lambda: leader.append(large, 16))
    during(f"writes {backlog} small entries", lambda: leader.append(small, per_request))
    during(f"applies a backlog of {backlog + len(large)} commands", apply)
    during(
        f"installs and restores {len(state) >> 20} MiB", lambda: leader.install(state)
    )
    heartbeats.stop()


if __name__ == "__main__":
    send_heartbeats(*sys.argv[1:])
