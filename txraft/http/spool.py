"""The body of a long request, in a temporary file instead of memory."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryFile
from typing import IO

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from txraft.node.worker import Worker

MAX_QUEUED_BYTES = 1 << 20


class Spool:
    """A temporary file without a name; *worker* writes it.

    While more than `MAX_QUEUED_BYTES` wait to be written, *producer* is paused. Reads
    run on the same worker, so they come after all writes. *closed* is called when the
    spool is closed.

    Raises: OSError
    """

    def __init__(
        self, worker: Worker, producer: IPushProducer, closed: Callable[[], object]
    ) -> None:
        # In the system's directory for temporary files, not beside the log: no client
        # may fill the disk of the log.
        self._file: IO[bytes] = TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._worker = worker
        self._producer = producer
        self._closed = closed
        self._queued = 0
        self._paused = False
        self._is_closed = False
        self._error: OSError | None = None

    def add(self, data: bytes) -> None:
        """Queue *data* to be appended. Thread: reactor"""
        self._queued += len(data)
        written = self._worker.run(lambda: self._write(data))
        written.addBoth(self._written, len(data))
        if self._queued > MAX_QUEUED_BYTES and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def read(self, size: int = -1) -> bytes:
        """Read up to *size* bytes.

        Raises: OSError, also for a write that failed before
        Thread: worker
        """
        if self._error is not None:
            raise self._error
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to *offset*; return the new position. Thread: worker"""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Close the file after all queued work; idempotent. Thread: reactor"""
        if not self._is_closed:
            self._is_closed = True
            self._worker.run(self._file.close).addErrback(lambda _: None)
            self._closed()

    def _write(self, data: bytes) -> None:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error

    def _written(self, _result: Failure | None, size: int) -> None:
        self._queued -= size
        if self._paused and self._queued <= MAX_QUEUED_BYTES // 2:
            self._paused = False
            self._producer.resumeProducing()
