"""A simulated cluster: your state machine under crashes, partitions and pauses.

    cluster = SimulatedCluster(Lottery, seed=7)
    cluster.start()
    cluster.storm(30.0, lambda random: b"draw")

A state machine must be deterministic: replicas that have applied the same entries must
have the same state. Here they are compared after every entry, so one that is not
deterministic is found at the index where the replicas begin to differ. There are no
sockets, files or sleeps. A seed makes the same run each time, if the state machine is
deterministic within one process.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.entry import Entry
from txraft.errors import ApplicationError, NodeFailed, RaftError
from txraft.interfaces import FSM, BatchingFSM, FSMSnapshot, LeveledFSM
from txraft.node.application import (
    awaited,
    capture,
    is_unfinished,
    persist,
    release,
    restore,
)
from txraft.replicated.encoding import encode, make_packer
from txraft.replicated.machine import Machine
from txraft.replicated.objects import Replicated
from txraft.testing.cluster import FAST, STEP, Cluster, Node, StateMachine
from txraft.testing.heap_clock import HeapClock

T = TypeVar("T")
S = TypeVar("S", bound=Replicated)

Digest = Callable[[FSM], bytes]
"""A function that returns the same bytes for state machines in the same state."""

STORM_STEP = 0.05
"""Seconds between two moments at which `storm` injects faults and commands."""

MAX_COMMANDS_IN_FLIGHT = 64
"""Commands of `storm` that wait for an outcome at most."""


class ReplicasDiffer(AssertionError):
    """Two replicas have different states after the same entry.

    The message names the two nodes, the index, the seed and both digests.
    """


def snapshot_digest(fsm: FSM) -> bytes:
    """Return the SHA-256 of the snapshot that *fsm* writes, 32 bytes.

    Equal states must be written as equal bytes; for others give `SimulatedCluster` a
    *digest* of your own.
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
    """A node has stopped by itself, for example because its state machine raised.

    The message names the node, the seed and the cause.
    """


class Watched:
    """Wraps the state machine of one node; calls *seen* with each index and digest."""

    def __init__(self, fsm: FSM, digest: Digest, seen: Callable[[int, bytes], None]):
        self.fsm = fsm
        self._digest = digest
        self._seen = seen

    def apply(self, log: Entry) -> object:
        """Apply a command, and report the digest of the new state."""
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
    """Wraps a `BatchingFSM`."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply commands, and report the digest after the last one."""
        assert isinstance(self.fsm, BatchingFSM), "only such are wrapped like this"
        answers: Any = self.fsm.apply_batch(logs)
        if is_unfinished(answers):
            last = logs[-1].index
            return awaited(answers, "apply_batch").addCallback(  # type: ignore[return-value]
                self._look, last
            )
        return self._look(answers, logs[len(answers) - 1].index)


class WatchedLevels(Watched):
    """Wraps a `LeveledFSM`."""

    @property
    def level(self) -> int:
        """The highest level that the state machine supports."""
        return self._leveled.level

    @property
    def active_level(self) -> int:
        """The level that is active in its state."""
        return self._leveled.active_level

    def activate(self, level: int) -> None:
        """Activate the rules of *level*."""
        result: object = self._leveled.activate(level)  # type: ignore[func-returns-value]
        return result  # type: ignore[return-value]

    @property
    def _leveled(self) -> LeveledFSM:
        assert isinstance(self.fsm, LeveledFSM), "only such are wrapped like this"
        return self.fsm


class WatchedLevelsAndBatches(WatchedLevels, WatchedBatches):
    """Wraps a state machine that is a `BatchingFSM` and a `LeveledFSM`."""


TWIN_ENTRIES = 16
"""A member is compared with one that was restored before so many entries at most."""


class WatchedObjects(Watched):
    """Wraps the machine of replicated objects, beside one restored from its snapshot.

    That one, made by *twin*, applies the same commands; *differs* is told what it does
    otherwise. So a member that was restored is the same as one that was not.
    """

    fsm: Machine

    def __init__(
        self,
        fsm: Machine,
        digest: Digest,
        seen: Callable[[int, bytes], None],
        twin: Callable[[], Machine],
        differs: Callable[[str], None],
    ) -> None:
        super().__init__(fsm, digest, seen)
        self._make_twin = twin
        self._differs = differs
        self._twin: Machine | None = None
        self._entries = 0

    def stamp(self, data: bytes, term: int) -> bytes:
        """Stamp a command."""
        return self.fsm.stamp(data, term)

    def apply(self, log: Entry) -> object:
        """Apply a command to both, and compare them."""
        if self._twin is None or self._entries >= TWIN_ENTRIES:
            self._twin, self._entries = self._make_twin(), 0
            self._twin.restore(io.BytesIO(_snapshot_of(self.fsm)))
        self._entries += 1
        [found] = self.fsm.apply_batch([log])
        [other] = self._twin.apply_batch([log])
        answers = [_comparable(each) for each in (found, other)]
        states = [self._digest(each) for each in (self.fsm, self._twin)]
        if answers[0] != answers[1] or states[0] != states[1]:
            what = "state" if states[0] != states[1] else "result"
            self._differs(
                f"differs in the {what} after entry {log.index}, "
                f"{self.fsm.describe(log)}, from a member that was restored from a "
                "snapshot before it"
            )
        self._seen(log.index, states[0])
        if isinstance(found, ApplicationError):
            raise found
        return found

    def restore(self, source: BinaryIO) -> None:
        """Replace the state."""
        super().restore(source)
        self._twin = None


