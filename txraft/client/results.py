"""`KeyValue` and `Operation`, and their forms in the JSON of the API."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

from txraft.client.errors import MalformedAnswer, OperationError
from txraft.kv.verbs import INDEXED, VERBS, WRITES


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key with its value, indexes and lock.

    *create_index* and *modify_index* are those of the log entries that created the key
    and changed it last. *lock_index* counts how often it was locked. *session* is the
    one that holds its lock now, None if it is free.
    """

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0
    lock_index: int = 0
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a transaction.

    *verb* is one of the verbs of the API (`txraft.kv.verbs`): set, cas, lock, unlock,
    get, get-or-empty, get-tree, check-index, check-session, check-not-exists, delete,
    delete-tree, delete-cas.
    """

    verb: str
    key: str
    value: bytes | None = None
    flags: int = 0
    index: int = 0
    session: str = ""

    @classmethod
    def set(cls, key: str, value: bytes, flags: int = 0) -> Operation:
        """Write *key*."""
        return cls("set", key, value, flags)

    @classmethod
    def cas(cls, key: str, value: bytes, index: int, flags: int = 0) -> Operation:
        """Write *key* if it was last changed at *index*; 0: if it is absent."""
        return cls("cas", key, value, flags, index)

    @classmethod
    def get(cls, key: str) -> Operation:
        """Read *key*, which must exist."""
        return cls("get", key)

    @classmethod
    def check_index(cls, key: str, index: int) -> Operation:
        """Go on only if *key* was last changed at *index*."""
        return cls("check-index", key, index=index)

    @classmethod
    def check_session(cls, key: str, session: str) -> Operation:
        """Go on only if *session* holds the lock on *key*."""
        return cls("check-session", key, session=session)

    @classmethod
    def check_not_exists(cls, key: str) -> Operation:
        """Go on only if there is no *key*."""
        return cls("check-not-exists", key)

    @classmethod
    def delete(cls, key: str) -> Operation:
        """Delete *key*."""
        return cls("delete", key)

    @classmethod
    def delete_tree(cls, prefix: str) -> Operation:
        """Delete every key that begins with *prefix*."""
        return cls("delete-tree", prefix)

    @property
    def reads(self) -> bool:
        """Whether the operation changes nothing."""
        return self.verb in VERBS and VERBS[self.verb] not in WRITES

    def as_json(self) -> dict[str, Any]:
        """Return the operation in the form of the API."""
        fields: dict[str, Any] = {"Verb": self.verb, "Key": self.key}
        if self.value is not None:
            fields["Value"] = b64encode(self.value).decode("ascii")
        if self.flags:
            fields["Flags"] = self.flags
        # 0 is a condition, too: that there is no such key.
        if VERBS.get(self.verb) in INDEXED:
            fields["Index"] = self.index
        if self.session:
            fields["Session"] = self.session
        return {"KV": fields}


def parse_json(body: bytes) -> Any:
    """Read an answer's JSON. Raises: MalformedAnswer"""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(f"an answer is not JSON: {body[:80]!r}") from error


def parse_records(body: bytes) -> list[KeyValue]:
    """Read the answer to a read of keys. Raises: MalformedAnswer"""
    listed = parse_json(body)
    if not isinstance(listed, list):
        raise MalformedAnswer("an answer is not a list of keys")
    return [parse_record(each) for each in listed]


def parse_record(fields: Any) -> KeyValue:
    """Read one key. Raises: MalformedAnswer"""
    try:
        value = fields["Value"]
        return KeyValue(
            key=str(fields["Key"]),
            value=b"" if value is None else b64decode(value, validate=True),
            flags=int(fields["Flags"]),
            create_index=int(fields["CreateIndex"]),
            modify_index=int(fields["ModifyIndex"]),
            lock_index=int(fields["LockIndex"]),
            session=fields.get("Session") or None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, Base64Error) as error:
        raise MalformedAnswer(f"an answer holds no key: {fields!r:.80}") from error


def parse_flag(body: bytes) -> bool:
    """Read the answer `true` or `false`. Raises: MalformedAnswer"""
    answer = parse_json(body)
    if not isinstance(answer, bool):
        raise MalformedAnswer(f"an answer is neither true nor false: {body[:80]!r}")
    return answer


def parse_keys(body: bytes) -> list[str]:
    """Read a list of texts. Raises: MalformedAnswer"""
    listed = parse_json(body)
    if not isinstance(listed, list) or not all(isinstance(k, str) for k in listed):
        raise MalformedAnswer("an answer is not a list of keys")
    return listed


def parse_results(body: bytes) -> list[KeyValue]:
    """Read the results of a committed transaction. Raises: MalformedAnswer"""
    answer = parse_json(body)
    try:
        # The result of a write has no "Value", which `parse_record` asks for.
        return [
            parse_record({"Value": None, **result["KV"]})
            for result in answer["Results"] or []
        ]
    except (KeyError, TypeError) as error:
        raise MalformedAnswer("an answer is not that of a transaction") from error


def parse_refusals(body: bytes) -> list[OperationError]:
    """Read why a transaction was rolled back. Raises: MalformedAnswer"""
    answer = parse_json(body)
    try:
        return [
            OperationError(int(each["OpIndex"]), str(each["What"]))
            for each in answer["Errors"] or []
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer("an answer is not that of a transaction") from error
