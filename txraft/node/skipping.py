"""Skipping: leave out a command that no member can apply, so that the cluster goes on.

A state machine that raises at a command stops its node; and as all members apply the
same commands, it stops node after node, and each again after its restart. The way out
is an operator's act, on each member while it is stopped: that one entry is skipped from
then on, as if it had been refused. Replicas stay equal by these rules:

1. Only an entry at which this node has stopped is skipped. It was committed then, so
   every member has it, or will have it. That is noted when the node stops.
2. It is named by index, term and digest, and nothing else is skipped in its place.
3. Not behind a snapshot: its effects, if it had any, would be in there.
4. What is skipped stays on record, for members to be compared. A snapshot comes with
   the record of who has sent it.
5. A snapshot is taken once the entry is skipped, and the log is cut behind it, whatever
   `trailing_logs` says: no server that is added later gets the entry.

Where the state machine takes batches it is not known which command of one has failed.
Then, after the next start, the node applies these one by one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from twisted.logger import Logger

from txraft.core.entry import Entry, LogType
from txraft.errors import ConfigurationRefused, SkipRefused, StorageError
from txraft.interfaces import LogStore, StableStore
from txraft.node.ownership import SnapshotShelf

FAILED = b"FailedEntries"
SKIPPED = b"SkippedEntries"

MAX_SKIPPED = 1000
"""So many entries are skipped at most; each takes less than 60 bytes."""

DIGEST_BYTES = 32
MIN_DIGITS = 16
"""So many digits of a digest name an entry, together with index and term."""

_RUN = struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry that is skipped; *digest* is the SHA-256 of its data."""

    index: int
    term: int
    digest: bytes

    def __str__(self) -> str:
        """Write it as INDEX:TERM:DIGEST, with the digits that suffice."""
        return f"{self.index}:{self.term}:{self.digest.hex()[:MIN_DIGITS]}"

    def is_named(self, index: int, term: int, digest: str) -> bool:
        """Tell whether *index*, *term* and digits of a *digest* name this."""
        is_same = self.digest.hex().startswith(digest.lower())
        is_same = is_same and len(digest) >= MIN_DIGITS
        return is_same and (self.index, self.term) == (index, term)

    def names(self, entry: Entry) -> bool:
        """Tell whether this is *entry*."""
        return (
            entry.type is LogType.COMMAND
            and (self.index, self.term) == (entry.index, entry.term)
            and self.digest == digest_of(entry)
        )


@dataclass(frozen=True, slots=True)
class FailedRun:
    """The committed entries *first* to *last*, of which the node stopped at one.

    *term* is that of *last*. 0 stands for none.
    """

    first: int = 0
    last: int = 0
    term: int = 0


NEVER_FAILED = FailedRun()
"""What is noted before any failure."""


def digest_of(entry: Entry) -> bytes:
    """Return the digest that names *entry*, together with its index and term."""
    return hashlib.sha256(entry.data or b"").digest()