def _snapshot_of(fsm: FSM) -> bytes:
    snapshot, sink = capture(fsm), _Sink()
    try:
        persist(snapshot, sink)
    finally:
        release(snapshot)
    return sink.getvalue()


class _Sink(io.BytesIO):
    """A snapshot sink in memory."""

    id = "twin"

    def cancel(self) -> None:
        """Do nothing: there is nothing to drop."""


def _comparable(answer: object) -> object:
    if isinstance(answer, ApplicationError):
        return f"{type(answer).__name__}: {answer}"
    return make_packer()(encode(answer))


class ClusterClock(HeapClock):
    """The clock of the cluster; it advances the clocks of nodes that are not paused."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[str, HeapClock] = {}
        self._paused: dict[str, None] = {}

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on all nodes that are not paused."""
        super().advance(seconds)
        for address, clock in list(self.nodes.items()):
            if address not in self._paused:
                clock.advance(self.seconds() - clock.seconds())

    def pause(self, address: str) -> None:
        """Stop the clock of one node."""
        self._paused[address] = None

    def resume(self, address: str) -> None:
        """Let a node go on; all the time that it missed passes at once."""
        if address in self._paused:
            del self._paused[address]
            clock = self.nodes[address]
            clock.jump(self.seconds() - clock.seconds())

    def forget(self, address: str) -> None:
        """Drop the clock of a node that has ended."""
        self._paused.pop(address, None)
        self.nodes.pop(address, None)

    @property
    def paused(self) -> list[str]:
        """The addresses of the nodes that are paused."""
        return list(self._paused)


