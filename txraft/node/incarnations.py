"""Which life of each member is the one that the cluster knows.

A node whose data directory was lost comes back under its old name without what it
has promised: votes, acknowledged entries. So each data directory has an incarnation, a
random number that travels with every message, and members remember each other's;
followers, who hear nothing of one another, learn them from their leader. One that
comes with another is refused, until it has been removed and was added again.

An older copy of a directory has the same incarnation. It gives itself away when its
node denies to the leader what it has acknowledged. Its incarnation is then void, and
the leader tells its followers that, too.

Go peers have none and are never refused for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack
from twisted.logger import Logger

from txraft.core.configuration import ConfigurationHistory
from txraft.core.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    Request,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.core.ready import Ready
from txraft.errors import StorageError
from txraft.interfaces import StableStore

INCARNATION = b"Incarnation"
KNOWN_INCARNATIONS = b"Incarnations"
INCARNATION_BYTES = 16
VOID = b"void:"
"""Stands before an incarnation that was found to have forgotten."""

WAY_OUT = (
    "its data directory is not the one it had as a member, or is an older copy of "
    "that, so it has forgotten what it promised: remove it from the cluster, then "
    "start it with an empty data directory and join: true, and add it again"
)


class Incarnations:
    """What the server at *address* knows of the others; *save* makes it durable.

    *known* was known when the log ended with the membership of entry *told*.
    `refused` maps members that come in another life to why they are refused.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        own: bytes | None,
        known: Mapping[str, bytes],
        save: Callable[[Mapping[bytes, bytes]], None],
        told: int = 0,
    ) -> None:
        self.own = own
        self.refused: dict[str, str] = {}
        self._address = address
        self._known = dict(known)
        self._save = save
        self._told = told
        self._looked = False

    def refuses(
        self, peer: str, incarnation: bytes | None, history: ConfigurationHistory
    ) -> str | None:
        """Say why a message of *peer* is not heard, if so; remember who is new."""
        if not incarnation or self.own is None:
            return None
        known = self._known.get(peer)
        if known is None:
            if history.latest.server(peer) is not None:
                self._known[peer] = incarnation
                self._store()
            return None
        if known == incarnation:
            self.refused.pop(peer, None)
            return None
        self._refuse(peer)
        return f"{peer} is refused: {WAY_OUT}"

    def _refuse(self, peer: str) -> None:
        if peer not in self.refused:
            self.refused[peer] = WAY_OUT
            self.log.error(
                "{node} refuses {peer}: {reason}",
                node=self._address,
                peer=peer,
                reason=WAY_OUT,
            )

    def learn(self, told: bytes, history: ConfigurationHistory) -> None:
        """Remember what a leader knows of members that are not known here."""
        try:
            known = decode_known(told)
        except StorageError:
            return  # nonsense teaches nothing
        new = {
            peer: incarnation
            for peer, incarnation in known.items()
            if self._is_news(peer, incarnation)
            and peer != self._address
            and history.latest.server(peer) is not None
        }
        if new:
            self._known |= new
            self._store()

    def _is_news(self, peer: str, told: bytes) -> bool:
        """Tell whether *peer* is not known, or the life that is known of it is void."""
        known = self._known.get(peer)
        return known is None or told == VOID + known

    def turned(self, history: ConfigurationHistory, ready: Ready) -> None:
        """Take from a turn of consensus who is a member and who has forgotten."""
        latest = history.latest_index
        if ready.commit_index >= latest and not (self._looked and latest <= self._told):
            self._members_committed(history)
        for peer in ready.forgetful:
            self.void(peer)

    def void(self, peer: str) -> None:
        """Refuse *peer* from now on, as it has forgotten what it promised."""
        known = self._known.get(peer)
        if known is not None and not known.startswith(VOID):
            self._known[peer] = VOID + known
            self._refuse(peer)
            self._store()

    def _members_committed(self, history: ConfigurationHistory) -> None:
        """Forget whoever was removed, also if it was added again since."""
        latest = history.latest_index
        is_news = latest > self._told
        since = history.since(self._told) if is_news else [history.latest]
        self._told, self._looked = latest, True
        self._forget(
            [
                peer
                for peer in self._known
                if any(configuration.server(peer) is None for configuration in since)
            ]
        )

    def forget_all(self) -> None:
        """Forget everybody, as a snapshot does not tell who was removed meanwhile."""
        self._forget(list(self._known))

    def _forget(self, peers: list[str]) -> None:
        for peer in peers:
            del self._known[peer]
            self.refused.pop(peer, None)
        if peers:
            self._store()

    def _store(self) -> None:
        self._save({KNOWN_INCARNATIONS: encode_known(self._known)})


def sender_of(request: Request) -> str | None:
    """Return the address of who has sent *request*, None if it does not say."""
    match request:
        case AppendEntriesRequest() | InstallSnapshotRequest():
            return request.leader
        case RequestVoteRequest() | RequestPreVoteRequest():
            return request.candidate
        case TimeoutNowRequest():
            return request.header.address


def read_incarnations(
    store: StableStore, new: Callable[[int], bytes]
) -> tuple[bytes, dict[str, bytes]]:
    """Read this node's own incarnation and those it knows; make its own with *new*.

    Raises: StorageError
    Thread: writer.
    Durable: its own, when this returns.
    """
    own = store.get(INCARNATION)
    if not own:
        own = new(INCARNATION_BYTES)
        store.set_many({INCARNATION: own})
    return own, decode_known(store.get(KNOWN_INCARNATIONS))


def encode_known(known: Mapping[str, bytes]) -> bytes:
    """Encode a map of addresses to incarnations."""
    encoded: bytes = msgpack.packb(
        {
            address.encode("utf-8", "surrogateescape"): incarnation
            for address, incarnation in known.items()
        }
    )
    return encoded


def decode_known(data: bytes) -> dict[str, bytes]:
    """Decode what `encode_known` wrote, b"" for nothing. Raises: StorageError"""
    if not data:
        return {}
    try:
        pairs = list(msgpack.unpackb(data, raw=True, strict_map_key=False).items())
        if not all(type(part) is bytes for pair in pairs for part in pair):
            raise TypeError("not all of it is bytes")
        return {a.decode("utf-8", "surrogateescape"): i for a, i in pairs}
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise StorageError(f"the known incarnations are malformed: {error}") from error
