"""Startup: read from disk the state that consensus starts with.

    snapshots ──> the newest whole one is restored
                       │
    stable store ──> term, vote, cluster, note of what was synced
                       │
    log ─────────> does it reach as far as the note? as the snapshot?
                       │
                  `Recovered`, or DataCorrupted and nothing has changed

What does not fit together is refused and never mended: a server that has lost a vote
or an acknowledged entry without knowing it can make the cluster lose what is committed.
The message names the way out. The one thing that is dropped is a log that ends before
the snapshot: the snapshot stands for all of it.

Log and snapshot hold the truth about membership; the list of peers counts only while
neither holds any. Then the cluster is bootstrapped here.

Source: Raft dissertation §3.8, §5.1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Protocol, runtime_checkable

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState, SnapshotMark
from txraft.core.term_index import TermIndex
from txraft.errors import DataCorrupted, RaftError, StorageError, WrongCluster
from txraft.interfaces import (
    FSM,
    LogStore,
    SnapshotMeta,
    SnapshotStore,
    StableStore,
)
from txraft.node.application import done, restore
from txraft.node.incarnations import read_incarnations, read_pardoned
from txraft.node.ownership import PlacedLogStore, noted_application, noted_as
from txraft.node.skipping import (
    NEVER_FAILED,
    FailedRun,
    SkippedEntry,
    read_failure,
    read_skips,
)
from txraft.node.synced_note import (
    CURRENT_TERM,
    UNNOTED,
    LogEnd,
    Noted,
    encoded_note,
    read_note,
)
from txraft.node.tail import read_range
from txraft.node.writer import (
    CLUSTER,
    LAST_VOTE_CANDIDATE,
    LAST_VOTE_TERM,
    stored_state,
)

SCAN_BYTES = 4 << 20
BOOTSTRAP_TERM = 1


@runtime_checkable
class IndexedLogStore(Protocol):
    """A log store that knows the terms of its entries without reading them again."""

    def term_runs(self) -> list[tuple[int, int]]:
        """Return the runs of equal terms, as (first index, term)."""

    def special_entries(self) -> list[Entry]:
        """Return the entries that assert a membership or name a cluster."""


@runtime_checkable
class LossTellingSnapshotStore(Protocol):
    """A snapshot store that tells the indexes of what its latest `list` left out."""

    left_out: list[int]


@runtime_checkable
class WarningSnapshotStore(Protocol):
    """A snapshot store that tells what its latest `list` has found wrong there."""

    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Restored:
    """The snapshot that was restored, None if there is none, and warnings.

    *lost* is the highest index of the snapshots that could not be used, 0 for none.
    """

    snapshot: SnapshotMeta | None = None
    warnings: Sequence[str] = ()
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What consensus starts with, and what is worth a warning."""

    hard_state: HardState
    log: TermIndex
    configurations: ConfigurationHistory
    snapshot: SnapshotMark
    cluster_proposals: dict[int, bytes]
    warnings: list[str]
    noted: Noted = UNNOTED
    incarnation: bytes | None = None
    known_incarnations: Mapping[str, bytes] = field(default_factory=dict)
    pardoned: int = 0
    skipped: Sequence[SkippedEntry] = ()
    failed: FailedRun = NEVER_FAILED


def read_hard_state(store: StableStore) -> HardState:
    """Read term, vote and cluster. Thread: writer."""
    term = store.get_uint64(CURRENT_TERM)
    candidate = store.get(LAST_VOTE_CANDIDATE).decode("utf-8", "surrogateescape")
    # Stored apart, as in hashicorp/raft: a vote of an older term is none in this one.
    voted = bool(candidate) and store.get_uint64(LAST_VOTE_TERM) == term
    return HardState(term, candidate if voted else None, store.get(CLUSTER) or None)


def restore_newest(snapshots: SnapshotStore, fsm: FSM) -> Restored:
    """Restore *fsm* from the newest snapshot that is whole.

    Raises: DataCorrupted, if there are snapshots and none is whole.
    Thread: snapshot.
    """
    found = snapshots.list()
    lost, warnings = 0, []
    if isinstance(snapshots, LossTellingSnapshotStore):
        lost = max(snapshots.left_out, default=0)
    if isinstance(snapshots, WarningSnapshotStore):
        warnings += snapshots.warnings
    for meta in found:
        try:
            _, file = snapshots.open(meta.id)
        except StorageError as error:
            # An older one will do, if the log goes on from there: `_refuse_loss`.
            warnings.append(f"snapshot {meta.id} is passed over: {error}")
            lost = max(lost, meta.index)
            continue
        with file:
            _restore(fsm, file, meta)
        return Restored(meta, warnings, lost)
    if found:
        raise DataCorrupted("none of the snapshots can be used: " + "; ".join(warnings))
    return Restored(None, tuple(warnings), lost)


