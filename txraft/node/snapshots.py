"""Snapshots of one node: take its own, and install a leader's.

The FSM is captured on the reactor, between two entries; what was captured is written on
the snapshot thread, while entries go on being applied. A leader's is stored there piece
by piece, and restored while nothing is applied.

`snapshot_writer` has how one is written, `snapshot_receiver` how one comes in, and
`snapshot_sender` how one is sent.

Source: Raft dissertation §5.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.messages import Header
from txraft.core.ready import Install, SnapshotMark
from txraft.errors import RaftShutdown, SnapshotFailed, WrongApplication
from txraft.interfaces import (
    FSM,
    FSMSnapshot,
    IncomingRPC,
    SnapshotMeta,
    SnapshotStore,
)
from txraft.node.application import capture, reason_of, release
from txraft.node.applier import Applier
from txraft.node.metrics import Timer
from txraft.node.ownership import check_head, check_offered
from txraft.node.snapshot_receiver import SnapshotReceiver
from txraft.node.snapshot_writer import write_snapshot
from txraft.node.worker import Worker


class SnapshotsHost(Protocol):
    """What `Snapshots` asks of its node, and tells it."""

    def snapshot_position(self) -> SnapshotMark:
        """Return where a snapshot of the FSM as it is now would end."""

    def when_synced(self) -> Deferred[None]:
        """Return a Deferred that fires when all that was written is durable."""

    def snapshot_taken(self, mark: SnapshotMark) -> None:
        """Learn that a snapshot of this node's own is durable."""

    def snapshot_installed(self, install: Install, mark: SnapshotMark | None) -> None:
        """Learn that a leader's snapshot is durable and restored, or not taken."""

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""


