"""Membership entries, in the types that each protocol version writes.

| version | addition            | removal             |
|---------|---------------------|---------------------|
| 0, 1    | 2, the whole list   | 3, the whole list   |
| 2, 3    | 5                   | 5                   |

A type-3 entry founding or growing a membership would pass at old peers for their
own removal.
"""

from __future__ import annotations

from txraft.core.configuration import Configuration, Server
from txraft.core.entry import Entry, LogType


def added(configuration: Configuration, server: Server, version: int) -> Entry:
    """Make the entry that adds *server*."""
    kind = LogType.ADD_PEER if version < 2 else LogType.CONFIGURATION
    return Entry(0, 0, kind, configuration=configuration.with_server(server))


def removed(configuration: Configuration, address: str, version: int) -> Entry:
    """Make the entry that removes the server at *address*."""
    kind = LogType.REMOVE_PEER if version < 2 else LogType.CONFIGURATION
    return Entry(0, 0, kind, configuration=configuration.without(address))
