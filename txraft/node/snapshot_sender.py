"""The snapshot sender: send this node's newest snapshot to followers that need one.

It is read on a thread of its own: a node that writes one, which can take minutes, sends
another meanwhile.

Source: Raft dissertation §5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.messages import Header, InstallSnapshotRequest
from txraft.core.ready import SendSnapshot
from txraft.errors import SnapshotFailed, StorageError
from txraft.interfaces import SnapshotMeta, SnapshotStore, Transport
from txraft.node.application import answer_of
from txraft.node.outbox import Inbox
from txraft.node.worker import Worker


class SenderHost(Inbox, Protocol):
    """What the sender of snapshots asks of its node, besides where fates are told."""

    def hears(self, peer: str) -> bool:
        """Tell whether *peer* follows this node, and has answered it lately."""


class _FileSource:
    """Reads a snapshot's file on the sender's thread.

    Its receiver may take any time to restore it, as long as heartbeats are answered.
    These go another way and are answered by the thread that receives, which a long
    restore does not stop; by the same incarnation, or the answer does not count.
    """

    def __init__(
        self, file: BinaryIO, worker: Worker, may_wait: Callable[[], bool]
    ) -> None:
        self._file = file
        self._worker = worker
        self.may_wait = may_wait

    def read(self, size: int) -> Deferred[bytes]:
        """Read up to *size* bytes."""
        return self._worker.run(lambda: self._file.read(size))


class SnapshotSender:
    """Sends the newest snapshot of *store*, read by *worker*, and reports its fate.

    *address* is this server's, *protocol_version* decides the form that is sent.
    *header* tells what a request begins with, *skipped* which entries up to an index
    were skipped, *application* is the name of what it is a snapshot of.
    """

    log = Logger()

    def __init__(
        self,
        *,
        address: str,
        protocol_version: int,
        store: SnapshotStore,
        worker: Worker,
        transport: Transport,
        host: SenderHost,
        header: Callable[[], Header],
        skipped: Callable[[int], bytes] = lambda index: b"",
        application: str = "",
    ) -> None:
        self._address = address
        self._version = protocol_version
        self._store = store
        self._worker = worker
        self._transport = transport
        self._host = host
        self._header = header
        self._skipped = skipped
        self._application = application
        self._stopped = False

    def stop(self) -> None:
        """Report nothing any more."""
        self._stopped = True

    def send(self, peer: str, request: SendSnapshot) -> None:
        """Send the newest snapshot to *peer* and report its fate."""
        self._worker.run(self._open_newest).addCallback(
            self._send_opened, peer, request
        ).addErrback(self._not_sent, peer, request)

    def _open_newest(self) -> tuple[SnapshotMeta, BinaryIO]:
        """Open the newest snapshot, also if a newer one just takes its place.

        Thread: sender.
        """
        tried = None
        while True:
            found = self._store.list()
            if not found:
                raise SnapshotFailed("there is no snapshot to send")
            try:
                return self._store.open(found[0].id)
            except (StorageError, OSError):
                # It was listed and is gone: a newer one has taken its place, so look
                # again. The same one twice is damaged.
                if tried == found[0].id:
                    raise
                tried = found[0].id

    def _send_opened(
        self, opened: tuple[SnapshotMeta, BinaryIO], peer: str, request: SendSnapshot
    ) -> Deferred[None]:
        meta, file = opened
        self.log.info(
            "{node} sends snapshot {id} of {size} bytes to {peer}",
            node=self._address,
            id=meta.id,
            size=meta.size,
            peer=peer,
        )
        source = _FileSource(
            file, self._worker, lambda: not self._stopped and self._host.hears(peer)
        )
        answered = answer_of(
            self._transport.install_snapshot, peer, self._wire(meta, request), source
        )
        # By now there may be a newer one than consensus knew of: the follower will be
        # where that ends.
        sent = replace(request, index=meta.index)

        def close(outcome: object) -> object:
            # On the thread that reads it, behind a read that may be under way; here
            # only when that thread has ended.
            self._worker.run(file.close).addErrback(lambda _: file.close())
            return outcome

        answered.addBoth(close)
        return answered.addCallback(
            lambda answer: self._host.answered(peer, sent, answer)
        )

    def _wire(
        self, meta: SnapshotMeta, request: SendSnapshot
    ) -> InstallSnapshotRequest:
        return InstallSnapshotRequest(
            term=request.term,
            leader=self._address,
            last_log_index=meta.index,
            last_log_term=meta.term,
            size=meta.size,
            configuration=meta.configuration,
            configuration_index=meta.configuration_index,
            peers=meta.configuration.voters,
            snapshot_version=1 if self._version else 0,
            header=self._header(),
            skipped=self._skipped(meta.index),
            application=self._application if self._version else "",
        )

    def _not_sent(self, failure: Failure, peer: str, request: SendSnapshot) -> None:
        if self._stopped:
            return
        if not isinstance(failure.value, Exception):
            self._host.stop_because("a snapshot was not sent", failure)
        self.log.warn(
            "{node} could not send a snapshot to {peer}: {reason}",
            node=self._address,
            peer=peer,
            reason=failure.getErrorMessage(),
        )
        self._host.lost(peer, request, closed=False)
