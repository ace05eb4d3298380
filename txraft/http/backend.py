"""The interface between the HTTP API and a node: the part of `Raft` that it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from txraft.core.configuration import Configuration
from txraft.node.admission import Admission
from txraft.node.events import Observer, RaftState
from txraft.node.metrics import NodeMetrics
from txraft.node.pending import ApplyResult


class RaftNode(Protocol):
    """A member of the cluster. Every Deferred fails only with a RaftError."""

    @property
    def leader(self) -> str | None:
        """The address of the leader, None when none is known."""

    @property
    def state(self) -> RaftState:
        """The role of this node."""

    @property
    def last_contact(self) -> float | None:
        """The time of the last message of the leader, on the node's clock."""

    @property
    def term(self) -> int:
        """The current term."""

    @property
    def configuration(self) -> Configuration:
        """The members as this node knows them."""

    def stats(self) -> dict[str, str]:
        """Return statistics for an operator."""

    def metrics(self) -> NodeMetrics:
        """Return metrics for a monitoring system."""

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        """Commit and apply *data*; leader only."""

    def barrier(self, timeout: float | None = None) -> Deferred[int]:
        """Wait until all that was committed is applied; leader only."""

    def linearizable(self) -> Deferred[int]:
        """Wait until a local read is linearizable; leader only."""

    def add_peer(self, address: str) -> Deferred[int]:
        """Make *address* a member; leader only."""

    def admit_peer(self, address: str) -> Deferred[Admission]:
        """Make *address* a voter if it is reachable and up to date; leader only."""

    def remove_peer(self, address: str) -> Deferred[int]:
        """Remove the member at *address*; leader only."""

    def remove_server(self, id: str) -> Deferred[int]:
        """Remove the server *id*; leader only."""

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        """Transfer leadership to the voter at *target*; leader only."""

    def peers(self) -> list[str]:
        """Return the addresses of all members."""

    def watch_members(
        self, callback: Callable[[Configuration], object]
    ) -> Callable[[], None]:
        """Call *callback* at each committed membership; return what ends that."""

    def register_observer(self, observer: Observer) -> None:
        """Notify *observer* of changes of role and leader."""

    def deregister_observer(self, observer: Observer) -> None:
        """Stop notifying *observer*."""
