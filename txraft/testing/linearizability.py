"""Whether a history of client operations could have happened one at a time.

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
"""The return of an operation of which nobody knows whether it took effect."""

MAX_STEPS = 200_000
"""Steps that a search may take before it gives up."""

OTHER = -FOREVER
"""What a compare-and-set met that was refused, if nobody says what it was."""

Value = int | tuple[int, ...] | None
"""What a key holds: a number, a list, or nothing."""


class Kind(Enum):
    """What a client asks for."""

    READ = "r"
    WRITE = "w"
    CAS = "c"
    DELETE = "d"
    APPEND = "a"


@dataclass(slots=True)
class Operation:
    """One call of a client on *key*, and what came of it.

    *result* is what a read found, and for a compare-and-set the value it met; it was
    made when that equals *expected*. It is `OTHER` where all that is known is that it
    was something else. A *returned* of `FOREVER`: nobody knows.
    """

    kind: Kind
    key: str
    called: int
    argument: int | None = None
    expected: int | None = None
    returned: int = FOREVER
    result: Value = None

    @property
    def is_known(self) -> bool:
        """Whether the caller learned that it took effect."""
        return self.returned != FOREVER


class NotLinearizable(AssertionError):
    """No order of the operations explains what the clients saw."""


class Inconclusive(Exception):
    """The search gave up."""


def by_key(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Sort operations by key: a history is linearizable if that of each key is."""
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def check(history: Iterable[Operation]) -> int:
    """Check a history with the fastest checker that understands each of its keys.

    Returns: how many keys were too hard to decide.
    Raises: NotLinearizable
    """
    undecided = 0
    for operations in by_key(history).values():
        kinds = {operation.kind for operation in operations}
        if Kind.APPEND in kinds:
            check_appends(operations)
        elif kinds <= {Kind.READ, Kind.WRITE}:
            check_register(operations)
        else:
            try:
                search(operations)
            except Inconclusive:
                undecided += 1
    return undecided


# Registers ------------------------------------------------------------------------


@dataclass(slots=True)
class _Cluster:
    """One written value: the write and all reads of it, as a span of time."""

    write_called: int
    first_return: int
    last_call: int
    observed: bool


def check_register(operations: Sequence[Operation]) -> None:
    """Check reads and writes of one key, where no two writes write the same.

    A value lives at least from the first return to the last call of its operations.
    No two of those may meet, and no value may come and go within one of another.
    Raises: NotLinearizable
    Source: Gibbons and Korach, §4.
    """
    clusters = _clusters(operations)
    forward = sorted(
        (c.first_return, c.last_call) for c in clusters if c.first_return < c.last_call
    )
    for (_, end), (start, _) in pairwise(forward):
        if start < end:
            raise NotLinearizable(f"two values at {start} to {end}")
    backward = sorted(
        (c.last_call, c.first_return) for c in clusters if c.first_return > c.last_call
    )
    position = 0
    for start, end in backward:
        while position < len(forward) and forward[position][1] < start:
            position += 1
        if position < len(forward):
            first, last = forward[position]
            if first < start and end < last:
                raise NotLinearizable(f"{start} to {end} lies within {first} to {last}")


def _clusters(operations: Sequence[Operation]) -> list[_Cluster]:
    clusters: dict[Value, _Cluster] = {None: _Cluster(-2, -1, -2, True)}
    for operation in operations:
        if operation.kind is Kind.WRITE:
            called, returned = operation.called, operation.returned
            cluster = _Cluster(called, returned, called, operation.is_known)
            assert operation.argument not in clusters, "written values are distinct"
            clusters[operation.argument] = cluster
    for operation in operations:
        if operation.kind is Kind.READ and operation.is_known:
            found = clusters.get(operation.result)
            if found is None or operation.returned < found.write_called:
                raise NotLinearizable(f"{operation} found what was not yet written")
            found.observed = True
            found.first_return = min(found.first_return, operation.returned)
            found.last_call = max(found.last_call, operation.called)
    return [cluster for cluster in clusters.values() if cluster.observed]


# Search ---------------------------------------------------------------------------


