"""A user's state machine under crashes, partitions and pauses, on a clock.

    cluster = SimulatedCluster(Lottery, seed=7)
    cluster.start()
    cluster.storm(30.0, lambda random: b"draw")

Whatever the replicas' states differ in at an equal index is found at that index:
state machines must be deterministic, and this shows those that are not. Nothing
here opens a socket or a file, or sleeps; a seed always makes the same run, as long as
the state machine does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, BinaryIO, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.entry import Entry
from txraft.errors import NodeFailed, RaftError
from txraft.interfaces import FSM, BatchingFSM, FSMSnapshot, LeveledFSM
from txraft.node.application import (
    awaited,
    capture,
    is_unfinished,
    persist,
    release,
    restore,
)
from txraft.node.pending import ApplyResult
from txraft.testing.clock import HeapClock
from txraft.testing.cluster import FAST, STEP, Cluster, Node

T = TypeVar("T")

Digest = Callable[[FSM], bytes]

STORM_STEP = 0.05
"""Seconds between two moments at which a storm may do something."""

MAX_COMMANDS_IN_FLIGHT = 64
"""Commands of a storm that wait for an outcome; more are not given."""


class ReplicasDiffer(AssertionError):
    """Two replicas have different states after the same entry."""


def snapshot_digest(fsm: FSM) -> bytes:
    """Return the SHA-256 of what *fsm* writes as its snapshot.

    States that are equal must be written in equal bytes.
    """
    snapshot = capture(fsm)
    sink = _HashingSink()
    try:
        persist(snapshot, sink)
    finally:
        release(snapshot)
    return sink.hash.digest()


class _HashingSink:
    """A snapshot sink that keeps nothing but a checksum."""

    id = "digest"

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def close(self) -> None:
        """Do nothing: there is nothing to keep."""

    def cancel(self) -> None:
        """Do nothing: there is nothing to drop."""


class NodeStopped(AssertionError):
    """A node has stopped by itself, as it does when its state machine raises."""


class Watched:
    """The state machine *fsm* of one node; *seen* is told its state by index."""

    def __init__(self, fsm: FSM, digest: Digest, seen: Callable[[int, bytes], None]):
        self.fsm = fsm
        self._digest = digest
        self._seen = seen

    def apply(self, log: Entry) -> object:
        """Apply a command, and look at the state that it leaves."""
        result = self.fsm.apply(log)
        if is_unfinished(result):
            return awaited(result, "apply").addCallback(self._look, log.index)
        return self._look(result, log.index)

    def snapshot(self) -> FSMSnapshot:
        """Capture the state."""
        return self.fsm.snapshot()

    def restore(self, source: BinaryIO) -> None:
        """Replace the state."""
        restore(self.fsm, io.BytesIO(source.read()))

    def _look(self, result: T, index: int) -> T:
        self._seen(index, self._digest(self.fsm))
        return result


class WatchedBatches(Watched):
    """The same for a state machine that takes commands in batches."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply commands, and look at the state that the last one leaves."""
        assert isinstance(self.fsm, BatchingFSM), "only such are wrapped like this"
        answers: Any = self.fsm.apply_batch(logs)
        if is_unfinished(answers):
            last = logs[-1].index
            return awaited(answers, "apply_batch").addCallback(  # type: ignore[return-value]
                self._look, last
            )
        return self._look(answers, logs[len(answers) - 1].index)


class WatchedLevels(Watched):
    """The same for a state machine whose rules change by levels."""

    @property
    def level(self) -> int:
        """The highest level that it understands."""
        return self._leveled.level

    @property
    def active_level(self) -> int:
        """The level that is active in its state."""
        return self._leveled.active_level

    def activate(self, level: int) -> None:
        """Let it go by the rules of *level*."""
        result: object = self._leveled.activate(level)  # type: ignore[func-returns-value]
        return result  # type: ignore[return-value]

    @property
    def _leveled(self) -> LeveledFSM:
        assert isinstance(self.fsm, LeveledFSM), "only such are wrapped like this"
        return self.fsm


class WatchedLevelsAndBatches(WatchedLevels, WatchedBatches):
    """The same for one that does both."""