def _restore(fsm: FSM, file: BinaryIO, meta: SnapshotMeta) -> None:
    try:
        restore(fsm, file)
    except RaftError:
        raise  # it says by itself what to do
    except Exception as error:
        # Not even an older one may be tried: nobody knows what the FSM holds by now.
        raise StorageError(
            f"the state machine did not restore snapshot {meta.id}: "
            f"{error or type(error).__name__}. If it was made by a newer version, or "
            "for another application, start that one. Otherwise move the snapshot "
            "away: an older one is used then, if the log goes on from where it ends; "
            "or remove this member, take its data directory away and add it again "
            "with join: true"
        ) from error


def recover(
    log_store: LogStore,
    stable_store: StableStore,
    restored: Restored,
    *,
    read_membership: Callable[[], Configuration],
    protocol_version: int,
    encode: Callable[[Entry], None],
    application: str = "",
) -> Recovered:
    """Make the state that consensus starts with; bootstrap if there is none.

    *read_membership* returns the membership to begin with, empty for a server that
    waits to be added; it is asked only while nothing on disk knows any. *encode*
    fills in the bytes of a new entry. The data are noted as those of *application*,
    "" for one without a name; whether they are was checked before.
    Raises: DataCorrupted, WrongCluster
    Thread: writer.
    """
    snapshot = restored.snapshot
    mark = _mark_of(snapshot)
    noted = read_note(stable_store)
    # All that refuses comes before anything is written: what was refused is as it was.
    _refuse_loss(log_store, mark, restored.lost)
    state = _in_one_cluster(read_hard_state(stable_store), snapshot)
    _refuse_cut(log_store, mark, noted.reaches)
    if log_store.last_index() or snapshot is not None:
        _refuse_forgotten_vote(state)
    else:
        members = read_membership()
        if members.servers and _is_fresh(state):
            state = _bootstrap(
                log_store, stable_store, members, protocol_version, encode
            )
        elif members.servers and protocol_version:
            raise _log_is_gone(state)
    noted, warnings = _drop_stale_log(log_store, stable_store, mark, noted, state.term)
    recovered = replace(
        _recovered(log_store, state, mark, read_membership, warnings),
        noted=noted,
        skipped=read_skips(stable_store),
        failed=read_failure(stable_store),
    )
    if protocol_version:
        own, known = read_incarnations(stable_store, os.urandom)
        recovered = replace(
            recovered,
            incarnation=own,
            known_incarnations=known,
            pardoned=read_pardoned(stable_store),
        )
    # Last of all, when nothing can be refused any more: a refused start may have been
    # that of the wrong application, and its name would then keep the right one out.
    if application and noted_application(stable_store) != application:
        done(stable_store.set_many, noted_as(application))
    return recovered


def _refuse_forgotten_vote(state: HardState) -> None:
    """Refuse data without a term beside them: no node ever had a log in term 0."""
    if state.term == 0:
        raise DataCorrupted(
            "there is a log or a snapshot but no term and vote beside it: a server "
            "that forgets its vote can elect two leaders. Restore the file `state`, "
            "or remove this member from the cluster, take its data directory away "
            "and add it again with join: true"
        )


def _log_is_gone(state: HardState) -> DataCorrupted:
    return DataCorrupted(
        f"there is a term and vote (term {state.term}) but no log beside it, "
        "though a first member has one before its first election: entries "
        "it has acknowledged may be lost. Restore the log, or remove this "
        "member from the cluster, take its data directory away and add it "
        "again with join: true"
    )


