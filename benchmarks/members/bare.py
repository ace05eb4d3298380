"""The bare data path: replication on Twisted without Raft around it.

    python -m benchmarks.members.bare leader|follower FILE inline|thread

A leader batches the writes of one reactor turn, sends them to both followers and
appends them to its own file; followers append, sync and acknowledge; what two of three
have synced is committed and applied to a dict, and each write has one Deferred. There
are no elections, no terms, no checks and no recovery: this is what the wire and the
disk allow, and bounds what any such library can reach.

Frames have a length of four bytes and hold one msgpack map; records in the file have
length and CRC. With `inline` the reactor's thread syncs, with `thread` one of its own.
"""

from __future__ import annotations

import os
import queue
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from benchmarks.members.control import take_commands
from benchmarks.members.load import Load, measure

RECORD = struct.Struct(">II")
AHEAD_BYTES = 16 << 20
MOST_ENTRIES = 1024
QUORUM = 2
TERM = 7

Done = Callable[[int], object]


class File:
    """A log file, zero-filled ahead, whose appends are synced."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._at = self._end = 0

    def append(self, data: bytes) -> None:
        """Write *data* behind what is there, and sync."""
        while self._at + len(data) > self._end:
            os.pwrite(self._file, bytes(AHEAD_BYTES), self._end)
            os.fsync(self._file)
            self._end += AHEAD_BYTES
        os.pwrite(self._file, data, self._at)
        self._at += len(data)
        os.fdatasync(self._file)


class InlineDisk:
    """Appends in the reactor's thread, which waits for it."""

    def __init__(self, path: str, reactor: ReactorBase) -> None:
        self._file = File(path)

    def append(self, data: bytes, done: Done, last: int) -> None:
        """Append, then call *done* with *last*."""
        self._file.append(data)
        done(last)


