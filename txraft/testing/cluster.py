"""A cluster in memory on one `task.Clock`: real nodes, no sockets, files or sleeps.

    cluster = Cluster(3)
    cluster.start()
    result = cluster.apply(b"one")

A class of replicated objects is a state machine, too:

    cluster = Cluster(3, make_fsm=Jobs)
    cluster.start()
    cluster.result(cluster.replicated(Jobs).put("one"))

The stores are in memory and outlive a crash of their node. A write is durable when the
node is told so; a crash loses the writes that are still under way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
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
from txraft.replicated.machine import Machine
from txraft.replicated.objects import Replicated
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.peer_stores import StaticPeers
from txraft.testing.heap_clock import HeapClock
from txraft.transport.inmem import InmemTransport

T = TypeVar("T")
S = TypeVar("S", bound=Replicated)

StateMachine = FSM | Replicated | Mapping[str, Replicated]
"""What a node has: a state machine, a replicated object, or several by their names."""

EPOCH = 1_700_000_000.0
"""What the wall clocks of the nodes tell when the cluster's clock is at 0."""

STEP = 0.005
"""Seconds that the clock advances in one step."""

FAST = Config(
    heartbeat_timeout=0.2,
    election_timeout=0.2,
    leader_lease_timeout=0.1,
    commit_timeout=0.01,
    snapshot_interval=3600.0,
)
"""Timeouts in seconds that suit a clock which advances by `STEP`."""


class ListFSM:
    """A state machine that keeps a list of all commands that it has applied."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, log: Entry) -> object:
        """Append a command; return the length of the list."""
        self.commands.append(log.data or b"")
        return len(self.commands)

    def snapshot(self) -> ListSnapshot:
        """Capture the list."""
        return ListSnapshot(list(self.commands))

    def restore(self, source: BinaryIO) -> None:
        """Replace the list with that of a snapshot."""
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
        """Note that the capture is no longer needed."""
        self.released = True


@dataclass
class Node:
    """One running node of a `Cluster`, with its stores.

    `started` is the Deferred of `Raft.start`. The stores outlive the node; its state
    machine does not.
    """

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
class _NodeStores:
    """The stores of one node, which outlive it."""

    store: InmemStore = field(default_factory=InmemStore)
    snapshots: InmemSnapshotStore = field(default_factory=InmemSnapshotStore)
    peer_store: StaticPeers = field(default_factory=StaticPeers)


class _Proposer:
    """What the objects of a node go through."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        return self._raft.apply(data, timeout)

    def linearizable(self, timeout: float | None = None) -> Deferred[int]:
        return self._raft.linearizable()


