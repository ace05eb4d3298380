"""Unread answers: bound the bytes that wait for slow clients to read them."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    """A connection whose client reads an answer more slowly than it is made."""

    def cut_off(self) -> None:
        """Close the connection, and drop the bytes that wait for it."""


class Unread:
    """Bounds the unread bytes of all readers together to *max_bytes*.

    Beyond that it cuts off the reader that has let answers wait longest. A client that
    keeps reading has finished long before its turn comes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._readers: dict[Reader, int] = {}
        self.bytes = 0

    def add(self, reader: Reader, size: int) -> None:
        """Count *size* more unread bytes of *reader*; cut off who is over the bound."""
        self._readers[reader] = self._readers.get(reader, 0) + size
        self.bytes += size
        while self.bytes > self._max_bytes:
            oldest = next(iter(self._readers))
            # First: to cut it off may come back here.
            self.forget(oldest)
            oldest.cut_off()

    def forget(self, reader: Reader) -> None:
        """Take *reader* off the count, as it has read all or is gone; idempotent."""
        self.bytes -= self._readers.pop(reader, 0)
