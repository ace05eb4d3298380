"""The plug points of a node: state machine, stores, snapshots and transport.

Names are hashicorp/raft's. Stores are plain blocking interfaces, called only from the
node's own threads, so that an implementation stays simple; each method says which
thread calls it. Transports live on the reactor thread and answer with Deferreds.

Source: hashicorp/raft, the interfaces of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
)

from txraft.core.configuration import Configuration, Server
from txraft.core.entry import Entry
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)

# State machine ------------------------------------------------------------------


class FSM(Protocol):
    """The application's state machine: the same entries make the same state."""

    def apply(self, log: Entry) -> object:
        """Apply one committed command; entries come in index order, one at a time.

        Returns: the response for the caller of `Raft.apply`, or a Deferred of it;
            the next entry waits for that Deferred.
        Raises: ApplicationError to refuse the command deterministically. Any other
            exception halts this replica, because it may differ from its peers.
        Thread: reactor.
        """

    def snapshot(self) -> FSMSnapshot:
        """Capture the state as it is now, cheaply; `persist` does the writing.

        It is called between two entries, when the response to the last one is there.
        Thread: reactor.
        """

    def restore(self, source: BinaryIO) -> None:
        """Replace the whole state by the one read from *source*.

        Thread: snapshot. Nothing else is called while this runs. The state as seen
        from the reactor thread must change in one step, at the end.
        """


@runtime_checkable
class BatchingFSM(Protocol):
    """An FSM that takes several commands in one call, for speed."""

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply committed commands in order.

        Returns: one response for each; an ApplicationError in the list is that
            command's refusal. A Deferred may be the last one, whatever is left: the
            rest is given again once it has fired.
        Thread: reactor.
        """


@runtime_checkable
class NamedFSM(Protocol):
    """An FSM that names its application, so that no other takes over its data.

    The name is stored with a node's data at the first start. From then on a node or a
    recovery whose FSM has another name, or none, refuses this data; and a node refuses
    a leader's snapshot that names another application.
    """

    @property
    def application_name(self) -> str:
        """The name, such as "example.org/counter"; it never changes."""


@runtime_checkable
class DiscerningFSM(Protocol):
    """An FSM that recognises its own data.

    It is asked about data that names no application, before a `NamedFSM` adopts it, and
    about each snapshot of a leader, before anything is dropped for it.
    """

    def is_own_command(self, data: bytes) -> bool:
        """Tell whether *data* may be a command of this application, of any version.

        Thread: any.
        """

    def is_own_snapshot(self, head: bytes) -> bool:
        """Tell whether a snapshot that begins with *head* may be of this application.

        *head* is the first 64 bytes of it, or all. Thread: any.
        """


@runtime_checkable
class LeveledFSM(Protocol):
    """An FSM whose rules may change while its cluster is upgraded, server by server.

    The cluster agrees on the entry from which new rules hold: a *level* becomes active
    by an entry of its own, which the leader appends once every server of the
    configuration, nonvoters included, has announced that it understands that level.
    So each command is judged by the same rules on every server, however often it is
    replayed. Until then nobody may make a command of the new level, and snapshots keep
    the old format. Only the state says which level is active: `active_level` is part
    of the FSM's snapshots, and `restore` sets it.

    A command is made for the `active_level` of the leader, and should name it. One of
    an old level keeps its old verdict for ever.

    Levels are activated at protocol versions 1 to 3, and never while a Go server is a
    member, as it announces none.
    """

    @property
    def level(self) -> int:
        """The highest level that this code understands; it never changes.

        Levels count from 1; 0 stands for code that did not know levels.
        """

    @property
    def active_level(self) -> int:
        """The level that is active in the state as it is: 0 in an empty one.

        `restore` of a state whose level is above `level` raises UpgradeNeeded.
        """

    def activate(self, level: int) -> None:
        """Go by the rules of *level*, which is above `active_level`, from here on.

        It is called at the same place of the log on every server: after the response
        to the command before it, and before the next. Afterwards `active_level` is
        *level*. *level* is never above `level`: such a server stops instead.
        Thread: reactor.
        """


@runtime_checkable
class StampingFSM(Protocol):
    """An FSM whose commands carry the time at which a leader took them."""

    def stamp(self, data: bytes, term: int) -> bytes:
        """Return the command *data* as it goes into the log of the leader of *term*.

        It is of the same length. Whatever it says is data like any other: all servers
        apply it as it is, however often it is replayed.
        Thread: reactor, for each command.
        """


class FSMSnapshot(Protocol):
    """A captured state, written out while the FSM goes on applying."""

    def persist(self, sink: SnapshotSink) -> None:
        """Write the state to *sink* in pieces of at most 1 MiB; do not close it.

        All of it is written when this returns: a coroutine or a Deferred is refused,
        and so is a sink that was cancelled or never written to. Write b"" for a state
        that is empty.
        Raises: anything; the snapshot has failed then, and the node goes on.
        Thread: snapshot.
        """

    def release(self) -> None:
        """Let go of what the capture holds; called once, whatever happened.

        Thread: reactor.
        """


# Stores -------------------------------------------------------------------------


class LogStore(Protocol):
    """A durable log. Index 0 means "none"; ranges are inclusive."""

    def first_index(self) -> int:
        """Return the index of the oldest entry, 0 when empty. Thread: any."""

    def last_index(self) -> int:
        """Return the index of the newest entry, 0 when empty. Thread: any."""

    def get_log(self, index: int) -> Entry:
        """Read one entry.

        Raises: LogNotFound
        Thread: reader, beside writes.
        """

    def store_log(self, entry: Entry) -> None:
        """Store one entry; as `store_logs`. Thread: writer."""

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Append consecutive entries, as one write.

        An entry at an index that is in the log replaces it and all after it.
        Thread: writer.
        Durable: every entry, when this returns. When it raises, any part of them may
            be; the node then stops, and does not write again.
        """

    def delete_range(self, first: int, last: int) -> None:
        """Delete a prefix or a suffix of the log.

        Thread: writer.
        Durable: the deletion, when this returns.
        """


