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
    """Keeps what arrives in a file without a name, which is written on *worker*.

    While more than `MAX_QUEUED_BYTES` wait to be written, *producer* is paused. It is
    read on the same worker, and so behind all that was written. *closed* is called
    once it is closed. The file lies where the system keeps temporary ones: not beside
    the log, whose disk no client should fill.

    Raises: OSError
    """

    def __init__(
        self, worker: Worker, producer: IPushProducer, closed: Callable[[], object]
    ) -> None:
        self._file: IO[bytes] = TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._worker = worker
        self._producer = producer
        self._closed = closed
        self._queued = 0
        self._paused = False
        self._is_closed = False
        self._error: OSError | None = None

    def add(self, data: bytes) -> None:
        """Append *data*, soon. Thread: reactor."""
        self._queued += len(data)
        written = self._worker.run(lambda: self._write(data))
        written.addBoth(self._written, len(data))
        if self._queued > MAX_QUEUED_BYTES and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def read(self, size: int = -1) -> bytes:
        """Read up to *size* bytes. Thread: the worker's.

        Raises: OSError, also when something could not be written
        """
        if self._error is not None:
            raise self._error
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to *offset*; return where that is. Thread: the worker's."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Give the file back, once nothing works on it; idempotent. Thread: reactor."""
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
