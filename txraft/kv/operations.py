"""The operations of a transaction: one small function for each kind.

They work on a `TransactionView`, which holds back every change until all have
succeeded. A single check-and-set or lock is a transaction of one operation. A
`TransactionAnswer` counts the bytes that a transaction of level 1 answers and the keys
that it visits: on every replica alike, also where nobody waits for the records. Over
the bounds of its version the transaction is refused, and the state stays as it was.

Source: Consul's HTTP API, "Transactions" and "KV Store Endpoints".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import merge

from txraft.errors import ApplicationError
from txraft.kv.commands import Operation
from txraft.kv.keyindex import KeyIndex
from txraft.kv.records import (
    CREATE_INDEX,
    FLAGS,
    HOLDER,
    LOCK_INDEX,
    MODIFY_INDEX,
    VALUE,
    OperationError,
    Record,
    Row,
    State,
    TransactionResult,
)
from txraft.kv.verbs import OperationKind

STEP_KEYS = 128
"""Keys of a tree that are looked at in one step: less than a millisecond."""

RECORD_BYTES = 200
"""Bytes of the names and numbers of one record in an answer."""


class Conflict(Exception):
    """The state does not allow an operation to succeed."""


class Invalid(Exception):
    """An operation names a session that does not exist."""


class TransactionTooLarge(ApplicationError):
    """The transaction would answer or visit too much: nothing of it was done."""


class TransactionView:
    """The state with the changes of a transaction at *index*, which are not made yet.

    All keys under the prefixes `cleared` are deleted; none of these begins with
    another. `changes` come on top of that. So to delete a tree costs the same here
    however large it is, and however often a transaction does it.
    """

    def __init__(self, state: State, keys: KeyIndex, index: int) -> None:
        self.index = index
        self.changes: dict[str, Row | None] = {}
        self.cleared: tuple[str, ...] = ()
        self._state = state
        self._keys = keys

    def get(self, key: str) -> Row | None:
        """Return the row of *key*."""
        if key in self.changes:
            return self.changes[key]
        # The first test is for speed: most transactions clear nothing.
        if self.cleared and key.startswith(self.cleared):
            return None
        return self._state.rows.get(key)

    def remove(self, key: str) -> None:
        """Remove *key* if it exists."""
        if self.get(key) is not None:
            self.changes[key] = None

    def clear(self, prefix: str) -> None:
        """Remove all keys that begin with *prefix*."""
        # The keys of the state are not looked at: one command could clear millions.
        for key in self.changes:
            if key.startswith(prefix):
                self.changes[key] = None
        if not prefix.startswith(self.cleared):
            others = (each for each in self.cleared if not each.startswith(prefix))
            self.cleared = (*others, prefix)

    def write(self, operation: Operation, lock_index: int, session: str) -> Row:
        """Write value and flags of *operation*; an equal record stays as it is."""
        # An equal write keeps its ModifyIndex, so that it wakes no blocking query.
        old = self.get(operation.key)
        content = (operation.value, operation.flags, lock_index, session)
        if (
            old is None
            or (old[VALUE], old[FLAGS], old[LOCK_INDEX], old[HOLDER]) != content
        ):
            created = self.index if old is None else old[CREATE_INDEX]
            value, flags = operation.value, operation.flags
            row = (value, flags, created, self.index, lock_index, session)
            self.changes[operation.key] = row
            return row
        return old

    def under(
        self, prefix: str, visit: Callable[[], object]
    ) -> Iterator[tuple[str, Row]]:
        """Iterate over keys under *prefix* and their rows, in the order of the keys.

        *visit* is called for each key of the state, also for one that is deleted in
        this view. Only keys that exist count: the index may hold others besides, which
        differ between replicas.
        """
        rows, cleared = self._state.rows, self.cleared
        new = [
            (key, row)
            for key, row in self.changes.items()
            if row is not None and key.startswith(prefix)
            if key not in rows or key.startswith(cleared)
        ]
        # All that the state has under the prefix is deleted: nothing of it is visited.
        if prefix.startswith(cleared):
            return iter(sorted(new))
        kept = self._kept(prefix, visit)
        # Without new keys no merge, which compares each key of the tree.
        return merge(kept, sorted(new)) if new else kept

    def _kept(
        self, prefix: str, visit: Callable[[], object]
    ) -> Iterator[tuple[str, Row]]:
        rows, changes, cleared = self._state.rows, self.changes, self.cleared
        for key in self._keys.under(prefix):
            visit()
            if cleared and key.startswith(cleared):
                continue
            row = changes.get(key, rows[key]) if changes else rows[key]
            if row is not None:
                yield key, row

    def check_session(self, session: str) -> None:
        """Raise Invalid unless *session* exists."""
        if session not in self._state.sessions:
            raise Invalid(f'invalid session "{session}"')

    def is_delayed(self, key: str) -> bool:
        """Return whether a lock delay forbids to lock *key*."""
        return key in self._state.delays


class TransactionAnswer:
    """Collects the records of a transaction if they are *wanted*, within bounds.

    Beyond *most_bytes* of answer or *most_keys* visited it raises TransactionTooLarge;
    a *lenient* one only stops to keep records. None is no bound.
    """

    def __init__(
        self,
        most_bytes: int | None,
        most_keys: int | None,
        wanted: bool = True,
        lenient: bool = False,
    ) -> None:
        self.records: list[Record] = []
        self.wanted = wanted
        self._bytes = self._most_bytes = most_bytes
        self._keys = self._most_keys = most_keys
        self._lenient = lenient

    @property
    def is_free(self) -> bool:
        """Whether nothing depends on the records, so that none need be looked at."""
        return not self.wanted and (self._lenient or self._bytes is None)

    def visit(self, count: int = 1) -> None:
        """Count keys that were visited. Raises: TransactionTooLarge"""
        if self._keys is not None:
            self._keys -= count
            if self._keys < 0:
                self._exceed()

    def add(self, found: Iterable[tuple[str, Row]]) -> None:
        """Collect the records of keys and rows, or only count their bytes.

        Raises: TransactionTooLarge
        """
        for key, row in found:
            # Counted also where nobody waits for the records: a replica that counted
            # less would do what the others refuse.
            if self._bytes is not None:
                self._bytes -= answer_bytes(key, row)
                if self._bytes < 0:
                    self._exceed()
            if self.wanted:
                self.records.append(Record(key, *row))
            elif self.is_free:
                return  # a lenient one over its bounds: the rest has no use

    def _exceed(self) -> None:
        if not self._lenient:
            raise TransactionTooLarge(
                f"The transaction would answer more than {self._most_bytes} bytes or "
                f"visit more than {self._most_keys} keys: nothing of it was done. Name "
                "longer prefixes, or read with GET and ?recurse."
            )
        self.wanted = False
        self._bytes = self._keys = None
        self.records.clear()


def answer_bytes(key: str, row: Row) -> int:
    """Return the most bytes that a record takes in an answer, as JSON.

    Each character of a key may be escaped, and values are in base64. The formula is
    part of the meaning of commands of version 3 and must never change.
    """
    return RECORD_BYTES + 6 * (len(key) + len(row[HOLDER])) + (4 * len(row[VALUE])) // 3


def run(
    view: TransactionView,
    operations: Sequence[Operation],
    answer: TransactionAnswer | None = None,
    level: int = 0,
) -> TransactionResult:
    """Do *operations* on *view* by the rules of *level*; return all failures.

    Raises: TransactionTooLarge; the view must then be dropped
    """
    answer = answer or TransactionAnswer(None, None)
    kinds = _LEVELS[level]
    errors: list[OperationError] = []
    for position, operation in enumerate(operations):
        try:
            kinds[operation.kind](view, operation, answer)
        # And on with the next: a client gets all errors at once, as from Consul.
        except (Conflict, Invalid) as error:
            invalid = isinstance(error, Invalid)
            errors.append(OperationError(position, str(error), invalid))
    return TransactionResult([] if errors else answer.records, errors, answer.wanted)


def read(
    state: State,
    keys: KeyIndex,
    operations: Sequence[Operation],
    answer: TransactionAnswer,
) -> Generator[None, None, TransactionResult]:
    """Do *operations*, which only read, in short steps that all see the state of now.

    `run` does all in one step, however long the answer is.
    Raises: TransactionTooLarge; ReadViewEnded, if too much changes meanwhile
    """
    # All rows and views are taken before the first `yield`, so they show one state.
    rows = {o.key: state.rows[o.key] for o in operations if o.key in state.rows}
    view = TransactionView(State(rows, {}, state.index), keys, state.index)
    errors: list[OperationError] = []
    with ExitStack() as stack:
        trees = [
            stack.enter_context(closing(keys.read_view(o.key, state.index)))
            if o.kind is OperationKind.GET_TREE
            else None
            for o in operations
        ]
        yield
        for position, (operation, tree) in enumerate(
            zip(operations, trees, strict=True)
        ):
            while tree is not None and (piece := tree.read(STEP_KEYS)) is not None:
                answer.visit(len(piece))
                answer.add(piece)
                yield
            if tree is None:
                try:
                    _KINDS[operation.kind](view, operation, answer)
                except Conflict as error:
                    errors.append(OperationError(position, str(error), False))
    return TransactionResult([] if errors else answer.records, errors)


_Function = Callable[[TransactionView, Operation, TransactionAnswer], None]
_LEVELS: tuple[dict[OperationKind, _Function], ...] = ({}, {})
"""The function for each verb, by the rules of each level."""

_KINDS = _LEVELS[0]


def does(kind: OperationKind, level: int = 0) -> Callable[[_Function], _Function]:
    """Register a function that does *kind* by the rules of *level* and above.

    Functions of a higher level must come after those of a lower one.
    """

    def register(function: _Function) -> _Function:
        for functions in _LEVELS[level:]:
            functions[kind] = function
        return function

    return register


@does(OperationKind.SET)
def _set(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    old = view.get(operation.key)
    lock_index, session = (0, "") if old is None else (old[LOCK_INDEX], old[HOLDER])
    _tell(answer, operation, view.write(operation, lock_index, session))


@does(OperationKind.CAS)
def _cas(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    old = view.get(operation.key)
    if operation.modify_index != (0 if old is None else old[MODIFY_INDEX]):
        raise Conflict(f'failed to set key "{operation.key}", index is stale')
    _set(view, operation, answer)


@does(OperationKind.LOCK)
def _lock(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    key, session = operation.key, operation.session
    view.check_session(session)
    old = view.get(key)
    # Whoever holds the lock may lock again. LockIndex stays, as it counts holders.
    if old is not None and old[HOLDER] == session:
        return _tell(answer, operation, view.write(operation, old[LOCK_INDEX], session))
    if old is not None and old[HOLDER]:
        raise Conflict(f'failed to lock key "{key}", lock is already held')
    if view.is_delayed(key):
        raise Conflict(f'failed to lock key "{key}", its lock delay has not ended')
    lock_index = 1 if old is None else old[LOCK_INDEX] + 1
    return _tell(answer, operation, view.write(operation, lock_index, session))


@does(OperationKind.LOCK, level=1)
def _lock_1(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    _check_given(operation)
    _lock(view, operation, answer)


@does(OperationKind.UNLOCK)
def _unlock(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    view.check_session(operation.session)
    _release(view, operation, answer)


@does(OperationKind.UNLOCK, level=1)
def _unlock_1(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    """Release a lock. A session that has ended holds none, which is no own error."""
    _check_given(operation)
    _release(view, operation, answer)


def _release(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    old = view.get(operation.key)
    if old is None or old[HOLDER] != operation.session:
        raise Conflict(
            f'failed to unlock key "{operation.key}", lock isn\'t held, or is held '
            "by another session"
        )
    _tell(answer, operation, view.write(operation, old[LOCK_INDEX], ""))


@does(OperationKind.GET)
def _get(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    answer.add([(operation.key, _existing(view, operation))])


@does(OperationKind.GET_OR_EMPTY)
def _get_or_empty(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    row = view.get(operation.key)
    answer.add([(operation.key, row or (b"", 0, 0, 0, 0, ""))])


@does(OperationKind.GET_TREE)
def _get_tree(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    # It cannot fail, so it is skipped where nobody waits for it: a replay of an old log
    # would else list every tree again.
    if not answer.is_free:
        answer.add(view.under(operation.key, answer.visit))


@does(OperationKind.CHECK_INDEX)
def _check_index(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    row = _existing(view, operation)
    if row[MODIFY_INDEX] != operation.modify_index:
        raise Conflict(
            f'current modify index {row[MODIFY_INDEX]} of key "{operation.key}" is not '
            f"{operation.modify_index}"
        )
    _tell(answer, operation, row)


@does(OperationKind.CHECK_SESSION)
def _check_session(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    row = _existing(view, operation)
    if row[HOLDER] != operation.session:
        raise Conflict(
            f'failed session check for key "{operation.key}", current session '
            f'"{row[HOLDER]}" is not "{operation.session}"'
        )
    _tell(answer, operation, row)


@does(OperationKind.CHECK_NOT_EXISTS)
def _check_not_exists(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    if view.get(operation.key) is not None:
        raise Conflict(f'key "{operation.key}" exists')


@does(OperationKind.DELETE)
def _delete(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    view.remove(operation.key)


@does(OperationKind.DELETE_TREE)
def _delete_tree(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    view.clear(operation.key)


@does(OperationKind.DELETE_CAS)
def _delete_cas(
    view: TransactionView, operation: Operation, answer: TransactionAnswer
) -> None:
    row = view.get(operation.key)
    if row is not None and row[MODIFY_INDEX] != operation.modify_index:
        raise Conflict(f'failed to delete key "{operation.key}", index is stale')
    view.remove(operation.key)


def _existing(view: TransactionView, operation: Operation) -> Row:
    row = view.get(operation.key)
    if row is None:
        raise Conflict(f'key "{operation.key}" doesn\'t exist')
    return row


def _check_given(operation: Operation) -> None:
    if not operation.session:
        raise Invalid("missing session")


def _tell(answer: TransactionAnswer, operation: Operation, row: Row) -> None:
    """Answer the record of *row* without its value, as writes and checks do."""
    answer.add([(operation.key, (b"", *row[1:]))])
