"""What every role does unless it does better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import RequestPreVoteRequest, Response
from txraft.core.ready import OutgoingRequest

if TYPE_CHECKING:
    from txraft.core.consensus import Consensus


class BaseRole:
    """One role of one server; it lives from one transition to the next."""

    leader: str | None = None
    hears_leader = False

    def __init__(self, consensus: Consensus) -> None:
        self.consensus = consensus

    def tick(self, count: int) -> None:
        """Let *count* ticks pass."""
        raise NotImplementedError

    def response(self, peer: str, request: OutgoingRequest, response: Response) -> None:
        """Take an answer that is not of a newer term; ignored if it came late."""

    def unreachable(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Learn that *request* got no answer; ignored if it is of another role."""

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Learn that *peer* does not know this kind of request."""

    def consents(self, request: RequestPreVoteRequest) -> bool:
        """Tell whether the transfer that *request* names still is under way here."""
        return False

    def connection_lost(self, peer: str) -> None:
        """Learn that a connection from this server to *peer* is gone."""

    def disconnected(self, peer: str) -> None:
        """Learn that the last connection from *peer* is gone."""

    def synced(self, index: int) -> None:
        """Learn that the log up to *index* is durable, as this role wrote it."""

    def has_news(self, peer: str | None) -> bool:
        """Tell whether an answer of *peer*, or None for a sync, asks for more."""
        return True

    def may_compact_to(self, index: int) -> int:
        """Return how much of the log up to *index* nobody will need."""
        return index

    def granted_vote(self) -> None:
        """Learn that this server has just given its vote away."""

    def configuration_changed(self) -> None:
        """Learn that another configuration is in force."""

    def flush(self) -> None:
        """Send what inputs since the last `ready` have made due."""