def _drop_stale_log(
    log_store: LogStore,
    stable_store: StableStore,
    mark: SnapshotMark,
    noted: Noted,
    current_term: int,
) -> tuple[Noted, list[str]]:
    """Drop a log that ends below the snapshot, or differs from it where that ends.

    A crash leaves such a log when it comes after a leader's snapshot was installed, and
    before the log was reset for it.

    Returns: the note as it is then, and warnings.
    """
    problem = _why_stale(log_store, mark)
    if problem is None:
        return noted, []
    if noted.claimed.index > mark.index:
        # The note goes first, as before any reset: a crash between the two must leave
        # no log that ends below its note.
        noted = Noted(LogEnd(mark.index, mark.term), number=noted.number + 1)
        note = encoded_note(noted.end, current_term, noted.number)
        done(stable_store.set_many, note)
    return noted, [_drop(log_store, mark, noted.reaches, problem)]


def _refuse_loss(log_store: LogStore, mark: SnapshotMark, lost: int) -> None:
    """Refuse to go on without a snapshot of what the log does not hold either.

    This server has acknowledged those entries. Without them it would start as one that
    never had them.
    """
    if lost > max(mark.index, log_store.last_index()):
        raise DataCorrupted(
            f"a snapshot of the log up to {lost} is damaged, and nothing else here "
            f"reaches that far: the newest usable snapshot ends at {mark.index}, the "
            f"log at {log_store.last_index()}. Restore that snapshot, or remove this "
            "member, take its data directory away and add it again with join: true"
        )


def _refuse_cut(log_store: LogStore, mark: SnapshotMark, noted: LogEnd) -> None:
    """Refuse a log that ends below what this node is known to have synced.

    Other members may count on what is missing: a quorum that was counted with it, and
    is found again without it, loses what was acknowledged.
    """
    if noted.index <= mark.index:
        return
    first, last = log_store.first_index(), log_store.last_index()
    if last >= noted.index:
        if not noted.term or noted.index < first:
            return  # the term there is not known: that the log is so long has to do
        term = log_store.get_log(noted.index).term
        if term == noted.term:
            return
        what = f"has an entry of term {term} at index {noted.index}"
    elif last:
        what = f"ends at index {last}"
    else:
        what = "is empty"
    place = log_store.place if isinstance(log_store, PlacedLogStore) else "the log"
    raise DataCorrupted(
        f"{place}: the log {what}, but it was synced up to index {noted.index}"
        f"{f' of term {noted.term}' if noted.term else ''}: its newest entries are "
        "missing, and other members may count on them. Restore the log as it was, or "
        "remove this member from its cluster, take its data directory away and add "
        "it again with join: true. Where no other member is left, `txraft recover` "
        "goes on with what is here"
    )


def _in_one_cluster(state: HardState, snapshot: SnapshotMeta | None) -> HardState:
    """Refuse a snapshot of another cluster; learn from one which cluster it is.

    A snapshot of a Go peer, or of protocol version 0, names none.
    """
    if snapshot is None or not snapshot.cluster:
        return state
    if state.cluster in (None, snapshot.cluster):
        return replace(state, cluster=snapshot.cluster)
    raise WrongCluster(
        f"snapshot {snapshot.id} is of cluster {snapshot.cluster.hex()}, term and "
        f"vote here are of cluster {state.cluster.hex()}: put back the snapshots that "
        "belong to this node, or remove this member from its cluster, take its data "
        "directory away and add it again with join: true. If a recovery of this node "
        "was interrupted, repeat it"
    )


def _is_fresh(state: HardState) -> bool:
    """Tell whether no part was ever taken in a cluster: no vote may be forgotten."""
    return (
        state.term <= BOOTSTRAP_TERM and state.voted_for is None and not state.cluster
    )


def _mark_of(snapshot: SnapshotMeta | None) -> SnapshotMark:
    if snapshot is None:
        return SnapshotMark()
    return SnapshotMark(
        snapshot.index,
        snapshot.term,
        snapshot.configuration,
        snapshot.configuration_index,
    )


def _bootstrap(
    log_store: LogStore,
    stable_store: StableStore,
    members: Configuration,
    protocol_version: int,
    encode: Callable[[Entry], None],
) -> HardState:
    """Store the first term and, from version 1 on, the first entry: the membership.

    All first members write the same entry, so that their logs agree from the start.
    """
    state = HardState(BOOTSTRAP_TERM)
    # The term first. After a crash in between, a term without an entry is bootstrapped
    # again; an entry without a term would be refused for ever.
    done(stable_store.set_many, stored_state(state))
    if protocol_version:
        kind = LogType.ADD_PEER if protocol_version == 1 else LogType.CONFIGURATION
        entry = Entry(1, BOOTSTRAP_TERM, kind, configuration=members)
        encode(entry)
        done(log_store.store_logs, [entry])
    return state


