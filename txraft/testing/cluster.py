"""A cluster in memory, on one `task.Clock`: real nodes, no sockets, files or sleeps.

    cluster = Cluster(3)
    cluster.start()
    result = cluster.apply(b"one")

What a node has on disk outlives a crash of it here, as far as it was written: the
stores are in memory, and a write is durable when the node is told so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import BinaryIO, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.entry import Entry
from txraft.interfaces import FSM, SnapshotSink
from txraft.node.events import RaftState
from txraft.node.pending import ApplyResult
from txraft.node.raft import Raft
from txraft.node.worker import MemoryWorker, Workers
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.peer_stores import StaticPeers
from txraft.testing.clock import HeapClock
from txraft.transport.inmem import InmemTransport

T = TypeVar("T")

STEP = 0.005
"""Seconds that the clock moves at a time."""

FAST = Config(
    heartbeat_timeout=0.2,
    election_timeout=0.2,
    leader_lease_timeout=0.1,
    commit_timeout=0.01,
    snapshot_interval=3600.0,
)
"""Timeouts that suit a clock which moves by `STEP`."""


class ListFSM:
    """A state machine that remembers every command it was given."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, log: Entry) -> object:
        """Remember a command and answer how many there are."""
        self.commands.append(log.data or b"")
        return len(self.commands)

    def snapshot(self) -> ListSnapshot:
        """Capture the commands so far."""
        return ListSnapshot(list(self.commands))

    def restore(self, source: BinaryIO) -> None:
        """Take the commands of a snapshot instead of those here."""
        self.commands = [bytes.fromhex(text) for text in json.load(source)]


@dataclass
class ListSnapshot:
    """The captured commands of a `ListFSM`."""

    commands: list[bytes]
    released: bool = False

    def persist(self, sink: SnapshotSink) -> None:
        """Write the commands as a JSON list of hexadecimal strings."""
        sink.write(json.dumps([command.hex() for command in self.commands]).encode())

    def release(self) -> None:
        """Note that nobody needs the capture any more."""
        self.released = True


@dataclass
class Node:
    """One node of a `Cluster`, and what it has on disk."""

    address: str
    fsm: FSM
    raft: Raft
    transport: InmemTransport
    store: InmemStore
    snapshots: InmemSnapshotStore
    peer_store: StaticPeers
    workers: Workers
    started: Deferred[None]


@dataclass
class _Disk:
    store: InmemStore = field(default_factory=InmemStore)
    snapshots: InmemSnapshotStore = field(default_factory=InmemSnapshotStore)
    peer_store: StaticPeers = field(default_factory=StaticPeers)


