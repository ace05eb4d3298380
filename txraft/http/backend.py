"""What the HTTP API needs of a node: the part of `Raft` that it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from txraft.core.configuration import Configuration
from txraft.node.admission import Admission
from txraft.node.events import Observer, RaftState
from txraft.node.metrics import NodeMetrics
from txraft.node.pending import ApplyResult


class Node(Protocol):
    """A member of the cluster. Every Deferred fails with a RaftError."""

    @property
    def leader(self) -> str | None:
        """The address of the leader, None when none is known."""

    @property
    def state(self) -> RaftState:
        """What this node is doing."""

    @property
    def last_contact(self) -> float | None:
        """When the leader was last heard from, on the node's clock."""

    @property
    def term(self) -> int:
        """The current term."""

    @property
    def configuration(self) -> Configuration:
        """The members as this node knows them."""

    def stats(self) -> dict[str, str]:
        """Return figures for an operator."""

    def metrics(self) -> NodeMetrics:
        """Return figures for whoever watches this node."""

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        """Commit and apply *data*; leader only."""

    def barrier(self, timeout: float | None = None) -> Deferred[int]:
        """Wait until all that was committed is applied; leader only."""

    def linearizable(self) -> Deferred[int]:
        """Wait until a local read is linearizable; leader only."""

    def add_peer(self, address: str) -> Deferred[int]:
        """Make *address* a member; leader only."""

    def admit_peer(self, address: str) -> Deferred[Admission]:
        """Make *address* a voter if nothing speaks against it; leader only."""

    def remove_peer(self, address: str) -> Deferred[int]:
        """Make *address* no member; leader only."""

    def remove_server(self, id: str) -> Deferred[int]:
        """Make the server *id* no member; leader only."""

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        """Hand leadership to the voter at *target*; leader only."""

    def peers(self) -> list[str]:
        """Return the addresses of all members."""

    def watch_members(
        self, callback: Callable[[Configuration], object]
    ) -> Callable[[], None]:
        """Tell *callback* of each committed membership; return what ends that."""

    def register_observer(self, observer: Observer) -> None:
        """Tell *observer* of changes of role and leader."""

    def deregister_observer(self, observer: Observer) -> None:
        """Tell *observer* no more."""