class ThreadDisk:
    """Appends in a thread of its own, all that waits in one write."""

    def __init__(self, path: str, reactor: ReactorBase) -> None:
        self._file = File(path)
        self._reactor = reactor
        self._jobs: queue.SimpleQueue[tuple[bytes, Done, int]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def append(self, data: bytes, done: Done, last: int) -> None:
        """Append, then call *done* with *last* in the reactor's thread."""
        self._jobs.put((data, done, last))

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            self._file.append(b"".join([data for data, _, _ in jobs]))
            _, done, last = jobs[-1]
            self._reactor.callFromThread(done, last)


DISKS = {"inline": InlineDisk, "thread": ThreadDisk}


def records(packed: Sequence[bytes]) -> bytes:
    """Frame entries for the file."""
    return b"".join(
        [RECORD.pack(len(data), zlib.crc32(data)) + data for data in packed]
    )


class Framed(Protocol):
    """Sends and receives frames; *framesReceived* gets all that came in one read."""

    _rest = b""

    def connectionMade(self) -> None:
        """Let small frames leave at once."""
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Cut frames out of what came."""
        data = self._rest + data if self._rest else data
        at, size, frames = 0, len(data), []
        while size - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > size:
                break
            frames.append(data[at + 4 : end])
            at = end
        self._rest = data[at:]
        if frames:
            self.framesReceived(frames)

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self.transport.write(len(frame).to_bytes(4, "big") + frame)

    def framesReceived(self, frames: list[bytes]) -> None:
        """Take frames; for subclasses."""
        raise NotImplementedError


class Follower(Framed):
    """Appends what the leader sends, and applies what is committed."""

    def __init__(self, disk: InlineDisk | ThreadDisk) -> None:
        self._disk = disk
        self._pack = msgpack.Packer().pack
        self._waiting: list[dict[str, Any]] = []
        self._values: dict[str, bytes] = {}

    def framesReceived(self, frames: list[bytes]) -> None:
        """Append the entries of all *frames* in one write."""
        fresh: list[dict[str, Any]] = []
        commit = 0
        for frame in frames:
            message = msgpack.unpackb(frame)
            commit = message["LeaderCommitIndex"]
            fresh += message["Entries"]
        if fresh:
            self._waiting += fresh
            data = records([self._pack(entry) for entry in fresh])
            self._disk.append(data, self._acknowledge, fresh[-1]["Index"])
        self._apply(commit)

    def _acknowledge(self, last: int) -> None:
        self.send(self._pack({"Term": TERM, "LastLog": last, "Success": True}))

    def _apply(self, commit: int) -> None:
        count = 0
        for entry in self._waiting:
            if entry["Index"] > commit:
                break
            _, key, value = msgpack.unpackb(entry["Data"])
            self._values[key] = value
            count += 1
        del self._waiting[:count]


class Acknowledgements(Framed):
    """What one follower has synced."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def framesReceived(self, frames: list[bytes]) -> None:
        """Take the newest acknowledgement."""
        self._leader.synced(self, msgpack.unpackb(frames[-1])["LastLog"])


class Leader:
    """Sends, appends, commits and applies."""

    def __init__(self, reactor: ReactorBase, disk: InlineDisk | ThreadDisk) -> None:
        self._reactor = reactor
        self._disk = disk
        self._pack = msgpack.Packer().pack
        self._waiting: list[tuple[bytes, Deferred[int]]] = []
        self._scheduled = False
        self._last = self._commit = 0
        self._inflight: dict[int, tuple[bytes, Deferred[int]]] = {}
        self._synced: dict[object, int] = {}
        self._values: dict[str, bytes] = {}
        self._followers: list[Acknowledgements] = []

    async def connect(self, ports: list[int]) -> dict[str, Any]:
        """Connect to the followers."""
        self._followers = await gatherResults(
            [
                connectProtocol(
                    TCP4ClientEndpoint(self._reactor, "127.0.0.1", port),
                    Acknowledgements(self),
                )
                for port in ports
            ]
        )
        return {}

    def put(self, key: str, value: bytes) -> Deferred[int]:
        """Write one value; fires once it is committed and applied."""
        written: Deferred[int] = Deferred()
        self._waiting.append((self._pack(["set", key, value]), written))
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)
        return written

    def _turn(self) -> None:
        batch = self._waiting[:MOST_ENTRIES]
        del self._waiting[:MOST_ENTRIES]
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._reactor.callLater(0, self._turn)
        entries = []
        for waiting in batch:
            self._last += 1
            self._inflight[self._last] = waiting
            entries.append(
                {"Index": self._last, "Term": TERM, "Type": 0, "Data": waiting[0]}
            )
        before = self._last - len(entries)
        message = self._pack(
            {
                "Term": TERM,
                "PrevLogEntry": before,
                "PrevLogTerm": TERM,
                "LeaderCommitIndex": self._commit,
                "Entries": entries,
            }
        )
        for follower in self._followers:
            follower.send(message)
        data = records([self._pack(entry) for entry in entries])
        if isinstance(self._disk, InlineDisk):  # only once the sockets are written to
            self._reactor.callLater(0, self._disk.append, data, self._own, self._last)
        else:
            self._disk.append(data, self._own, self._last)

    def _own(self, last: int) -> None:
        self.synced(self, last)

    def synced(self, member: object, last: int) -> None:
        """Note what a member has synced, and commit what two have."""
        self._synced[member] = last
        if len(self._synced) < QUORUM:
            return
        commit = sorted(self._synced.values())[-QUORUM]
        while self._commit < commit:
            self._commit += 1
            data, written = self._inflight.pop(self._commit)
            _, key, value = msgpack.unpackb(data)
            self._values[key] = value
            written.callback(self._commit)

    async def load(
        self,
        inflight: int,
        seconds: float,
        bytes: int,
        keys: int,
        warm_up: float = 0.5,
    ) -> dict[str, Any]:
        """Keep writes in flight for a while and tell their rate and latency."""
        load = Load(self.put, inflight, bytes, keys)
        return await measure(self._reactor, load, warm_up, seconds)


async def run(reactor: ReactorBase, role: str, path: str, sync: str) -> None:
    """Take part until stdin closes."""
    disk = DISKS[sync](path, reactor)
    if role == "leader":
        await take_commands(reactor, Leader(reactor, disk))
        return
    factory = Factory.forProtocol(lambda: Follower(disk))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    await take_commands(reactor, None, port=port.getHost().port)


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(run(reactor, *sys.argv[1:])))
