"""State machines for whole nodes: `Registers` as an `FSM` of each kind there is."""

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
    """Keeps `Registers`, and compares each state with that of the other replicas.

    *alive* tells whether its node still runs; *found* is called with what is wrong.
    """

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
        """Apply a command, and check that the state is the same as elsewhere."""
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
        """Restore a snapshot, and check that the cluster was in its state."""
        document = json.load(source)
        state = Registers()
        state.index, state.digest = document["index"], document["digest"]
        state.values = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in document["values"].items()
        }
        # A worker that dies with its node may still be in here: its state is nobody's.
        if self._alive():
            self._oracles.check_restored(state.index, state.digest)
        self.state = state


class BatchFSM(RegisterFSM):
    """The same as a `BatchingFSM`."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[Value]:
        """Apply all *logs*."""
        return [self._apply(log) for log in logs]


class SlowFSM(RegisterFSM):
    """The same with an `apply` that returns a Deferred.

    Nothing else may be called while a command is unfinished.
    """

    _busy = False

    def apply(self, log: Entry) -> Deferred[Value]:
        """Apply a command; the Deferred fires with its result, up to 0.06 s later."""
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
        """Restore a snapshot."""
        if self._busy:
            self.found("a snapshot is restored while a command is half done")
        super().restore(source)

    def _finish(self, log: Entry, done: Deferred[Value]) -> None:
        self._busy = False
        done.callback(self._apply(log))


KINDS = (RegisterFSM, RegisterFSM, BatchFSM, SlowFSM)
"""The state machines that a seed chooses from; the plain one twice as often."""


@dataclass
class RegisterSnapshot:
    """Captured registers."""

    state: Registers

    def persist(self, sink: SnapshotSink) -> None:
        """Write the registers as JSON, in small pieces."""
        document = {
            "index": self.state.index,
            "digest": self.state.digest,
            "values": self.state.values,
        }
        data = json.dumps(document).encode()
        for start in range(0, len(data), PIECE_BYTES):
            sink.write(data[start : start + PIECE_BYTES])

    def release(self) -> None:
        """Do nothing: a copy needs no release."""
