"""Incarnations: refuse a member that comes back without what it has promised.

A node whose data directory was lost comes back under its old name and has forgotten its
votes and the entries that it has acknowledged. So each data directory has an
*incarnation*, a random number that travels with every message. Members remember each
other's, and refuse a member that comes with another one:

    unknown ──> known ──> suspected ──> void
       ^          │           │           │
       └──────────┴───────────┴───────────┘ its removal is committed

    known      its first message was taken: before that it had promised nothing
    suspected  by this leader, as it has denied what it acknowledged to it
    void       an entry that says so is committed: every member refuses it

*Suspected* and *void* are for an older copy of a directory, which has the same
incarnation. The entry is a no-op with the incarnation as its data. The leader does not
hear a suspected member any more, so that entry is committed without its help.

Followers hear nothing of one another. They learn incarnations from their leader, and
only those that they do not know: without TLS anybody may send such a message.

Go peers have none, and are never refused for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack
from twisted.logger import Logger

from txraft.core.configuration import ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AnyRequest,
    AppendEntriesRequest,
    ForwardRequest,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.core.ready import Ready
from txraft.errors import StorageError
from txraft.interfaces import StableStore
from txraft.node.application import done
from txraft.wire.decisions import (
    MAX_INCARNATION_BYTES,
    encode_void,
    voided_incarnation,
)

INCARNATION = b"Incarnation"
KNOWN_INCARNATIONS = b"Incarnations"
PARDONED = b"PardonedIncarnations"
"""The key of the index up to which no entry of the log declares anything void."""

INCARNATION_BYTES = 16
VOID = b"void:"
"""What stands before an incarnation that is void, where known ones are stored."""

WAY_OUT = (
    "its data directory is not the one it had as a member, or is an older copy of "
    "that, so it has forgotten what it promised: remove it from the cluster, then "
    "start it with an empty data directory and join: true, and add it again"
)


class Incarnations:
    """What the server at *address* knows of the others; *save* makes it durable.

    *known* was found on disk, where the log's newest membership is that of the entry
    *seen_membership*. An entry up to *pardoned* declares nothing void any more.
    `refused` maps each member that came with another incarnation to the reason for
    refusing it.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        own: bytes | None,
        known: Mapping[str, bytes],
        save: Callable[[Mapping[bytes, bytes]], None],
        *,
        seen_membership: int = 0,
        pardoned: int = 0,
    ) -> None:
        self.own = own
        self.refused: dict[str, str] = {}
        self._address = address
        self._known = dict(known)
        self._save = save
        self._seen_membership = seen_membership
        self._looked = False
        self._pardoned = pardoned
        # The suspected ones. No committed entry has declared them void yet.
        self._suspects: dict[str, bytes] = {}
        # The term in which such an entry was appended, and the index at which one was
        # committed, by member.
        self._proposed: dict[str, int] = {}
        self._voided_at: dict[str, int] = {}

    def refuses(
        self, peer: str, incarnation: bytes | None, history: ConfigurationHistory
    ) -> str | None:
        """Return why a message of *peer* is refused, None if it is not.

        The incarnation of a member that was unknown is remembered.
        """
        if not incarnation or self.own is None:
            return None
        if len(incarnation) > MAX_INCARNATION_BYTES:
            return f"an incarnation has at most {MAX_INCARNATION_BYTES} bytes"
        known = self._known.get(peer)
        # The first incarnation that is met is believed: a member that was just added
        # has promised nothing before.
        if known is None:
            if history.latest.server(peer) is not None:
                self._known[peer] = incarnation
                self._store()
            return None
        # A void one begins with `VOID` in `_known`, so it is never equal to what comes.
        if known == incarnation and self._suspects.get(peer) != incarnation:
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
        """Remember what the leader knows of members that are not known here.

        To be called only when consensus follows the sender.
        """
        try:
            known = decode_known(told)
        except StorageError:
            return  # nonsense teaches nothing
        new = {
            peer: incarnation
            for peer, incarnation in known.items()
            if peer not in self._known
            and len(incarnation) <= len(VOID) + MAX_INCARNATION_BYTES
            and peer != self._address
            and history.latest.server(peer) is not None
        }
        if new:
            self._known |= new
            self._store()

    def after_turn(self, history: ConfigurationHistory, ready: Ready) -> None:
        """Look, after a turn, who is no member any more and who has forgotten."""
        # Only when the membership is committed: a removal may still be rolled back. And
        # once for each membership, because this is called in every turn.
        latest = history.latest_index
        if ready.commit_index >= latest and not (
            self._looked and latest <= self._seen_membership
        ):
            self._members_committed(history)
        for peer in ready.forgetful:
            self._suspect(peer)

    def _suspect(self, peer: str) -> None:
        """Refuse *peer* from now on: it has denied what it acknowledged to this leader.

        At once, and not when the entry is committed: what it acknowledges from now on
        must not help to commit that entry.
        """
        known = self._known.get(peer)
        if known is not None and not known.startswith(VOID):
            self._suspects[peer] = known
            self._refuse(peer)

    def propose(self, consensus: Consensus) -> None:
        """Append an entry for each void or suspected incarnation, if this server leads.

        Once in each term. So an entry that was lost with a leadership comes again, and
        members that got a snapshot in its place learn of it.
        """
        if not consensus.is_leader:
            return
        void = {
            peer: known.removeprefix(VOID)
            for peer, known in self._known.items()
            if known.startswith(VOID)
        }
        for peer, incarnation in (void | self._suspects).items():
            if self._proposed.get(peer) != consensus.term:
                entry = Entry(0, 0, LogType.NOOP, encode_void(peer, incarnation))
                consensus.propose([entry])
                if entry.index:
                    self._proposed[peer] = consensus.term

    def applied(self, entry: Entry, history: ConfigurationHistory) -> None:
        """Refuse the member that the committed no-op *entry* declares void, if any.

        Not if it was removed since: if it is a member again, it came back as a new one.
        """
        peer, incarnation = voided_incarnation(entry.data or b"")
        if not incarnation or entry.index <= self._pardoned or self.own is None:
            return
        if any(each.server(peer) is None for each in history.since(entry.index)):
            return
        # Not if another incarnation is known by now: that one came after a removal.
        if self._known.get(peer, incarnation) == incarnation and peer != self._address:
            self._known[peer] = VOID + incarnation
            self._voided_at[peer] = entry.index
            self._suspects.pop(peer, None)
            self._refuse(peer)
            self._store()

    def _members_committed(self, history: ConfigurationHistory) -> None:
        """Forget each member that was removed, even if it was added again since."""
        latest = history.latest_index
        is_news = latest > self._seen_membership
        seen = self._seen_membership if is_news else latest
        since = {seen: history.since(seen)}
        removed = []
        for peer in self._known:
            # For a void one, only a removal that came after the entry counts.
            index = max(seen, self._voided_at.get(peer, 0))
            if index not in since:
                since[index] = history.since(index)
            if any(each.server(peer) is None for each in since[index]):
                removed.append(peer)
        self._seen_membership, self._looked = latest, True
        self._forget(removed)

    def forget_all(self) -> None:
        """Forget everybody: a snapshot does not say who was removed meanwhile."""
        self._forget(list(self._known))

    def _forget(self, peers: list[str]) -> None:
        for peer in peers:
            del self._known[peer]
            self._suspects.pop(peer, None)
            self._voided_at.pop(peer, None)
            self.refused.pop(peer, None)
        if peers:
            self._store()

    def _store(self) -> None:
        self._save({KNOWN_INCARNATIONS: encode_known(self._known)})


def sender_of(request: AnyRequest) -> str | None:
    """Return the address of who has sent *request*, None if it does not say."""
    match request:
        case AppendEntriesRequest() | InstallSnapshotRequest():
            return request.leader
        case RequestVoteRequest() | RequestPreVoteRequest():
            return request.candidate
        case TimeoutNowRequest() | ForwardRequest():
            return request.header.address


def read_pardoned(store: StableStore) -> int:
    """Read up to which index the log declares nothing void. Thread: writer."""
    return int.from_bytes(store.get(PARDONED), "big")


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
        done(store.set_many, {INCARNATION: own})
    return own, decode_known(store.get(KNOWN_INCARNATIONS))


def pardon_all(store: StableStore, last_index: int) -> None:
    """Forget all that is known of other members, to be learned anew.

    What entries up to *last_index* declare void is so no more.
    Raises: StorageError
    Durable: when this returns.
    """
    done(
        store.set_many,
        {KNOWN_INCARNATIONS: b"", PARDONED: last_index.to_bytes(8, "big")},
    )


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
