"""A counter that survives crashes: a program with a state machine of its own.

    python examples/counter.py DIRECTORY [STEPS]

It runs one durable node on 127.0.0.1:8400, adds one to the counter STEPS times, prints
each new value and stops. Run it again, and the counter goes on from there. For a
cluster, start one process for each member, with its own address and the same peers.
"""

from __future__ import annotations

import argparse
from typing import BinaryIO

from txraft import Log, Node, SnapshotSink, run

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


async def count(directory: str, steps: int) -> None:
    """Run a node with its data in *directory*, and add one *steps* times."""
    async with Node(directory, Counter(), address=ADDRESS) as node:
        for _ in range(steps):
            result = await node.apply(b"1")
            print(f"the counter is {result.response} at index {result.index}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", help="where the node keeps its data")
    parser.add_argument("steps", type=int, nargs="?", default=3)
    arguments = parser.parse_args()
    run(count(arguments.directory, arguments.steps))
