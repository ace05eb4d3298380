"""Check that a history of client operations is linearizable.

A history is linearizable if its operations could have happened one at a time, each
between its call and its return.

Three checkers, each for one key of a history: `check_register` for reads and writes
of distinct values, in n log n; `search` for compare-and-set and delete too, which may
take long; `check_appends` for lists that only grow. Times are any numbers that no two
calls or returns share.

Source: Gibbons and Korach, Testing Shared Memories; Wing and Gong; Lowe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

FOREVER = 1 << 62
"""The time of return of an operation whose outcome is unknown."""

MAX_STEPS = 200_000
"""Steps that `search` takes before it gives up."""

OTHER = -FOREVER
"""The result of a refused compare-and-set, if the value that it met is unknown."""

Value = int | tuple[int, ...] | None
"""The value of a key: a number, a list, or None if there is none."""


class ClientOperationKind(Enum):
    """The kinds of operation that the checkers understand."""

    READ = "r"
    WRITE = "w"
    CAS = "c"
    DELETE = "d"
    APPEND = "a"


@dataclass(slots=True)
class ClientOperation:
    """One operation of a client on *key*, and its result.

    It was *called* and *returned* at these times; a *returned* of `FOREVER` means that
    its outcome is unknown. *argument* is the value that is written or appended.
    *result* is the value that a read returned, or that a compare-and-set found. A
    compare-and-set took effect if it found *expected*; *result* is `OTHER` if it found
    a value that is unknown but was not *expected*.
    """

    kind: ClientOperationKind
    key: str
    called: int
    argument: int | None = None
    expected: int | None = None
    returned: int = FOREVER
    result: Value = None

    @property
    def is_known(self) -> bool:
        """Whether the client knows the outcome."""
        return self.returned != FOREVER


class NotLinearizable(AssertionError):
    """No order of the operations explains the results that clients saw."""


class Inconclusive(Exception):
    """The search gave up before it found an answer."""


def by_key(history: Iterable[ClientOperation]) -> dict[str, list[ClientOperation]]:
    """Split a history by key: it is linearizable if the history of each key is."""
    keys: dict[str, list[ClientOperation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def check(history: Iterable[ClientOperation]) -> int:
    """Check a history with the fastest checker that understands each of its keys.

    Returns: how many keys were too hard to decide.
    Raises: NotLinearizable
    """
    undecided = 0
    for operations in by_key(history).values():
        kinds = {operation.kind for operation in operations}
        if ClientOperationKind.APPEND in kinds:
            check_appends(operations)
        elif kinds <= {ClientOperationKind.READ, ClientOperationKind.WRITE}:
            check_register(operations)
        else:
            try:
                search(operations)
            except Inconclusive:
                undecided += 1
    return undecided


# Registers ------------------------------------------------------------------------


@dataclass(slots=True)
class _ValueSpan:
    """The span of time in which one written value was certainly there.

    It covers the write of the value and all reads that returned it.
    """

    write_called: int
    first_return: int
    last_call: int
    observed: bool


def check_register(operations: Sequence[ClientOperation]) -> None:
    """Check reads and writes of one key, if all written values differ.

    The value is there at least from the first return to the last call of the operations
    on it: a forward span. Two forward spans must not overlap. If all operations on a
    value overlap, its span is backward; it must not lie within a forward span.
    Raises: NotLinearizable
    Source: Gibbons and Korach, §4.
    """
    spans = _value_spans(operations)
    forward = sorted(
        (c.first_return, c.last_call) for c in spans if c.first_return < c.last_call
    )
    for (_, end), (start, _) in pairwise(forward):
        if start < end:
            raise NotLinearizable(f"two values at {start} to {end}")
    backward = sorted(
        (c.last_call, c.first_return) for c in spans if c.first_return > c.last_call
    )
    position = 0
    for start, end in backward:
        # Both lists are sorted and forward spans do not overlap, so one pass is enough.
        while position < len(forward) and forward[position][1] < start:
            position += 1
        if position < len(forward):
            first, last = forward[position]
            if first < start and end < last:
                raise NotLinearizable(f"{start} to {end} lies within {first} to {last}")


def _value_spans(operations: Sequence[ClientOperation]) -> list[_ValueSpan]:
    # The absent key counts as written and seen before all calls.
    spans: dict[Value, _ValueSpan] = {None: _ValueSpan(-2, -1, -2, True)}
    for operation in operations:
        if operation.kind is ClientOperationKind.WRITE:
            called, returned = operation.called, operation.returned
            span = _ValueSpan(called, returned, called, operation.is_known)
            assert operation.argument not in spans, "written values are distinct"
            spans[operation.argument] = span
    # A second pass: a read may stand before the write whose value it found, if they
    # overlap.
    for operation in operations:
        if operation.kind is ClientOperationKind.READ and operation.is_known:
            found = spans.get(operation.result)
            if found is None or operation.returned < found.write_called:
                raise NotLinearizable(f"{operation} found what was not yet written")
            found.observed = True
            found.first_return = min(found.first_return, operation.returned)
            found.last_call = max(found.last_call, operation.called)
    return [span for span in spans.values() if span.observed]


# Search ---------------------------------------------------------------------------


def search(operations: Iterable[ClientOperation], max_steps: int = MAX_STEPS) -> None:
    """Look for an order of the operations on one key that explains their results.

    Raises: NotLinearizable; Inconclusive after *max_steps*.
    Source: Wing and Gong, with the memory of Lowe.
    """
    ordered = _relevant(operations)
    # Sets of operations are bits of a number: they are made and compared millions of
    # times.
    required = sum(1 << i for i, o in enumerate(ordered) if o.is_known)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, None)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & required == required:
            return
        # Lowe: two ways to the same operations done and the same state go on alike.
        if (done, state) in seen:
            continue
        seen.add((done, state))
        steps += 1
        if steps > max_steps:
            raise Inconclusive(f"no answer after {max_steps} steps")
        stack.extend(_next_steps(ordered, done, state))
    raise NotLinearizable(f"no order explains {len(ordered)} operations")


def _relevant(operations: Iterable[ClientOperation]) -> list[ClientOperation]:
    """Leave out operations that no result depends on; sort the others by call.

    That is a write of unknown outcome whose value no operation found or expected. It
    stays if a compare-and-set found an unknown value (`OTHER`): that may be this one.
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    met = {o.result for o in ordered if o.is_known}
    met |= {
        o.expected
        for o in ordered
        if o.kind is ClientOperationKind.CAS and not o.is_known
    }
    # A value that nobody named may be that of any write.
    if OTHER in met:
        met |= {o.argument for o in ordered}
    return [
        o
        for o in ordered
        if o.is_known
        or (o.kind is not ClientOperationKind.READ and _may_matter(o, met))
    ]


