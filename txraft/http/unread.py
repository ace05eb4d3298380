"""Answers that wait for clients to read them."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    """A connection that does not take an answer as fast as it is made."""

    def cut_off(self) -> None:
        """Close the connection, and drop what waits for it."""


class Unread:
    """Bounds what waits for all readers together to *max_bytes*.

    Above that whoever has let answers wait longest is cut off: a client that reads is
    through long before it would be its turn.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._readers: dict[Reader, int] = {}
        self.bytes = 0

    def add(self, reader: Reader, size: int) -> None:
        """Count *size* more bytes that *reader* lets wait."""
        self._readers[reader] = self._readers.get(reader, 0) + size
        self.bytes += size
        while self.bytes > self._max_bytes:
            oldest = next(iter(self._readers))
            self.forget(oldest)
            oldest.cut_off()

    def forget(self, reader: Reader) -> None:
        """Count nothing for *reader*, who has read all or is gone; idempotent."""
        self.bytes -= self._readers.pop(reader, 0)
