"""Nodes on a `task.Clock`, with all that they need of a machine in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.embedding.host import Host, MemberSettings
from txraft.embedding.node import Node
from txraft.interfaces import FSM, RPCHandler
from txraft.node.worker import MemoryWorker, Workers
from txraft.replicated.objects import Replicated
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.stores import Stores
from txraft.testing.cluster import FAST, STEP, ListFSM
from txraft.transport.identity_check import IdentityCheck
from txraft.transport.inmem import InmemTransport


class ListeningTransport(InmemTransport):
    """A transport in memory that tells when it is opened and closed."""

    def __init__(self, host: MemoryHost, address: str) -> None:
        super().__init__(host.clock, address)
        self.host = host
        self.check: IdentityCheck | None = None

    def listen(self) -> Deferred[None]:
        """Be reachable, unless the host has another error."""
        return self.host.step("listen")

    def set_identity_check(self, check: IdentityCheck) -> None:
        """Keep it: nothing here comes with a certificate to check."""
        self.check = check

    def set_handler(self, handler: RPCHandler) -> None:
        """Note whether what comes from now on would be checked."""
        self.host.checked = self.check is not None
        super().set_handler(handler)

    def close(self) -> Deferred[None]:
        """Tell it, too."""
        self.host.events.append("transport closed")
        return super().close()


class NoPeerFile:
    """A list of members that nobody reads."""

    def peers(self) -> list[str]:
        return []

    def servers(self) -> list[Any]:
        return []

    def set_peers(self, peers: object) -> None:
        pass

    def set_servers(self, servers: object) -> None:
        pass


class MemoryHost:
    """A `Host` in memory, which lists in `events` what is done to it.

    A step of the start that is in `errors` fails with that, and one in `held` waits
    for that Deferred.
    """

    def __init__(self, clock: Clock, address: str) -> None:
        self.clock = clock
        self.events: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.held: dict[str, Deferred[None]] = {}
        # Whether requests are checked, once there is somebody to take them.
        self.checked: bool | None = None
        self.network = ListeningTransport(self, address)
        self.store = InmemStore()

    def step(self, name: str) -> Deferred[None]:
        """Take a step of the start."""
        self.events.append(name)
        if name in self.errors:
            return fail(self.errors[name])
        return self.held.get(name) or succeed(None)

    def lock(self) -> None:
        self.events.append("lock")

    def transport(self) -> ListeningTransport:
        return self.network

    def workers(self) -> Workers:
        def later(call: Callable[[], bool]) -> object:
            return self.clock.callLater(0, call)

        return Workers(*(MemoryWorker(later) for _ in range(4)))

    def stores(self) -> Stores:
        self.events.append("stores")
        if "stores" in self.errors:
            raise self.errors["stores"]
        return Stores(self.store, self.store, self._close_stores)

    def snapshots(self) -> InmemSnapshotStore:
        return InmemSnapshotStore()

    def peer_file(self) -> NoPeerFile:
        return NoPeerFile()

    def unlock(self) -> None:
        self.events.append("unlock")

    def _close_stores(self) -> None:
        self.events.append("stores closed")
        if "close" in self.errors:
            raise self.errors["close"]


class MemoryNode(Node):
    """A `Node` on a `MemoryHost`, its `host`."""

    def __init__(
        self,
        clock: Clock,
        address: str,
        peers: list[str],
        machine: FSM | Replicated | None = None,
        tls: Mapping[str, Any] | None = None,
        **objects: Replicated,
    ) -> None:
        if machine is None and not objects:
            machine = ListFSM()
        super().__init__(
            f"data of {address}",
            machine,
            **objects,
            address=address,
            peers=peers,
            tls=tls,
            config=FAST,
            reactor=clock,
        )
        self.host = MemoryHost(clock, address)

    def host_on(self, reactor: Any, settings: MemberSettings) -> Host:
        """Give its own."""
        return self.host


class NodeCase(SynchronousTestCase):
    """Has a clock and three nodes in memory, `nodes`, none of which has started."""

    def setUp(self) -> None:
        self.clock = Clock()
        peers = [f"127.0.0.1:{port}" for port in (1, 2, 3)]
        self.nodes = [MemoryNode(self.clock, address, peers) for address in peers]
        for one in self.nodes:
            for other in self.nodes:
                if one is not other:
                    one.host.network.connect(other.address, other.host.network)

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* pass, in steps."""
        for _ in range(round(seconds / STEP) + 1):
            self.clock.advance(STEP)

    def settle(self) -> None:
        """Let happen all that needs no time, with the turns that it takes."""
        for _ in range(50):
            self.clock.advance(0)

    def start_all(self) -> MemoryNode:
        """Start all nodes, and return the one that leads."""
        started = [node.start() for node in self.nodes]
        self.pass_time(2.0)
        for outcome in started:
            self.successResultOf(outcome)
        return self.leader

    @property
    def leader(self) -> MemoryNode:
        """The node that leads."""
        address = self.nodes[0].raft.leader or self.nodes[1].raft.leader
        return next(node for node in self.nodes if node.address == address)

    @property
    def follower(self) -> MemoryNode:
        """A node that does not lead."""
        return next(node for node in self.nodes if node is not self.leader)