def search(operations: Iterable[Operation], max_steps: int = MAX_STEPS) -> None:
    """Look for an order of the operations on one key that explains their results.

    Raises: NotLinearizable; Inconclusive after *max_steps*.
    Source: Wing and Gong, with the memory of Lowe.
    """
    ordered = _relevant(operations)
    required = sum(1 << i for i, o in enumerate(ordered) if o.is_known)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, None)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & required == required:
            return
        if (done, state) in seen:
            continue
        seen.add((done, state))
        steps += 1
        if steps > max_steps:
            raise Inconclusive(f"no answer after {max_steps} steps")
        stack.extend(_next_steps(ordered, done, state))
    raise NotLinearizable(f"no order explains {len(ordered)} operations")


def _relevant(operations: Iterable[Operation]) -> list[Operation]:
    """Leave out what can be seen by nobody, in the order of calls.

    A write of unknown outcome whose value nobody met, nor a compare-and-set that may
    have been made expected, changes nothing that is known; unless it may be what made
    another one fail.
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    met = {o.result for o in ordered if o.is_known}
    met |= {o.expected for o in ordered if o.kind is Kind.CAS and not o.is_known}
    if OTHER in met:
        met |= {o.argument for o in ordered}
    return [
        o
        for o in ordered
        if o.is_known or (o.kind is not Kind.READ and _may_matter(o, met))
    ]


def _may_matter(operation: Operation, met: set[Value]) -> bool:
    return operation.kind is Kind.DELETE or operation.argument in met


def _next_steps(
    ordered: Sequence[Operation], done: int, state: Value
) -> list[tuple[int, Value]]:
    """List where one more operation leads; a read that fits is the only way on.

    Next may be whatever was called before any other of those left had returned.
    """
    steps: list[tuple[int, Value]] = []
    first_return = FOREVER
    position = (~done & (done + 1)).bit_length() - 1
    while position < len(ordered) and ordered[position].called < first_return:
        operation, bit = ordered[position], 1 << position
        position += 1
        if done & bit:
            continue
        first_return = min(first_return, operation.returned)
        fits, after = step(state, operation)
        if fits and _only_looks(operation):
            return [(done | bit, state)]
        if fits:
            steps.append((done | bit, after))
    return steps


def _only_looks(operation: Operation) -> bool:
    """Tell whether *operation*, as it turned out, changed nothing whenever it was."""
    if operation.kind is Kind.CAS:
        return operation.is_known and operation.result != operation.expected
    return operation.kind is Kind.READ


def step(state: Value, operation: Operation) -> tuple[bool, Value]:
    """Do *operation* to *state*: whether its result fits, and what is there then."""
    match operation.kind:
        case Kind.READ:
            return operation.result == state, state
        case Kind.WRITE:
            return True, operation.argument
        case Kind.DELETE:
            return True, None
        case Kind.CAS:
            made = state == operation.expected
            if operation.result == OTHER:
                return not made, state
            fits = not operation.is_known or operation.result == state
            return fits, operation.argument if made else state
        case Kind.APPEND:
            items = state if isinstance(state, tuple) else ()
            assert operation.argument is not None, "something is appended"
            return True, (*items, operation.argument)


# Lists ----------------------------------------------------------------------------


def check_appends(operations: Sequence[Operation]) -> None:
    """Check appends to one list and reads of it, in time linear in what was read.

    Raises: NotLinearizable
    """
    reads = [o for o in operations if o.kind is Kind.READ and o.is_known]
    appends = {o.argument: o for o in operations if o.kind is Kind.APPEND}
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


def _items(read: Operation) -> tuple[int, ...]:
    return read.result if isinstance(read.result, tuple) else ()


def _check_list_order(reads: Sequence[Operation], appended: list[Operation]) -> None:
    """Assert that time runs along the list: appends, and each read after its last."""
    line: list[Operation] = []
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


def _of_equal_length(line: Sequence[Operation]) -> list[list[Operation]]:
    """Group the reads between two appends: their order among them is free."""
    groups: list[list[Operation]] = []
    for operation in line:
        is_read = operation.kind is Kind.READ
        if is_read and groups and groups[-1][0].kind is Kind.READ:
            groups[-1].append(operation)
        else:
            groups.append([operation])
    return groups


def _check_lost(
    reads: Sequence[Operation],
    appends: Iterable[Operation],
    places: dict[int, int],
) -> None:
    """Assert that whatever was acknowledged is in every list read afterwards."""
    for append in appends:
        assert append.argument is not None, "something is appended"
        if append.is_known and append.argument not in places:
            late = [read for read in reads if append.returned < read.called]
            if late:
                raise NotLinearizable(f"{append} is not in {late[0].result}")
