"""Membership changes: functions that make the entry of a change from the members.

A change waits until the one before it is committed, so what is asked for is kept as a
`MakeEntry`, which is called with the membership that holds by then. It raises what the
caller is then told.

Each protocol version writes other types of entries:

| version | addition            | removal             |
|---------|---------------------|---------------------|
| 0, 1    | 2, the whole list   | 3, the whole list   |
| 2, 3    | 5                   | 5                   |

Source: Raft dissertation §4.1; hashicorp/raft, protocol versions 0 to 3.
"""

from __future__ import annotations

from collections.abc import Callable

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.errors import ConfigurationRefused, KnownPeer, UnknownPeer

FIRST_VERSION_WITH_IDS = 3
FIRST_VERSION_WITH_CONFIGURATIONS = 2

MakeEntry = Callable[[Configuration], Entry]
"""Makes the entry of a change. Raises: ConfigurationRefused, KnownPeer, UnknownPeer"""


def voter_added(server: Server, version: int) -> MakeEntry:
    """Make *server* a voter, new or a nonvoter so far."""

    def make(configuration: Configuration) -> Entry:
        if configuration.is_voter(server.address):
            raise KnownPeer(f"{server.address} is a member already")
        return _with(configuration, server, version)

    return make


def nonvoter_added(server: Server, version: int) -> MakeEntry:
    """Make *server* a member that gets entries but has no vote."""

    def make(configuration: Configuration) -> Entry:
        _check_nonvoters_exist(version)
        if configuration.server(server.address) is not None:
            raise KnownPeer(f"{server.address} is a member already")
        return _with(configuration, server, version)

    return make


def voter_demoted(id: str, version: int) -> MakeEntry:
    """Take the vote of the server *id*."""

    def make(configuration: Configuration) -> Entry:
        _check_nonvoters_exist(version)
        address = _address_of(configuration, id)
        if not configuration.is_voter(address):
            raise ConfigurationRefused(f"server {id} has no vote")
        return added(configuration, Server(id, address, Suffrage.NONVOTER), version)

    return make


def server_removed(id: str, version: int) -> MakeEntry:
    """Remove the server *id*."""

    def make(configuration: Configuration) -> Entry:
        return removed(configuration, _address_of(configuration, id), version)

    return make


def peer_removed(address: str, version: int) -> MakeEntry:
    """Remove the server at *address*."""

    def make(configuration: Configuration) -> Entry:
        if configuration.server(address) is None:
            raise UnknownPeer(f"{address} is not a member")
        return removed(configuration, address, version)

    return make


def added(configuration: Configuration, server: Server, version: int) -> Entry:
    """Make the entry that adds *server*, or changes it."""
    kind = (
        LogType.ADD_PEER
        if version < FIRST_VERSION_WITH_CONFIGURATIONS
        else LogType.CONFIGURATION
    )
    return Entry(0, 0, kind, configuration=configuration.with_server(server))


def removed(configuration: Configuration, address: str, version: int) -> Entry:
    """Make the entry that removes the server at *address*."""
    # Only a removal has type 3: old peers take that type for their own removal, so an
    # entry that adds somebody must never have it.
    kind = (
        LogType.REMOVE_PEER
        if version < FIRST_VERSION_WITH_CONFIGURATIONS
        else LogType.CONFIGURATION
    )
    return Entry(0, 0, kind, configuration=configuration.without(address))


def check_has_no_id(server: Server) -> None:
    """Refuse what only protocol version 3 can write. Raises: ConfigurationRefused"""
    if server.id != server.address or server.suffrage is not Suffrage.VOTER:
        raise ConfigurationRefused(
            f"server {server.id} at {server.address}: ids and nonvoters need "
            f"protocol version {FIRST_VERSION_WITH_IDS}"
        )


def _with(configuration: Configuration, server: Server, version: int) -> Entry:
    """Make the entry that adds *server*, whose names no other member may have."""
    if version < FIRST_VERSION_WITH_IDS:
        check_has_no_id(server)
    for known in configuration.servers:
        same_id = known.id == server.id
        same_address = known.address == server.address
        is_renamed = same_address and not same_id
        # A voter that moves would be two voters for a moment: the old address may
        # still vote. A nonvoter has no vote to give twice.
        is_moved = same_id and not same_address
        if is_renamed or (is_moved and known.suffrage is Suffrage.VOTER):
            raise ConfigurationRefused(
                f"{known.address} is server {known.id}; remove that one first"
            )
    return added(configuration, server, version)


def _check_nonvoters_exist(version: int) -> None:
    if version < FIRST_VERSION_WITH_IDS:
        raise ConfigurationRefused(
            f"nonvoters need protocol version {FIRST_VERSION_WITH_IDS}, "
            f"this is {version}"
        )


def _address_of(configuration: Configuration, id: str) -> str:
    for server in configuration.servers:
        if server.id == id:
            return server.address
    raise UnknownPeer(f"there is no server {id}")