class Cluster:
    """Nodes `a`, `b`, `c`, … on one clock, which only the test advances.

    .. code-block:: python

        cluster = Cluster(3, make_fsm=Counter)
        cluster.start()
        assert cluster.apply(b"add 1").response == 1
        cluster.crash(cluster.leader.address)
        cluster.wait_for_leader()
        cluster.wait_for_all()

    *size* nodes bootstrap the cluster; `start_node` adds more. *make_fsm* makes the
    state machine of each node, a new one after each crash; it may be a `Replicated`, or
    a mapping of several with their names. *seed* decides every random
    choice, so one seed makes the same run each time. A write takes *disk_seconds*, and
    a message *latency* seconds one way; with 0 both are done at the next `advance`,
    also by 0. *clock* is a new `task.Clock` by default. `nodes` has the running nodes
    by address.
    """

    def __init__(
        self,
        size: int = 3,
        config: Config = FAST,
        make_fsm: Callable[[], StateMachine] = ListFSM,
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
        self._stores: dict[str, _NodeStores] = {}
        self._bootstrap = [chr(ord("a") + i) for i in range(size)]
        self._cut: set[frozenset[str]] = set()
        self._slow_disks: dict[str, float] = {}
        self._slow_snapshots: dict[str, float] = {}
        self._off: dict[str, float] = {}

    # Nodes

    def start(self) -> None:
        """Start the nodes that bootstrap the cluster, and wait for a leader.

        Raises: AssertionError, if there is no leader after 10 s.
        """
        for address in self._bootstrap:
            self.start_node(address, self._bootstrap)
        self.wait_for_leader()

    def start_node(
        self,
        address: str,
        peers: Iterable[str] = (),
        config: Config | None = None,
    ) -> Node:
        """Start the node at *address* from its stores, empty ones the first time.

        With empty stores, it bootstraps a cluster of *peers*; without *peers* it waits
        to be added, as by `Raft.add_voter`. *config* replaces that of the cluster.
        """
        stores = self._stores.setdefault(address, _NodeStores())
        if not stores.peer_store.peers():
            stores.peer_store.set_peers(list(peers))
        transport = InmemTransport(self.clock, address, latency=self.latency)
        later = partial(self._later, address)
        workers = Workers(
            writer=MemoryWorker(later),
            reader=MemoryWorker(later),
            snapshot=MemoryWorker(partial(self._later_snapshot, address)),
            sender=MemoryWorker(later),
        )
        clock = self.clock_of(address)
        fsm = self._state_machine(address, clock)
        raft = Raft(
            config or self.config,
            fsm,
            log_store=stores.store,
            stable_store=stores.store,
            snapshots=stores.snapshots,
            peer_store=stores.peer_store,
            local_addr=None,
            transport=transport,
            clock=clock,
            workers=workers,
            random=Random(self.random.random()),
        )
        machine = self._bare(fsm)
        if isinstance(machine, Machine):
            machine.bind(_Proposer(raft))
        node = Node(
            address=address,
            fsm=fsm,
            raft=raft,
            transport=transport,
            store=stores.store,
            snapshots=stores.snapshots,
            peer_store=stores.peer_store,
            workers=workers,
            started=raft.start(),
        )
        self.nodes[address] = node
        # At once, without time: what a start does in its first turn has happened when
        # this returns.
        self._route()
        self.advance(0)
        return node

    def _state_machine(self, address: str, clock: IReactorTime) -> FSM:
        return self._machine_of(self._make_fsm(), address, clock)

    def _machine_of(self, made: StateMachine, address: str, clock: IReactorTime) -> FSM:
        """Return the state machine of what *make_fsm* has made for a node."""
        if isinstance(made, Replicated):
            made = {"": made}
        if not isinstance(made, Mapping):
            return made

        def wall() -> float:
            return EPOCH + clock.seconds() + self._off.get(address, 0.0)

        return Machine(made, wall, clock.seconds)

    def _bare(self, fsm: FSM) -> FSM:
        """Return the state machine itself, if *fsm* wraps it."""
        return fsm

    def replicated(self, kind: type[S], at: str | None = None) -> S:
        """Return the object of class *kind* at a node, by default the leader.

        Raises: KeyError, if that node does not run or has none; ValueError, if there is
            no leader.
        """
        node = self.leader if at is None else self.nodes[at]
        machine = self._bare(node.fsm)
        if isinstance(machine, Machine):
            for each in machine.objects.values():
                if isinstance(each, kind):
                    return each
        raise KeyError(f"the node at {node.address} has no {kind.__name__}")

    def set_clock_off(self, address: str, seconds: float) -> None:
        """Let the wall clock of the node at *address* be *seconds* ahead from now on.

        It is what stamps the commands of replicated objects, and nothing else.
        """
        self._off[address] = seconds

    def clock_of(self, address: str) -> IReactorTime:
        """Return the clock of the node at *address*: the same for all nodes here."""
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
        """Let each step of a snapshot at *address* take *seconds* from now on.

        A step is taking it, restoring it, or receiving one piece of it.
        """
        self._slow_snapshots[address] = seconds

    def slow_disk(self, address: str, seconds: float) -> None:
        """Let each write of the node at *address* take *seconds* from now on."""
        self._slow_disks[address] = seconds

    def crash(self, address: str) -> None:
        """Crash the node at *address*: writes under way are lost, stores stay.

        Deferreds of its `Raft` fail as after `Raft.shutdown`, with RaftShutdown mostly.

        Raises: KeyError, if no such node runs.
        """
        # Out of `nodes` and the network first: the shutdown below must reach nobody, as
        # the death of a process does not.
        node = self.nodes.pop(address)
        for worker in node.workers.each:
            assert isinstance(worker, MemoryWorker), "a cluster's workers are these"
            worker.discard()
        node.transport.disconnect_all()
        for other in self.nodes.values():
            other.transport.disconnect(address)
        node.raft.shutdown().addErrback(lambda _: None)

    def restart(self, address: str) -> Node:
        """Crash the node at *address* if it runs, and start it from its stores."""
        if address in self.nodes:
            self.crash(address)
        return self.start_node(address)

    def wipe(self, address: str) -> None:
        """Crash the node at *address* if it runs, and throw its stores away."""
        if address in self.nodes:
            self.crash(address)
        del self._stores[address]

    def shutdown(self) -> None:
        """Shut all nodes down."""
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
        """Cut the links between *addresses* and all other nodes, in both directions."""
        for one in addresses:
            for other in [*self.nodes, *self._stores]:
                if other not in addresses:
                    self._cut.add(frozenset({one, other}))
        self._route()

    def heal(self) -> None:
        """Mend all links."""
        self._cut.clear()
        self._route()

    # Time

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass in steps of `STEP`; 0 only does what is due now."""
        self.clock.advance(0)
        # Small steps: within one `advance` of a `task.Clock`, a call that is scheduled
        # on the way comes at the end of it, so long steps would distort all timeouts.
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let time pass until *condition* is true.

        Raises: AssertionError, if it is still false after *seconds*.
        """
        self.clock.advance(0)
        for _ in range(round(seconds / STEP)):
            if condition():
                return
            self.clock.advance(STEP)
        assert condition(), f"the condition is still false after {seconds} s"

    def result(self, deferred: Deferred[T], seconds: float = 10.0) -> T:
        """Let time pass until *deferred* fires; return its result or raise its error.

        Raises: AssertionError, if it has not fired after *seconds*.
        """
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
        """The addresses of all nodes with stores, running or not, in order."""
        return sorted(self._stores)

    def leaders(self) -> list[Node]:
        """Return the nodes that are leaders in their own opinion.

        There may be two while one has not yet heard of a newer term.
        """
        return [n for n in self.nodes.values() if n.raft.state is RaftState.LEADER]

    @property
    def leader(self) -> Node:
        """The leader of the highest term. Raises: ValueError, if there is no leader."""
        return max(self.leaders(), key=lambda node: node.raft.term)

    @property
    def followers(self) -> list[Node]:
        """All running nodes but the leader."""
        leader = self.leader
        return [node for node in self.nodes.values() if node is not leader]

    def wait_for_leader(self, among: Iterable[str] | None = None) -> Node:
        """Wait until the nodes *among* agree on a leader among them; return it.

        By default these are all running nodes.

        Raises: AssertionError, if they do not agree within 10 s.
        """
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
        """Apply *data* through the leader; return its index and response.

        Raises: RaftError, as `Raft.apply` fails; AssertionError after 10 s.
        """
        return self.result(self.leader.raft.apply(data))

    def wait_for_all(self) -> None:
        """Wait until every running node has applied the whole log of the leader.

        Raises: AssertionError, if they have not within 10 s.
        """

        def applied() -> bool:
            if not self.leaders():
                return False
            last = self.leader.raft.last_index
            return {n.raft.applied_index for n in self.nodes.values()} == {last}

        self.wait_until(applied)