class ClusterClock(HeapClock):
    """The time of the world, and that of each node, which stops while it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[str, HeapClock] = {}
        self._paused: dict[str, None] = {}

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass everywhere but on nodes that hang."""
        super().advance(seconds)
        for address, clock in list(self.nodes.items()):
            if address not in self._paused:
                clock.advance(self.seconds() - clock.seconds())

    def pause(self, address: str) -> None:
        """Stop the time of one node."""
        self._paused[address] = None

    def resume(self, address: str) -> None:
        """Let a node go on: all the time that it missed passes at once."""
        if address in self._paused:
            del self._paused[address]
            clock = self.nodes[address]
            clock.jump(self.seconds() - clock.seconds())

    def forget(self, address: str) -> None:
        """Let the time of one node end."""
        self._paused.pop(address, None)
        self.nodes.pop(address, None)

    @property
    def paused(self) -> list[str]:
        """The nodes that hang."""
        return list(self._paused)


class SimulatedCluster(Cluster):
    """Replicas of the state machines that *make_fsm* makes, compared all the time.

    *digest* stands for the state of one; equal states must have equal ones. *seed*
    decides every random choice. `advance`, and all that lets time pass, raises
    ReplicasDiffer as soon as two replicas differ, and NodeStopped, with the cause, as
    soon as a node has stopped by itself.
    """

    def __init__(
        self,
        make_fsm: Callable[[], FSM],
        size: int = 3,
        seed: int = 0,
        *,
        digest: Digest = snapshot_digest,
        config: Config = FAST,
        disk_seconds: float = 0.002,
        latency: float = 0.001,
    ) -> None:
        self._world = ClusterClock()
        self._digest = digest
        self._make_users_fsm = make_fsm
        self._states: dict[int, tuple[str, bytes]] = {}
        self._difference: str | None = None
        self._stopped: str | None = None
        self._starting = ""
        self.seed = seed
        self.storms: list[Storm] = []
        super().__init__(
            size,
            config,
            self._make_watched,
            seed,
            disk_seconds,
            latency,
            self._world,
        )

    # The state machines

    def start_node(
        self,
        address: str,
        peers: Sequence[str] = (),  # type: ignore[override]
        config: Config | None = None,
    ) -> Node:
        """Start the node at *address*, as `Cluster.start_node` does."""
        self._starting = address
        node = super().start_node(address, peers, config)
        node.raft.when_stopping().addCallback(self._stopping, address, node)
        return node

    def _stopping(
        self, why: RaftError | None, address: str, node: Node
    ) -> RaftError | None:
        """Note that a node stops which nobody crashed or shut down."""
        if isinstance(why, NodeFailed) and self._stopped is None:
            self._stopped = f"{address} has stopped, with seed {self.seed}: {why}"
        return why

    def fsm(self, address: str) -> FSM:
        """Return the state machine of a node that runs."""
        watched = self.nodes[address].fsm
        assert isinstance(watched, Watched), "all of them are"
        return watched.fsm

    def _make_watched(self) -> FSM:
        address, fsm = self._starting, self._make_users_fsm()
        kinds = {
            (False, False): Watched,
            (False, True): WatchedBatches,
            (True, False): WatchedLevels,
            (True, True): WatchedLevelsAndBatches,
        }
        kind = kinds[isinstance(fsm, LeveledFSM), isinstance(fsm, BatchingFSM)]
        return kind(
            fsm, self._digest, lambda index, state: self._seen(address, index, state)
        )

    def _seen(self, address: str, index: int, state: bytes) -> None:
        known_at, known = self._states.setdefault(index, (address, state))
        if known != state and self._difference is None:
            self._difference = (
                f"{address} and {known_at} differ after entry {index}, with seed "
                f"{self.seed}: {state.hex()[:16]} and {known.hex()[:16]}"
            )

    def check(self) -> None:
        """Compare what all replicas have gone through, and see that none has stopped.

        Raises: ReplicasDiffer, NodeStopped
        """
        if self._difference is not None:
            raise ReplicasDiffer(self._difference)
        if self._stopped is not None:
            raise NodeStopped(self._stopped)

    @property
    def _is_broken(self) -> bool:
        return self._difference is not None or self._stopped is not None

    # Time

    def clock_of(self, address: str) -> IReactorTime:
        """Return the clock of one node; a new one for each of its lives."""
        clock = HeapClock()
        clock.advance(self._world.seconds())
        self._world.nodes[address] = clock
        return clock

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and compare the replicas."""
        super().advance(seconds)
        self.check()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let time pass until *condition* holds; fail after *seconds*."""
        super().wait_until(lambda: self._is_broken or condition(), seconds)
        self.check()

    # Faults

    def crash(self, address: str) -> None:
        """End the node at *address* at once; what was not yet written is lost."""
        super().crash(address)
        self._world.forget(address)

    def pause(self, address: str) -> None:
        """Let the node at *address* hang: it does nothing until it is resumed."""
        self._world.pause(address)

    def resume(self, address: str) -> None:
        """Let a node that hangs go on, late for everything."""
        self._world.resume(address)

    def recover(self) -> None:
        """End all faults: start, resume and connect every node; all become equal.

        Raises: ReplicasDiffer; AssertionError, if they do not recover.
        """
        for address in self._world.paused:
            self.resume(address)
        self.heal()
        for address in self.addresses:
            if address not in self.nodes:
                self.start_node(address)
        self.wait_for_leader()
        self.apply_nothing()
        self.wait_for_all()

    def apply_nothing(self) -> None:
        """Let the leader commit an entry that no state machine sees."""
        self.result(self.leader.raft.barrier())

    def storm(self, seconds: float, command: Callable[[Random], bytes]) -> Storm:
        """Give commands for *seconds* while nodes crash, hang and lose each other.

        Then all faults end and the cluster must recover.
        Returns: what was done and what came of it.
        Raises: ReplicasDiffer; AssertionError, if they do not recover, or a command
            was acknowledged and its entry is not in force; RuntimeError before `start`.
        """
        if not self.addresses:
            raise RuntimeError("no node was started: call start() before storm()")
        storm = Storm(self, command)
        self.storms.append(storm)
        for _ in range(round(seconds / STORM_STEP)):
            storm.step()
            self.advance(STORM_STEP)
        self.recover()
        storm.check_outcomes()
        return storm