def _why_stale(log_store: LogStore, mark: SnapshotMark) -> str | None:
    """Return why the log is stale, beside the snapshot; None if it is not.

    Raises: DataCorrupted for a gap between the two.
    """
    first, last = log_store.first_index(), log_store.last_index()
    if not last:
        return None
    if first > mark.index + 1:
        raise DataCorrupted(
            f"the log begins at index {first} but the newest usable snapshot ends at "
            f"{mark.index}: entries are missing in between. Restore the snapshot, or "
            "remove this member, take its data directory away and add it again with "
            "join: true"
        )
    if last >= mark.index > 0 and mark.index >= first:
        # By the log matching property one equal term is enough: up to there both are
        # the same, and what the log has behind it goes on from the snapshot.
        is_same = log_store.get_log(mark.index).term == mark.term
        return None if is_same else "disagrees with"
    return "ends before" if last < mark.index else None


def _drop(log_store: LogStore, mark: SnapshotMark, noted: LogEnd, problem: str) -> str:
    """Drop the log; return a warning that says so."""
    first, last = log_store.first_index(), log_store.last_index()
    done(log_store.delete_range, first, last)
    warning = (
        f"the log {first} to {last} {problem} the snapshot at {mark.index}: dropped"
    )
    if last < noted.index:
        warning += (
            f". It was synced up to {noted.index} once, so it was cut: look after the "
            f"disk. The snapshot has all up to {mark.index}; what came after it, if "
            "anything did, is not known here"
        )
    return warning


def _recovered(
    log_store: LogStore,
    state: HardState,
    mark: SnapshotMark,
    read_membership: Callable[[], Configuration],
    warnings: list[str],
) -> Recovered:
    runs, special = scan(log_store)
    base_index, base_term = _base(runs, mark)
    log = TermIndex(
        _runs_after(runs, base_index, log_store.last_index()),
        log_store.last_index(),
        base_index,
        base_term,
    )
    configurations, proposals = _history(special, mark, read_membership)
    return Recovered(state, log, configurations, mark, proposals, warnings)


def _base(runs: Sequence[tuple[int, int]], mark: SnapshotMark) -> tuple[int, int]:
    """Return index and term of the base, the entry that the `TermIndex` begins behind.

    That is the end of the snapshot if the log begins right behind it. If it begins
    earlier, the term before its first entry is not known, so that entry is the base.
    """
    if not runs or runs[0][0] == mark.index + 1:
        return mark.index, mark.term
    return runs[0]


def _runs_after(
    runs: Sequence[tuple[int, int]], base: int, last: int
) -> list[tuple[int, int]]:
    """Return the part of *runs*, which end at *last*, that lies after *base*."""
    kept = []
    for position, (first, term) in enumerate(runs):
        is_last = position + 1 == len(runs)
        end = last if is_last else runs[position + 1][0] - 1
        if end > base:
            kept.append((max(first, base + 1), term))
    return kept


def _history(
    special: Sequence[Entry],
    mark: SnapshotMark,
    read_membership: Callable[[], Configuration],
) -> tuple[ConfigurationHistory, dict[int, bytes]]:
    nothing_known = not mark.index and not any(e.configuration for e in special)
    first = read_membership() if nothing_known else mark.configuration
    history = ConfigurationHistory(mark.configuration_index, first)
    proposals = {}
    for entry in special:
        # The history begins with the configuration of the snapshot, so older entries,
        # which may still be in the log, must not be added to it.
        newer = entry.index > max(mark.index, history.latest_index)
        if entry.configuration is not None and newer:
            history.append(entry.index, entry.configuration)
        if entry.cluster is not None and entry.index > mark.index:
            proposals[entry.index] = entry.cluster
    return history, proposals


def scan(log_store: LogStore) -> tuple[list[tuple[int, int]], list[Entry]]:
    """Return runs of terms and special entries, as an `IndexedLogStore` has them."""
    if isinstance(log_store, IndexedLogStore):
        return log_store.term_runs(), log_store.special_entries()
    runs: list[tuple[int, int]] = []
    special = []
    index, last = log_store.first_index(), log_store.last_index()
    while 0 < index <= last:
        for entry in read_range(log_store, index, last, SCAN_BYTES):
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
            if entry.configuration is not None or entry.cluster is not None:
                special.append(entry)
            index = entry.index + 1
    return runs, special