class Snapshots:
    """Takes and installs snapshots; at most one is taken or installed at once.

    `installing` holds until the host sets it back, once it has moved to where the
    snapshot ends: before that, nobody could tell where the FSM stands. `taken` times
    what was taken here, `newest_bytes` is the size of the last one.

    *address* is this server's; *header* tells what its requests begin with.
    """

    log = Logger()

    def __init__(
        self,
        *,
        address: str,
        fsm: FSM,
        store: SnapshotStore,
        worker: Worker,
        applier: Applier,
        host: SnapshotsHost,
        header: Callable[[], Header],
    ) -> None:
        self._address = address
        self._fsm = fsm
        self._store = store
        self._worker = worker
        self._applier = applier
        self._host = host
        self._header = header
        self._stopped = False
        # `_taking` until one is durable, `installing` until the host has moved to it.
        self._taking = False
        self._pausing: Deferred[None] = succeed(None)
        self._receiving: SnapshotReceiver | None = None
        self.installing = False
        self.taken = Timer()
        self.newest_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being taken or installed."""
        return self._taking or self.installing

    def stop(self) -> None:
        """Report nothing any more, and abandon a snapshot that comes or is taken."""
        self._stopped = True
        if self._receiving is not None:
            self._receiving.stop()
        if not self._pausing.called:
            self._pausing.cancel()

    # Taking

    def take(self) -> Deferred[SnapshotMeta]:
        """Take a snapshot of the FSM as it is now, or as soon as it is left alone.

        Fires with its description once it is durable; fails with SnapshotFailed, or
        with RaftShutdown. An FSM that has yet to answer for a command may have done
        half of it, and is waited for. A snapshot covers only what is durable in the
        log here, so that the two never have a gap between them.
        """
        if self.busy:
            return fail(SnapshotFailed("another snapshot is being taken or installed"))
        self._taking = True
        self._pausing = self._applier.pause()
        self._pausing.addErrback(self._stopped_before)
        return self._pausing.addCallback(lambda _: self._capture())

    def _stopped_before(self, failure: Failure) -> None:
        failure.trap(CancelledError)
        self._taking = False
        raise RaftShutdown

    def _capture(self) -> Deferred[SnapshotMeta]:
        try:
            mark = self._host.snapshot_position()
            captured = capture(self._fsm)
        except Exception as error:
            self.log.failure("the state machine gave no snapshot")
            self._taking = False
            raise SnapshotFailed(f"failed to start snapshot: {error}") from error
        except BaseException as error:
            self._taking = False
            self._host.stop_because("the state machine gave no snapshot", Failure())
            raise SnapshotFailed("failed to start snapshot") from error
        finally:
            # What was captured does not change any more: entries may be applied again.
            self._applier.resume()
        began = perf_counter()
        cluster = self._header().cluster or b""
        # A snapshot stands for entries of the log. Were it durable before they are, a
        # crash would leave a log that ends below it, with a gap behind.
        done = self._host.when_synced().addCallback(
            lambda _: self._worker.run(lambda: self._persist(captured, mark, cluster))
        )
        return done.addBoth(self._persisted, captured, mark, began)

    def _persist(
        self, captured: FSMSnapshot, mark: SnapshotMark, cluster: bytes
    ) -> SnapshotMeta:
        return write_snapshot(
            self._store, captured, mark, cluster, lambda: self._stopped
        )

    def _persisted(
        self,
        outcome: SnapshotMeta | Failure,
        captured: FSMSnapshot,
        mark: SnapshotMark,
        began: float,
    ) -> SnapshotMeta | Failure:
        self._taking = False
        try:
            if isinstance(outcome, Failure):
                return self._not_persisted(outcome)
            self._snapshot_is_there(outcome, mark, began)
            return outcome
        finally:
            # Last: what `release` raises changes nothing for what is on the disk.
            self._let_go(captured)

    def _not_persisted(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Exception):
            if not self._stopped:
                self.log.failure("a snapshot was not taken", failure=failure)
        else:
            self._host.stop_because("a snapshot was not taken", failure)
        reason = f"failed to persist snapshot: {reason_of(failure)}"
        return Failure(SnapshotFailed(reason))

    def _let_go(self, captured: FSMSnapshot) -> None:
        try:
            release(captured)
        except BaseException:
            self._host.stop_because("a snapshot was not released", Failure())

    def _snapshot_is_there(
        self, meta: SnapshotMeta, mark: SnapshotMark, began: float
    ) -> None:
        self.taken.add(perf_counter() - began)
        self.newest_bytes = meta.size
        if not self._stopped:
            self.log.info(
                "{node} took snapshot {id} of {size} bytes up to index {index}",
                node=self._address,
                id=meta.id,
                size=meta.size,
                index=mark.index,
            )
            self._host.snapshot_taken(mark)

    # Installing

    def install(self, install: Install, rpc: IncomingRPC) -> None:
        """Take the snapshot that follows *install*: have it stored and restored.

        It is durable before the FSM changes, and listed after that; the log is cut
        only after both. One that does not restore stops the node, as nobody knows
        then what the FSM holds.
        """
        request, body = install.request, rpc.body
        # Read to its end and refused: the connection then serves the next request.
        if self.busy or body is None:
            if body is not None:
                body.drain()
            self._host.snapshot_installed(install, None)
            return
        try:
            check_offered(self._fsm, request.application)
        except WrongApplication:
            body.drain()
            self._not_stored(Failure(), install)
            return
        self.installing = True
        self.log.info(
            "{node} installs a snapshot of {size} bytes up to index {index} "
            "from {leader}",
            node=self._address,
            size=request.size,
            index=request.last_log_index,
            leader=request.leader,
        )
        mark = SnapshotMark(
            request.last_log_index,
            request.last_log_term,
            request.configuration,
            request.configuration_index,
        )
        cluster = request.header.cluster or b""
        self._receiving = receiving = SnapshotReceiver(
            self._store,
            self._worker,
            mark=mark,
            cluster=cluster,
            when_synced=self._host.when_synced,
            check_head=lambda head: check_head(self._fsm, head),
        )
        stored = receiving.take(body)
        stored.addCallbacks(
            self._stored,
            self._not_stored,
            callbackArgs=(receiving, install, mark),
            errbackArgs=(install,),
        )

    def _not_stored(self, failure: Failure, install: Install) -> None:
        if self._stopped:
            return
        if not isinstance(failure.value, Exception):
            self._host.stop_because("a snapshot was not stored", failure)
            return
        self.log.warn(
            "{node} did not get a snapshot from {leader}: {reason}",
            node=self._address,
            leader=install.request.leader,
            reason=failure.getErrorMessage(),
        )
        self._host.snapshot_installed(install, None)

    def _stored(
        self, _: None, receiving: SnapshotReceiver, install: Install, mark: SnapshotMark
    ) -> None:
        # Between two entries, and until the host has moved: nothing may be applied to
        # a state that is about to be another one.
        restored = self._applier.pause()
        restored.addCallback(
            lambda _: self._worker.run(lambda: receiving.restore_into(self._fsm))
        )
        restored.addCallbacks(
            self._restored,
            self._not_restored,
            callbackArgs=(install, mark),
            errbackArgs=(receiving,),
        )

    def _restored(self, _: None, install: Install, mark: SnapshotMark) -> None:
        if not self._stopped:
            self._host.snapshot_installed(install, mark)

    def _not_restored(self, failure: Failure, receiving: SnapshotReceiver) -> None:
        if self._stopped:
            return
        if receiving.restored:
            reason = "a leader's snapshot was restored, but could not be stored"
        else:
            reason = "the state machine did not restore a leader's snapshot"
        if receiving.aside:
            reason += f", which is kept as {receiving.aside} for you to look into"
        self._host.stop_because(reason, failure)
