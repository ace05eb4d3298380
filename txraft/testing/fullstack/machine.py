"""The state machine of whole nodes: the registers of the core simulation as an FSM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txraft.core.entry import Entry
from txraft.interfaces import SnapshotSink
from txraft.testing.linearizability import Value
from txraft.testing.simulation.oracles import Oracles
from txraft.testing.simulation.registers import Registers

PIECE_BYTES = 64


class RegisterFSM:
    """Keeps `Registers`, and holds each state of them against those of all others."""

    def __init__(
        self,
        oracles: Oracles,
        alive: Callable[[], bool],
        clock: IReactorTime,
        found: Callable[[str], None],
    ) -> None:
        self.clock = clock
        self.found = found
        self.state = Registers()
        self._oracles = oracles
        self._alive = alive

    def apply(self, log: Entry) -> Value | Deferred[Value]:
        """Apply a command, and check that it makes what it made elsewhere."""
        return self._apply(log)

    def _apply(self, log: Entry) -> Value:
        state = self.state
        assert log.index > state.index, "entries are applied in order, once"
        state.index = log.index - 1
        result = state.apply(log)
        self._oracles.check_applied(state.index, state.digest, log)
        return result

    def snapshot(self) -> RegisterSnapshot:
        """Capture the registers."""
        return RegisterSnapshot(self.state.copy())

    def restore(self, source: BinaryIO) -> None:
        """Take the registers of a snapshot, and check that the cluster was there."""
        document = json.load(source)
        state = Registers()
        state.index, state.digest = document["index"], document["digest"]
        state.values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in document["values"].items()
        }
        if self._alive():
            self._oracles.check_restored(state.index, state.digest)
        self.state = state


class BatchFSM(RegisterFSM):
    """The same, given many commands at once."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[Value]:
        """Apply all *logs*."""
        return [self._apply(log) for log in logs]


class SlowFSM(RegisterFSM):
    """The same, which takes its time: nothing may come to it meanwhile."""

    _busy = False

    def apply(self, log: Entry) -> Deferred[Value]:
        """Apply a command some time later."""
        if self._busy:
            self.found("a command does not wait for the one before it")
        self._busy = True
        done: Deferred[Value] = Deferred()
        self.clock.callLater(log.index % 7 / 100, self._finish, log, done)
        return done

    def snapshot(self) -> RegisterSnapshot:
        """Capture the registers."""
        if self._busy:
            self.found("a snapshot is taken while a command is half done")
        return super().snapshot()

    def restore(self, source: BinaryIO) -> None:
        """Take the registers of a snapshot."""
        if self._busy:
            self.found("a snapshot is restored while a command is half done")
        super().restore(source)

    def _finish(self, log: Entry, done: Deferred[Value]) -> None:
        self._busy = False
        done.callback(self._apply(log))


KINDS = (RegisterFSM, RegisterFSM, BatchFSM, SlowFSM)
"""State machines that a seed chooses from: of the three kinds that there may be."""


@dataclass
class RegisterSnapshot:
    """Captured registers."""

    state: Registers

    def persist(self, sink: SnapshotSink) -> None:
        """Write them, in small pieces."""
        document = {
            "index": self.state.index,
            "digest": self.state.digest,
            "values": self.state.values,
        }
        data = json.dumps(document).encode()
        for start in range(0, len(data), PIECE_BYTES):
            sink.write(data[start : start + PIECE_BYTES])

    def release(self) -> None:
        """Have nothing to release."""
