"""Configurations: the membership that an entry of the log asserts, and its quorums.

A configuration always stands for the whole membership, never for a difference.
It says nothing about whether it is committed; `ConfigurationHistory` does.

Source: Raft dissertation §4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from txraft.errors import ConfigurationRefused


class Suffrage(IntEnum):
    """The right of a server to vote; the numbers are those on the wire."""

    VOTER = 0
    NONVOTER = 1
    STAGING = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A member: *address* is what others dial and how it is named on the wire.

    *id* equals *address* below protocol version 3.
    """

    id: str
    address: str
    suffrage: Suffrage = Suffrage.VOTER


@dataclass(frozen=True, slots=True)
class Configuration:
    """An immutable list of servers. Order has no meaning but is kept.

    *voters* are the addresses of those that vote, *addresses* those of all.
    """

    servers: tuple[Server, ...] = ()
    voters: tuple[str, ...] = field(init=False, repr=False, compare=False)
    addresses: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        voting = (s.address for s in self.servers if s.suffrage is Suffrage.VOTER)
        object.__setattr__(self, "voters", tuple(voting))
        object.__setattr__(self, "addresses", tuple(s.address for s in self.servers))

    @classmethod
    def of_voters(cls, addresses: Iterable[str]) -> Configuration:
        """Make a configuration of voters whose id is their address."""
        return cls(tuple(Server(address, address) for address in addresses))

    def server(self, address: str) -> Server | None:
        """Find a member by its address."""
        return next((s for s in self.servers if s.address == address), None)

    def id_of(self, address: str, otherwise: str) -> str:
        """Return the id of the server at *address*, *otherwise* if there is none."""
        server = self.server(address)
        return otherwise if server is None else server.id

    def is_voter(self, address: str) -> bool:
        """Tell whether the server at *address* votes."""
        return address in self.voters

    def with_server(self, server: Server) -> Configuration:
        """Add *server*, or replace the one that has its id or its address."""
        kept = self.without(server.address).servers
        return Configuration((*(s for s in kept if s.id != server.id), server))

    def without(self, address: str) -> Configuration:
        """Remove the server at *address*, if it is there."""
        return Configuration(tuple(s for s in self.servers if s.address != address))

    def check(self) -> None:
        """Refuse a membership that no cluster can run with.

        Raises: ConfigurationRefused
        Source: hashicorp/raft `checkConfiguration`.
        """
        ids = [s.id for s in self.servers]
        addresses = [s.address for s in self.servers]
        if not self.voters:
            raise ConfigurationRefused("a configuration needs at least one voter")
        if "" in ids or "" in addresses:
            raise ConfigurationRefused("a server has an empty id or address")
        if len(set(ids)) < len(ids) or len(set(addresses)) < len(addresses):
            raise ConfigurationRefused("two servers share an id or an address")

    def check_step_to(self, new: Configuration) -> None:
        """Refuse *new* unless quorums of both overlap: one voter more or less.

        Raises: ConfigurationRefused
        Source: Raft dissertation §4.1.
        """
        new.check()
        # Any majority of the old voters and any of the new ones share a server then, so
        # no two leaders of one term can be elected by the two. Two voters more or less
        # would allow it.
        changed = set(self.voters) ^ set(new.voters)
        if len(changed) > 1:
            raise ConfigurationRefused(
                f"more than one voter changes: {', '.join(sorted(changed))}"
            )


class ConfigurationHistory:
    """The configurations of the log, by the index of the entry that made each.

    The `latest` one, made by the entry at `latest_index`, is in force, committed or
    not; truncation brings back the one before it. The first always stands, so that
    there is something to fall back on.
    """

    def __init__(self, index: int = 0, configuration: Configuration | None = None):
        self._made: list[tuple[int, Configuration]] = [
            (index, configuration or Configuration())
        ]
        self.latest_index, self.latest = self._made[0]

    @property
    def indexes(self) -> list[int]:
        """The indexes of the entries that made the configurations, oldest first."""
        return [index for index, _ in self._made]

    def append(self, index: int, configuration: Configuration) -> None:
        """Take the configuration of the entry at *index*, newer than all others."""
        assert index > self.latest_index, "configurations come in log order"
        self._made.append((index, configuration))
        self.latest_index, self.latest = index, configuration

    def truncate_from(self, index: int) -> None:
        """Roll back configurations of entries at *index* and after."""
        # The first stays: it is from a snapshot or the start, and never truncated.
        while len(self._made) > 1 and self._made[-1][0] >= index:
            self._made.pop()
        self.latest_index, self.latest = self._made[-1]

    def at(self, index: int) -> tuple[int, Configuration]:
        """Return what was in force at *index*, and the index that made it."""
        for made, configuration in reversed(self._made):
            if made <= index:
                return made, configuration
        return self._made[0]

    def since(self, index: int) -> list[Configuration]:
        """List what was in force at *index* and what was made after it.

        With a commit index these are all that may turn out to be committed.
        """
        in_force, _ = self.at(index)
        return [configuration for made, configuration in self._made if made >= in_force]

    def forget_before(self, index: int) -> None:
        """Drop what is not needed to answer `at` for *index* or later."""
        # The second must be there by then: the first is in force up to it.
        while len(self._made) > 1 and self._made[1][0] <= index:
            del self._made[0]


def majority(voters: int) -> int:
    """Return how many of *voters* make a quorum.

    Source: Raft dissertation §3.3.
    """
    return voters // 2 + 1


def agreed_value(values: Iterable[int]) -> int:
    """Return the highest value that a quorum has reached, one value a voter.

    No voters agree on nothing: 0.
    Source: Raft dissertation §3.6.2.
    """
    # In descending order: the value at the middle, and all before it, which are a
    # majority, are at least as high. Of four it is the third, of five as well.
    ordered = sorted(values, reverse=True)
    return ordered[len(ordered) // 2] if ordered else 0
