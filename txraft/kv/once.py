"""Exactly-once: remember the first result of commands with client and sequence number.

These results are part of the replicated state, so all replicas remember and forget
alike: by the order of the log, never by time.
"""

from __future__ import annotations

from typing import NamedTuple

from txraft.errors import ApplicationError

DIGEST_BYTES = 8
"""Bytes of the digest of a command. It only tells one client's commands apart."""

WINDOW = 64
MAX_CLIENTS = 4096
MAX_REMEMBERED_BYTES = 16 << 20


class SequenceUsed(ApplicationError):
    """The sequence number was used for another command; this command was not done."""


class ClientResults(NamedTuple):
    """The remembered results of one client.

    *results* maps its newest sequence numbers to packed results. *digests* maps those
    that were done by the rules of level 1 to the digests of their commands. Results of
    *floor* and lower numbers are forgotten.
    """

    floor: int
    results: dict[int, bytes]
    digests: dict[int, bytes]


class Results:
    """The newest `WINDOW` results of each of the `MAX_CLIENTS` clients heard last."""

    def __init__(self) -> None:
        self._clients: dict[str, ClientResults] = {}
        self._bytes = 0

    def find(self, client: str, sequence: int, digest: bytes = b"") -> bytes | None:
        """Return the first result of *sequence*, None when it was never done.

        Raises: ApplicationError if the result is forgotten; SequenceUsed if the number
            was used for a command of another digest, both digests being known.
        """
        known = self._clients.get(client)
        if known is None:
            return None
        result = known.results.get(sequence)
        # Below the floor it may or may not have been done. To do it now could do it
        # twice, so it is refused.
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
        """Keep the *result* of *sequence*, the first under this number."""
        # Taken out and put back at the end of the dict: its order is the order in which
        # clients were heard, and decides on every replica which one is forgotten.
        floor, results, digests = self._clients.pop(client, ClientResults(0, {}, {}))
        results[sequence] = result
        if digest:
            digests[sequence] = digest
        self._bytes += len(result)
        if len(results) > WINDOW:
            # The lowest number, not the first to come: clients may send out of order.
            oldest = min(results)
            floor = max(floor, oldest)
            self._bytes -= len(results.pop(oldest))
            digests.pop(oldest, None)
        self._clients[client] = ClientResults(floor, results, digests)
        # The client heard just now always stays: its answer may still be on its way.
        while len(self._clients) > MAX_CLIENTS or (
            self._bytes > MAX_REMEMBERED_BYTES and len(self._clients) > 1
        ):
            self._forget(next(iter(self._clients)))

    def clients(self) -> dict[str, ClientResults]:
        """Return all clients with their results, the one heard last at the end."""
        return self._clients

    def add(
        self,
        client: str,
        floor: int,
        results: dict[int, bytes],
        digests: dict[int, bytes],
    ) -> None:
        """Put back one client, as `clients` returned it."""
        self._clients[client] = ClientResults(floor, results, digests)
        self._bytes += sum(map(len, results.values()))

    def copy(self) -> Results:
        """Return a copy that does not change with this one."""
        copy = Results()
        for name, client in self._clients.items():
            copy.add(name, client.floor, client.results.copy(), client.digests.copy())
        return copy

    def _forget(self, client: str) -> None:
        self._bytes -= sum(map(len, self._clients.pop(client).results.values()))
