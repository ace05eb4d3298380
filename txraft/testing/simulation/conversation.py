"""The conversation of a run: its events as lines of text, for a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from zlib import crc32

from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import Refusal

MAX_LINES = 100_000
"""Lines that a conversation keeps at most; the oldest are dropped."""


class Conversation:
    """The last *keep* lines of a run; *write*, if given, is called with every line.

    `digest` is a checksum of all lines: two runs with the same one are the same run.
    """

    def __init__(
        self, keep: int = MAX_LINES, write: Callable[[str], object] | None = None
    ) -> None:
        self.lines: deque[str] = deque(maxlen=min(keep, MAX_LINES))
        self.digest = 0
        self._write = write

    def note(
        self, time: int, who: str, event: str, about: tuple[object, ...] = ()
    ) -> None:
        """Add a line: at *time*, in microseconds, *who* does *event* *about* things."""
        words = " ".join(describe(thing) for thing in about)
        line = f"{time / 1e6:11.6f}  {who}  {event} {words}".rstrip()
        self.digest = crc32(line.encode(), self.digest)
        self.lines.append(line)
        if self._write is not None:
            self._write(line)


def describe(thing: object) -> str:
    """Describe a message or another object in a few words."""
    match thing:
        case AppendEntriesRequest(is_heartbeat=True):
            return f"heartbeat, term {thing.term}"
        case AppendEntriesRequest():
            entries = " ".join(f"{e.index}.{e.term}" for e in thing.entries)
            previous = f"{thing.prev_log_index}.{thing.prev_log_term}"
            return (
                f"append after {previous} [{entries}], "
                f"commit {thing.leader_commit}, term {thing.term}"
            )
        case RequestVoteRequest() | RequestPreVoteRequest():
            kind = "vote" if isinstance(thing, RequestVoteRequest) else "pre-vote"
            last = f"{thing.last_log_index}.{thing.last_log_term}"
            return f"{kind} for term {thing.term}, log to {last}"
        case InstallSnapshotRequest():
            last = f"{thing.last_log_index}.{thing.last_log_term}"
            return f"snapshot to {last}, term {thing.term}"
        case AppendEntriesResponse() | InstallSnapshotResponse():
            return f"{_verdict(thing.success)}, term {thing.term}"
        case RequestVoteResponse() | RequestPreVoteResponse():
            return f"{_verdict(thing.granted)}, term {thing.term}"
        case Refusal():
            return f"error: {thing.error}"
        case bytes():
            return thing.decode(errors="replace")
    return str(thing)


def _verdict(agreed: bool) -> str:
    return "yes" if agreed else "no"
