"""What a node is made of, and who is told what it brings about."""

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
    """What a node is made of: the plug points, and where it runs."""

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
    """Who is told what a turn brought about."""

    def turned(self) -> None:
        """Look at role, leader and membership: they may have changed."""

    def vote_requested(self, request: RequestVoteRequest) -> None:
        """Learn that a candidate asks for a vote."""

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""
