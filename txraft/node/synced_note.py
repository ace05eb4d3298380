"""The synced note: how far the log was synced, as an index and a term beside the vote.

A log that lost its newest entries looks like a shorter log that is whole. To tell the
two apart, the `StableStore` holds a note: the end of the log as it was synced at some
time. A start refuses a log that ends below its note. Three rules make sure that a
healthy log never does, wherever a crash comes:

1. The note is written after the entries that it names are synced.
2. It is lowered, durably, before the log is truncated or reset below it.
3. A snapshot at or above it stands for all of it.

The note costs no sync of its own on the way of a commit. It goes along with every write
of term and vote. By itself it is written only when the disk is idle, now and then if it
never is, with a snapshot, and at a clean stop.

In between, a `HintingStableStore` is given a *hint*: a later end, not synced, which may
be lost. Each note has a number, and a hint names the note that it was given after. It
counts only beside that very note. So to write a new note voids all hints, in one write.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from txraft.errors import StorageError
from txraft.interfaces import HintingStableStore, StableStore
from txraft.node.application import done

SYNCED_LOG = b"SyncedLog"
CURRENT_TERM = b"CurrentTerm"

_LAYOUT = struct.Struct(">QQQQ")
_HINT = struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The newest synced entry of a log, or the end of the snapshot before it.

    *term* is 0 if it is not known.
    """

    index: int = 0
    term: int = 0


NOTHING = LogEnd()
"""The end of an empty log, and what is noted before anything is."""


ANY = LogEnd((1 << 64) - 1)
"""An end behind every other."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What was found on the disk.

    *end* is what the note says, *hint* what a hint beside it says. Each note has a
    higher *number* than the one before it. *is_hint_unread*: there may be a hint, but
    it could not be read.
    """

    end: LogEnd = NOTHING
    hint: LogEnd = NOTHING
    number: int = 0
    is_hint_unread: bool = False

    @property
    def reaches(self) -> LogEnd:
        """The latest end that the log surely had: that of the note, or of the hint."""
        return self.hint if self.hint.index > self.end.index else self.end

    @property
    def claimed(self) -> LogEnd:
        """The latest end that note or hint may name.

        A truncation below it must lower the note first.
        """
        # An unread hint may name any end. It may become readable later, when somebody
        # mends its permissions, and must not count then against a truncated log.
        return ANY if self.is_hint_unread else self.reaches


UNNOTED = Noted()
"""What is found before anything was noted."""


def encoded_note(end: LogEnd, current_term: int, number: int) -> dict[bytes, bytes]:
    """Encode *end* under its key, with the *current_term* that is stored beside it."""
    return {SYNCED_LOG: _LAYOUT.pack(end.index, end.term, current_term, number)}


def forgotten(store: StableStore, current_term: int) -> dict[bytes, bytes]:
    """Encode that nothing is known of the log, whatever is noted in *store* now.

    It goes on counting: a hint from before must not fit a note to come.
    """
    return encoded_note(NOTHING, current_term, read_note(store).number + 1)


def read_note(store: StableStore) -> Noted:
    """Return what is noted. Thread: writer.

    A note counts only beside the term that it was written with. If the stored term is
    another one, a version without notes has run since, and may have truncated the log.
    """
    stored = store.get(SYNCED_LOG)
    if len(stored) != _LAYOUT.size:
        return UNNOTED
    index, term, current_term, number = _LAYOUT.unpack(stored)
    if current_term != store.get_uint64(CURRENT_TERM):
        # The number goes on all the same: a hint that is left must not fit a later
        # note.
        return Noted(number=number)
    end = LogEnd(index, term)
    try:
        return Noted(end, _read_hint(store, number), number)
    except (OSError, StorageError):
        return Noted(end, number=number, is_hint_unread=True)


def _read_hint(store: StableStore, number: int) -> LogEnd:
    hint = store.hinted() if isinstance(store, HintingStableStore) else b""
    if len(hint) != _HINT.size:
        return NOTHING
    index, term, beside = _HINT.unpack(hint)
    return LogEnd(index, term) if beside == number else NOTHING


class SyncedNote:
    """Keeps the note of *store*, in which *noted* was found at the start.

    `end` is what may be noted; whoever writes the log sets it, once that is synced.
    *current_term* is the one in *store*.
    Thread: writer, or the reactor while the writer does nothing.
    """

    __slots__ = (
        "_claimed",
        "_current_term",
        "_hints",
        "_noted",
        "_number",
        "_store",
        "end",
    )

    def __init__(
        self, store: StableStore, end: LogEnd, noted: Noted, current_term: int
    ) -> None:
        self._store = store
        self._hints = store if isinstance(store, HintingStableStore) else None
        self.end = end
        # What the note says; what note or hint says at most; the number of the note.
        self._noted = noted.end
        self._claimed = noted.claimed
        self._number = noted.number
        self._current_term = current_term

    @property
    def is_behind(self) -> bool:
        """Whether there is something new to note."""
        return self.end != self._noted

    def hint(self) -> None:
        """Give a hint of the end of the log, if it is later than what is known."""
        end = self.end
        if self._hints is not None and self._number and end.index > self._claimed.index:
            self._hints.hint(_HINT.pack(end.index, end.term, self._number))
            self._claimed = end

    def write(self) -> None:
        """Note the end of the log, if that is new. Durable: when this returns."""
        if self.is_behind:
            self.save({})

    def save(self, values: Mapping[bytes, bytes]) -> None:
        """Store *values*, and the note along with them.

        Durable: all of it, when this returns.
        """
        end, number = self.end, self._number + 1
        note = encoded_note(end, self._current_term, number)
        done(self._store.set_many, {**values, **note})
        self._noted = self._claimed = end
        self._number = number

    def save_state(self, values: Mapping[bytes, bytes], current_term: int) -> None:
        """Store *values*, in which *current_term* is, and the note along with them.

        Durable: all of it, when this returns.
        """
        self._current_term = current_term
        self.save(values)

    def lower(self, end: LogEnd) -> None:
        """Learn that the log is about to end at *end*.

        Durable: that neither note nor hint names an entry behind it, when this returns.
        """
        self.end = end
        # To save is to write a new number, which voids all hints as well.
        if self._claimed.index > end.index:
            self.save({})
