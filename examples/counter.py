"""A counter that survives crashes: a Twisted application with its own state machine.

    python examples/counter.py DIRECTORY [STEPS]

It runs one durable node on 127.0.0.1:8400, adds one to the counter STEPS times, prints
each new value and stops. Run it again, and the counter goes on from there. For a
cluster, start one process for each member, with its own address and the same peers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from twisted.internet.base import ReactorBase
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from txraft import Config, Log, Raft, SnapshotSink
from txraft.clock import use_monotonic_time
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.peer_stores import StaticPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.transport.tcp import new_tcp_transport

ADDRESS = "127.0.0.1:8400"


class Counter:
    """The state machine: every member applies the same commands in the same order."""

    application_name = "counter"

    def __init__(self) -> None:
        self.value = 0

    def apply(self, log: Log) -> int:
        """Add the number in the command, and return the new value to the caller."""
        self.value += int(log.data or b"0")
        return self.value

    def snapshot(self) -> CounterSnapshot:
        """Capture the value as it is now."""
        return CounterSnapshot(self.value)

    def restore(self, source: BinaryIO) -> None:
        """Replace the value by the one in a snapshot."""
        self.value = int(source.read())


class CounterSnapshot:
    """A captured value, which is written while the counter goes on."""

    def __init__(self, value: int) -> None:
        self._value = value

    def persist(self, sink: SnapshotSink) -> None:
        """Write the value as text."""
        sink.write(str(self._value).encode())

    def release(self) -> None:
        """Do nothing: the capture holds nothing."""


async def count(reactor: ReactorBase, path: Path, steps: int) -> None:
    """Run a node with its data in *path*, and add one *steps* times."""
    use_monotonic_time(reactor)
    directory = DataDirectory(path, ADDRESS)
    log = FileLog(directory.log, ADDRESS)
    raft = Raft(
        Config(),
        Counter(),
        log,
        FileStableStore(directory.state, ADDRESS),
        FileSnapshotStore(directory.path, retain=2),
        StaticPeers([ADDRESS]),
        ADDRESS,
        await new_tcp_transport(reactor, "tcp:8400:interface=127.0.0.1", ADDRESS),
        clock=reactor,
        workers=Workers.threaded(reactor),
    )
    await raft.start()
    await raft.when_leader()
    for _ in range(steps):
        result = await raft.apply(b"1")
        print(f"the counter is {result.response} at index {result.index}")
    # Raft first: it writes to the log until its Deferred has fired. The directory last:
    # its lock keeps other processes away from the files.
    await raft.shutdown()
    log.close()
    directory.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    arguments = Path(sys.argv[1]), int((sys.argv[2:] or ["3"])[0])
    react(lambda reactor: ensureDeferred(count(reactor, *arguments)))
