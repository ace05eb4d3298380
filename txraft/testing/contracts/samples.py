"""Sample entries, messages and snapshot bodies for the contracts."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.interfaces import IncomingRPC
from txraft.wire.entries import encode_new

HEADER = Header(1)

TRIO = Configuration(
    (
        Server("n1", "a:1"),
        Server("n2", "b:1"),
        Server("n3", "c:1", Suffrage.NONVOTER),
    )
)

# Entries ------------------------------------------------------------------------


def command(index: int, term: int = 1, data: bytes = b"") -> Entry:
    """Make an encoded command."""
    entry = Entry(index, term, LogType.COMMAND, data or b"%d/%d" % (index, term))
    encode_new(entry)
    return entry


def commands(first: int, last: int, term: int = 1) -> list[Entry]:
    """Make encoded commands at the indexes *first* to *last*."""
    return [command(index, term) for index in range(first, last + 1)]


def membership(index: int, term: int = 1) -> Entry:
    """Make an encoded entry with a configuration."""
    configuration = Configuration.of_voters(["a:1", "b:1"])
    entry = Entry(index, term, LogType.ADD_PEER, configuration=configuration)
    encode_new(entry)
    return entry


def identity(index: int, term: int = 1) -> Entry:
    """Make an encoded entry with the identity of a cluster."""
    entry = Entry(index, term, LogType.NOOP, cluster=b"0123456789abcdef")
    encode_new(entry)
    return entry


# Requests -----------------------------------------------------------------------


class Recorder:
    """An `RPCHandler` that keeps all requests; *answer*, if given, answers them."""

    def __init__(self, answer: Callable[[IncomingRPC], object] | None = None) -> None:
        self.rpcs: list[IncomingRPC] = []
        self.closed: list[object] = []
        self._answer = answer

    def rpc_received(self, rpc: IncomingRPC) -> None:
        """Keep *rpc*, and answer it if there is a way to."""
        self.rpcs.append(rpc)
        if self._answer is not None:
            self._answer(rpc)

    def connection_closed(self, connection: object) -> None:
        """Keep the token of a connection that ended."""
        self.closed.append(connection)

    @property
    def commands(self) -> list[AnyRequest]:
        """The requests so far."""
        return [rpc.command for rpc in self.rpcs]


def agree(rpc: IncomingRPC) -> None:
    """Answer *rpc* with success at once."""
    rpc.respond(success(rpc.command))


def success(request: AnyRequest) -> AnyResponse:
    """Make a positive response to *request*."""
    match request:
        case AppendEntriesRequest():
            return AppendEntriesResponse(request.term, 0, True, header=HEADER)
        case RequestVoteRequest():
            return RequestVoteResponse(request.term, True, ("h:1",), HEADER)
        case RequestPreVoteRequest():
            header = Header(1, "b:1", "b:1")
            return RequestPreVoteResponse(request.term, True, header)
        case InstallSnapshotRequest():
            return InstallSnapshotResponse(request.term, True, Header(0))
        case TimeoutNowRequest():
            return TimeoutNowResponse(Header(0))
        case ForwardRequest():
            places = [(7 + n, 3) for n in range(len(request.commands) or 1)]
            return ForwardResponse(tuple(places), None, HEADER)


def append(term: int, *, previous: int = 0, entries: int = 0) -> AppendEntriesRequest:
    """Make an AppendEntries of *entries* commands after index *previous*."""
    made = []
    for index in range(previous + 1, previous + entries + 1):
        entry = Entry(index, term, LogType.COMMAND, b"value %d" % index)
        encode_new(entry)
        made.append(entry)
    return AppendEntriesRequest(
        term, "a:1", previous, entries=tuple(made), header=HEADER
    )


def snapshot(size: int, term: int = 3) -> InstallSnapshotRequest:
    """Announce a snapshot of *size* bytes."""
    members = Configuration.of_voters(["a:1", "b:1"])
    return InstallSnapshotRequest(
        term,
        "a:1",
        last_log_index=9,
        last_log_term=2,
        size=size,
        configuration=members,
        configuration_index=4,
        peers=("a:1", "b:1"),
        snapshot_version=1,
        header=HEADER,
    )


class BytesSource:
    """A `SnapshotSource` of bytes that counts how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.taken = 0

    def read(self, size: int) -> Deferred[bytes]:
        """Read the next *size* bytes."""
        piece = self.data[self.taken : self.taken + size]
        self.taken += len(piece)
        return succeed(piece)


class HeldSource:
    """A `SnapshotSource` whose reads wait until a test fires them, one by one."""

    def __init__(self) -> None:
        self.reads: list[Deferred[bytes]] = []

    def read(self, size: int) -> Deferred[bytes]:
        """Wait until a test fires the Deferred in `reads`."""
        self.reads.append(Deferred())
        return self.reads[-1]
