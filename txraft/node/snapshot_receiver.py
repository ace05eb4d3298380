"""The snapshot receiver: from the bytes of a leader to an FSM restored from them.

    received ──> staged ──> restored ──> listed
                    │           └── the FSM refuses it ──> set aside
                    └── cancelled

It is *staged* when all of it is durable under a name that no start looks at, and
listed only once the FSM has taken it. So one that does not restore is never what a
start finds. The log that it covers is dropped, and the leader told, after that. A store
whose sinks cannot be staged lists it first.

Source: Raft dissertation §5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.core.ready import SnapshotMark
from txraft.errors import RaftShutdown
from txraft.interfaces import (
    FSM,
    SnapshotBody,
    SnapshotSink,
    SnapshotStore,
    StagedSnapshotSink,
)
from txraft.node.application import ON_A_THREAD, refuse_unfinished, restore
from txraft.node.ownership import HEAD_BYTES
from txraft.node.snapshot_writer import create_snapshot
from txraft.node.worker import Worker


class SnapshotReceiver:
    """The snapshot up to *mark* of *cluster*, which comes in to *store*.

    It is staged when *when_synced* fires: a snapshot must not be durable before the
    term in which it came is, or a crash leaves a log of a term to come. *check_head*
    raises if its first `HEAD_BYTES` are not of this application. `restored` is whether
    the FSM has taken it, `aside` where it is kept after the FSM has not.
    """

    def __init__(
        self,
        store: SnapshotStore,
        worker: Worker,
        *,
        mark: SnapshotMark,
        cluster: bytes,
        when_synced: Callable[[], Deferred[None]],
        check_head: Callable[[bytes], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._mark = mark
        self._cluster = cluster
        self._when_synced = when_synced
        self._check_head = check_head
        self._head = b""
        self._sink: SnapshotSink | None = None
        self._staged: BinaryIO | None = None
        self._stopped = False
        self.restored = False
        self.aside = ""

    def take(self, body: SnapshotBody) -> Deferred[None]:
        """Store all of *body*; fires once it can be restored."""
        delivered = body.deliver_to(self._write)
        # Before it is staged, and long before the state machine changes.
        delivered.addCallback(
            lambda _: self._worker.run(lambda: self._check_head(self._head))
        )
        delivered.addCallback(lambda _: self._when_synced())
        stored = delivered.addCallback(lambda _: self._worker.run(self._stage))
        return stored.addErrback(self._abandon)

    def restore_into(self, fsm: FSM) -> None:
        """Have *fsm* take it, and then the store.

        Raises: whatever `restore` raises, and it is set aside; whatever the sink does.
        Thread: snapshot.
        Durable: the snapshot, when this returns.
        """
        sink, staged = self._sink, self._staged
        if self._stopped or sink is None:
            raise RaftShutdown
        if staged is None:
            # The store cannot hold back what is complete: it is listed already. One
            # that does not restore would be what the next start finds.
            with self._store.open(sink.id)[1] as file:
                restore(fsm, file)
            self.restored = True
            return
        try:
            with staged:
                restore(fsm, staged)
        except BaseException:
            self.aside = _set_aside(sink)
            raise
        self.restored = True
        self._close(sink)

    def stop(self) -> None:
        """Abandon it, unless the FSM is taking it: that is waited for."""
        self._stopped = True
        self._worker.run(self._cancel).addErrback(lambda _: None)

    def _open(self) -> SnapshotSink:
        if self._stopped:
            raise RaftShutdown
        if self._sink is None:
            self._sink = create_snapshot(self._store, self._mark, self._cluster)
        return self._sink

    def _write(self, piece: bytes) -> Deferred[None]:
        def write() -> None:
            self._head += piece[: HEAD_BYTES - len(self._head)]
            self._open().write(piece)

        return self._worker.run(write)

    def _stage(self) -> None:
        sink = self._open()
        if isinstance(sink, StagedSnapshotSink):
            self._staged = sink.stage()
        else:
            self._close(sink)

    def _close(self, sink: SnapshotSink) -> None:
        closed: object = sink.close()  # type: ignore[func-returns-value]
        refuse_unfinished(closed, f"{type(sink).__name__}.close", ON_A_THREAD)

    def _abandon(self, failure: Failure) -> Deferred[None]:
        cancelled = self._worker.run(self._cancel)
        return cancelled.addBoth(lambda _: failure)

    def _cancel(self) -> None:
        if self._staged is not None:
            self._staged.close()
        if self._sink is not None:
            self._sink.cancel()


def _set_aside(sink: SnapshotSink) -> str:
    """Keep what did not restore, if that is possible: why it did not matters more."""
    assert isinstance(sink, StagedSnapshotSink), "it was staged"
    try:
        return sink.set_aside()
    except Exception:
        return ""
