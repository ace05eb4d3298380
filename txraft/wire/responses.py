"""Responses: an error string, usually empty, and a map or nil.

Every key is always written: a Go leader decodes heartbeat answers into one object,
where a key left out keeps its value from an earlier answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from txraft.core.messages import (
    AppendEntriesResponse,
    InstallSnapshotResponse,
    RequestPreVoteResponse,
    RequestVoteResponse,
    Response,
    TimeoutNowResponse,
)
from txraft.wire.fields import (
    Fields,
    boolean,
    header_fields,
    header_in,
    pack,
    pack_sorted,
    raw,
    unsigned,
    zero_header_fields,
)
from txraft.wire.membership import address_to_bytes, decode_peers, encode_peers


def encode_response(response: Response) -> bytes:
    """Encode *response* behind an empty error string."""
    return b"\xa0" + pack_sorted(_response_fields(response))


def encode_error(error: str) -> bytes:
    """Encode *error* with nil in place of a response."""
    return pack(address_to_bytes(error)) + b"\xc0"


def decode_response(kind: int, fields: Fields) -> Response:
    """Make a response of the map that answers a request of type byte *kind*.

    Raises: ProtocolError for a value of a wrong type.
    """
    return _DECODERS[kind](fields)


def _response_fields(response: Response) -> dict[bytes, object]:
    match response:
        case AppendEntriesResponse():
            return {
                **header_fields(response.header),
                b"LastLog": response.last_log,
                b"NoRetryBackoff": response.no_retry_backoff,
                b"Success": response.success,
                b"Term": response.term,
            }
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
        case _:
            assert_never(response)


def _decode_append_entries(fields: Fields) -> AppendEntriesResponse:
    return AppendEntriesResponse(
        unsigned(fields, b"Term"),
        unsigned(fields, b"LastLog"),
        boolean(fields, b"Success"),
        boolean(fields, b"NoRetryBackoff"),
        header_in(fields),
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


_DECODERS: tuple[Callable[[Fields], Response], ...] = (
    _decode_append_entries,
    _decode_request_vote,
    _decode_install_snapshot,
    _decode_timeout_now,
    _decode_request_pre_vote,
)
