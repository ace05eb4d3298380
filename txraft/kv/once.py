"""First results of commands that carry a client and a sequence number.

What is remembered is part of the replicated state, so all replicas remember and
forget alike: by the order of the log, never by time.
"""

from __future__ import annotations

from typing import NamedTuple

from txraft.errors import ApplicationError

DIGEST_BYTES = 8
"""Bytes of a digest of a command: to tell apart what one client has sent."""

WINDOW = 64
MAX_CLIENTS = 4096
MAX_REMEMBERED_BYTES = 16 << 20


class SequenceUsed(ApplicationError):
    """Another command was done under this sequence number; this one was not."""


class Client(NamedTuple):
    """What is remembered of one client.

    *results* maps its newest sequence numbers to packed results, *digests* those that
    were done by the rules of level 1 to the digests of their commands. Nothing is known
    any more of what was sent under *floor* or a lower number.
    """

    floor: int
    results: dict[int, bytes]
    digests: dict[int, bytes]


class Results:
    """The newest `WINDOW` results of the `MAX_CLIENTS` clients heard last."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._bytes = 0

    def find(self, client: str, sequence: int, digest: bytes = b"") -> bytes | None:
        """Return the first result of *sequence*, None when it was never done.

        Raises: ApplicationError when that is not known any more; SequenceUsed when
            it was done for a command whose digest is not *digest*, both being known.
        """
        known = self._clients.get(client)
        if known is None:
            return None
        result = known.results.get(sequence)
        if result is None and sequence <= known.floor:
            raise ApplicationError(
                f"the sequence {sequence} of this client is too old to know whether "
                f"it was done: {known.floor} and lower ones are forgotten"
            )
        if digest and known.digests.get(sequence, digest) != digest:
            raise SequenceUsed(
                f"The client has used the sequence {sequence} for another write: that "
                "one was done, this one was not. Take another number for each write."
            )
        return result

    def remember(
        self, client: str, sequence: int, result: bytes, digest: bytes = b""
    ) -> None:
        """Keep the *result* of *sequence*, which is the first under this number."""
        floor, results, digests = self._clients.pop(client, Client(0, {}, {}))
        results[sequence] = result
        if digest:
            digests[sequence] = digest
        self._bytes += len(result)
        if len(results) > WINDOW:
            oldest = min(results)
            floor = max(floor, oldest)
            self._bytes -= len(results.pop(oldest))
            digests.pop(oldest, None)
        self._clients[client] = Client(floor, results, digests)
        while len(self._clients) > MAX_CLIENTS or (
            self._bytes > MAX_REMEMBERED_BYTES and len(self._clients) > 1
        ):
            self._forget(next(iter(self._clients)))

    def clients(self) -> dict[str, Client]:
        """Return all that is remembered, the client heard last at the end."""
        return self._clients

    def add(
        self,
        client: str,
        floor: int,
        results: dict[int, bytes],
        digests: dict[int, bytes],
    ) -> None:
        """Put back what `clients` told of one client."""
        self._clients[client] = Client(floor, results, digests)
        self._bytes += sum(map(len, results.values()))

    def copy(self) -> Results:
        """Return a copy that does not change with this one."""
        copy = Results()
        for name, client in self._clients.items():
            copy.add(name, client.floor, client.results.copy(), client.digests.copy())
        return copy

    def _forget(self, client: str) -> None:
        self._bytes -= sum(map(len, self._clients.pop(client).results.values()))