def noted_failure(entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """Encode that the state machine failed at one of the committed *entries*."""
    first, last = entries[0], entries[-1]
    return {FAILED: _RUN.pack(first.index, last.index, last.term)}


def read_failure(store: StableStore) -> FailedRun:
    """Return at which entries the node has stopped, the latest time. Thread: writer."""
    stored = store.get(FAILED)
    return FailedRun(*_RUN.unpack(stored)) if len(stored) == _RUN.size else NEVER_FAILED


def noted_skips(skipped: Iterable[SkippedEntry]) -> dict[bytes, bytes]:
    """Encode what is *skipped* under its key."""
    return {SKIPPED: encode_skips(skipped)}


def encode_skips(skipped: Iterable[SkippedEntry]) -> bytes:
    """Encode what is *skipped*, b"" for nothing."""
    listed = [[each.index, each.term, each.digest] for each in skipped]
    encoded: bytes = msgpack.packb(listed) if listed else b""
    return encoded


def decode_skips(data: bytes) -> list[SkippedEntry]:
    """Decode what `encode_skips` wrote. Raises: StorageError"""
    if not data:
        return []
    try:
        listed: Any = msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise StorageError(f"the skipped entries are malformed: {error}") from error
    if type(listed) is not list or len(listed) > MAX_SKIPPED:
        raise StorageError("the skipped entries are no list, or too many")
    if not all(_is_skip(each) for each in listed):
        raise StorageError("one of the skipped entries is malformed")
    return [SkippedEntry(*each) for each in listed]


def _is_skip(fields: object) -> bool:
    return (
        type(fields) is list
        and [type(field) for field in fields] == [int, int, bytes]
        and min(fields[:2]) > 0
        and len(fields[2]) == DIGEST_BYTES
    )


def read_skips(store: StableStore) -> list[SkippedEntry]:
    """Return what is skipped here. Raises: StorageError. Thread: writer."""
    return decode_skips(store.get(SKIPPED))


def skip_entry(
    log_store: LogStore,
    stable_store: StableStore,
    snapshots: SnapshotShelf,
    index: int,
    term: int,
    digest: str,
) -> SkippedEntry:
    """Have the stopped node of these stores skip the command at *index*, of *term*.

    For a command at which every member stops: do it on each, and start them. *digest*
    is the SHA-256 of its data, in hexadecimal, of which 16 digits suffice; the message
    with which the node stopped has all three. What has been skipped once is skipped
    again without a word.

    Returns: the entry.
    Raises: SkipRefused, and nothing has changed, unless it is the entry at which this
        node stopped, and which therefore is committed; if a snapshot covers it.
    Durable: when this returns.
    """
    skipped = check_skip(log_store, stable_store, snapshots, index, term, digest)
    known = read_skips(stable_store)
    if skipped not in known:
        if len(known) >= MAX_SKIPPED:
            raise SkipRefused(f"{MAX_SKIPPED} entries are skipped here already")
        stable_store.set_many(noted_skips(sorted([*known, skipped], key=_index)))
    return skipped


def check_skip(
    log_store: LogStore,
    stable_store: StableStore,
    snapshots: SnapshotShelf,
    index: int,
    term: int,
    digest: str,
) -> SkippedEntry:
    """Return what `skip_entry` would skip. Raises: SkipRefused, as it does."""
    skipped = named_entry(log_store, index, term, digest)
    if skipped in read_skips(stable_store):
        return skipped
    covered = max((meta.index for meta in snapshots.list()), default=0)
    if index <= covered:
        raise SkipRefused(
            f"a snapshot covers entry {index}, up to index {covered}: it was applied "
            "here. If others have skipped it, empty this node's data directory and add "
            "it again"
        )
    _check_failed(log_store, read_failure(stable_store), index)
    return skipped


def named_entry(
    log_store: LogStore, index: int, term: int, digest: str
) -> SkippedEntry:
    """Return the command in the log that is named so. Raises: SkipRefused"""
    if index <= 0 or not log_store.first_index() <= index <= log_store.last_index():
        raise SkipRefused(f"there is no entry {index} in the log here")
    entry = log_store.get_log(index)
    _check_named(entry, term, digest)
    return SkippedEntry(index, term, digest_of(entry))


def parse_named(text: str) -> tuple[int, int, str]:
    """Read INDEX:TERM:DIGEST. Raises: SkipRefused"""
    index, _, rest = text.partition(":")
    term, _, digest = rest.partition(":")
    if not (index.isdecimal() and term.isdecimal()):
        raise SkipRefused(f"{text!r} is not INDEX:TERM:DIGEST")
    return int(index), int(term), digest


def _check_named(entry: Entry, term: int, digest: str) -> None:
    """Refuse another entry than the one that is meant. Raises: SkipRefused"""
    if entry.type is not LogType.COMMAND:
        raise SkipRefused(
            f"entry {entry.index} is a {entry.type.name}; only a COMMAND can be skipped"
        )
    if entry.term != term:
        raise SkipRefused(f"entry {entry.index} is of term {entry.term}, not {term}")
    real = digest_of(entry).hex()
    if len(digest) < MIN_DIGITS or not real.startswith(digest.lower()):
        raise SkipRefused(
            f"the digest of entry {entry.index} is {real}, of which at least "
            f"{MIN_DIGITS} digits are to be given; {digest!r} is another"
        )


def _check_failed(log_store: LogStore, failed: FailedRun, index: int) -> None:
    """Refuse what is not known to be committed, or was applied. Raises: SkipRefused"""
    # The log up to an entry is the same in every log that has it, with that term.
    is_here = failed.last <= log_store.last_index()
    is_here = is_here and failed.last >= log_store.first_index()
    is_same = is_here and log_store.get_log(failed.last).term == failed.term
    if not failed.last or not is_same or index > failed.last:
        raise SkipRefused(
            f"entry {index} is not known to be committed here, so another one may take "
            "its place: start this node; if it stops at that entry, repeat this"
        )
    if index < failed.first:
        raise SkipRefused(
            f"entry {index} was applied here; the node stopped at {failed.first}"
        )
    if failed.first < failed.last:
        raise SkipRefused(
            f"the node stopped at one of the entries {failed.first} to {failed.last}, "
            "which were applied as a batch: start it once more. It applies them one by "
            "one then, and says at which it stops"
        )


class Skips:
    """What the node at *address* skips; *skipped* is what it has on record."""

    log = Logger()

    def __init__(self, address: str, skipped: Iterable[SkippedEntry] = ()) -> None:
        self._address = address
        self._skipped = {each.index: each for each in skipped}
        self._logged: set[int] = set()

    def __bool__(self) -> bool:
        """Tell whether anything is skipped: hardly ever."""
        return bool(self._skipped)

    @property
    def skipped(self) -> list[SkippedEntry]:
        """What is skipped, in order."""
        return sorted(self._skipped.values(), key=_index)

    def around(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return *entries* with a barrier in the place of what is skipped.

        A barrier is settled like a command, and nothing is done for it.
        """
        return [self._instead(e) if e.index in self._skipped else e for e in entries]

    def _instead(self, entry: Entry) -> Entry:
        if not self._skipped[entry.index].names(entry):
            return entry
        if entry.index not in self._logged:  # a slice may be cut before it gets there
            self._logged.add(entry.index)
            self.log.warn(
                "{node} skips entry {index} (term {term}, {size} bytes), as it was "
                "told: its command has no effect",
                node=self._address,
                index=entry.index,
                term=entry.term,
                size=len(entry.data or b""),
            )
        return Entry(entry.index, entry.term, LogType.BARRIER)

    def newest_up_to(self, index: int) -> int:
        """Return the index of the newest entry up to *index* that is skipped, or 0."""
        return max((each for each in self._skipped if each <= index), default=0)

    def uncovered(self, covered: int, applied_index: int) -> bool:
        """Tell whether any was skipped that the snapshot up to *covered* has not."""
        return self.newest_up_to(applied_index) > covered

    def check_newcomer(self, address: str, base_index: int) -> None:
        """Refuse to add the server at *address* while it would get what is skipped.

        The log begins behind *base_index*.
        Raises: ConfigurationRefused
        """
        newest = max(self._skipped, default=0)
        if newest > base_index:
            raise ConfigurationRefused(
                f"entry {newest} is skipped here, and {address} would get it and stop: "
                "try again when a snapshot covers it, which is a matter of moments. If "
                "it stays so, see in the log of the leader why it takes none"
            )

    def encoded_up_to(self, index: int) -> bytes:
        """Encode what was skipped on the way to a snapshot up to *index*."""
        return encode_skips(each for each in self.skipped if each.index <= index)

    def inherit(self, data: bytes, index: int) -> dict[bytes, bytes]:
        """Take over what was skipped on the way to another server's snapshot.

        *data* are of its `encoded_up_to`; the snapshot ends at *index*.
        Returns: what is to be stored, nothing if nothing is new.
        """
        try:
            told = decode_skips(data)
        except StorageError:
            return {}  # nonsense says nothing
        skipped = {each.index: each for each in told if each.index <= index}
        skipped |= {at: each for at, each in self._skipped.items() if at > index}
        if skipped == self._skipped or len(skipped) > MAX_SKIPPED:
            return {}
        self._skipped = skipped
        return noted_skips(self.skipped)


def _index(skipped: SkippedEntry) -> int:
    return skipped.index