def _may_matter(operation: ClientOperation, met: set[Value]) -> bool:
    return operation.kind is ClientOperationKind.DELETE or operation.argument in met


def _next_steps(
    ordered: Sequence[ClientOperation], done: int, state: Value
) -> list[tuple[int, Value]]:
    """List the states after one more operation.

    An operation may be next if it was called before any other that is left returned.
    """
    steps: list[tuple[int, Value]] = []
    first_return = FOREVER
    # The lowest bit that is not set: all before it are done.
    position = (~done & (done + 1)).bit_length() - 1
    while position < len(ordered) and ordered[position].called < first_return:
        operation, bit = ordered[position], 1 << position
        position += 1
        if done & bit:
            continue
        # Set before it is seen whether it fits: those behind must not overtake it.
        first_return = min(first_return, operation.returned)
        fits, after = step(state, operation)
        # One that fits and changes nothing can go first in any order that works, so no
        # other way needs to be tried: without this, each read doubles the search.
        if fits and _only_looks(operation):
            return [(done | bit, state)]
        if fits:
            steps.append((done | bit, after))
    return steps


def _only_looks(operation: ClientOperation) -> bool:
    """Tell whether *operation*, given its result, changed nothing."""
    if operation.kind is ClientOperationKind.CAS:
        return operation.is_known and operation.result != operation.expected
    return operation.kind is ClientOperationKind.READ


