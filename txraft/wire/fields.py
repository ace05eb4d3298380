"""Typed fields of a decoded map, with Go's rules: a missing or nil field is zero.

Keys and byte strings are `bytes`. A value of a wrong type raises ProtocolError; it
makes hashicorp/raft close the connection too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from txraft.core.messages import NO_HEADER, Header
from txraft.errors import ProtocolError
from txraft.wire.membership import address_from_bytes, address_to_bytes

Fields = Mapping[bytes, Any]

CACHED_FRAMES = 256
"""How many encoded frames are cached: the bytes that messages of one header share."""

_MAX_UINT64 = 2**64 - 1
_MIN_INT64 = -(2**63)
_SHOWN_BYTES = 30
# Keys that only this package writes; hashicorp/raft skips keys that it does not know.
_OUR_KEYS = frozenset(
    {b"Cluster", b"FSMLevel", b"Forwards", b"Incarnation", b"Incarnations"}
)
_HEADER_KEYS = _OUR_KEYS | {b"Addr", b"ID", b"ProtocolVersion"}

pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=False).pack
"""Packs one value with the old raw types, which all versions of hashicorp/raft read.
Threads share it: it runs no Python code, so no other thread can interrupt it."""


def pack_sorted(fields: dict[bytes, object]) -> bytes:
    """Pack a message: a map with its keys in ascending byte order."""
    return pack(dict(sorted(fields.items())))


def text_or_nil(text: str) -> bytes | None:
    """Encode text as Go does: nil when it is empty."""
    return address_to_bytes(text) or None


def header_fields(header: Header) -> dict[bytes, object]:
    """Return the header fields that *header* has.

    A key that is None is left out: peers of older protocols know none of them.
    """
    fields: dict[bytes, object] = {}
    if header.protocol_version is not None:
        fields[b"ProtocolVersion"] = header.protocol_version
    if header.address is not None:
        fields[b"Addr"] = text_or_nil(header.address)
    if header.id is not None:
        fields[b"ID"] = text_or_nil(header.id)
    if header.cluster is not None:
        fields[b"Cluster"] = header.cluster
    if header.incarnation is not None:
        fields[b"Incarnation"] = header.incarnation
    if header.known is not None:
        fields[b"Incarnations"] = header.known
    if header.level is not None:
        fields[b"FSMLevel"] = header.level
    if header.forwards is not None:
        fields[b"Forwards"] = header.forwards
    return fields


def zero_header_fields(header: Header) -> dict[bytes, object]:
    """Return the same fields with zero values.

    In two responses hashicorp/raft never fills in the header.
    """
    fields = header_fields(header)
    zero = dict[bytes, object](dict.fromkeys(fields.keys() - _OUR_KEYS))
    if b"ProtocolVersion" in zero:
        zero[b"ProtocolVersion"] = 0
    return {**fields, **zero}


def header_in(fields: Fields) -> Header:
    """Read the header; a key that is missing stays None."""
    # Most messages of version 0 have none of the keys: eight look-ups are saved.
    if _HEADER_KEYS.isdisjoint(fields):
        return NO_HEADER
    # Positions, as keywords cost 0.5 us for each message; in AppendEntries, whose
    # decoder does the same, 1 us.
    return Header(
        integer(fields, b"ProtocolVersion") if b"ProtocolVersion" in fields else None,
        text(fields, b"ID") if b"ID" in fields else None,
        text(fields, b"Addr") if b"Addr" in fields else None,
        raw(fields, b"Cluster") if b"Cluster" in fields else None,
        raw(fields, b"Incarnation") if b"Incarnation" in fields else None,
        raw(fields, b"Incarnations") if b"Incarnations" in fields else None,
        unsigned(fields, b"FSMLevel") if b"FSMLevel" in fields else None,
        unsigned(fields, b"Forwards") if b"Forwards" in fields else None,
    )


def unsigned(fields: Fields, key: bytes) -> int:
    """Read an integer of 0 to 2**64 - 1."""
    value = fields.get(key)
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= _MAX_UINT64:
        return value
    raise odd_value(key, value)


def unsigneds(fields: Fields, *keys: bytes) -> list[int]:
    """Read several such integers at about the cost of one."""
    values: list[Any] = list(map(fields.get, keys))
    for number, value in enumerate(values):
        if type(value) is not int or not 0 <= value <= _MAX_UINT64:
            values[number] = unsigned(fields, keys[number])
    return values


def integer(fields: Fields, key: bytes) -> int:
    """Read an integer of either sign."""
    value = fields.get(key)
    if value is None:
        return 0
    if type(value) is int and _MIN_INT64 <= value <= _MAX_UINT64:
        return value
    raise odd_value(key, value)


def boolean(fields: Fields, key: bytes) -> bool:
    """Read a boolean; 0 and 1 are accepted too."""
    value = fields.get(key)
    if value is None:
        return False
    if type(value) is bool or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise odd_value(key, value)


def booleans(fields: Fields, *keys: bytes) -> list[bool]:
    """Read several booleans at about the cost of one."""
    values: list[Any] = list(map(fields.get, keys))
    for number, value in enumerate(values):
        if type(value) is not bool:
            values[number] = boolean(fields, keys[number])
    return values


def raw(fields: Fields, key: bytes) -> bytes | None:
    """Read a byte string; nil and missing are None."""
    value = fields.get(key)
    if value is None or type(value) is bytes:
        return value
    raise odd_value(key, value)


def text(fields: Fields, key: bytes) -> str:
    """Read an address or id; nil and missing are empty."""
    return address_from_bytes(raw(fields, key) or b"")


def odd_value(key: bytes, value: object) -> ProtocolError:
    """Make the error for a value that its field cannot hold."""
    return ProtocolError(f"{key.decode('ascii')} has an odd value: {shown(value)}")


def shown(value: object) -> str:
    """Quote a value of a peer in a short form, however large it is."""
    if isinstance(value, bytes):
        return repr(value[:_SHOWN_BYTES])
    if value is None or isinstance(value, int | float):
        return repr(value)
    return type(value).__name__
