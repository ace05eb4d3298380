"""The encoding of values: msgpack, with a list that begins by its kind for the rest.

None, booleans, texts, bytes, floats and integers of 64 bits are msgpack's own. All else
is an array whose first item says what it is:

=========  ==========================================================================
TUPLE      items
LIST       items
DICT       key, value, key, value ...
SET        items, in the order of their encodings
FROZEN     the same, of a frozenset
CLASS      name of the class, fields in their order
ENUM       name of the class, name of the member (of a Flag: its number)
DATE       kind and ISO 8601; `fold` behind it if it is 1
DELTA      days, seconds, microseconds
INTEGER    bytes, big-endian, two's complement
REFERENCE  number and kind of a container, in snapshots
=========  ==========================================================================

Equal values have equal encodings on all members: a dict keeps its order, which is a
part of the state, as a loop over it can see it; a set is sorted, as its order depends
on how it was made and on the hash seed of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from enum import Flag
from typing import Any

import msgpack

from txraft.errors import CannotTravel, DataCorrupted
from txraft.replicated.values import (
    MAX_DEPTH,
    NAN,
    check_depth,
    check_zone,
    class_called,
    declared,
    enums,
    refuse,
)

(TUPLE, LIST, DICT, SET, FROZEN, CLASS, ENUM, DATE, DELTA, INTEGER, REFERENCE) = range(
    11
)

DIRECT: frozenset[type] = frozenset({type(None), bool, str, bytes})
"""Types of values that msgpack takes as they are."""

Encoder = Callable[[Any, int], Any]


def make_packer() -> Callable[[object], bytes]:
    """Make a function that packs what `encode` has returned; of one thread."""
    # A Packer is kept: making one takes as long as packing a command.
    pack: Callable[[object], bytes] = msgpack.Packer(
        use_bin_type=True, unicode_errors="surrogatepass"
    ).pack
    return pack


def unpack(data: bytes) -> Any:
    """Unpack what `make_packer` has packed.

    Raises: ValueError, for anything else.
    """
    return msgpack.unpackb(
        data, raw=False, strict_map_key=False, unicode_errors="surrogatepass"
    )


def encode(item: object, depth: int = MAX_DEPTH) -> Any:
    """Return *item* in what msgpack knows.

    Raises: CannotTravel
    """
    kind = type(item)
    if kind in DIRECT:
        return item
    encoder = ENCODERS.get(kind)
    if encoder is not None:
        return encoder(item, depth)
    if kind in declared:
        return _class(item, depth)
    if kind in enums:
        return _enum(item, depth)
    return refuse(item)


def _integer(item: int, depth: int) -> Any:
    if -0x8000000000000000 <= item <= 0xFFFFFFFFFFFFFFFF:
        return item
    size = item.bit_length() // 8 + 1
    return [INTEGER, item.to_bytes(size, "big", signed=True)]


def _float(item: float, depth: int) -> Any:
    if item != item:
        raise CannotTravel(NAN)
    return item


def _row(kind: int) -> Encoder:
    def row(items: Any, depth: int) -> Any:
        check_depth(depth)
        inner = depth - 1
        return [kind, *[i if type(i) in DIRECT else encode(i, inner) for i in items]]

    return row


def _dict(items: Any, depth: int) -> Any:
    check_depth(depth)
    found: list[object] = [DICT]
    for pair in items.items():
        found += [encode(each, depth - 1) for each in pair]
    return found


def _sorted(kind: int) -> Encoder:
    def ordered(items: Any, depth: int) -> Any:
        check_depth(depth)
        encoded = [encode(item, depth - 1) for item in items]
        return [kind, *sorted(encoded, key=_packed)]

    return ordered


def _packed(encoded: object) -> bytes:
    return make_packer()(encoded)


def in_order(items: Any) -> list[Any]:
    """Return the items of a set in an order that is the same in every process.

    Raises: CannotTravel
    """
    return sorted(items, key=lambda item: _packed(encode(item)))


def _class(item: object, depth: int) -> Any:
    check_depth(depth)
    known = declared[type(item)]
    class_called(known.name)  # what two classes are called could not be read again
    inner = depth - 1
    return [
        CLASS,
        known.name,
        *[i if type(i) in DIRECT else encode(i, inner) for i in known.fields(item)],
    ]


def _enum(item: Any, depth: int) -> Any:
    name = enums[type(item)]
    class_called(name)
    # A combination of flags may have no name.
    return [ENUM, name, item.value if isinstance(item, Flag) else item.name]


def _date(item: Any, depth: int) -> Any:
    kind = type(item)
    if kind is date:
        return [DATE, "d", item.isoformat()]
    check_zone(item)
    found = [DATE, "t" if kind is time else "dt", item.isoformat()]
    return [*found, 1] if item.fold else found


def _delta(item: timedelta, depth: int) -> Any:
    return [DELTA, item.days, item.seconds, item.microseconds]


ENCODERS: dict[type, Encoder] = {
    int: _integer,
    float: _float,
    tuple: _row(TUPLE),
    list: _row(LIST),
    dict: _dict,
    set: _sorted(SET),
    frozenset: _sorted(FROZEN),
    datetime: _date,
    date: _date,
    time: _date,
    timedelta: _delta,
}
"""How to encode each kind; the containers of the state add themselves."""


def decode(raw: Any) -> Any:
    """Return the value that `encode` has encoded as *raw*.

    Raises: CannotTravel, for a class that is not declared here; DataCorrupted, for what
        `encode` never makes.
    """
    if type(raw) is not list:
        return raw
    try:
        return DECODERS[raw[0]](raw)
    except (CannotTravel, DataCorrupted):
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataCorrupted(
            f"no value is encoded like this: {type(error).__name__}: {error}"
        ) from error


def _items(raw: Any) -> list[Any]:
    return [decode(i) if type(i) is list else i for i in raw[1:]]


def _decode_dict(raw: Any) -> Any:
    items = _items(raw)
    return dict(zip(items[::2], items[1::2], strict=True))


def _decode_class(raw: Any) -> Any:
    _, name, *fields = raw
    cls = class_called(name)
    known = declared[cls]
    fields = [decode(i) if type(i) is list else i for i in fields]
    if len(fields) > len(known.names):
        raise CannotTravel(
            f"{name!r} has {len(fields)} fields there, and {len(known.names)} here: "
            "this is an older version of it, upgrade it"
        )
    # Not by its `__init__`: what it once was is what it is.
    made: Any = object.__new__(cls)
    for field, each in zip(known.names, fields, strict=False):
        object.__setattr__(made, field, each)
    if len(fields) < len(known.names):
        _add_defaults(made, known.names[len(fields) :])
    return made


def _add_defaults(made: Any, names: tuple[str, ...]) -> None:
    from dataclasses import MISSING, fields

    known = {field.name: field for field in fields(made)}
    for name in names:
        field = known[name]
        if field.default_factory is not MISSING:
            default: object = field.default_factory()
        else:
            default = field.default
        if default is MISSING:
            raise CannotTravel(
                f"{type(made).__name__}.{name} is new, and needs a default: what was "
                "stored before has no such field"
            )
        object.__setattr__(made, name, default)


def _decode_enum(raw: Any) -> Any:
    _, name, member = raw
    cls: Any = class_called(name)
    try:
        return cls(member) if issubclass(cls, Flag) else cls[member]
    except (KeyError, ValueError):
        raise CannotTravel(
            f"{name!r} has no member {member!r} here: this is an older version of it, "
            "upgrade it"
        ) from None


_DATES: dict[str, Any] = {"d": date, "t": time, "dt": datetime}


def _decode_date(raw: Any) -> Any:
    _, kind, text, *fold = raw
    found = _DATES[kind].fromisoformat(text)
    return found.replace(fold=fold[0]) if fold else found


DECODERS: dict[int, Callable[[Any], Any]] = {
    TUPLE: lambda raw: tuple(_items(raw)),
    LIST: _items,
    DICT: _decode_dict,
    SET: lambda raw: set(_items(raw)),
    FROZEN: lambda raw: frozenset(_items(raw)),
    CLASS: _decode_class,
    ENUM: _decode_enum,
    DATE: _decode_date,
    DELTA: lambda raw: timedelta(raw[1], raw[2], raw[3]),
    INTEGER: lambda raw: int.from_bytes(raw[1], "big", signed=True),
}
