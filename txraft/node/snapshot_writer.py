"""The snapshot writer: from a captured state to a snapshot that the log is cut for.

What a state machine says of its work is not believed, nor what a sink says when it is
closed. The store is asked again, and only what it lists as written is there.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from txraft.core.ready import SnapshotMark
from txraft.errors import RaftShutdown, SnapshotFailed
from txraft.interfaces import (
    ClusterSnapshotStore,
    DiscardingSnapshotStore,
    FSMSnapshot,
    SnapshotMeta,
    SnapshotSink,
    SnapshotStore,
)
from txraft.node.application import ON_A_THREAD, persist, refuse_unfinished


def create_snapshot(
    store: SnapshotStore, mark: SnapshotMark, cluster: bytes
) -> SnapshotSink:
    """Begin a snapshot up to *mark* that names its *cluster*, if *store* notes that."""
    covered = (
        mark.index,
        mark.term,
        mark.configuration,
        mark.configuration_index,
    )
    if isinstance(store, ClusterSnapshotStore):
        return store.create_for(cluster, *covered)
    return store.create(*covered)


def discards(store: SnapshotStore) -> bool:
    """Tell whether *store* keeps nothing, and says so."""
    return isinstance(store, DiscardingSnapshotStore) and store.discards_snapshots


def write_snapshot(
    store: SnapshotStore,
    captured: FSMSnapshot,
    mark: SnapshotMark,
    cluster: bytes,
    is_stopped: Callable[[], bool] = lambda: False,
) -> SnapshotMeta:
    """Write *captured* to *store* as the snapshot up to *mark* of *cluster*.

    It is abandoned at the next piece once *is_stopped*.

    Returns: its description, as *store* lists it.
    Raises: SnapshotFailed, ContractBroken, and whatever `persist` and *store* raise.
        The log is needed then.
    Thread: snapshot.
    Durable: the snapshot, when this returns, unless *store* discards it.
    """
    sink = create_snapshot(store, mark, cluster)
    lent = _LentSink(sink, is_stopped)
    try:
        try:
            persist(captured, lent)
        finally:
            lent.take_back()  # before the close: another thread may still hold it
        size = lent.written()
        closed: object = sink.close()  # type: ignore[func-returns-value]
        refuse_unfinished(closed, f"{type(sink).__name__}.close", ON_A_THREAD)
    except BaseException:
        sink.cancel()
        raise
    meta = SnapshotMeta(
        sink.id,
        mark.index,
        mark.term,
        mark.configuration,
        mark.configuration_index,
        size,
    )
    return meta if discards(store) else _listed(store, meta)


def _listed(store: SnapshotStore, expected: SnapshotMeta) -> SnapshotMeta:
    """Return what *store* says of the snapshot that it was given.

    Raises: SnapshotFailed, if it is not as *expected*, or not there.
    """
    name = f"snapshot {expected.id} in {type(store).__name__}"
    for meta in store.list():
        if meta.id == expected.id:
            break
    else:
        raise SnapshotFailed(f"{name} is not listed there, though it was closed")
    covers = (meta.index, meta.term, meta.size)
    wanted = (expected.index, expected.term, expected.size)
    if covers != wanted:
        raise SnapshotFailed(
            f"{name} is listed with index {meta.index}, term {meta.term} and "
            f"{meta.size} bytes, but is of index {expected.index}, term "
            f"{expected.term} and {expected.size} bytes"
        )
    return meta


class _LentSink:
    """The sink that `persist` gets: it writes to *sink*, but does not end it.

    A `persist` that closes or cancels it has no effect on what a later failure of its
    own may still undo. The lock is for one that handed it to another thread: after
    `take_back` that thread must not write to a file that is being closed.
    """

    def __init__(self, sink: SnapshotSink, is_stopped: Callable[[], bool]) -> None:
        self._sink = sink
        self._is_stopped = is_stopped
        self._lock = Lock()
        self._size: int | None = None
        self._ended = False
        self._cancelled = False

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self._sink.id

    def write(self, data: bytes) -> int:
        """Append *data*; return its length.

        Raises: RaftShutdown, once the node stops; ValueError after the end.
        """
        if self._is_stopped():
            raise RaftShutdown
        with self._lock:
            if self._ended:
                raise ValueError(f"snapshot {self.id} takes no more: it was ended")
            written = self._sink.write(data)
            refuse_unfinished(
                written, f"{type(self._sink).__name__}.write", ON_A_THREAD
            )
            self._size = (self._size or 0) + len(data)
            return written

    def close(self) -> None:
        """Take no more; the node closes the sink when `persist` has returned."""
        self.take_back()

    def cancel(self) -> None:
        """Take no more, and have the node abandon the snapshot."""
        self._cancelled = True
        self.take_back()

    def take_back(self) -> None:
        """Take no more, from whichever thread."""
        with self._lock:
            self._ended = True

    def written(self) -> int:
        """Return how many bytes were written.

        Raises: SnapshotFailed, if that is no whole snapshot by what was done with it.
        """
        if self._cancelled:
            raise SnapshotFailed("`persist` cancelled its sink")
        if self._size is None:
            raise SnapshotFailed(
                '`persist` wrote nothing to its sink; an empty state is written as b""'
            )
        return self._size
