"""A log entry, as consensus sees it and as it travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from txraft.core.configuration import Configuration


class LogType(IntEnum):
    """The kind of an entry; the numbers are those on the wire."""

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
    """One entry of the replicated log (`Log` in hashicorp/raft).

    Not frozen: the leader that accepts an entry gives it its *index* and *term*, which
    are 0 until then.
    """

    index: int
    term: int
    type: LogType

    # nil (None) and empty (b"") are two things, as on the wire.
    data: bytes | None = None
    extensions: bytes | None = None

    # The whole membership that an entry of a membership type asserts, None on others.
    configuration: Configuration | None = None

    # The identity that the first leader of a cluster gave it; it is in *extensions*.
    cluster: bytes | None = None

    # The entry's msgpack map as it goes to the file and to every follower, made once.
    # Consensus never looks at it.
    encoded: bytes = field(default=b"", compare=False, repr=False)
