"""Encodes and decodes requests: a type byte and a map.

The body of a snapshot follows its request as raw bytes; `stream` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import assert_never

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry
from txraft.core.messages import (
    AnyRequest,
    AppendEntriesRequest,
    ForwardRequest,
    Header,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.errors import ProtocolError
from txraft.wire.entries import encode_entry, entry_from_map
from txraft.wire.fields import (
    CACHED_FRAMES,
    Fields,
    boolean,
    header_fields,
    header_in,
    integer,
    odd_value,
    pack,
    pack_sorted,
    raw,
    text,
    text_or_nil,
    unsigned,
    unsigneds,
)
from txraft.wire.membership import (
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)

APPEND_ENTRIES = 0
REQUEST_VOTE = 1
INSTALL_SNAPSHOT = 2
TIMEOUT_NOW = 3
REQUEST_PRE_VOTE = 4
FORWARD = 20
"""Far from the numbers that hashicorp/raft may give to requests of its own."""

MAX_FORWARDED_COMMANDS = 1024
"""Commands in one ForwardRequest at most."""

SNAPSHOT_VERSIONS = (0, 1)
"""Versions whose membership can be decoded; the node refuses the others."""

_MAX_INT64 = 2**63 - 1


def request_kind(request: AnyRequest) -> int:
    """Return the type byte of *request*."""
    return _KINDS[type(request)]


def encode_request(request: AnyRequest) -> bytes:
    """Encode *request*, type byte first; entries keep their encoded bytes."""
    match request:
        case AppendEntriesRequest():
            return _append_entries(request)
        case RequestVoteRequest():
            return b"\x01" + pack_sorted(_request_vote_fields(request))
        case InstallSnapshotRequest():
            return b"\x02" + pack_sorted(_install_snapshot_fields(request))
        case TimeoutNowRequest():
            return b"\x03" + pack_sorted(
                {**header_fields(request.header), **_number_field(request)}
            )
        case RequestPreVoteRequest():
            return b"\x04" + pack_sorted(_request_pre_vote_fields(request))
        case ForwardRequest():
            fields = header_fields(request.header)
            fields[b"Commands"] = list(request.commands)
            return bytes([FORWARD]) + pack_sorted(fields)
        case _:
            assert_never(request)


def decode_request(kind: int, fields: Fields) -> AnyRequest:
    """Make a request of the map that follows type byte *kind*.

    The membership in a snapshot of an unknown version is not decoded.
    Raises: ProtocolError for what hashicorp/raft refuses, for an entry that must not be
        appended, and for entries whose indexes are not consecutive.
    """
    return _DECODERS[kind](fields)


def _append_entries(request: AppendEntriesRequest) -> bytes:
    start, middle, end = _frame(request.header, request.leader)
    if request.entries:
        version = request.header.protocol_version or 0
        encoded = [e.encoded or encode_entry(e, version) for e in request.entries]
        entries = [_array_header(len(encoded)), *encoded]
    else:
        # Go writes nil in a heartbeat, an empty list where replication has no entries.
        entries = [b"\xc0" if request.is_heartbeat else b"\x90"]
    # Joined from cached pieces: a request per commit and peer, of which only these
    # few fields change.
    return b"".join(
        [
            start,
            *entries,
            middle,
            pack(request.leader_commit),
            b"\xacPrevLogEntry",
            pack(request.prev_log_index),
            b"\xabPrevLogTerm",
            pack(request.prev_log_term),
            end,
            pack(request.term),
        ]
    )


@lru_cache(maxsize=CACHED_FRAMES)
def _frame(header: Header, leader: str) -> tuple[bytes, bytes, bytes]:
    """Encode the fields that all AppendEntries of one leader share, in three pieces.

    The entries stand after the first piece; the commit index and the previous entry
    after the second; the term after the third.
    """
    # The keys stand in ascending order, as in every message: a key that is added has
    # to go into the piece where it sorts, and be counted.
    fields = header_fields(header)
    start = bytes([0, 0x80 | (len(fields) + 6)])
    for key in (b"Addr", b"Cluster"):
        if key in fields:
            start += pack(key) + pack(fields[key])
    middle = b""
    for key in (b"FSMLevel", b"Forwards", b"ID", b"Incarnation", b"Incarnations"):
        if key in fields:
            middle += pack(key) + pack(fields[key])
    middle += pack(b"Leader") + pack(text_or_nil(leader)) + pack(b"LeaderCommitIndex")
    end = b""
    if b"ProtocolVersion" in fields:
        end = pack(b"ProtocolVersion") + pack(fields[b"ProtocolVersion"])
    return start + pack(b"Entries"), middle, end + pack(b"Term")


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _request_vote_fields(request: RequestVoteRequest) -> dict[bytes, object]:
    return {
        **header_fields(request.header),
        b"Candidate": text_or_nil(request.candidate),
        b"LastLogIndex": request.last_log_index,
        b"LastLogTerm": request.last_log_term,
        **_transfer_field(request),
        b"Term": request.term,
    }


def _transfer_field(request: RequestVoteRequest) -> dict[bytes, object]:
    """Write the flag as newer protocols do; version 0 has the key only if it is set."""
    if request.header.protocol_version is None and not request.leadership_transfer:
        return {}
    return {b"LeadershipTransfer": request.leadership_transfer}


def _request_pre_vote_fields(request: RequestPreVoteRequest) -> dict[bytes, object]:
    # These three keys are always there, also where the header is empty.
    address = text_or_nil(request.header.address or request.candidate)
    return {
        b"Addr": address,
        b"ID": address,
        b"ProtocolVersion": 0,
        **header_fields(request.header),
        b"LastLogIndex": request.last_log_index,
        b"LastLogTerm": request.last_log_term,
        b"Term": request.term,
        **_number_field(request),
    }


def _number_field(
    request: TimeoutNowRequest | RequestPreVoteRequest,
) -> dict[bytes, object]:
    return {} if request.transfer is None else {b"Transfer": request.transfer}


def _number_in(fields: Fields) -> int | None:
    return unsigned(fields, b"Transfer") if b"Transfer" in fields else None


def _install_snapshot_fields(request: InstallSnapshotRequest) -> dict[bytes, object]:
    fields: dict[bytes, object] = {
        **header_fields(request.header),
        b"LastLogIndex": request.last_log_index,
        b"LastLogTerm": request.last_log_term,
        b"Leader": text_or_nil(request.leader),
        b"Peers": encode_peers(request.peers or request.configuration.voters),
        b"Size": request.size,
        b"Term": request.term,
    }
    if request.snapshot_version > 0:
        fields[b"Configuration"] = encode_configuration(request.configuration)
        fields[b"ConfigurationIndex"] = request.configuration_index
        fields[b"SnapshotVersion"] = request.snapshot_version
    if request.skipped:
        fields[b"Skipped"] = request.skipped
    if request.application:
        fields[b"Application"] = request.application.encode("utf-8")
    return fields


def _decode_append_entries(fields: Fields) -> AppendEntriesRequest:
    header = header_in(fields)
    term, previous, previous_term, commit = unsigneds(
        fields, b"Term", b"PrevLogEntry", b"PrevLogTerm", b"LeaderCommitIndex"
    )
    return AppendEntriesRequest(
        term,
        text(fields, b"Leader") or header.address or "",
        previous,
        previous_term,
        _entries_in(fields, previous),
        commit,
        header,
    )


def _entries_in(fields: Fields, previous: int) -> Sequence[Entry]:
    listed = fields.get(b"Entries")
    # A heartbeat, the most frequent message, ends here.
    if not listed and (listed is None or type(listed) is list):
        return ()
    if type(listed) is not list:
        raise odd_value(b"Entries", listed)
    entries = [entry_from_map(item) for item in listed]
    for entry in entries:
        previous += 1
        if entry.index != previous:
            raise ProtocolError(f"entry {entry.index} stands where {previous} belongs")
    return entries


def _decode_request_vote(fields: Fields) -> RequestVoteRequest:
    header = header_in(fields)
    return RequestVoteRequest(
        unsigned(fields, b"Term"),
        text(fields, b"Candidate") or header.address or "",
        unsigned(fields, b"LastLogIndex"),
        unsigned(fields, b"LastLogTerm"),
        boolean(fields, b"LeadershipTransfer"),
        header,
    )


def _decode_request_pre_vote(fields: Fields) -> RequestPreVoteRequest:
    header = header_in(fields)
    return RequestPreVoteRequest(
        unsigned(fields, b"Term"),
        header.address or "",
        unsigned(fields, b"LastLogIndex"),
        unsigned(fields, b"LastLogTerm"),
        header,
        _number_in(fields),
    )


def _decode_install_snapshot(fields: Fields) -> InstallSnapshotRequest:
    size = integer(fields, b"Size")
    # The field is signed in Go: a negative size would never end.
    if not 0 <= size <= _MAX_INT64:
        raise odd_value(b"Size", size)
    version = integer(fields, b"SnapshotVersion")
    encoded_peers = raw(fields, b"Peers")
    peers = decode_peers(encoded_peers) if encoded_peers else ()
    # Version 0 has only a peer list, and no index of its own for the membership.
    if version == 0:
        configuration = Configuration.of_voters(peers)
        made_by = unsigned(fields, b"LastLogIndex")
    elif version not in SNAPSHOT_VERSIONS:
        configuration, made_by = Configuration(), 0
    else:
        configuration = decode_configuration(raw(fields, b"Configuration") or b"")
        made_by = unsigned(fields, b"ConfigurationIndex")
    return InstallSnapshotRequest(
        term=unsigned(fields, b"Term"),
        leader=text(fields, b"Leader"),
        last_log_index=unsigned(fields, b"LastLogIndex"),
        last_log_term=unsigned(fields, b"LastLogTerm"),
        size=size,
        configuration=configuration,
        configuration_index=made_by,
        peers=peers,
        snapshot_version=version,
        header=header_in(fields),
        skipped=raw(fields, b"Skipped") or b"",
        application=(raw(fields, b"Application") or b"").decode("utf-8", "replace"),
    )


def _decode_timeout_now(fields: Fields) -> TimeoutNowRequest:
    return TimeoutNowRequest(header_in(fields), _number_in(fields))


def _decode_forward(fields: Fields) -> ForwardRequest:
    commands = fields.get(b"Commands")
    if type(commands) is not list or any(type(each) is not bytes for each in commands):
        raise odd_value(b"Commands", commands)
    if len(commands) > MAX_FORWARDED_COMMANDS:
        raise ProtocolError(f"{len(commands)} commands are forwarded at once")
    return ForwardRequest(tuple(commands), header_in(fields))


_KINDS: dict[type[AnyRequest], int] = {
    AppendEntriesRequest: APPEND_ENTRIES,
    RequestVoteRequest: REQUEST_VOTE,
    InstallSnapshotRequest: INSTALL_SNAPSHOT,
    TimeoutNowRequest: TIMEOUT_NOW,
    RequestPreVoteRequest: REQUEST_PRE_VOTE,
    ForwardRequest: FORWARD,
}
_DECODERS: dict[int, Callable[[Fields], AnyRequest]] = {
    APPEND_ENTRIES: _decode_append_entries,
    REQUEST_VOTE: _decode_request_vote,
    INSTALL_SNAPSHOT: _decode_install_snapshot,
    TIMEOUT_NOW: _decode_timeout_now,
    REQUEST_PRE_VOTE: _decode_request_pre_vote,
    FORWARD: _decode_forward,
}
REQUEST_KINDS = frozenset(_DECODERS)