def step(state: Value, operation: ClientOperation) -> tuple[bool, Value]:
    """Do *operation* on *state*; return whether its result fits, and the new state."""
    match operation.kind:
        case ClientOperationKind.READ:
            return operation.result == state, state
        case ClientOperationKind.WRITE:
            return True, operation.argument
        case ClientOperationKind.DELETE:
            return True, None
        case ClientOperationKind.CAS:
            made = state == operation.expected
            if operation.result == OTHER:
                return not made, state
            fits = not operation.is_known or operation.result == state
            return fits, operation.argument if made else state
        case ClientOperationKind.APPEND:
            items = state if isinstance(state, tuple) else ()
            assert operation.argument is not None, "something is appended"
            return True, (*items, operation.argument)


# Lists ----------------------------------------------------------------------------


def check_appends(operations: Sequence[ClientOperation]) -> None:
    """Check appends to one list and reads of it, in time linear in what was read.

    Raises: NotLinearizable
    """
    reads = [o for o in operations if o.kind is ClientOperationKind.READ and o.is_known]
    appends = {
        o.argument: o for o in operations if o.kind is ClientOperationKind.APPEND
    }
    reads.sort(key=lambda read: len(_items(read)))
    longest: tuple[int, ...] = _items(reads[-1]) if reads else ()
    places = {item: place for place, item in enumerate(longest)}
    if len(places) < len(longest):
        raise NotLinearizable(f"appended twice: {longest}")
    if any(item not in appends for item in longest):
        raise NotLinearizable(f"never appended, but there: {longest}")
    for read in reads:
        if _items(read) != longest[: len(_items(read))]:
            raise NotLinearizable(f"{_items(read)} does not begin {longest}")
    _check_list_order(reads, [appends[item] for item in longest])
    _check_lost(reads, appends.values(), places)


def _items(read: ClientOperation) -> tuple[int, ...]:
    return read.result if isinstance(read.result, tuple) else ()


def _check_list_order(
    reads: Sequence[ClientOperation], appended: list[ClientOperation]
) -> None:
    """Check that the order of the list agrees with the times of calls and returns."""
    line: list[ClientOperation] = []
    position = 0
    for read in reads:
        while position < len(_items(read)):
            line.append(appended[position])
            position += 1
        line.append(read)
    line.extend(appended[position:])
    latest = -1
    groups = _of_equal_length(line)
    for group in groups:
        for operation in group:
            if operation.returned < latest:
                raise NotLinearizable(f"{operation} came too late in the list")
        latest = max(latest, *(operation.called for operation in group))


def _of_equal_length(line: Sequence[ClientOperation]) -> list[list[ClientOperation]]:
    """Group the reads between two appends: among themselves they have any order."""
    groups: list[list[ClientOperation]] = []
    for operation in line:
        is_read = operation.kind is ClientOperationKind.READ
        if is_read and groups and groups[-1][0].kind is ClientOperationKind.READ:
            groups[-1].append(operation)
        else:
            groups.append([operation])
    return groups


def _check_lost(
    reads: Sequence[ClientOperation],
    appends: Iterable[ClientOperation],
    places: dict[int, int],
) -> None:
    """Check that every acknowledged append is in each list that is read later."""
    for append in appends:
        assert append.argument is not None, "something is appended"
        if append.is_known and append.argument not in places:
            late = [read for read in reads if append.returned < read.called]
            if late:
                raise NotLinearizable(f"{append} is not in {late[0].result}")
