"""The operations of a transaction: one small function for each kind.

They work on a `View`, which holds back every change until all have succeeded. A single
check-and-set or lock is a transaction of one operation.

Source: Consul's HTTP API, "Transactions" and "KV Store Endpoints".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from txraft.kv.commands import Kind, Operation
from txraft.kv.keyindex import KeyIndex
from txraft.kv.records import OperationError, Outcome, Record, Row, State


class Conflict(Exception):
    """An operation does not succeed, the state being what it is."""


class Invalid(Exception):
    """An operation names a session that does not exist."""


class View:
    """The state at *index* as it would be with the changes made here."""

    def __init__(self, state: State, keys: KeyIndex, index: int) -> None:
        self.index = index
        self.changes: dict[str, Row | None] = {}
        self._state = state
        self._keys = keys

    def get(self, key: str) -> Row | None:
        """Return the row of *key*."""
        if key in self.changes:
            return self.changes[key]
        return self._state.rows.get(key)

    def remove(self, key: str) -> None:
        """Remove *key*, if it is there."""
        if self.get(key) is not None:
            self.changes[key] = None

    def write(self, operation: Operation, lock_index: int, session: str) -> Record:
        """Write value and flags of *operation*; an equal record stays as it is."""
        old = self.get(operation.key)
        content = (operation.value, operation.flags, lock_index, session)
        if old is None or (old[0], old[1], old[4], old[5]) != content:
            created = self.index if old is None else old[2]
            value, flags = operation.value, operation.flags
            row = (value, flags, created, self.index, lock_index, session)
            self.changes[operation.key] = row
            return Record(operation.key, *row)
        return Record(operation.key, *old)

    def under(self, prefix: str) -> Iterator[str]:
        """Iterate over the keys that begin with *prefix*, in order."""
        found = dict.fromkeys(self._keys.under(prefix))
        found.update((key, None) for key in self.changes if key.startswith(prefix))
        return (key for key in sorted(found) if self.get(key) is not None)

    def check_session(self, session: str) -> None:
        """Raise Invalid unless *session* exists."""
        if session not in self._state.sessions:
            raise Invalid(f'invalid session "{session}"')

    def is_delayed(self, key: str) -> bool:
        """Tell whether *key* cannot be locked because of a lock delay."""
        return key in self._state.delays


def run(view: View, operations: list[Operation]) -> Outcome:
    """Do *operations* on *view* and tell of all that failed."""
    records: list[Record] = []
    errors: list[OperationError] = []
    for position, operation in enumerate(operations):
        try:
            records += _KINDS[operation.kind](view, operation)
        except (Conflict, Invalid) as error:
            invalid = isinstance(error, Invalid)
            errors.append(OperationError(position, str(error), invalid))
    return Outcome([] if errors else records, errors)


def is_write(kind: Kind) -> bool:
    """Tell whether an operation of this *kind* can change anything."""
    return kind not in _READS


_Result = list[Record]


def _set(view: View, operation: Operation) -> _Result:
    old = view.get(operation.key)
    lock_index, session = (0, "") if old is None else (old[4], old[5])
    return _told(view.write(operation, lock_index, session))


def _cas(view: View, operation: Operation) -> _Result:
    old = view.get(operation.key)
    if operation.modify_index != (0 if old is None else old[3]):
        raise Conflict(f'failed to set key "{operation.key}", index is stale')
    return _set(view, operation)


def _lock(view: View, operation: Operation) -> _Result:
    key, session = operation.key, operation.session
    view.check_session(session)
    old = view.get(key)
    if old is not None and old[5] == session:
        return _told(view.write(operation, old[4], session))
    if old is not None and old[5]:
        raise Conflict(f'failed to lock key "{key}", lock is already held')
    if view.is_delayed(key):
        raise Conflict(f'failed to lock key "{key}", its lock delay has not ended')
    return _told(view.write(operation, 1 if old is None else old[4] + 1, session))


def _unlock(view: View, operation: Operation) -> _Result:
    view.check_session(operation.session)
    old = view.get(operation.key)
    if old is None or old[5] != operation.session:
        raise Conflict(
            f'failed to unlock key "{operation.key}", lock isn\'t held, or is held '
            "by another session"
        )
    return _told(view.write(operation, old[4], ""))


def _get(view: View, operation: Operation) -> _Result:
    return [Record(operation.key, *_existing(view, operation))]


def _get_or_empty(view: View, operation: Operation) -> _Result:
    row = view.get(operation.key)
    return [Record(operation.key, *(row or (b"", 0, 0, 0, 0, "")))]


def _get_tree(view: View, operation: Operation) -> _Result:
    rows = ((key, view.get(key)) for key in view.under(operation.key))
    return [Record(key, *row) for key, row in rows if row is not None]


def _check_index(view: View, operation: Operation) -> _Result:
    row = _existing(view, operation)
    if row[3] != operation.modify_index:
        raise Conflict(
            f'current modify index {row[3]} of key "{operation.key}" is not '
            f"{operation.modify_index}"
        )
    return _told(Record(operation.key, *row))


def _check_session(view: View, operation: Operation) -> _Result:
    row = _existing(view, operation)
    if row[5] != operation.session:
        raise Conflict(
            f'failed session check for key "{operation.key}", current session '
            f'"{row[5]}" is not "{operation.session}"'
        )
    return _told(Record(operation.key, *row))


def _check_not_exists(view: View, operation: Operation) -> _Result:
    if view.get(operation.key) is not None:
        raise Conflict(f'key "{operation.key}" exists')
    return []


def _delete(view: View, operation: Operation) -> _Result:
    view.remove(operation.key)
    return []


def _delete_tree(view: View, operation: Operation) -> _Result:
    for key in list(view.under(operation.key)):
        view.remove(key)
    return []


def _delete_cas(view: View, operation: Operation) -> _Result:
    row = view.get(operation.key)
    if row is not None and row[3] != operation.modify_index:
        raise Conflict(f'failed to delete key "{operation.key}", index is stale')
    return _delete(view, operation)


def _existing(view: View, operation: Operation) -> Row:
    row = view.get(operation.key)
    if row is None:
        raise Conflict(f'key "{operation.key}" doesn\'t exist')
    return row


def _told(record: Record) -> _Result:
    """Answer *record* as writes and checks do, without the value."""
    return [record._replace(value=b"")]


_READS = frozenset(
    {
        Kind.GET,
        Kind.GET_OR_EMPTY,
        Kind.GET_TREE,
        Kind.CHECK_INDEX,
        Kind.CHECK_SESSION,
        Kind.CHECK_NOT_EXISTS,
    }
)
_KINDS: dict[Kind, Callable[[View, Operation], _Result]] = {
    Kind.SET: _set,
    Kind.CAS: _cas,
    Kind.LOCK: _lock,
    Kind.UNLOCK: _unlock,
    Kind.GET: _get,
    Kind.GET_OR_EMPTY: _get_or_empty,
    Kind.GET_TREE: _get_tree,
    Kind.CHECK_INDEX: _check_index,
    Kind.CHECK_SESSION: _check_session,
    Kind.CHECK_NOT_EXISTS: _check_not_exists,
    Kind.DELETE: _delete,
    Kind.DELETE_TREE: _delete_tree,
    Kind.DELETE_CAS: _delete_cas,
}
