"""Forwarders on the nodes of a cluster in memory, and taps on what reaches a node."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from tests.support.raft_cluster import ClusterCase
from txraft.core.messages import AnyRequest, AnyResponse, ForwardRequest
from txraft.interfaces import IncomingRPC, RPCHandler
from txraft.node.forwarding import Forwarder
from txraft.node.pending import ApplyResult
from txraft.testing import Cluster


class HeldRPC:
    """A request whose answer goes through a tap."""

    def __init__(self, rpc: IncomingRPC, tap: Tap) -> None:
        self.command: AnyRequest = rpc.command
        self.body = rpc.body
        self.connection = rpc.connection
        self._rpc = rpc
        self._tap = tap

    def respond(self, response: AnyResponse) -> None:
        if isinstance(self.command, ForwardRequest) and self._tap.holds_answers:
            self._tap.held.append(lambda: self._rpc.respond(response))
        else:
            self._rpc.respond(response)

    def fail(self, error: str) -> None:
        self._rpc.fail(error)


class Tap:
    """Passes what comes for *handler* on, and keeps what is forwarded to it.

    While `holds_answers` its answers to that wait in `held`.
    """

    def __init__(self, handler: RPCHandler) -> None:
        self.forwarded: list[ForwardRequest] = []
        self.holds_answers = False
        self.held: list[Callable[[], None]] = []
        self.takes = True
        self._handler = handler

    def rpc_received(self, rpc: IncomingRPC) -> None:
        if isinstance(rpc.command, ForwardRequest):
            self.forwarded.append(rpc.command)
            if not self.takes:
                return  # as if it was lost in this process
        self._handler.rpc_received(HeldRPC(rpc, self))

    def connection_closed(self, connection: object) -> None:
        self._handler.connection_closed(connection)

    def let_go(self) -> None:
        """Let all held answers leave."""
        self.holds_answers = False
        held, self.held = self.held, []
        for answer in held:
            answer()


class ForwardingCase(ClusterCase):
    """A cluster with a forwarder on each node; outcomes are awaited for 5 s."""

    def forwarders(self, cluster: Cluster) -> dict[str, Forwarder]:
        """Make a forwarder for each node that runs."""
        return {
            address: Forwarder(node.raft, node.transport, cluster.clock)
            for address, node in cluster.nodes.items()
        }

    def start(self, size: int = 3, **options: float) -> None:
        """Start a cluster, and take one follower for the tests."""
        self.c = self.cluster(size, **options)  # type: ignore[arg-type]
        self.all = self.forwarders(self.c)
        self.leader = self.c.leader
        self.follower = self.c.followers[0]
        self.forwarder = self.all[self.follower.address]

    def tap(self) -> Tap:
        """Put a tap on the leader."""
        shell = self.leader.raft._shell
        assert shell is not None, "it leads"
        tap = Tap(shell)
        self.leader.transport.set_handler(tap)
        return tap

    def apply(
        self, data: bytes, seconds: float = 5.0, at: Forwarder | None = None
    ) -> Deferred[ApplyResult]:
        return (at or self.forwarder).apply(data, self.c.clock.seconds() + seconds)

    def read(self, seconds: float = 5.0, max_stale: float = 0.0) -> Deferred[int]:
        deadline = self.c.clock.seconds() + seconds
        return self.forwarder.linearizable(deadline, max_stale)