class Cluster:
    """Nodes `a`, `b`, `c`, … on one clock, which moves only when a test says so.

    *make_fsm* makes the state machine of each node; *seed* decides every random
    choice. A write takes *disk_seconds*, a message *latency* seconds one way; with
    neither, both wait only until the clock is advanced, be it by 0. `start` starts
    the founding nodes. *clock* is a `task.Clock` unless another one is given.
    """

    def __init__(
        self,
        size: int = 3,
        config: Config = FAST,
        make_fsm: Callable[[], FSM] = ListFSM,
        seed: int = 0,
        disk_seconds: float = 0.0,
        latency: float = 0.0,
        clock: Clock | HeapClock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.disk_seconds = disk_seconds
        self.latency = latency
        self.config = config
        self.random = Random(seed)
        self.nodes: dict[str, Node] = {}
        self._make_fsm = make_fsm
        self._disks: dict[str, _Disk] = {}
        self._founders = [chr(ord("a") + i) for i in range(size)]
        self._cut: set[frozenset[str]] = set()
        self._slow_disks: dict[str, float] = {}
        self._slow_snapshots: dict[str, float] = {}

    # Nodes

    def start(self) -> None:
        """Start every founding node and wait for a leader."""
        for address in self._founders:
            self.start_node(address, self._founders)
        self.wait_for_leader()

    def start_node(
        self,
        address: str,
        peers: Iterable[str] = (),
        config: Config | None = None,
    ) -> Node:
        """Start the node at *address*, with what it has on disk.

        *peers* found a cluster if there is nothing there; without any, the node
        waits to be added.
        """
        disk = self._disks.setdefault(address, _Disk())
        if not disk.peer_store.peers():
            disk.peer_store.set_peers(list(peers))
        transport = InmemTransport(self.clock, address, latency=self.latency)
        later = partial(self._later, address)
        workers = Workers(
            writer=MemoryWorker(later),
            reader=MemoryWorker(later),
            snapshot=MemoryWorker(partial(self._later_snapshot, address)),
            sender=MemoryWorker(later),
        )
        fsm = self._make_fsm()
        raft = Raft(
            config or self.config,
            fsm,
            disk.store,
            disk.store,
            disk.snapshots,
            disk.peer_store,
            None,
            transport,
            clock=self.clock_of(address),
            workers=workers,
            random=Random(self.random.random()),
        )
        node = Node(
            address,
            fsm,
            raft,
            transport,
            disk.store,
            disk.snapshots,
            disk.peer_store,
            workers,
            raft.start(),
        )
        self.nodes[address] = node
        self._route()
        self.advance(0)
        return node

    def clock_of(self, address: str) -> IReactorTime:
        """Return the clock that the node at *address* goes by."""
        return self.clock

    def _later(self, address: str, call: Callable[[], bool]) -> object:
        seconds = self._slow_disks.get(address, self.disk_seconds)
        return self.clock.callLater(seconds, call)

    def _later_snapshot(self, address: str, call: Callable[[], bool]) -> object:
        seconds = self._slow_snapshots.get(address)
        if seconds is None:
            return self._later(address, call)
        return self.clock.callLater(seconds, call)

    def slow_snapshots(self, address: str, seconds: float) -> None:
        """Let taking a snapshot at *address*, or restoring one, take *seconds*.

        So does each step of it: a piece that is received, for example.
        """
        self._slow_snapshots[address] = seconds

    def slow_disk(self, address: str, seconds: float) -> None:
        """Let each write of the node at *address* take *seconds* from now on."""
        self._slow_disks[address] = seconds

    def crash(self, address: str) -> None:
        """End the node at *address* at once: writes that wait are lost.

        Whoever waits for it is told what `Raft.shutdown` tells.
        """
        node = self.nodes.pop(address)
        for worker in node.workers.each:
            assert isinstance(worker, MemoryWorker), "a cluster's workers are these"
            worker.discard()
        node.transport.disconnect_all()
        for other in self.nodes.values():
            other.transport.disconnect(address)
        node.raft.shutdown().addErrback(lambda _: None)

    def restart(self, address: str) -> Node:
        """Crash the node at *address* if it runs, and start it from its disk."""
        if address in self.nodes:
            self.crash(address)
        return self.start_node(address)

    def wipe(self, address: str) -> None:
        """Crash the node at *address* if it runs, and lose all it has on disk."""
        if address in self.nodes:
            self.crash(address)
        del self._disks[address]

    def shutdown(self) -> None:
        """Shut every node down."""
        for node in self.nodes.values():
            node.raft.shutdown()
        self.advance(0.1)

    # Network

    def _route(self) -> None:
        for one in self.nodes.values():
            for other in self.nodes.values():
                linked = frozenset({one.address, other.address}) not in self._cut
                if one is not other and linked:
                    one.transport.connect(other.address, other.transport)
                elif one is not other:
                    one.transport.disconnect(other.address)

    def isolate(self, *addresses: str) -> None:
        """Cut the links between *addresses* and all other nodes."""
        for one in addresses:
            for other in [*self.nodes, *self._disks]:
                if other not in addresses:
                    self._cut.add(frozenset({one, other}))
        self._route()

    def heal(self) -> None:
        """Mend every link."""
        self._cut.clear()
        self._route()

    # Time

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, in small steps."""
        self.clock.advance(0)
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let time pass until *condition* holds; fail after *seconds*."""
        self.clock.advance(0)
        for _ in range(round(seconds / STEP)):
            if condition():
                return
            self.clock.advance(STEP)
        assert condition(), f"it did not come true within {seconds} s"

    def result(self, deferred: Deferred[T], seconds: float = 10.0) -> T:
        """Let time pass until *deferred* fires; return its result or raise."""
        outcome: list[T | Failure] = []
        deferred.addBoth(outcome.append)
        self.wait_until(lambda: bool(outcome), seconds)
        result = outcome[0]
        if isinstance(result, Failure):
            result.raiseException()
        return result

    # Raft

    @property
    def addresses(self) -> list[str]:
        """The addresses of all nodes that were ever started, running or not."""
        return sorted(self._disks)

    def leaders(self) -> list[Node]:
        """Return the nodes that take themselves for the leader."""
        return [n for n in self.nodes.values() if n.raft.state is RaftState.LEADER]

    @property
    def leader(self) -> Node:
        """The leader of the highest term."""
        return max(self.leaders(), key=lambda node: node.raft.term)

    @property
    def followers(self) -> list[Node]:
        """All nodes but the leader."""
        leader = self.leader
        return [node for node in self.nodes.values() if node is not leader]

    def wait_for_leader(self, among: Iterable[str] | None = None) -> Node:
        """Wait until the nodes *among* which to look agree on one of them."""
        wanted = set(among if among is not None else self.nodes)

        def agreed() -> bool:
            known = {self.nodes[address].raft.leader for address in wanted}
            return len(known) == 1 and known <= {
                node.address for node in self.leaders() if node.address in wanted
            }

        self.wait_until(agreed)
        address = self.nodes[next(iter(sorted(wanted)))].raft.leader
        assert address is not None, "they agree on one"
        return self.nodes[address]

    def apply(self, data: bytes) -> ApplyResult:
        """Apply *data* through the leader and return the outcome."""
        return self.result(self.leader.raft.apply(data))

    def wait_for_all(self) -> None:
        """Wait until every node has applied all that the leader's log holds."""

        def applied() -> bool:
            if not self.leaders():
                return False
            last = self.leader.raft.last_index
            return {n.raft.applied_index for n in self.nodes.values()} == {last}

        self.wait_until(applied)