class SimulatedCluster(Cluster):
    """A `Cluster` that crashes, pauses and cuts nodes, and compares their states.

    .. code-block:: python

        for seed in range(100):
            cluster = SimulatedCluster(Counter, seed=seed)
            cluster.start()
            cluster.storm(20.0, lambda random: b"add %d" % random.randrange(9))

    *make_fsm* makes the state machine of each node, a new one after each crash.
    *digest* returns the same bytes for equal states; by default it hashes a snapshot.
    *seed* decides every random choice. A write takes *disk_seconds*, a message
    *latency* seconds one way. Each node has a clock of its own, which a pause stops.

    Raises: ReplicasDiffer, from `advance` and all that lets time pass, as soon as two
        replicas differ; NodeStopped, as soon as a node has stopped by itself.
    """

    def __init__(
        self,
        make_fsm: Callable[[], StateMachine],
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
        self._states: dict[int, tuple[str, bytes]] = {}
        self._difference: str | None = None
        self._stopped: str | None = None
        self._starting = ""
        self.seed = seed
        self.storms: list[Storm] = []
        super().__init__(
            size,
            config,
            make_fsm,
            seed=seed,
            disk_seconds=disk_seconds,
            latency=latency,
            clock=self._world,
        )

    # The state machines

    def start_node(
        self,
        address: str,
        peers: Sequence[str] = (),  # type: ignore[override]
        config: Config | None = None,
    ) -> Node:
        """Start the node at *address*, as `Cluster.start_node` does."""
        # For a *make_fsm* that makes another one for each node; it has no argument.
        self._starting = address
        node = super().start_node(address, peers, config)
        node.raft.when_stopping().addCallback(self._stopping, address, node)
        return node

    def _stopping(
        self, why: RaftError | None, address: str, node: Node
    ) -> RaftError | None:
        """Note a node that has stopped by itself: not by a crash or a shutdown."""
        if isinstance(why, NodeFailed) and self._stopped is None:
            self._stopped = f"{address} has stopped, with seed {self.seed}: {why}"
        return why

    def fsm(self, address: str) -> FSM:
        """Return the state machine of the node at *address*.

        Raises: KeyError, if it does not run.
        """
        return self._bare(self.nodes[address].fsm)

    def _bare(self, fsm: FSM) -> FSM:
        assert isinstance(fsm, Watched), "all of them are"
        return fsm.fsm

    def _state_machine(self, address: str, clock: IReactorTime) -> FSM:
        fsm = super()._state_machine(address, clock)

        def seen(index: int, state: bytes) -> None:
            self._seen(address, index, state)

        if isinstance(fsm, Machine):
            return self._watched_objects(fsm, address, clock, seen)
        kinds = {
            (False, False): Watched,
            (False, True): WatchedBatches,
            (True, False): WatchedLevels,
            (True, True): WatchedLevelsAndBatches,
        }
        kind = kinds[isinstance(fsm, LeveledFSM), isinstance(fsm, BatchingFSM)]
        return kind(fsm, self._digest, seen)

    def _watched_objects(
        self,
        machine: Machine,
        address: str,
        clock: IReactorTime,
        seen: Callable[[int, bytes], None],
    ) -> FSM:
        def twin() -> Machine:
            made = self._machine_of(self._make_fsm(), address, clock)
            assert isinstance(made, Machine), "it was one before"
            return made

        def differs(what: str) -> None:
            if self._difference is None:
                self._difference = f"{address} {what}, with seed {self.seed}"

        return WatchedObjects(machine, self._digest, seen, twin, differs)

    def _seen(self, address: str, index: int, state: bytes) -> None:
        # Only noted here: an error would be one of the state machine to the node.
        known_at, known = self._states.setdefault(index, (address, state))
        if known != state and self._difference is None:
            self._difference = (
                f"{address} and {known_at} differ after entry {index}, with seed "
                f"{self.seed}: {state.hex()[:16]} and {known.hex()[:16]}"
            )

    def check(self) -> None:
        """Check that no replicas have differed and no node has stopped by itself.

        Raises: ReplicasDiffer; NodeStopped
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
        """Return a new clock for the node at *address*, one for each of its starts."""
        clock = HeapClock()
        clock.advance(self._world.seconds())
        self._world.nodes[address] = clock
        return clock

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and check the replicas.

        Raises: ReplicasDiffer; NodeStopped
        """
        super().advance(seconds)
        self.check()

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let time pass until *condition* is true.

        Raises: AssertionError, if it is still false after *seconds*; ReplicasDiffer;
            NodeStopped
        """
        super().wait_until(lambda: self._is_broken or condition(), seconds)
        self.check()

    # Faults

    def crash(self, address: str) -> None:
        """Crash the node at *address*: writes under way are lost, stores stay.

        Raises: KeyError, if no such node runs.
        """
        super().crash(address)
        self._world.forget(address)

    def pause(self, address: str) -> None:
        """Stop the clock of the node at *address*: it does nothing until `resume`."""
        self._world.pause(address)

    def resume(self, address: str) -> None:
        """Let a paused node go on; everything that was due meanwhile is late."""
        self._world.resume(address)

    def recover(self) -> None:
        """End all faults, and wait until all nodes have applied the same log.

        Nodes that are down are started, paused ones resumed, and links mended.

        Raises: ReplicasDiffer; NodeStopped; AssertionError, if they do not recover.
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
        """Commit an entry that no state machine gets, and wait for it."""
        self.result(self.leader.raft.barrier())

    def storm(self, seconds: float, command: Callable[[Random], bytes]) -> Storm:
        """Apply commands for *seconds* while nodes crash, pause and lose connections.

        *command* makes each command with the `random.Random` that it is given. Then all
        faults end, and the cluster must recover.

        Returns: counts of the commands, their outcomes and the faults.
        Raises: ReplicasDiffer; NodeStopped; AssertionError, if the cluster does not
            recover or a command has no outcome; RuntimeError before `start`.
        """

        def propose(node: Node, random: Random) -> Deferred[Any]:
            return node.raft.apply(command(random))

        return self._storm(seconds, propose)

    def storm_on(
        self, kind: type[S], seconds: float, call: Callable[[S, Random], Deferred[Any]]
    ) -> Storm:
        """Call commands of the objects of class *kind*, as `storm` applies commands.

        .. code-block:: python

            cluster.storm_on(Jobs, 20.0, lambda jobs, random: jobs.claim(1.0))

        *call* gets the object of a leader. One that fails with an error of its own was
        refused.
        """

        def propose(node: Node, random: Random) -> Deferred[Any]:
            return call(self.replicated(kind, node.address), random)

        return self._storm(seconds, propose)

    def _storm(
        self, seconds: float, propose: Callable[[Node, Random], Deferred[Any]]
    ) -> Storm:
        if not self.addresses:
            raise RuntimeError("no node was started: call start() before storm()")
        storm = Storm(self, propose)
        self.storms.append(storm)
        for _ in range(round(seconds / STORM_STEP)):
            storm.step()
            self.advance(STORM_STEP)
        self.recover()
        storm.check_outcomes()
        return storm


class Storm:
    """A fault schedule with commands, and counts of both.

    Each of `commands` is in the end `acknowledged`, `refused` (it was not and will not
    be applied) or of `unknown` outcome.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        propose: Callable[[Node, Random], Deferred[Any]],
    ) -> None:
        self._cluster = cluster
        self._propose = propose
        self._random = Random(cluster.random.random())
        self.commands = self.acknowledged = self.refused = self.unknown = 0
        self.crashes = self.pauses = self.cuts = self.snapshots = 0

    def step(self) -> None:
        """Inject the commands and faults of this moment."""
        # The order of these draws is a part of every seed.
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
            self._propose(leader, self._random).addCallbacks(self._done, self._failed)

    def _done(self, _: object) -> None:
        self.acknowledged += 1

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, RaftError) and error.outcome == "unknown":
            self.unknown += 1
        else:
            self.refused += 1

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
        """Assert that every command has an outcome."""
        told = self.acknowledged + self.refused + self.unknown
        assert told == self.commands, f"{self.commands - told} commands lack an outcome"
