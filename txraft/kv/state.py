"""The key-value state machine: what the commands of the log add up to.

It knows nothing of consensus or HTTP. Limits on keys and values are checked before a
command is proposed, never here: replicas must agree whatever their settings are.

A record is kept as an exact tuple, which the garbage collector does not follow:
50 000 records of 256 bytes cost about 25 MiB and no pauses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import msgpack

from txraft.core.entry import Entry
from txraft.errors import ApplicationError
from txraft.interfaces import FSMSnapshot
from txraft.kv.commands import Advertise, Delete, Put, decode
from txraft.kv.snapshot import KeyValueSnapshot, Row, State, read_state

MAX_ADVERTISED = 1024


class Record(NamedTuple):
    """One key as clients see it. Indexes are those of log entries."""

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int


class KeyValueFSM:
    """The state machine behind the key-value node.

    Reads are for the reactor thread and see the state after the last command
    applied. `on_advertise` is called after each command that tells an HTTP address; a
    restore is not announced.
    """

    def __init__(self) -> None:
        self._state = State({}, {}, 0)
        self.on_advertise: Callable[[], object] = _nothing

    # Reads

    def get(self, key: str) -> Record | None:
        """Return the record of *key*, None when there is none."""
        row = self._state.rows.get(key)
        return None if row is None else Record(key, *row)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._state.rows)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, in no order that means anything."""
        return iter(self._state.rows)

    @property
    def index(self) -> int:
        """The index of the last command that changed a key, 0 before the first."""
        return self._state.index

    def http_url(self, address: str) -> str | None:
        """Return where the node at the peer *address* serves HTTP, if it said so."""
        return self._state.urls.get(address)

    def digest(self) -> str:
        """Return the SHA-256 of the whole content, equal on equal replicas."""
        state = self._state
        hasher = hashlib.sha256(
            msgpack.packb([state.index, sorted(state.urls.items())])
        )
        for key in sorted(state.rows):
            hasher.update(msgpack.packb([key, *state.rows[key]]))
        return hasher.hexdigest()

    # What the node calls

    def apply(self, log: Entry) -> object:
        """Apply one command; a put and a delete answer True."""
        command = decode(log.data)
        return _VERBS[type(command)](self, log.index, command)

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply commands in order; a refusal takes the place of its answer."""
        answers: list[object] = []
        for log in logs:
            try:
                answers.append(self.apply(log))
            except ApplicationError as refusal:
                answers.append(refusal)
        return answers

    def snapshot(self) -> FSMSnapshot:
        """Capture the state: a copy of two dicts, of references only."""
        state = self._state
        return KeyValueSnapshot(
            State(state.rows.copy(), state.urls.copy(), state.index)
        )

    def restore(self, source: BinaryIO) -> None:
        """Replace the state by the one read from *source*, or leave it untouched.

        Raises: DataCorrupted, FormatTooNew
        Thread: snapshot. One assignment at the end is the whole change.
        """
        self._state = read_state(source)

    # One function for each verb

    def _put(self, index: int, command: Put) -> bool:
        """Write the record; one that would not change keeps its ModifyIndex."""
        rows = self._state.rows
        old: Row | None = rows.get(command.key)
        if old is None:
            rows[command.key] = (command.value, command.flags, index, index, 0)
        elif old[0] == command.value and old[1] == command.flags:
            return True
        else:
            rows[command.key] = (command.value, command.flags, old[2], index, old[4])
        self._state.index = index
        return True

    def _delete(self, index: int, command: Delete) -> bool:
        if self._state.rows.pop(command.key, None) is not None:
            self._state.index = index
        return True

    def _advertise(self, index: int, command: Advertise) -> bool:
        urls = self._state.urls
        if command.address not in urls and len(urls) >= MAX_ADVERTISED:
            raise ApplicationError(f"{MAX_ADVERTISED} HTTP addresses are known already")
        urls[command.address] = command.url
        self.on_advertise()
        return True


def _nothing() -> None:
    """Do nothing."""


_VERBS: dict[type, Callable[..., bool]] = {
    Put: KeyValueFSM._put,
    Delete: KeyValueFSM._delete,
    Advertise: KeyValueFSM._advertise,
}