@runtime_checkable
class RangeLogStore(Protocol):
    """A log store that reads many entries in one call."""

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Read entries *first* to *last*, stopping after *max_bytes* of encoding.

        At least one entry is returned.
        Raises: LogNotFound for *first*.
        Thread: reader, beside writes.
        """


class Syncable(Protocol):
    """Data that was written and is not durable yet."""

    def sync_data(self) -> None:
        """Make it durable; blocks. Raises: OSError"""


@runtime_checkable
class TwoStepLogStore(Protocol):
    """A log store that writes in one step and makes it durable in a second one.

    Between the two steps the node only reads from it.
    """

    def write_logs(self, entries: Sequence[Entry]) -> Syncable | None:
        """Append consecutive entries that are not durable yet, and not readable.

        Returns: what must be synced before `logs_synced` is called; or None, with
            nothing done, when writing would take more than a fraction of a
            millisecond: the node then calls `store_logs` on the writer thread.
        Raises: as `store_logs`.
        Thread: reactor, while the writer thread does nothing.
        """

    def logs_synced(self, error: BaseException | None = None) -> None:
        """Note that what `write_logs` returned was synced, or failed with *error*.

        The entries are readable from now on, unless it failed.

        Thread: reactor.
        """


class StableStore(Protocol):
    """A small durable map, for term and vote. Thread: writer."""

    def set(self, key: bytes, value: bytes) -> None:
        """Store *value*. Durable: when this returns."""

    def get(self, key: bytes) -> bytes:
        """Return the value of *key*, b"" when there is none."""

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store an unsigned 64-bit integer. Durable: when this returns."""

    def get_uint64(self, key: bytes) -> int:
        """Return the integer at *key*, 0 when there is none."""

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store several keys in one atomic write. Durable: when this returns."""


@runtime_checkable
class HintingStableStore(Protocol):
    """A stable store that also keeps one value which a power failure may take.

    It is for what helps after a crash but is not worth a sync.
    """

    def hint(self, value: bytes) -> None:
        """Keep *value* in place of the one before, without a sync; never raise OSError.

        Thread: reactor, while the writer thread does nothing; so it must take no more
            than a fraction of a millisecond.
        """

    def hinted(self) -> bytes:
        """Return the latest hint; after a power failure an older one, or b"".

        Raises: OSError or StorageError when it cannot be read; it counts as none then.
        Thread: writer.
        """


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The description of a snapshot of the log up to (*index*, *term*).

    *size* is in bytes. *version* 0 is hashicorp/raft's first form, which has no
    configuration. *cluster* is the identity of its cluster, b"" if that is unknown.
    """

    id: str
    index: int
    term: int
    configuration: Configuration
    configuration_index: int
    size: int
    version: int = 1
    cluster: bytes = b""


class SnapshotSink(Protocol):
    """A snapshot being written. `close` or `cancel` ends it; the first one wins."""

    def write(self, data: bytes) -> int:
        """Append *data*; return its length. Thread: snapshot."""

    def close(self) -> None:
        """Finish the snapshot. Durable: all of it, when this returns.

        From then on `SnapshotStore.list` includes it, with its index, term and size.
        """

    def cancel(self) -> None:
        """Abandon the snapshot and remove what was written."""

    @property
    def id(self) -> str:
        """The snapshot's id."""


