"""Undeliverable entries: name those that a follower refuses though it is alive.

Its limits are lower than this leader's, or the way there is too slow for an entry of
that size: nobody but an operator can help, who is told which entry it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from txraft.core.entry import Entry
from txraft.core.leader import Leader


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """One entry that *peer* does not take; *size* is that of its encoded form."""

    peer: str
    index: int
    term: int
    size: int

    def __str__(self) -> str:
        return (
            f"entry {self.index} of term {self.term} ({self.size} bytes) to {self.peer}"
        )


class UndeliverableEntries:
    """Those of one node. *fetch* returns the entries from first to at most last."""

    log = Logger()

    def __init__(
        self,
        address: str,
        fetch: Callable[[int, int], list[Entry] | Deferred[list[Entry]]],
    ) -> None:
        self._address = address
        self._fetch = fetch
        self._found: dict[str, Undeliverable] = {}

    def found(self, peer: str, index: int) -> None:
        """Look at the entry that *peer* does not take, and tell of it."""
        read = maybeDeferred(self._fetch, index, index)
        read.addCallbacks(
            lambda entries: self._tell(peer, entries),
            lambda failure: self.log.failure(
                "{node} cannot read entry {index}, which {peer} does not take",
                failure,
                node=self._address,
                index=index,
                peer=peer,
            ),
        )

    def of(self, leader: Leader) -> list[Undeliverable]:
        """List those that *leader* still cannot deliver."""
        return [
            self._found[peer]
            for peer, progress in leader.followers.items()
            if peer in self._found and progress.undeliverable == self._found[peer].index
        ]

    def _tell(self, peer: str, entries: list[Entry]) -> None:
        for entry in entries:
            size = len(entry.encoded)
            self._found[peer] = Undeliverable(peer, entry.index, entry.term, size)
            self.log.error(
                "{node} cannot deliver entry {index} of term {term}, {size} bytes, to "
                "{peer}, which answers heartbeats: alone it got no answer several "
                "times. If the log of {peer} says that a message is too large, raise "
                "max_message_bytes and max_string_bytes there and start it again; "
                "else the way there is too slow for that size. It is tried again now "
                "and then",
                node=self._address,
                index=entry.index,
                term=entry.term,
                size=size,
                peer=peer,
            )