class Storm:
    """Random faults and commands; counts of both, and every outcome."""

    def __init__(
        self, cluster: SimulatedCluster, command: Callable[[Random], bytes]
    ) -> None:
        self._cluster = cluster
        self._command = command
        self._random = Random(cluster.random.random())
        self.commands = self.acknowledged = self.refused = self.unknown = 0
        self.crashes = self.pauses = self.cuts = self.snapshots = 0

    def step(self) -> None:
        """Do what chance wants done at this moment."""
        draw = self._random.random
        if draw() < 0.5:
            self._give_command()
        if draw() < 0.02:
            self._crash()
        if draw() < 0.1:
            self._start_one()
        if draw() < 0.02:
            self._pause()
        if draw() < 0.02:
            self._cut()
        if draw() < 0.05:
            self._cluster.heal()
        if draw() < 0.03:
            self._snapshot()

    def _give_command(self) -> None:
        leaders = self._cluster.leaders()
        in_flight = self.commands - self.acknowledged - self.refused - self.unknown
        if leaders and in_flight < MAX_COMMANDS_IN_FLIGHT:
            self.commands += 1
            leader = self._random.choice(leaders)
            leader.raft.apply(self._command(self._random)).addCallbacks(
                self._done, self._failed
            )

    def _done(self, _: ApplyResult) -> None:
        self.acknowledged += 1

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, RaftError) and error.outcome == "not-applied":
            self.refused += 1
        else:
            self.unknown += 1

    def _crash(self) -> None:
        running = list(self._cluster.nodes)
        if running:
            self.crashes += 1
            self._cluster.crash(self._random.choice(running))

    def _start_one(self) -> None:
        cluster = self._cluster
        down = [a for a in cluster.addresses if a not in cluster.nodes]
        if down:
            cluster.start_node(self._random.choice(down))

    def _pause(self) -> None:
        running = list(self._cluster.nodes)
        if running:
            address = self._random.choice(running)
            self.pauses += 1
            self._cluster.pause(address)
            seconds = self._random.uniform(STEP, 1.0)
            self._cluster.clock.callLater(seconds, self._cluster.resume, address)

    def _cut(self) -> None:
        self.cuts += 1
        self._cluster.isolate(self._random.choice(self._cluster.addresses))

    def _snapshot(self) -> None:
        running = list(self._cluster.nodes.values())
        if running:
            self.snapshots += 1
            node = self._random.choice(running)
            node.raft.snapshot().addErrback(lambda _: None)

    def check_outcomes(self) -> None:
        """Assert that every command has an outcome, and that some took effect."""
        told = self.acknowledged + self.refused + self.unknown
        assert told == self.commands, f"{self.commands - told} commands lack an outcome"
