"""Commands of the key-value state machine: their classes, and their bytes in the log.

A command is one short msgpack list: format version, verb number, arguments. Its
bytes are in logs and on other replicas, so a verb never changes its meaning:

    [1, 1, key: str, value: bin, flags: uint64]      put
    [1, 2, key: str]                                 delete
    [1, 3, address: str, url: str]                   advertise
    [2, 4, [operation, ...]]                         transact, all or nothing
    [2, 5, id, name, node: str, lock_delay_ms, behavior, ttl_ms]  create session
    [2, 6, [id: str, ...]]                           destroy sessions
    [2, 7, [[key: str, index: uint64], ...]]         end lock delays
    [2, 8, client: str, sequence: uint64, command: bin]           once
    [2, 9, id: str, offset, total: uint64, piece: bin]            restore
    [3, 3, address, url, name: str]                  advertise, with the node's name
    [3, 4, [operation, ...]]                         transact, within bounds
    [3, 5, id, ..., ttl_ms, written]                 create session, as it was written
    [3, 8, client: str, sequence: uint64, command: bin]           once, compared

An operation is `[kind, key: str, value: bin, flags, index: uint64, session: str]`.

Version 3 belongs to level 1 of the state machine: it is proposed and applied only
while that level is active. Its transactions have up to `MAX_OPERATIONS_3` operations.
The bounds on their answers and on the keys that they visit are constants here, never
settings: every replica refuses the same transactions. Its `once` remembers a digest of
the command. *written* is a session as its maker wrote it: `[ttl: str, lock_delay_ns,
checks, node checks, service checks]`, where each of the last three is a list of texts
or nil.

Every replica must judge a command alike. So ApplicationError refuses, for ever, a
command that is malformed, whose version is no longer understood, or whose version does
not have its verb. A new verb therefore comes with a new version. A command of a newer
version than ours may mean something to other replicas: it halts this replica, which
stays behind its peers until it is upgraded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

import msgpack

from txraft.errors import ApplicationError, RaftError
from txraft.kv.records import Written
from txraft.kv.verbs import TREES, VALUES, OperationKind

VERSION = 3
LEVEL = 1
"""The highest level of the state machine that this code understands."""
MAX_FLAGS = (1 << 64) - 1
MAX_OPERATIONS = 64
MAX_OPERATIONS_3 = 128
MAX_ANSWER_BYTES_3 = 16 << 20
"""The most bytes in the answer to a transaction of version 3, as `answer_bytes` counts
them."""
MAX_VISITED_KEYS_3 = 16_384
"""The most keys that all `get-tree` of a transaction of version 3 visit together."""
MAX_BATCH = 1024
MAX_NAME_CHARACTERS = 1024
MAX_CLIENT_CHARACTERS = 128
MAX_LOCK_DELAY_MS = 60_000
MAX_TTL_MS = 86_400_000
MAX_RESTORE_BYTES = 64 << 20
MAX_ADDRESS_CHARACTERS = 512
MAX_URL_CHARACTERS = 2048
MAX_NODE_NAME_CHARACTERS = 128
MAX_DURATION_CHARACTERS = 64
MAX_CHECKS = 64
"""The most checks of one kind that a session names."""
NO_KEY = "a key is a text of at least one character"


_pack: Callable[[list[object]], bytes] = msgpack.Packer().pack
"""Shared by threads: packing runs no Python code, so no other thread cuts in."""


class CommandTooNew(RaftError):
    """A newer version has written the command: upgrade this node to go on."""


@dataclass(slots=True)
class Put:
    """Set the value and the flags of *key*."""

    key: str
    value: bytes
    flags: int = 0


@dataclass(slots=True)
class Delete:
    """Remove *key* if it exists."""

    key: str


@dataclass(slots=True)
class Advertise:
    """Tell the cluster that the node at *address* serves HTTP at *url*.

    Clients know the node by *name*; "" stands for the address.
    """

    address: str
    url: str
    name: str = ""


class Operation(NamedTuple):
    """One operation of a transaction; its kind ignores the fields it has no use for."""

    kind: OperationKind
    key: str
    value: bytes = b""
    flags: int = 0
    modify_index: int = 0
    session: str = ""


@dataclass(slots=True)
class Transact:
    """Do *operations* in order, all of them or none, by the rules of *level*."""

    operations: list[Operation]
    level: int = 0


@dataclass(slots=True)
class CreateSession:
    """Make the session *id*; it has no TTL if *ttl_ms* is 0.

    *written* is kept for those who read it back. Nothing is decided by it.
    """

    id: str
    name: str
    node: str
    lock_delay_ms: int
    deletes: bool
    ttl_ms: int
    written: Written | None = None


@dataclass(slots=True)
class DestroySessions:
    """End those of the sessions *ids* that exist."""

    ids: list[str]


@dataclass(slots=True)
class EndDelays:
    """End those lock delays, given by key and index of their begin, that still run."""

    delays: list[tuple[str, int]]


@dataclass(slots=True)
class Once:
    """Do *command* exactly once: *client* numbers its commands by *sequence*.

    A repetition gets the first result. From *level* 1 on, another command under a used
    sequence number is refused.
    """

    client: str
    sequence: int
    command: Command
    level: int = 0


@dataclass(slots=True)
class Restore:
    """Keep one *piece* of a backup; with the last piece, replace the whole state."""

    id: str
    offset: int
    total: int
    piece: bytes


Command = (
    Put
    | Delete
    | Advertise
    | Transact
    | CreateSession
    | DestroySessions
    | EndDelays
    | Once
    | Restore
)

# These numbers are in logs: none is ever changed, or used again.
_PUT, _DELETE, _ADVERTISE = 1, 2, 3
_TRANSACT, _CREATE, _DESTROY, _END_DELAYS, _ONCE, _RESTORE = 4, 5, 6, 7, 8, 9


def encode_put(key: str, value: bytes, flags: int = 0) -> bytes:
    """Encode a `Put`."""
    return _pack([1, _PUT, key, value, flags])


def encode_delete(key: str) -> bytes:
    """Encode a `Delete`."""
    return _pack([1, _DELETE, key])


def encode_advertise(address: str, url: str, name: str = "") -> bytes:
    """Encode an `Advertise`; with a *name* it needs level 1."""
    if name:
        return _pack([3, _ADVERTISE, address, url, name])
    return _pack([1, _ADVERTISE, address, url])


def most_operations(level: int) -> int:
    """Return the most operations that a transaction of *level* may have."""
    return MAX_OPERATIONS_3 if level else MAX_OPERATIONS


def encode_transact(operations: Sequence[Operation], level: int = 0) -> bytes:
    """Encode a `Transact`; *level* must be active where it is proposed."""
    return _pack([3 if level else 2, _TRANSACT, operations])


def encode_create_session(command: CreateSession) -> bytes:
    """Encode a `CreateSession`; with `written` it needs level 1."""
    fields: list[object] = [
        command.id,
        command.name,
        command.node,
        command.lock_delay_ms,
        int(command.deletes),
        command.ttl_ms,
    ]
    if command.written is None:
        return _pack([2, _CREATE, *fields])
    return _pack([3, _CREATE, *fields, command.written])


def encode_destroy_sessions(ids: Sequence[str]) -> bytes:
    """Encode a `DestroySessions`."""
    return _pack([2, _DESTROY, ids])


def encode_end_delays(delays: Sequence[tuple[str, int]]) -> bytes:
    """Encode an `EndDelays`."""
    return _pack([2, _END_DELAYS, delays])


def encode_once(client: str, sequence: int, command: bytes, level: int = 0) -> bytes:
    """Encode a `Once` of *level* around an encoded *command*."""
    return _pack([3 if level else 2, _ONCE, client, sequence, command])


def encode_restore(id: str, offset: int, total: int, piece: bytes) -> bytes:
    """Encode a `Restore`."""
    return _pack([2, _RESTORE, id, offset, total, piece])


def encode(command: Command) -> bytes:
    """Encode a command that a `Once` may carry: equal ones to equal bytes, for ever.

    Digests of these bytes are in snapshots, so a change here would break exactly-once.
    """
    match command:
        case Put(key, value, flags):
            return encode_put(key, value, flags)
        case Delete(key):
            return encode_delete(key)
        case Advertise(address, url, name):
            return encode_advertise(address, url, name)
        case Transact(operations):
            return encode_transact(operations)
        case CreateSession():
            return encode_create_session(command)
        case DestroySessions(ids):
            return encode_destroy_sessions(ids)
        case EndDelays(delays):
            return encode_end_delays(delays)
        case Once() | Restore():
            raise ValueError("this verb is not carried in a once")
    assert_never(command)


def is_command(data: bytes) -> bool:
    """Return whether *data* begin like a command of this application.

    That includes commands of future versions, and those whose arguments are refused.
    """
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError):
        return False
    if type(fields) is not list or len(fields) < 2:
        return False
    version, verb = fields[:2]
    if type(version) is not int or type(verb) is not int:
        return False
    return version > VERSION or verb in _VERSIONS.get(version, ())


def decode(data: bytes | None, level: int = LEVEL) -> Command:
    """Decode one command, strictly, by the rules of the active *level*.

    Raises: ApplicationError for what no version accepts; CommandTooNew.
    """
    if not data:
        raise ApplicationError("the command is empty")
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise ApplicationError("the command is not one msgpack value") from error
    if type(fields) is not list:
        raise ApplicationError("the command is not a list")
    if len(fields) < 2 or type(fields[0]) is not int or type(fields[1]) is not int:
        raise ApplicationError("the command does not begin with version and verb")
    version, verb, *arguments = fields
    # Before the verb is looked at: a replica that understands the version may accept
    # the command, and one that refused it would differ from then on.
    if version > 2 and (version > VERSION or not level):
        raise _too_new(version)
    verbs = _VERSIONS.get(version)
    if verbs is None:
        raise ApplicationError(f"command version {version} is not understood any more")
    make = verbs.get(verb)
    if make is None:
        raise ApplicationError(f"command version {version} has no verb {verb}")
    return make(arguments)


def _too_new(version: int) -> CommandTooNew:
    """Make the error that stops the node: to skip the command would fork replicas."""
    if version > VERSION:
        return CommandTooNew(
            f"a command of version {version} is in the log, this node understands "
            f"up to {VERSION}: upgrade it"
        )
    return CommandTooNew(
        f"a command of version {version} is in the log, ahead of the activation of "
        "its level: the node that proposed it broke the rule that keeps replicas of "
        "older releases equal. Restore this node from one that went on"
    )


def _put(arguments: list[Any]) -> Command:
    # Checks in line instead of `_key`, `_text` and `_number`: most commands are puts.
    if len(arguments) != 3:
        raise ApplicationError("put takes key, value and flags")
    key, value, flags = arguments
    if type(key) is not str or not key:
        raise ApplicationError(NO_KEY)
    if type(value) is not bytes:
        raise ApplicationError("the value of a put is not binary")
    if type(flags) is not int or not 0 <= flags <= MAX_FLAGS:
        raise ApplicationError("the flags of a put are not an unsigned 64-bit integer")
    return Put(key, value, flags)


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


def _advertise_3(arguments: list[Any]) -> Command:
    if len(arguments) != 3:
        raise ApplicationError("advertise takes an address, a URL and a name")
    plain, name = _advertise(arguments[:2]), arguments[2]
    assert isinstance(plain, Advertise), "that is what it makes"
    if not _text(name, MAX_NODE_NAME_CHARACTERS):
        raise ApplicationError("the name of an advertise is empty")
    return Advertise(plain.address, plain.url, name)


def _transact(arguments: list[Any]) -> Command:
    return Transact([_operation(each) for each in _batch(arguments, MAX_OPERATIONS)])


def _transact_3(arguments: list[Any]) -> Command:
    batch = _batch(arguments, MAX_OPERATIONS_3)
    return Transact([_operation(each) for each in batch], 1)


def _operation(fields: object) -> Operation:
    if type(fields) is not list or len(fields) != 6:
        raise ApplicationError("an operation has six fields")
    kind, key, value, flags, index, session = fields
    if type(kind) is not int or kind not in _KINDS:
        raise ApplicationError("the kind of an operation is not known")
    if type(key) is not str or (not key and kind not in TREES):
        raise ApplicationError(NO_KEY)
    if type(value) is not bytes:
        raise ApplicationError("the value of an operation is not binary")
    # Looked up, as `OperationKind(kind)` costs more, for each operation of a log.
    return Operation(
        _KINDS[kind], key, value, _number(flags), _number(index), _text(session)
    )


def _create(arguments: list[Any]) -> Command:
    if len(arguments) != 6:
        raise ApplicationError("a session has six fields")
    id, name, node, lock_delay_ms, deletes, ttl_ms = arguments
    if not _text(id):
        raise ApplicationError("the id of a session is empty")
    return CreateSession(
        id,
        _text(name),
        _text(node),
        _number(lock_delay_ms, MAX_LOCK_DELAY_MS),
        bool(_number(deletes, 1)),
        _number(ttl_ms, MAX_TTL_MS),
    )


def _create_3(arguments: list[Any]) -> Command:
    plain = _create(arguments[:-1])
    assert isinstance(plain, CreateSession), "that is what it makes"
    plain.written = _written(arguments[-1])
    return plain


def _written(value: object) -> Written:
    if type(value) is not list or len(value) != 5:
        raise ApplicationError("what was written of a session has five fields")
    ttl, lock_delay_ns, *checks = value
    return Written(
        _text(ttl, MAX_DURATION_CHARACTERS),
        _number(lock_delay_ns),
        *(None if each is None else _checks(each) for each in checks),
    )


def _checks(value: object) -> tuple[str, ...]:
    if type(value) is not list or len(value) > MAX_CHECKS:
        raise ApplicationError("the checks of a session are too many or no list")
    return tuple(_text(each) for each in value)


def _destroy(arguments: list[Any]) -> Command:
    return DestroySessions([_text(each) for each in _batch(arguments, MAX_BATCH)])


def _end_delays(arguments: list[Any]) -> Command:
    delays: list[tuple[str, int]] = []
    for each in _batch(arguments, MAX_BATCH):
        if type(each) is not list or len(each) != 2:
            raise ApplicationError("a lock delay has a key and an index")
        delays.append((_key(each[0]), _number(each[1])))
    return EndDelays(delays)


def _once(arguments: list[Any]) -> Command:
    return _once_of(arguments, 0)


def _once_of(arguments: list[Any], level: int) -> Once:
    if len(arguments) != 3:
        raise ApplicationError("once takes a client, a sequence and a command")
    client, sequence, data = arguments
    if not _text(client, MAX_CLIENT_CHARACTERS):
        raise ApplicationError("the client of a command is not named")
    if type(data) is not bytes:
        raise ApplicationError("the command in a once is not binary")
    command = decode(data, level)
    if isinstance(command, Once | Restore):
        # Nested, the inner result would be remembered twice; and a restoration answers
        # with a Deferred, which cannot be remembered.
        raise ApplicationError("this verb is not carried in a once")
    return Once(client, _number(sequence), command, level)


def _once_3(arguments: list[Any]) -> Command:
    once = _once_of(arguments, 1)
    inner = once.command
    if isinstance(inner, Transact) and any(
        operation.kind in VALUES for operation in inner.operations
    ):
        # Its answer would be kept on every replica for as long as the client is known.
        raise ApplicationError("a transaction that is done once cannot answer values")
    return once


def _restore(arguments: list[Any]) -> Command:
    if len(arguments) != 4:
        raise ApplicationError("restore takes an id, an offset, a total and a piece")
    id, offset, total, piece = arguments
    if type(piece) is not bytes or not piece:
        raise ApplicationError("a piece of a backup is not binary")
    # In this order: `total` bounds what the offset may be.
    _number(total, MAX_RESTORE_BYTES)
    return Restore(_text(id), _number(offset, total - len(piece)), total, piece)


def _batch(arguments: list[Any], most: int) -> list[Any]:
    if len(arguments) != 1 or type(arguments[0]) is not list:
        raise ApplicationError("the verb takes one list")
    if len(arguments[0]) > most:
        raise ApplicationError(f"the list has more than {most} elements")
    batch: list[Any] = arguments[0]
    return batch


def _number(value: object, most: int = MAX_FLAGS) -> int:
    # Not `isinstance`, for which True is an integer. The same in `_operation` and
    # `_put`.
    if type(value) is not int or not 0 <= value <= most:
        raise ApplicationError("a number of the command is out of range")
    return value


def _text(value: object, most: int = MAX_NAME_CHARACTERS) -> str:
    if type(value) is not str or len(value) > most:
        raise ApplicationError("a text of the command is too long or none")
    return value


def _key(key: object) -> str:
    if type(key) is not str or not key:
        raise ApplicationError(NO_KEY)
    return key


_KINDS = {int(kind): kind for kind in OperationKind}
_Verbs = dict[int, Callable[[list[Any]], Command]]
_VERBS_1: _Verbs = {_PUT: _put, _DELETE: _delete, _ADVERTISE: _advertise}
_VERBS_2: _Verbs = {
    **_VERBS_1,
    _TRANSACT: _transact,
    _CREATE: _create,
    _DESTROY: _destroy,
    _END_DELAYS: _end_delays,
    _ONCE: _once,
    _RESTORE: _restore,
}
_VERBS_3: _Verbs = {
    **_VERBS_2,
    _ADVERTISE: _advertise_3,
    _TRANSACT: _transact_3,
    _CREATE: _create_3,
    _ONCE: _once_3,
}
_VERSIONS = {1: _VERBS_1, 2: _VERBS_2, 3: _VERBS_3}
