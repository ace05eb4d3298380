"""The base of the roles: their inputs, their election timer, and their successors.

A role never replaces itself. An input that ends it returns a `Next`, and `Consensus`
makes the transition after the input has returned, so that no code of a role runs after
its end. `BaseRole` names all inputs and does nothing; a role overrides those that it
has an answer to.
"""

from __future__ import annotations

from enum import Enum
from random import Random

from txraft.core.messages import RequestPreVoteRequest, Response
from txraft.core.options import CoreOptions
from txraft.core.ready import OutgoingRequest
from txraft.core.server import ServerState


class Next(Enum):
    """What a role asks its server to become, and why."""

    FOLLOWER = "follow the leader of this term, once it is known"
    CAMPAIGN = "campaign: the election timeout is over"
    CAMPAIGN_WITHOUT_LEADER = "campaign: the leader has hung up"
    CAMPAIGN_FOR_TRANSFER = "campaign at once: the leader hands its leadership over"
    CANDIDATE = "ask for votes: a quorum would give them"
    LEADER = "lead: a quorum has voted for this server"


class ElectionTimer:
    """The election timeout: a random number of ticks to wait before a campaign.

    It is random so that servers seldom campaign at the same time and split the vote.
    A full wait takes at least *least* ticks and less than twice as many. A short one,
    of a fifth of a heartbeat timeout at most, is for when there surely is no leader.

    Source: Raft dissertation §3.4, §9.2.
    """

    __slots__ = ("_least", "_longest_short_wait", "_random", "_timeout", "elapsed")

    def __init__(self, random: Random, options: CoreOptions, least: int) -> None:
        self._random = random
        self._least = least
        self._longest_short_wait = max(1, options.heartbeat_timeout_ticks // 5)
        self.restart()

    # Each of these draws exactly one random number, when it is called and not later.
    # The seeds of the simulations, and of planted bugs that name one, depend on that
    # order.

    def restart(self) -> None:
        """Begin a full wait."""
        self.elapsed = 0
        self._timeout = self._least + self._random.randrange(self._least)

    def restart_short(self) -> None:
        """Begin a short wait."""
        self.elapsed = 0
        self._timeout = self._draw_short_wait()

    def shorten(self) -> None:
        """End this wait after a short one from now, if that is sooner."""
        self._timeout = min(self._timeout, self.elapsed + self._draw_short_wait())

    def end_with_next_tick(self) -> None:
        """Do not wait."""
        self._timeout = self.elapsed + 1

    def _draw_short_wait(self) -> int:
        return self._random.randint(1, self._longest_short_wait)

    def has_ended_after(self, ticks: int) -> bool:
        """Let *ticks* more pass, and tell whether the wait is over."""
        self.elapsed += ticks
        return self.elapsed >= self._timeout

    @property
    def least_has_passed(self) -> bool:
        """Whether the shortest possible full wait would be over."""
        return self.elapsed >= self._least


class BaseRole:
    """One role of one server: it lives from one transition to the next.

    What a role does not override, it ignores. The inputs are those of `Consensus`.
    """

    leader: str | None = None

    def __init__(self, server: ServerState) -> None:
        self.server = server

    @property
    def hears_leader(self) -> bool:
        """Whether there is a leader to protect from other candidates."""
        return False

    def tick(self, count: int) -> Next | None:
        """Let *count* ticks pass."""
        raise NotImplementedError

    def response(
        self, peer: str, request: OutgoingRequest, response: Response
    ) -> Next | None:
        """Take a response that is not of a newer term; it may have come late."""
        return None

    def unreachable(
        self, peer: str, request: OutgoingRequest, closed: bool
    ) -> Next | None:
        """Learn that *request*, perhaps of another role, got no response."""
        return None

    def unsupported(self, peer: str, request: OutgoingRequest) -> Next | None:
        """Learn that *peer* does not know this kind of request."""
        return None

    def synced(self, index: int) -> Next | None:
        """Learn that the log up to *index* is durable, as this role wrote it."""
        return None

    def granted_vote(self) -> Next | None:
        """Learn that this server has just given its vote away."""
        return None

    def flush(self) -> Next | None:
        """Send what the inputs since the last `ready` have made due."""
        return None

    def connection_lost(self, peer: str) -> None:
        """Learn that a connection from this server to *peer* is gone."""

    def disconnected(self, peer: str) -> None:
        """Learn that the last connection from *peer* is gone."""

    def consents(self, request: RequestPreVoteRequest) -> bool:
        """Tell whether the transfer that *request* names is still under way here."""
        return False

    def needs_ready(self, peer: str | None) -> bool:
        """Tell whether `ready` may have something after a response of *peer*.

        None stands for a write that became durable.
        """
        return True

    def may_compact_to(self, index: int) -> int:
        """Return the index, *index* at most, up to which no follower needs the log."""
        return index
