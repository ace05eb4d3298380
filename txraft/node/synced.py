"""The note of how far the log was synced: an index and its term, beside term and vote.

A log that lost its newest part looks like a shorter log that is whole. What tells the
two apart is written down elsewhere, in the `StableStore`, now and then. Three rules
make it a bound that a healthy log never falls below, wherever a crash comes:

1. It is written after what it names is synced.
2. It is lowered, durably, before the log is truncated or reset below it.
3. A snapshot at or above it stands for all of it.

It costs no sync of its own on the way of a commit: it goes along with every write of
term and vote, and is written by itself only when the disk rests, at times when it
never does, with a snapshot, and at a clean stop.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from txraft.interfaces import StableStore

SYNCED_LOG = b"SyncedLog"
CURRENT_TERM = b"CurrentTerm"

_LAYOUT = struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The newest entry of a log that is synced, or of the snapshot it begins behind.

    A *term* of 0 is one that is not known.
    """

    index: int = 0
    term: int = 0


NOTHING = LogEnd()
"""The end of an empty log, and what is noted before anything is."""


def noted_end(end: LogEnd, current_term: int) -> dict[bytes, bytes]:
    """Encode *end* under its key, with the *current_term* that is stored beside it."""
    return {SYNCED_LOG: _LAYOUT.pack(end.index, end.term, current_term)}


def read_noted_end(store: StableStore) -> LogEnd:
    """Return what is noted, an index of 0 for nothing. Thread: writer.

    A note beside another term than its own does not count: a version that knows of
    no notes has run since, and may have truncated the log.
    """
    stored = store.get(SYNCED_LOG)
    if len(stored) != _LAYOUT.size:
        return NOTHING
    index, term, current_term = _LAYOUT.unpack(stored)
    if current_term != store.get_uint64(CURRENT_TERM):
        return NOTHING
    return LogEnd(index, term)


class SyncedNote:
    """Keeps the note of *store*, in which *noted* is noted at the start.

    `end` is what may be noted; whoever writes the log sets it, once that is synced.
    *current_term* is the one in *store*.
    Thread: writer, or the reactor while the writer does nothing.
    """

    __slots__ = ("_current_term", "_noted", "_store", "end")

    def __init__(
        self, store: StableStore, end: LogEnd, noted: LogEnd, current_term: int
    ) -> None:
        self._store = store
        self.end = end
        self._noted = noted
        self._current_term = current_term

    @property
    def is_behind(self) -> bool:
        """Whether there is something new to note."""
        return self.end != self._noted

    def write(self) -> None:
        """Note the end of the log, if that is new. Durable: when this returns."""
        if self.is_behind:
            self.save({})

    def save(self, values: Mapping[bytes, bytes]) -> None:
        """Store *values*, and the note along with them.

        Durable: all of it, when this returns.
        """
        end = self.end
        self._store.set_many({**values, **noted_end(end, self._current_term)})
        self._noted = end

    def save_state(self, values: Mapping[bytes, bytes], current_term: int) -> None:
        """Store *values*, in which *current_term* is, and the note along with them.

        Durable: all of it, when this returns.
        """
        self._current_term = current_term
        self.save(values)

    def lower(self, end: LogEnd) -> None:
        """Learn that the log is to end at *end* from now on.

        Durable: a note that speaks of no entry behind it, when this returns.
        """
        self.end = end
        if self._noted.index > end.index:
            self.save({})
