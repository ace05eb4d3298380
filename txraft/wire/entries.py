"""Encodes log entries as msgpack maps, for the wire and for the file log.

An entry is encoded once, by the leader that made it, and the same bytes go to the file
and to every follower. Decoding keeps the sender's form. So a follower that becomes
leader sends on the same bytes, with keys of newer versions of hashicorp/raft.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import ProtocolError
from txraft.wire.fields import pack, shown
from txraft.wire.membership import (
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)

CLUSTER_PREFIX = b"txraft-cluster:"
CLUSTER_BYTES = 16

_MAX_UINT64 = 2**64 - 1
_APPENDED_AT_BYTES = 15  # what `time.Time.MarshalBinary` of Go writes

# The keys that hashicorp/raft writes: without extensions in protocol 0, with them
# later, and with the time in newer versions. Any other form is encoded anew, so that no
# peer stores bytes that another one could not read.
_VERSIONED_SHAPE = (b"Data", b"Extensions", b"Index", b"Term", b"Type")
_UNVERSIONED_SHAPE = (b"Data", b"Index", b"Term", b"Type")
_TIMED_SHAPE = (b"AppendedAt", *_VERSIONED_SHAPE)
_TYPES = tuple(LogType)
_TYPE_COUNT = len(_TYPES)
_MEMBERSHIP_NUMBERS = (2, 3, 5)


def encode_entry(entry: Entry, version: int = 1) -> bytes:
    """Encode *entry* as hashicorp/raft of protocol *version* writes it.

    A membership entry without data gets it from its configuration; an entry without
    extensions gets them from its cluster. Version 0 leaves `Extensions` out unless it
    holds something; peers of that version skip the key.
    """
    data = entry.data
    extensions = entry.extensions
    if data is None and entry.configuration is not None:
        data = membership_data(entry.type, entry.configuration)
    if extensions is None and entry.cluster is not None:
        extensions = CLUSTER_PREFIX + entry.cluster
    if version == 0 and extensions is None:
        return _pack_short(entry, data)
    # Keys in ascending order, as Go's encoder writes the fields of a struct.
    return pack(
        {
            b"Data": data,
            b"Extensions": extensions,
            b"Index": entry.index,
            b"Term": entry.term,
            b"Type": entry.type,
        }
    )


def encode_new(entry: Entry, version: int = 1) -> None:
    """Fill in *data*, *extensions* and *encoded* of an entry that a leader made."""
    encode_all_new((entry,), version)


def encode_all_new(entries: Iterable[Entry], version: int) -> None:
    """Do the same for several entries, at the cost of one call."""
    for entry in entries:
        if entry.data is None and entry.configuration is not None:
            entry.data = membership_data(entry.type, entry.configuration)
        if entry.extensions is None and entry.cluster is not None:
            entry.extensions = CLUSTER_PREFIX + entry.cluster
        entry.encoded = encode_entry(entry, version)


def membership_data(type: LogType, configuration: Configuration) -> bytes:
    """Encode *configuration* as the data of an entry of *type*: 2, 3 or 5."""
    if type is LogType.CONFIGURATION:
        return encode_configuration(configuration)
    assert type in (LogType.ADD_PEER, LogType.REMOVE_PEER), "a membership type"
    return encode_peers(configuration.voters)


def decode_entry(raw: bytes) -> Entry:
    """Decode one encoded entry.

    Raises: ProtocolError, as `entry_from_map`, or when *raw* is not one map.
    """
    try:
        fields = msgpack.unpackb(raw, raw=True, strict_map_key=False)
    except (ValueError, TypeError) as error:
        raise ProtocolError(
            f"an entry is not msgpack: {type(error).__name__}"
        ) from error
    return entry_from_map(fields)


def entry_from_map(fields: Any) -> Entry:
    """Make an entry of a decoded map, with `encoded` in the sender's form.

    A form that hashicorp/raft never writes is replaced by the canonical one.
    Raises: ProtocolError for an entry that must not be appended: a field is missing or
        of a wrong type, the entry type is unknown, a membership does not decode.
    """
    if type(fields) is not dict:
        raise ProtocolError("an entry is not a map")
    shape = tuple(fields)
    # Nearly every entry has this shape: its fields are taken in order, without five
    # look-ups. This runs for each entry that a follower gets.
    is_usual = shape == _VERSIONED_SHAPE
    if is_usual:
        data, extensions, index, term, number = fields.values()
    else:
        data, extensions, index, term, number = map(fields.get, _VERSIONED_SHAPE)
    if not (
        # `type() is`, as a bool is an int and would pass `isinstance`.
        type(index) is int
        and type(term) is int
        and type(number) is int
        and 0 <= index <= _MAX_UINT64
        and 0 <= term <= _MAX_UINT64
        and 0 <= number < _TYPE_COUNT
        and (data is None or type(data) is bytes)
        and (extensions is None or type(extensions) is bytes)
    ):
        raise _odd_entry(index, term, number)
    entry = Entry(index, term, _TYPES[number], data, extensions)
    if number in _MEMBERSHIP_NUMBERS:
        entry.configuration = _decode_membership(number, data, index)
    if extensions is not None:
        entry.cluster = _cluster_in(extensions)
    if (
        is_usual
        or shape == _UNVERSIONED_SHAPE
        or (shape == _TIMED_SHAPE and _has_go_time(fields[b"AppendedAt"]))
    ):
        # Go packs each value in its shortest form: these are the sender's bytes.
        entry.encoded = pack(fields)
    else:
        entry.encoded = encode_entry(entry)
    return entry


def _odd_entry(index: object, term: object, number: object) -> ProtocolError:
    if type(number) is int and not 0 <= number < _TYPE_COUNT:
        return ProtocolError(f"entry {shown(index)} is of an unknown type: {number}")
    return ProtocolError(
        f"an entry has a field that is missing or odd: index {shown(index)}, "
        f"term {shown(term)}, type {shown(number)}"
    )


def _pack_short(entry: Entry, data: bytes | None) -> bytes:
    fields = {
        b"Data": data,
        b"Index": entry.index,
        b"Term": entry.term,
        b"Type": entry.type,
    }
    return pack(fields)


def _decode_membership(number: int, data: bytes | None, index: int) -> Configuration:
    try:
        if number == LogType.CONFIGURATION:
            configuration = decode_configuration(data or b"")
        else:
            configuration = Configuration.of_voters(decode_peers(data or b""))
    except ProtocolError as error:
        raise ProtocolError(f"entry {index}: {error}") from error
    if not configuration.voters:
        raise ProtocolError(f"entry {index}: a membership without a voter")
    return configuration


def _cluster_in(extensions: bytes) -> bytes | None:
    if len(extensions) != len(CLUSTER_PREFIX) + CLUSTER_BYTES:
        return None
    if not extensions.startswith(CLUSTER_PREFIX):
        return None
    return extensions[len(CLUSTER_PREFIX) :]


def _has_go_time(appended: object) -> bool:
    return type(appended) is bytes and len(appended) == _APPENDED_AT_BYTES
