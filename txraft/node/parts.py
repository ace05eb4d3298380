"""Parts: the plug points that a node is made of, and the owner that it reports to."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.core.messages import RequestVoteRequest
from txraft.interfaces import (
    FSM,
    LogStore,
    PeerStore,
    SnapshotStore,
    StableStore,
    Transport,
)
from txraft.node.worker import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The plug points of one node, and what it runs on.

    *fsm*, the stores, *snapshots* and *transport* are the application's; *address* is
    where peers reach this node, *server_id* counts at protocol version 3 only. *random*
    draws election timeouts, and when snapshots are due.
    """

    config: Config
    fsm: FSM
    log_store: LogStore
    stable_store: StableStore
    snapshots: SnapshotStore
    peer_store: PeerStore
    address: str
    server_id: str
    transport: Transport
    clock: IReactorTime
    random: Random
    workers: Workers


class Owner(Protocol):
    """The holder of a shell, which is told what a turn brought about: `Raft`."""

    def after_turn(self) -> None:
        """Look at role, leader and membership: they may have changed."""

    def vote_requested(self, request: RequestVoteRequest) -> None:
        """Learn that a candidate asks for a vote."""

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""
