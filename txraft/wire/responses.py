"""Encodes and decodes responses: an error string, usually empty, and a map or nil.

Every key is always written. hashicorp/raft decodes all responses to heartbeats into one
object, so a key that is left out would keep its value from an earlier response.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import assert_never

from txraft.core.messages import (
    AnyResponse,
    AppendEntriesResponse,
    ForwardResponse,
    Header,
    InstallSnapshotResponse,
    RequestPreVoteResponse,
    RequestVoteResponse,
    TimeoutNowResponse,
)
from txraft.wire.fields import (
    CACHED_FRAMES,
    Fields,
    boolean,
    booleans,
    header_fields,
    header_in,
    odd_value,
    pack,
    pack_sorted,
    raw,
    text,
    text_or_nil,
    unsigned,
    unsigneds,
    zero_header_fields,
)
from txraft.wire.membership import address_to_bytes, decode_peers, encode_peers
from txraft.wire.requests import (
    APPEND_ENTRIES,
    FORWARD,
    INSTALL_SNAPSHOT,
    REQUEST_PRE_VOTE,
    REQUEST_VOTE,
    TIMEOUT_NOW,
)

_NO_ERROR = b"\xa0"


def encode_response(response: AnyResponse) -> bytes:
    """Encode *response* after an empty error string."""
    if isinstance(response, AppendEntriesResponse):
        return _append_entries(response)
    return _NO_ERROR + pack_sorted(_response_fields(response))


def encode_error(error: str) -> bytes:
    """Encode *error* with nil in place of a response."""
    return pack(address_to_bytes(error)) + b"\xc0"


def decode_response(kind: int, fields: Fields) -> AnyResponse:
    """Make a response of the map in reply to a request of type byte *kind*.

    Raises: ProtocolError for a value of a wrong type.
    """
    return _DECODERS[kind](fields)


def _append_entries(response: AppendEntriesResponse) -> bytes:
    start, middle = _frame(response.header, response.no_retry_backoff, response.success)
    return b"".join((start, pack(response.last_log), middle, pack(response.term)))


@lru_cache(maxsize=CACHED_FRAMES)
def _frame(
    header: Header, no_retry_backoff: bool, success: bool
) -> tuple[bytes, bytes]:
    """Encode the fields that many responses share, in two pieces.

    The last index stands after the first piece, the term after the second.
    """
    fields = header_fields(header)
    fields[b"NoRetryBackoff"] = no_retry_backoff
    fields[b"Success"] = success
    pieces = [pack(key) + pack(value) for key, value in sorted(fields.items())]
    before = sum(key < b"LastLog" for key in fields)
    start = [_NO_ERROR, bytes([0x80 | (len(fields) + 2)]), *pieces[:before]]
    return (
        b"".join([*start, pack(b"LastLog")]),
        b"".join([*pieces[before:], pack(b"Term")]),
    )


def _response_fields(
    response: RequestVoteResponse
    | RequestPreVoteResponse
    | InstallSnapshotResponse
    | TimeoutNowResponse
    | ForwardResponse,
) -> dict[bytes, object]:
    match response:
        case RequestVoteResponse():
            peers = response.peers
            return {
                **header_fields(response.header),
                b"Granted": response.granted,
                b"Peers": None if peers is None else encode_peers(peers),
                b"Term": response.term,
            }
        case RequestPreVoteResponse():
            return {
                b"Addr": None,
                b"ID": None,
                b"ProtocolVersion": 0,
                **header_fields(response.header),
                b"Granted": response.granted,
                b"Term": response.term,
            }
        case InstallSnapshotResponse():
            return {
                **zero_header_fields(response.header),
                b"Success": response.success,
                b"Term": response.term,
            }
        case TimeoutNowResponse():
            return zero_header_fields(response.header)
        case ForwardResponse():
            return {
                **header_fields(response.header),
                b"Leader": text_or_nil(response.leader or ""),
                b"Places": [n for place in response.places for n in place],
            }
        case _:
            assert_never(response)


def _decode_append_entries(fields: Fields) -> AppendEntriesResponse:
    term, last_log = unsigneds(fields, b"Term", b"LastLog")
    success, no_retry_backoff = booleans(fields, b"Success", b"NoRetryBackoff")
    return AppendEntriesResponse(
        term, last_log, success, no_retry_backoff, header_in(fields)
    )


def _decode_request_vote(fields: Fields) -> RequestVoteResponse:
    peers = raw(fields, b"Peers")
    return RequestVoteResponse(
        unsigned(fields, b"Term"),
        boolean(fields, b"Granted"),
        decode_peers(peers) if peers else None,
        header_in(fields),
    )


def _decode_install_snapshot(fields: Fields) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(
        unsigned(fields, b"Term"), boolean(fields, b"Success"), header_in(fields)
    )


def _decode_timeout_now(fields: Fields) -> TimeoutNowResponse:
    return TimeoutNowResponse(header_in(fields))


def _decode_request_pre_vote(fields: Fields) -> RequestPreVoteResponse:
    return RequestPreVoteResponse(
        unsigned(fields, b"Term"), boolean(fields, b"Granted"), header_in(fields)
    )


def _decode_forward(fields: Fields) -> ForwardResponse:
    numbers = fields.get(b"Places")
    if (
        type(numbers) is not list
        or len(numbers) % 2
        or any(type(each) is not int or each < 0 for each in numbers)
    ):
        raise odd_value(b"Places", numbers)
    places = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return ForwardResponse(places, text(fields, b"Leader") or None, header_in(fields))


_DECODERS: dict[int, Callable[[Fields], AnyResponse]] = {
    APPEND_ENTRIES: _decode_append_entries,
    REQUEST_VOTE: _decode_request_vote,
    INSTALL_SNAPSHOT: _decode_install_snapshot,
    TIMEOUT_NOW: _decode_timeout_now,
    REQUEST_PRE_VOTE: _decode_request_pre_vote,
    FORWARD: _decode_forward,
}
