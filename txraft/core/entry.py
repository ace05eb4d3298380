"""A log entry, as consensus sees it and as it travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from txraft.core.configuration import Configuration


class LogType(IntEnum):
    """What an entry is; the numbers are those on the wire."""

    COMMAND = 0
    NOOP = 1
    ADD_PEER = 2
    REMOVE_PEER = 3
    BARRIER = 4
    CONFIGURATION = 5


MEMBERSHIP_TYPES = frozenset(
    {LogType.ADD_PEER, LogType.REMOVE_PEER, LogType.CONFIGURATION}
)


@dataclass(slots=True)
class Entry:
    """One entry of the replicated log (the seed's `Log`).

    *index* and *term* are 0 until a leader has accepted the entry. *data* keeps
    nil (None) and empty (b"") apart, as the wire does. *configuration* is the whole
    membership that an entry of a membership type asserts, and None on all others.
    *encoded* is the entry's msgpack map as it goes to the file and to every
    follower, made once; consensus never looks at it. *cluster* is the identity that
    the first leader of a cluster gave it; it travels in *extensions*.
    """

    index: int
    term: int
    type: LogType
    data: bytes | None = None
    extensions: bytes | None = None
    configuration: Configuration | None = None
    cluster: bytes | None = None
    encoded: bytes = field(default=b"", compare=False, repr=False)