@runtime_checkable
class StagedSnapshotSink(Protocol):
    """A sink whose snapshot can be read before it is listed.

    The node restores a leader's snapshot from it, and closes it after that: so a
    snapshot that does not restore is never listed, and does not prevent the next start.
    A sink without these methods is closed first, and restored from what its store
    opens.
    """

    def stage(self) -> BinaryIO:
        """End the writing, verify the checksum, and open what was written.

        `close` makes it a snapshot. Until then it is not listed, and the next start
        removes it.
        Raises: DataCorrupted, OSError; the sink can only be cancelled then.
        Thread: snapshot.
        Durable: all of it but its name, when this returns.
        """

    def set_aside(self) -> str:
        """End the snapshot as one that does not restore; it is never listed.

        It may be kept for examination, in place of an earlier one.
        Returns: its path, "" if it is not kept.
        Thread: snapshot.
        """


class SnapshotStore(Protocol):
    """Durable snapshots, newest first. Thread: snapshot."""

    def create(
        self,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> SnapshotSink:
        """Begin a snapshot of the log up to (*index*, *term*)."""

    def list(self) -> list[SnapshotMeta]:
        """List finished snapshots, newest first."""

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """Open a snapshot whose checksum has been verified.

        Raises: DataCorrupted, StorageError
        """


@runtime_checkable
class ClusterSnapshotStore(Protocol):
    """A snapshot store that records the cluster of each snapshot."""

    def create_for(
        self,
        cluster: bytes,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
    ) -> SnapshotSink:
        """Begin a snapshot that names its *cluster*, b"" if that is not known."""


@runtime_checkable
class DiscardingSnapshotStore(Protocol):
    """A snapshot store that keeps nothing, on purpose, and says so.

    With any other store the log is cut only behind a snapshot that `list` returns. With
    this one the cut entries are lost: such a node must not be started again.
    """

    discards_snapshots: bool


class PeerStore(Protocol):
    """The membership for bootstrap, and for humans to read. Thread: reader."""

    def peers(self) -> list[str]:
        """Return the addresses of all members, this node included."""

    def set_peers(self, peers: Sequence[str]) -> None:
        """Replace the list. Durable: when this returns."""


@runtime_checkable
class ServerPeerStore(Protocol):
    """A peer store that also keeps ids and suffrage, for protocol version 3."""

    def servers(self) -> list[Server]:
        """Return all members, this node included."""

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Replace the list. Durable: when this returns."""


# Transport ----------------------------------------------------------------------


class SnapshotBody(Protocol):
    """The bytes of a snapshot as they arrive behind an InstallSnapshot request."""

    size: int

    def deliver_to(
        self, consume: Callable[[bytes], Deferred[None] | None]
    ) -> Deferred[None]:
        """Hand each piece to *consume*, pausing the connection while it waits.

        Returns: a Deferred that fires after exactly `size` bytes. It fails with
            ConnectionClosedByPeer when the connection ends before, and with
            *consume*'s own failure; the rest of the body is then dropped.
        """

    def drain(self) -> None:
        """Drop the body, so that the connection stays in step."""


class IncomingRPC(Protocol):
    """A request from a peer, answered exactly once with `respond` or `fail`."""

    command: AnyRequest
    body: SnapshotBody | None
    connection: object

    def respond(self, response: AnyResponse) -> None:
        """Send *response*, after the answers to all earlier requests."""

    def fail(self, error: str) -> None:
        """Send an error text and no response."""


class RPCHandler(Protocol):
    """The receiver of the requests that a transport delivers."""

    def rpc_received(self, rpc: IncomingRPC) -> None:
        """Take a request. Thread: reactor."""

    def connection_closed(self, connection: object) -> None:
        """Note that an inbound connection ended; its rpcs carried this token."""


class SnapshotSource(Protocol):
    """The bytes of a snapshot to send."""

    def read(self, size: int) -> Deferred[bytes]:
        """Read up to *size* bytes; b"" at the end."""


@runtime_checkable
class PatientSource(SnapshotSource, Protocol):
    """A snapshot's source that knows whether its receiver is alive."""

    def may_wait(self) -> bool:
        """Tell whether to go on waiting for a peer that has all bytes but is silent.

        It is called at intervals. A peer that restores for minutes still answers other
        calls: that is how its life is seen.
        """


class Transport(Protocol):
    """Requests to peers, and requests from them. Thread: reactor.

    Every Deferred fails with a subclass of TransportError: ConnectionFailed when
    nothing was sent or the connection was not accepted, ConnectionClosedByPeer when the
    peer closed it instead of answering, CallTimedOut, RemoteError when the answer is an
    error text, TransportShutdown.
    """

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver requests to *handler* from now on."""

    def set_heartbeat_handler(
        self, handler: Callable[[IncomingRPC], object] | None
    ) -> None:
        """Deliver heartbeats to *handler* instead, past whatever else waits.

        `Raft` does not use it, because no request waits for the disk there. A transport
        may ignore the call and go on delivering heartbeats with the rest.
        """

    def local_addr(self) -> str:
        """Return this node's address as peers know it."""

    def append_entries(
        self, target: str, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        """Send one request on a connection of its own."""

    def append_entries_pipeline(self, target: str) -> Deferred[AppendPipeline]:
        """Open a pipeline to *target*.

        Raises: PipelineReplicationNotSupported, through the Deferred.
        """

    def request_vote(
        self, target: str, request: RequestVoteRequest
    ) -> Deferred[RequestVoteResponse]:
        """Ask for a vote."""

    def request_pre_vote(
        self, target: str, request: RequestPreVoteRequest
    ) -> Deferred[RequestPreVoteResponse]:
        """Ask for a pre-vote; a peer that does not know it answers or closes."""

    def install_snapshot(
        self, target: str, request: InstallSnapshotRequest, data: SnapshotSource
    ) -> Deferred[InstallSnapshotResponse]:
        """Send a snapshot and its bytes on a connection that is closed after it."""

    def timeout_now(
        self, target: str, request: TimeoutNowRequest
    ) -> Deferred[TimeoutNowResponse]:
        """Tell *target* to campaign at once."""

    def encode_peer(self, address: str) -> bytes:
        """Turn an address into the bytes that name it on the wire."""

    def decode_peer(self, data: bytes) -> str:
        """Turn the bytes on the wire into an address."""


class AppendPipeline(Protocol):
    """AppendEntries requests to one peer, answered in order."""

    def append_entries(
        self, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        """Send *request* without waiting for the answers to earlier ones."""

    def close(self) -> None:
        """Close the connection; requests in flight fail with PipelineShutdown."""


class ForwardPipeline(Protocol):
    """Requests of a member to its leader, answered in order."""

    @property
    def is_open(self) -> bool:
        """Whether a request would leave; with False nothing of it is ever sent."""

    def forward(self, request: ForwardRequest) -> Deferred[ForwardResponse]:
        """Send *request* without waiting for the answers to earlier ones.

        Returns: a Deferred that fails as those of `Transport` do. Unless it is a
            RemoteError, the leader may have taken what was asked for.
        """

    def close(self) -> None:
        """Close the connection; requests in flight fail with PipelineShutdown."""


@runtime_checkable
class WithForwarding(Protocol):
    """A transport that takes commands and reads from a member to its leader."""

    def forward_pipeline(self, target: str) -> Deferred[ForwardPipeline]:
        """Open a connection of its own to *target*.

        Returns: a Deferred that fails when nothing was sent.
        """


@runtime_checkable
class WithClose(Protocol):
    """A transport that can be closed."""

    def close(self) -> Deferred[None]:
        """Stop listening and close every connection; idempotent."""


@runtime_checkable
class WithMembers(Protocol):
    """A transport that is told the committed members."""

    def members_committed(self, addresses: Collection[str]) -> None:
        """Note that *addresses* are all the members, by a committed configuration."""


@runtime_checkable
class WithLostHandler(Protocol):
    """A transport that tells when a connection from here has ended.

    A leader then makes itself heard at once, before the peer that lost it campaigns.
    """

    def set_lost_handler(self, handler: Callable[[str], object]) -> None:
        """Tell *handler* the target of each connection from here that has ended."""


@runtime_checkable
class WithPeers(Protocol):
    """A transport whose routes are made by hand."""

    def connect(self, peer: str, transport: Transport) -> None:
        """Route *peer* to *transport*."""

    def disconnect(self, peer: str) -> None:
        """Drop the route to *peer* and its connections."""

    def disconnect_all(self) -> None:
        """Drop every route and connection."""


@runtime_checkable
class LimitedTransport(Protocol):
    """A transport that tells its limits, to be compared with the node's."""

    @property
    def limits(self) -> Mapping[str, float]:
        """The limits, by their names in a node's settings."""


@runtime_checkable
class LoopbackTransport(Transport, WithPeers, WithClose, Protocol):
    """A transport inside one process."""


class StreamLayer(Protocol):
    """The source of the connections of a `NetworkTransport`."""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections for *factory*."""

    def dial(self, address: str) -> IStreamClientEndpoint:
        """Make an endpoint for *address*; a name is resolved when it connects.

        Raises: ValueError when *address* is not an address.
        """

    def addr(self) -> str:
        """Return the address that peers dial, once listening."""
