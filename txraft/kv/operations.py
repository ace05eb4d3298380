"""The operations of a transaction: one small function for each kind.

They work on a `View`, which holds back every change until all have succeeded. A single
check-and-set or lock is a transaction of one operation. What a transaction of level 1
answers and comes across is counted by its `Answer`, on every replica alike, also where
nobody waits for the records: over the bounds of its version it is refused while the
state is as it was.

Source: Consul's HTTP API, "Transactions" and "KV Store Endpoints".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import merge

from txraft.errors import ApplicationError
from txraft.kv.commands import Kind, Operation
from txraft.kv.keyindex import KeyIndex
from txraft.kv.records import OperationError, Outcome, Record, Row, State

STEP_KEYS = 128
"""Keys of a tree that are looked at in one step: less than a millisecond."""

RECORD_BYTES = 200
"""What the names and numbers of one record take in an answer."""


class Conflict(Exception):
    """An operation does not succeed, the state being what it is."""


class Invalid(Exception):
    """An operation names a session that does not exist."""


class TransactionTooLarge(ApplicationError):
    """A transaction would answer or visit too much: nothing of it was done."""


class View:
    """The state at *index* as it would be with the changes made here.

    `cleared` are the prefixes whose keys are gone, none of them beginning with
    another; `changes` come on top of that. So a tree costs the same to delete however
    large it is and however often it is asked for, until the changes are made.
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
        if self.cleared and key.startswith(self.cleared):
            return None
        return self._state.rows.get(key)

    def remove(self, key: str) -> None:
        """Remove *key*, if it is there."""
        if self.get(key) is not None:
            self.changes[key] = None

    def clear(self, prefix: str) -> None:
        """Remove all keys that begin with *prefix*."""
        for key in self.changes:
            if key.startswith(prefix):
                self.changes[key] = None
        if not prefix.startswith(self.cleared):
            others = (each for each in self.cleared if not each.startswith(prefix))
            self.cleared = (*others, prefix)

    def write(self, operation: Operation, lock_index: int, session: str) -> Row:
        """Write value and flags of *operation*; an equal record stays as it is."""
        old = self.get(operation.key)
        content = (operation.value, operation.flags, lock_index, session)
        if old is None or (old[0], old[1], old[4], old[5]) != content:
            created = self.index if old is None else old[2]
            value, flags = operation.value, operation.flags
            row = (value, flags, created, self.index, lock_index, session)
            self.changes[operation.key] = row
            return row
        return old

    def under(
        self, prefix: str, visit: Callable[[], object]
    ) -> Iterator[tuple[str, Row]]:
        """Iterate over keys under *prefix* and their rows, in the order of the keys.

        *visit* is called for each key of the state that is come across, be it gone in
        this view: keys that are there and nothing else, as only they are the same on
        all replicas.
        """
        rows, cleared = self._state.rows, self.cleared
        new = [
            (key, row)
            for key, row in self.changes.items()
            if row is not None and key.startswith(prefix)
            if key not in rows or key.startswith(cleared)
        ]
        if prefix.startswith(cleared):
            return iter(sorted(new))
        kept = self._kept(prefix, visit)
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
        """Tell whether *key* cannot be locked because of a lock delay."""
        return key in self._state.delays


