"""Membership entries, in the types that each protocol version writes.

| version | addition            | removal             |
|---------|---------------------|---------------------|
| 0, 1    | 2, the whole list   | 3, the whole list   |
| 2, 3    | 5                   | 5                   |

A type-3 entry founding or growing a membership would pass at old peers for their
own removal. Who founds a cluster is told apart from who waits to be added here too.
"""

from __future__ import annotations

from collections.abc import Iterable

from txraft.core.configuration import Configuration, Server
from txraft.core.entry import Entry, LogType
from txraft.errors import ConfigurationRefused


def added(configuration: Configuration, server: Server, version: int) -> Entry:
    """Make the entry that adds *server*."""
    kind = LogType.ADD_PEER if version < 2 else LogType.CONFIGURATION
    return Entry(0, 0, kind, configuration=configuration.with_server(server))


def removed(configuration: Configuration, address: str, version: int) -> Entry:
    """Make the entry that removes the server at *address*."""
    kind = LogType.REMOVE_PEER if version < 2 else LogType.CONFIGURATION
    return Entry(0, 0, kind, configuration=configuration.without(address))


def founders(peers: Iterable[str], address: str, server_id: str) -> Configuration:
    """Make the membership that *peers* found, of which the one at *address* is us.

    It is empty without peers.
    Raises: ConfigurationRefused, if there are peers and we are not one of them.
    """
    addresses = sorted(set(peers))
    if addresses and address not in addresses:
        raise ConfigurationRefused(
            f"{address} is not among its peers: {', '.join(addresses)}"
        )
    return Configuration(
        tuple(Server(server_id if a == address else a, a) for a in addresses)
    )
