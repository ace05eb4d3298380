"""The responder: answer peers, in the form of this node's protocol version.

Consensus decides what to answer and when; here the response gets its header. A request
may have a body, which is a snapshot. Unless that is installed, it is read to its end
and dropped, whatever the response is: the connection is needed for the next request.

Source: hashicorp/raft, protocol versions 0 to 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from txraft.core.consensus import Consensus
from txraft.core.messages import (
    NO_HEADER,
    AnyRequest,
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteResponse,
    RequestVoteResponse,
    Response,
    TimeoutNowResponse,
)
from txraft.core.ready import Install, Outgoing, Refusal
from txraft.interfaces import IncomingRPC
from txraft.wire.requests import SNAPSHOT_VERSIONS

NEWEST_VERSION = 3
VERSION_REFUSED = "operation not supported with current protocol version"
SHUT_DOWN = "raft is already shutdown"
FORWARDS = 1
"""The version of `ForwardRequest` that a leader announces, and takes."""


class Responder:
    """Answers requests for the server *server_id* at *address*.

    Each response names its *incarnation*, and the *level* up to which it understands
    the state machine; at protocol version 0 it names neither.
    """

    def __init__(
        self,
        version: int,
        server_id: str,
        address: str,
        *,
        incarnation: bytes | None = None,
        level: int | None = None,
    ) -> None:
        own = incarnation if version else None
        self._version = version
        self._incarnation = own
        self._header = NO_HEADER
        self._zero_header = NO_HEADER
        if version:
            self._header = Header(version, incarnation=own, level=level)
            self._zero_header = Header(0, incarnation=own, level=level)
        self._named_header = Header(
            version or None,
            server_id,
            address,
            incarnation=own,
            level=level if version else None,
        )
        self._address = address
        self._taken: IncomingRPC | None = None

    def request_header(self, cluster: bytes | None) -> Header:
        """Return the header of requests that this node sends."""
        if not self._version:
            return NO_HEADER
        return Header(
            self._version,
            cluster=cluster,
            incarnation=self._incarnation,
            forwards=FORWARDS,
        )

    def forward_header(self, cluster: bytes | None) -> Header | None:
        """Return the header of what this node forwards; None if it cannot.

        Version 0 has no header that could say who asks, or announce that it is served.
        """
        if not self._version:
            return None
        return Header(
            self._version,
            address=self._address,
            cluster=cluster,
            incarnation=self._incarnation,
        )

    @property
    def answer_header(self) -> Header:
        """The header of an answer that does not name this node."""
        return self._header

    def refuses(self, request: AnyRequest) -> str | None:
        """Return why this version does not serve *request*, None if it does.

        Heartbeats are never checked: Go peers do not either.
        """
        version = request.header.protocol_version or 0
        if not 0 <= version <= NEWEST_VERSION or version < self._version - 1:
            if isinstance(request, AppendEntriesRequest) and request.is_heartbeat:
                return None
            return VERSION_REFUSED
        if isinstance(request, InstallSnapshotRequest):
            return _refuses_snapshot(request)
        return None

    def taking(self, install: Install) -> IncomingRPC:
        """Return the request whose snapshot is now taken, so not dropped."""
        rpc = install.reply_to
        self._taken = rpc  # type: ignore[assignment]
        return rpc  # type: ignore[return-value]

    def refuse(self, rpc: IncomingRPC, error: str) -> None:
        """Answer with an error text."""
        self._drain(rpc)
        rpc.fail(error)

    def send(
        self, rpc: IncomingRPC, message: Response | Refusal, consensus: Consensus
    ) -> None:
        """Answer *rpc* with *message*."""
        if isinstance(message, Refusal):
            self.refuse(rpc, message.error)
            return
        if rpc.body is not None:  # hardly ever: no call for all other responses
            self._drain(rpc)
        command = rpc.command
        if isinstance(command, AppendEntriesRequest) and not command.term:
            rpc.respond(self._with_identity(message, consensus))
        else:
            rpc.respond(self._with_header(message, consensus))

    def _with_identity(self, message: Response, consensus: Consensus) -> Response:
        """Return the response to a probe, with all that a header can say."""
        assert isinstance(message, AppendEntriesResponse), "that was asked for"
        if not self._version:
            return message
        header = replace(self._named_header, cluster=consensus.cluster)
        return replace(message, header=header)

    def abandon(self, waiting: Iterable[tuple[int, list[Outgoing]]]) -> None:
        """Refuse the requests whose responses wait for a write that never comes."""
        for _, outgoing in waiting:
            for to, message in outgoing:
                if not isinstance(to, str) and not isinstance(message, Refusal):
                    self.refuse(to, SHUT_DOWN)  # type: ignore[arg-type]

    def _drain(self, rpc: IncomingRPC) -> None:
        if rpc is self._taken:
            self._taken = None
        elif rpc.body is not None:
            rpc.body.drain()

    def _with_header(self, message: Response, consensus: Consensus) -> Response:
        match message:
            case AppendEntriesResponse():
                return AppendEntriesResponse(
                    message.term,
                    message.last_log,
                    message.success,
                    message.no_retry_backoff,
                    self._header,
                )
            case RequestVoteResponse():
                peers = self._peers(consensus)
                return replace(message, peers=peers, header=self._header)
            case RequestPreVoteResponse():
                return replace(message, header=self._named_header)
            case InstallSnapshotResponse() | TimeoutNowResponse():
                return replace(message, header=self._zero_header)
            case _:
                assert_never(message)

    def _peers(self, consensus: Consensus) -> tuple[str, ...] | None:
        """Return what a vote answer lists; version 0 leaves the voter itself out."""
        voters = consensus.configuration.voters
        if self._version == 0:
            return tuple(voter for voter in voters if voter != self._address)
        return voters if self._version == 1 else None


def _refuses_snapshot(request: InstallSnapshotRequest) -> str | None:
    if request.snapshot_version in SNAPSHOT_VERSIONS:
        return None
    return f"unsupported snapshot version {request.snapshot_version}"