class Answer:
    """The records of a transaction, as far as they are *wanted*, within bounds.

    Over *most_bytes*, or *most_keys* that are visited, TransactionTooLarge is raised;
    not in a *lenient* one, which only stops to keep records. None is no bound.
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
        """Whether nothing depends on what would be answered."""
        return not self.wanted and (self._lenient or self._bytes is None)

    def visit(self, count: int = 1) -> None:
        """Count keys that were come across."""
        if self._keys is not None:
            self._keys -= count
            if self._keys < 0:
                self._exceed()

    def add(self, found: Iterable[tuple[str, Row]]) -> None:
        """Answer records of these keys and rows, or count them."""
        for key, row in found:
            if self._bytes is not None:
                self._bytes -= answer_bytes(key, row)
                if self._bytes < 0:
                    self._exceed()
            if self.wanted:
                self.records.append(Record(key, *row))
            elif self.is_free:
                return

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
    """Return a bound of what a record takes in an answer as JSON: keys may be escaped.

    It is part of what commands of version 3 mean, and never changes.
    """
    return RECORD_BYTES + 6 * (len(key) + len(row[5])) + (4 * len(row[0])) // 3


def run(
    view: View,
    operations: Sequence[Operation],
    answer: Answer | None = None,
    level: int = 0,
) -> Outcome:
    """Do *operations* on *view* by the rules of *level*; tell of all that failed.

    Raises: TransactionTooLarge, and the view is of no more use.
    """
    answer = answer or Answer(None, None)
    kinds = _LEVELS[level]
    errors: list[OperationError] = []
    for position, operation in enumerate(operations):
        try:
            kinds[operation.kind](view, operation, answer)
        except (Conflict, Invalid) as error:
            invalid = isinstance(error, Invalid)
            errors.append(OperationError(position, str(error), invalid))
    return Outcome([] if errors else answer.records, errors, answer.wanted)


def read(
    state: State,
    keys: KeyIndex,
    operations: Sequence[Operation],
    answer: Answer,
) -> Generator[None, None, Outcome]:
    """Do *operations*, which only read, in short steps; all see what is there now.

    What `run` would take in one step is as long as the answer. Here the rows of single
    keys are taken first, and trees are read from moments that begin with them.
    Raises: TransactionTooLarge; MomentOver, if too much changes meanwhile.
    """
    rows = {o.key: state.rows[o.key] for o in operations if o.key in state.rows}
    view = View(State(rows, {}, state.index), keys, state.index)
    errors: list[OperationError] = []
    with ExitStack() as stack:
        trees = [
            stack.enter_context(closing(keys.moment(o.key, state.index)))
            if o.kind is Kind.GET_TREE
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
    return Outcome([] if errors else answer.records, errors)


def is_write(kind: Kind) -> bool:
    """Tell whether an operation of this *kind* can change anything."""
    return kind not in _READS


def _set(view: View, operation: Operation, answer: Answer) -> None:
    old = view.get(operation.key)
    lock_index, session = (0, "") if old is None else (old[4], old[5])
    _tell(answer, operation, view.write(operation, lock_index, session))


def _cas(view: View, operation: Operation, answer: Answer) -> None:
    old = view.get(operation.key)
    if operation.modify_index != (0 if old is None else old[3]):
        raise Conflict(f'failed to set key "{operation.key}", index is stale')
    _set(view, operation, answer)


def _lock(view: View, operation: Operation, answer: Answer) -> None:
    key, session = operation.key, operation.session
    view.check_session(session)
    old = view.get(key)
    if old is not None and old[5] == session:
        return _tell(answer, operation, view.write(operation, old[4], session))
    if old is not None and old[5]:
        raise Conflict(f'failed to lock key "{key}", lock is already held')
    if view.is_delayed(key):
        raise Conflict(f'failed to lock key "{key}", its lock delay has not ended')
    lock_index = 1 if old is None else old[4] + 1
    return _tell(answer, operation, view.write(operation, lock_index, session))


def _lock_1(view: View, operation: Operation, answer: Answer) -> None:
    _check_given(operation)
    _lock(view, operation, answer)


def _unlock(view: View, operation: Operation, answer: Answer) -> None:
    view.check_session(operation.session)
    _release(view, operation, answer)


def _unlock_1(view: View, operation: Operation, answer: Answer) -> None:
    """Release; a session that has ended holds nothing, which is no error of its own."""
    _check_given(operation)
    _release(view, operation, answer)


def _release(view: View, operation: Operation, answer: Answer) -> None:
    old = view.get(operation.key)
    if old is None or old[5] != operation.session:
        raise Conflict(
            f'failed to unlock key "{operation.key}", lock isn\'t held, or is held '
            "by another session"
        )
    _tell(answer, operation, view.write(operation, old[4], ""))


def _get(view: View, operation: Operation, answer: Answer) -> None:
    answer.add([(operation.key, _existing(view, operation))])


def _get_or_empty(view: View, operation: Operation, answer: Answer) -> None:
    row = view.get(operation.key)
    answer.add([(operation.key, row or (b"", 0, 0, 0, 0, ""))])


def _get_tree(view: View, operation: Operation, answer: Answer) -> None:
    # It cannot fail, so where nobody waits it need not be done, however often and
    # however large it stands in an old log.
    if not answer.is_free:
        answer.add(view.under(operation.key, answer.visit))


def _check_index(view: View, operation: Operation, answer: Answer) -> None:
    row = _existing(view, operation)
    if row[3] != operation.modify_index:
        raise Conflict(
            f'current modify index {row[3]} of key "{operation.key}" is not '
            f"{operation.modify_index}"
        )
    _tell(answer, operation, row)


def _check_session(view: View, operation: Operation, answer: Answer) -> None:
    row = _existing(view, operation)
    if row[5] != operation.session:
        raise Conflict(
            f'failed session check for key "{operation.key}", current session '
            f'"{row[5]}" is not "{operation.session}"'
        )
    _tell(answer, operation, row)


def _check_not_exists(view: View, operation: Operation, answer: Answer) -> None:
    if view.get(operation.key) is not None:
        raise Conflict(f'key "{operation.key}" exists')


def _delete(view: View, operation: Operation, answer: Answer) -> None:
    view.remove(operation.key)


def _delete_tree(view: View, operation: Operation, answer: Answer) -> None:
    view.clear(operation.key)


def _delete_cas(view: View, operation: Operation, answer: Answer) -> None:
    row = view.get(operation.key)
    if row is not None and row[3] != operation.modify_index:
        raise Conflict(f'failed to delete key "{operation.key}", index is stale')
    view.remove(operation.key)


def _existing(view: View, operation: Operation) -> Row:
    row = view.get(operation.key)
    if row is None:
        raise Conflict(f'key "{operation.key}" doesn\'t exist')
    return row


def _check_given(operation: Operation) -> None:
    if not operation.session:
        raise Invalid("missing session")


def _tell(answer: Answer, operation: Operation, row: Row) -> None:
    """Answer the record of *row* as writes and checks do, without the value."""
    answer.add([(operation.key, (b"", *row[1:]))])


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
_KINDS: dict[Kind, Callable[[View, Operation, Answer], None]] = {
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
_LEVELS = (_KINDS, {**_KINDS, Kind.LOCK: _lock_1, Kind.UNLOCK: _unlock_1})
