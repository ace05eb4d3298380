"""Commands of the key-value state machine, as they stand in the log.

A command is one short msgpack list: format version, verb number, arguments. Its
bytes are in logs and on other replicas, so a verb never changes its meaning:

    [1, 1, key: str, value: bin, flags: uint64]      put
    [1, 2, key: str]                                 delete
    [1, 3, address: str, url: str]                   advertise

Every replica must judge a command alike. So whatever is malformed, of a version no
longer understood, or of a verb that its version does not have, is refused with
ApplicationError for ever; a new verb therefore comes with a new version. A command
of a version newer than ours may mean something to other replicas: it halts this
one, which is behind its peers until it is upgraded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from txraft.errors import ApplicationError, RaftError

VERSION = 1
MAX_FLAGS = (1 << 64) - 1
MAX_ADDRESS_CHARACTERS = 512
MAX_URL_CHARACTERS = 2048


class CommandTooNew(RaftError):
    """A command was written by a newer version: upgrade this node to go on."""


@dataclass(slots=True)
class Put:
    """Set the value and the flags of *key*."""

    key: str
    value: bytes
    flags: int = 0


@dataclass(slots=True)
class Delete:
    """Remove *key*, if it is there."""

    key: str


@dataclass(slots=True)
class Advertise:
    """Tell the cluster that the node at *address* serves HTTP at *url*."""

    address: str
    url: str


Command = Put | Delete | Advertise

_PUT, _DELETE, _ADVERTISE = 1, 2, 3


def encode_put(key: str, value: bytes, flags: int = 0) -> bytes:
    """Encode a `Put`."""
    return _pack([VERSION, _PUT, key, value, flags])


def encode_delete(key: str) -> bytes:
    """Encode a `Delete`."""
    return _pack([VERSION, _DELETE, key])


def encode_advertise(address: str, url: str) -> bytes:
    """Encode an `Advertise`."""
    return _pack([VERSION, _ADVERTISE, address, url])


def decode(data: bytes | None) -> Command:
    """Decode one command, strictly.

    Raises: ApplicationError for what no version accepts; CommandTooNew.
    """
    fields = _unpack(data)
    if len(fields) < 2 or type(fields[0]) is not int or type(fields[1]) is not int:
        raise ApplicationError("the command does not begin with version and verb")
    version, verb, *arguments = fields
    if version > VERSION:
        raise CommandTooNew(
            f"a command of version {version} is in the log, this node understands "
            f"up to {VERSION}: upgrade it"
        )
    if version < VERSION:
        raise ApplicationError(f"command version {version} is not understood any more")
    make = _VERBS.get(verb)
    if make is None:
        raise ApplicationError(f"command version {VERSION} has no verb {verb}")
    return make(arguments)


def _pack(fields: list[object]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def _unpack(data: bytes | None) -> list[Any]:
    if not data:
        raise ApplicationError("the command is empty")
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise ApplicationError("the command is not one msgpack value") from error
    if type(fields) is not list:
        raise ApplicationError("the command is not a list")
    return fields


def _put(arguments: list[Any]) -> Command:
    if len(arguments) != 3:
        raise ApplicationError("put takes key, value and flags")
    key, value, flags = arguments
    if type(value) is not bytes:
        raise ApplicationError("the value of a put is not binary")
    if type(flags) is not int or not 0 <= flags <= MAX_FLAGS:
        raise ApplicationError("the flags of a put are not an unsigned 64-bit integer")
    return Put(_key(key), value, flags)


def _delete(arguments: list[Any]) -> Command:
    if len(arguments) != 1:
        raise ApplicationError("delete takes a key")
    return Delete(_key(arguments[0]))


def _advertise(arguments: list[Any]) -> Command:
    if len(arguments) != 2:
        raise ApplicationError("advertise takes an address and a URL")
    address, url = arguments
    if type(address) is not str or not 0 < len(address) <= MAX_ADDRESS_CHARACTERS:
        raise ApplicationError("the address of an advertise is empty or too long")
    if type(url) is not str or not 0 < len(url) <= MAX_URL_CHARACTERS:
        raise ApplicationError("the URL of an advertise is empty or too long")
    return Advertise(address, url)


def _key(key: object) -> str:
    if type(key) is not str or not key:
        raise ApplicationError("a key is a text of at least one character")
    return key


_VERBS: dict[int, Callable[[list[Any]], Command]] = {
    _PUT: _put,
    _DELETE: _delete,
    _ADVERTISE: _advertise,
}
