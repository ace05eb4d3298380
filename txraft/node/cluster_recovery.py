"""Cluster recovery: what an operator does to a stopped node, and no node by itself.

`recover_cluster` gives a node's own data another membership, after a quorum was lost
for good. `import_snapshot` begins a cluster from a snapshot of another one, of Go
servers for example. Both block and need the node's stores to themselves.

Both write the snapshot first and cut the log last. In between, a crash leaves data that
the same call goes on with.

Source: hashicorp/raft `RecoverCluster`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from twisted.python.failure import Failure

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.ready import HardState, SnapshotMark
from txraft.errors import ApplicationError, SkipRefused, StorageError
from txraft.interfaces import (
    FSM,
    LogStore,
    SnapshotMeta,
    SnapshotStore,
    StableStore,
)
from txraft.node.application import awaited, capture, done, is_unfinished, release
from txraft.node.levels import apply_activation
from txraft.node.ownership import (
    SnapshotShelf,
    application_of,
    check_application,
    noted_as,
)
from txraft.node.skipping import (
    SkippedEntry,
    Skips,
    digest_of,
    named_entry,
    noted_skips,
    parse_named,
    read_skips,
)
from txraft.node.snapshot_writer import discards, write_snapshot
from txraft.node.startup import read_hard_state, restore_newest
from txraft.node.synced_note import forgotten
from txraft.node.tail import read_range
from txraft.node.writer import stored_state
from txraft.wire.entries import CLUSTER_BYTES
from txraft.wire.membership import encode_configuration

PIECE_BYTES = 1 << 20
READ_BYTES = 4 << 20
RECOVERED_FROM = b"RecoveredFrom"
CONFIGURATION_INDEX = 1
"""The index that the given membership is said to have: as if it was bootstrapped."""


class SnapshotArchive(SnapshotShelf, Protocol):
    """Snapshots that another node has left, and what was found wrong with them."""

    warnings: list[str]


def recover_cluster(
    fsm: FSM,
    log_store: LogStore,
    stable_store: StableStore,
    snapshots: SnapshotStore,
    configuration: Configuration,
    skip: Sequence[str] = (),
) -> SnapshotMeta:
    """Make *configuration* the membership of this node's data, whatever it was.

    Run it with the same *configuration* on the data of every server in it, or on one
    server alone and have that one add others with empty data. Everything in the log
    counts as committed. That may be more than was, and less if another server had
    more: take the one with the longest log of the newest term. *fsm*, of the same
    application as the node's, is used up; the node starts with a new one. Servers that
    are left out are refused from then on.

    A command that *fsm* cannot apply may be left out, for good: *skip* has the entries,
    each as INDEX:TERM:DIGEST with the SHA-256 of its data, or 16 digits of that. They
    must be the same on every server that is recovered.

    Returns: the snapshot that now holds everything; the log is empty.
    Raises: StorageError when there is nothing to recover; WrongApplication, when that
        is of another one than *fsm*; ConfigurationRefused;
        SnapshotFailed, when *snapshots* does not list what it was given; SkipRefused,
        when the log has not what is to be skipped; whatever *fsm* raises, with a note
        that names the entry. The data are as they were then.
    Durable: all of it, when this returns. After a crash, call it again.
    """
    configuration.check()
    if discards(snapshots):
        raise StorageError("a recovery needs a store that keeps its snapshot")
    check_application(fsm, log_store, stable_store, snapshots)
    meta = restore_newest(snapshots, fsm).snapshot
    last, term = (meta.index, meta.term) if meta else (0, 0)
    end = log_store.last_index()
    if not end and meta is None:
        raise StorageError("there is neither a log nor a snapshot to recover from")
    is_begun = meta is not None and end <= last and meta.configuration == configuration
    skips = _skips(fsm, log_store, stable_store, skip, 0 if is_begun else last)
    if end > last:
        last, term = _replay(fsm, log_store, last + 1, end, skips)
    state = read_hard_state(stable_store)
    newest = max(state.term, term)
    vote = state.voted_for if newest == state.term else None
    before = state.cluster
    if is_begun:
        before = _identity_before(stable_store, configuration) or before
    cluster = before and _renewed(before, configuration)
    mark = SnapshotMark(last, term, configuration, CONFIGURATION_INDEX)
    # Snapshot, stable store, log: each is of use only once the one before it is there.
    recovered = _persist(fsm, snapshots, mark, cluster or b"")
    values = stored_state(HardState(newest, vote, cluster))
    values |= noted_as(application_of(fsm))
    if skips:
        values |= noted_skips(skips.skipped)
    # Whatever the log has lost, it counts as it is from now on.
    values |= forgotten(stable_store, newest)
    done(stable_store.set_many, {**values, RECOVERED_FROM: before or b""})
    if end:
        done(log_store.delete_range, log_store.first_index(), end)
    return recovered


def import_snapshot(
    source: SnapshotArchive,
    log_store: LogStore,
    stable_store: StableStore,
    snapshots: SnapshotStore,
    configuration: Configuration,
) -> SnapshotMeta:
    """Begin a cluster of *configuration* from the newest whole snapshot in *source*.

    The stores must never have been used. Run it on one server, alone in its
    *configuration*, and have that one add the others; or with the same *source* and
    *configuration* on every first server. It is not for a member that lost its
    disk: a snapshot knows no vote and not what came after it.

    Returns: the snapshot, as this node has it now.
    Raises: StorageError when *source* has none that is whole, or the stores are in
        use; ConfigurationRefused. Nothing has changed then.
    Durable: all of it, when this returns. After a crash, call it again.
    """
    configuration.check()
    state = read_hard_state(stable_store)
    used = log_store.last_index() or snapshots.list() or state.voted_for
    if used or state.cluster:
        raise StorageError(
            "this node has data of its own; a snapshot is imported into an empty data "
            "directory only"
        )
    meta = _newest_whole(source)
    done(stable_store.set_many, stored_state(HardState(max(meta.term, state.term))))
    sink = snapshots.create(meta.index, meta.term, configuration, CONFIGURATION_INDEX)
    _, file = source.open(meta.id)
    try:
        with file:
            while piece := file.read(PIECE_BYTES):
                sink.write(piece)
        sink.close()
    except BaseException:
        sink.cancel()
        raise
    return _described(snapshots, sink.id)


def skipped_in(
    log_store: LogStore, stable_store: StableStore, skip: Sequence[str]
) -> tuple[list[SkippedEntry], list[SkippedEntry]]:
    """Return what a recovery that is to *skip* leaves out, and what of it is known.

    Raises: SkipRefused, for what is neither in the log nor known.
    """
    known = read_skips(stable_store)
    skipped = list(known)
    for text in skip:
        index, term, digest = named = parse_named(text)
        if not any(each.is_named(index, term, digest) for each in known):
            skipped.append(named_entry(log_store, *named))
    return skipped, known


def _skips(
    fsm: FSM,
    log_store: LogStore,
    stable_store: StableStore,
    skip: Sequence[str],
    covered: int,
) -> Skips:
    """Return what a recovery leaves out, of which none may be *covered* already.

    *covered* is the index up to which a snapshot has everything, 0 where that snapshot
    is of this very recovery, which did not end: what it was to skip it has skipped.
    """
    skipped, known = skipped_in(log_store, stable_store, skip)
    for each in skipped:
        if each not in known and each.index <= covered:
            raise SkipRefused(f"a snapshot covers entry {each.index}, up to {covered}")
    return Skips(type(fsm).__name__, skipped)


def _renewed(cluster: bytes, configuration: Configuration) -> bytes:
    """Make the identity that *cluster* has from now on.

    It is the same for all servers that are recovered with the same membership, and
    another than that of the servers left out, which could otherwise win their votes.
    """
    servers = tuple(sorted(configuration.servers, key=lambda server: server.address))
    encoded = encode_configuration(Configuration(servers))
    return hashlib.sha256(cluster + encoded).digest()[:CLUSTER_BYTES]


def _identity_before(
    stable_store: StableStore, configuration: Configuration
) -> bytes | None:
    """Return what identity was replaced, if this recovery was begun before."""
    before = stable_store.get(RECOVERED_FROM)
    renewed = before and _renewed(before, configuration)
    return before if renewed == read_hard_state(stable_store).cluster else None


def _newest_whole(source: SnapshotArchive) -> SnapshotMeta:
    problems = []
    for meta in source.list():
        try:
            _, file = source.open(meta.id)
        except StorageError as error:
            problems.append(str(error))
            continue
        file.close()
        return meta
    problems += source.warnings
    raise StorageError("; ".join(["there is no snapshot to import", *problems]))


def _replay(
    fsm: FSM, log_store: LogStore, first: int, last: int, skips: Skips
) -> tuple[int, int]:
    """Apply the log to *fsm*, but for what *skips* names.

    Returns: the index and the term of its last entry.
    """
    term = 0
    while first <= last:
        for entry in skips.around(read_range(log_store, first, last, READ_BYTES)):
            if entry.type is LogType.COMMAND:
                try:
                    _apply(fsm, entry)
                except BaseException as error:
                    named = SkippedEntry(entry.index, entry.term, digest_of(entry))
                    error.add_note(f"it failed at entry {named}, which may be skipped")
                    raise
            elif entry.type is LogType.NOOP:
                apply_activation(fsm, entry)
            first, term = entry.index + 1, entry.term
    return last, term


def _apply(fsm: FSM, entry: Entry) -> None:
    try:
        response = fsm.apply(entry)
    except ApplicationError:
        return
    if not is_unfinished(response):
        return
    outcome: list[object] = []
    awaited(response, f"{type(fsm).__name__}.apply").addBoth(outcome.append)
    if not outcome:
        raise StorageError(
            f"the response to entry {entry.index} is a Deferred that has not fired; "
            "recovery runs without a reactor"
        )
    failure = outcome[0]
    if isinstance(failure, Failure) and not failure.check(ApplicationError):
        failure.raiseException()


def _persist(
    fsm: FSM, snapshots: SnapshotStore, mark: SnapshotMark, cluster: bytes
) -> SnapshotMeta:
    captured = capture(fsm)
    try:
        return write_snapshot(snapshots, captured, mark, cluster)
    finally:
        release(captured)


def _described(snapshots: SnapshotStore, id: str) -> SnapshotMeta:
    return next(meta for meta in snapshots.list() if meta.id == id)
