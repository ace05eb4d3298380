"""The calls with one request and one response, the same in every transport."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred

from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.wire.membership import address_from_bytes, address_to_bytes


class UnaryCalls:
    """The methods of a `Transport` that only need `_call`."""

    def _call(self, target: str, request: AnyRequest) -> Deferred[AnyResponse]:
        """Send *request*; the Deferred fires with the response of its kind."""
        raise NotImplementedError

    def append_entries(
        self, target: str, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        """Send one request; see `Transport`."""
        return cast("Deferred[AppendEntriesResponse]", self._call(target, request))

    def request_vote(
        self, target: str, request: RequestVoteRequest
    ) -> Deferred[RequestVoteResponse]:
        """Ask for a vote."""
        return cast("Deferred[RequestVoteResponse]", self._call(target, request))

    def request_pre_vote(
        self, target: str, request: RequestPreVoteRequest
    ) -> Deferred[RequestPreVoteResponse]:
        """Ask for a pre-vote; older peers close the connection without a response."""
        return cast("Deferred[RequestPreVoteResponse]", self._call(target, request))

    def timeout_now(
        self, target: str, request: TimeoutNowRequest
    ) -> Deferred[TimeoutNowResponse]:
        """Tell *target* to campaign at once."""
        return cast("Deferred[TimeoutNowResponse]", self._call(target, request))

    def encode_peer(self, address: str) -> bytes:
        """Turn an address into the bytes that name it on the wire."""
        return address_to_bytes(address)

    def decode_peer(self, data: bytes) -> str:
        """Turn the bytes on the wire into an address."""
        return address_from_bytes(data)
