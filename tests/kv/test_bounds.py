"""Bounds of a transaction: its answer, the keys it visits, the cost of a tree."""

import json
from collections.abc import Generator
from functools import partial
from typing import TypeVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_levels import SLOW, active
from tests.kv.test_state import snapshot_of
from tests.support.kv_commands import OPERATIONS, Machine, session
from txraft.errors import ApplicationError
from txraft.http.keys import record_as_json
from txraft.kv import keyindex, state
from txraft.kv.commands import (
    MAX_ANSWER_BYTES_3,
    MAX_OPERATIONS,
    MAX_OPERATIONS_3,
    MAX_VISITED_KEYS_3,
    Operation,
    encode_once,
    encode_put,
    encode_transact,
)
from txraft.kv.keyindex import KeyIndex
from txraft.kv.operations import (
    RECORD_BYTES,
    TransactionAnswer,
    TransactionTooLarge,
    TransactionView,
    answer_bytes,
    run,
)
from txraft.kv.records import Record, Row, TransactionResult
from txraft.kv.verbs import OperationKind
from txraft.kv.watches import Scope, Topic

TREE = Operation(OperationKind.GET_TREE, "k/")


def puts(count: int, prefix: str = "k/") -> list[bytes]:
    return [encode_put(f"{prefix}{number}", b"v") for number in range(count)]


T = TypeVar("T")


def all_steps(steps: Generator[None, None, T]) -> T:
    """Take *steps* to the end; return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


class Counting(KeyIndex):
    """An index that counts how many keys were come across."""

    visited = 0

    def under(self, prefix):  # type: ignore[no-untyped-def]
        for key in super().under(prefix):
            self.visited += 1
            yield key

    def candidates(self, prefix):  # type: ignore[no-untyped-def]
        found = super().candidates(prefix)
        self.visited += len(found)
        return found


class Answers(SynchronousTestCase):
    """A transaction of level 1 that would answer too much is refused whole."""

    def setUp(self) -> None:
        self.patch(state, "MAX_ANSWER_BYTES_3", 2000)
        self.patch(state, "MAX_VISITED_KEYS_3", 6)

    def write(self, machine: Machine, *operations: Operation, level: int = 1) -> object:
        return machine.apply(
            encode_transact(
                [Operation(OperationKind.SET, "z", b"1"), *operations], level
            )
        )

    def test_refused_before_anything_changed(self) -> None:
        """As the last of its operations finds out, too."""
        machine = active(*puts(7))
        before = machine.fsm.digest()

        refusal = self.write(machine, Operation(OperationKind.DELETE, "k/0"), TREE)

        self.assertIsInstance(refusal, TransactionTooLarge)
        self.assertIn("nothing of it was done", str(refusal))
        self.assertEqual(machine.fsm.digest(), before)

    def test_replicas_agree_whoever_waits(self) -> None:
        """The verdict is that of the command, not of who is there to hear it."""
        told, untold = active(*puts(6)), active(*puts(6))
        untold.fsm.is_awaited = lambda index: False
        for machine in (told, untold):
            machine.fsm.get("k/0")

        self.assertIsInstance(self.write(told, TREE), TransactionResult)
        self.assertIsInstance(self.write(untold, TREE), TransactionResult)
        for machine in (told, untold):
            machine.apply(encode_put("k/new", b""))
        self.assertIsInstance(self.write(told, TREE), TransactionTooLarge)
        self.assertIsInstance(self.write(untold, TREE), TransactionTooLarge)
        self.assertEqual(told.fsm.digest(), untold.fsm.digest())

    def test_nothing_is_made_where_nobody_waits(self) -> None:
        machine = active(*puts(3))
        machine.fsm.is_awaited = lambda index: False

        outcome = self.write(machine, TREE)

        self.assertEqual(outcome, TransactionResult([], [], False))

    def test_bytes(self) -> None:
        """Values, names and numbers count, of all operations together."""
        machine = active(encode_put("k", b"x" * 1000))
        get = Operation(OperationKind.GET, "k")

        self.assertIsInstance(self.write(machine, get), TransactionResult)
        self.assertIsInstance(self.write(machine, get, get), TransactionTooLarge)

    def test_keys_that_are_gone_in_it_count(self) -> None:
        """To pass them takes as long; so it is the same however they went."""
        machine = active(*puts(7), encode_put("k", b""))
        gone = [
            Operation(OperationKind.DELETE_TREE, "k/"),
            Operation(OperationKind.GET_TREE, "k"),
        ]

        self.assertIsInstance(self.write(machine, *gone), TransactionTooLarge)

    def test_keys_that_went_before_do_not_count(self) -> None:
        """Another replica has never heard of them: its snapshot is without."""
        machine = active(*puts(7))
        list(machine.fsm.keys())
        for number in range(3):
            machine.do(Operation(OperationKind.DELETE, f"k/{number}"))

        self.assertIsInstance(self.write(machine, TREE), TransactionResult)

    def test_repeated_trees_add_up(self) -> None:
        machine = active(*puts(2))

        self.assertIsInstance(self.write(machine, *[TREE] * 3), TransactionResult)
        self.assertIsInstance(self.write(machine, *[TREE] * 4), TransactionTooLarge)

    def test_once_that_was_refused_may_be_repeated(self) -> None:
        """Nothing is remembered of what has changed nothing."""
        machine = active(session("s"))
        many = [Operation(OperationKind.SET, f"k{i}") for i in range(20)]
        refusal = machine.apply(encode_once("c", 1, encode_transact(many, 1), 1))
        self.assertIsInstance(refusal, TransactionTooLarge)

        self.assertIs(machine.apply(encode_once("c", 1, encode_put("k", b""), 1)), True)

    def test_once_answers_no_values(self) -> None:
        """They would be kept on every replica, as long as the client is known."""
        machine = active()

        refusal = machine.apply(encode_once("c", 1, encode_transact([TREE], 1), 1))

        self.assertIsInstance(refusal, ApplicationError)

    def test_level_0_is_done_whatever_it_answers(self) -> None:
        """Its verdict stands; only the records are not kept for whoever waits."""
        machine = Machine(*puts(7))

        outcome = self.write(machine, TREE, level=0)

        self.assertEqual(outcome, TransactionResult([], [], False))
        self.assertIsNotNone(machine.fsm.get("z"))

    def test_level_0_in_a_once_is_answered_whole(self) -> None:
        """There, the answer is part of the state."""
        machine, untold = Machine(*puts(7)), Machine(*puts(7))
        untold.fsm.is_awaited = lambda index: False
        command = encode_once("c", 1, encode_transact([TREE]))

        for each in (machine, untold):
            outcome = cast(TransactionResult, each.apply(command))
            self.assertEqual(len(outcome.records), 7)
        self.assertEqual(snapshot_of(machine.fsm), snapshot_of(untold.fsm))

    def test_check_answer(self) -> None:
        """Whoever proposes by the rules of level 0 can know before."""
        machine = Machine(*puts(6))
        before = machine.fsm.digest()

        machine.fsm.check_answer([TREE])
        self.assertRaises(TransactionTooLarge, machine.fsm.check_answer, [TREE, TREE])

        self.assertEqual(machine.fsm.digest(), before)

    def test_read(self) -> None:
        fsm = Machine(*puts(6)).fsm

        self.assertEqual(len(all_steps(fsm.read([TREE])).records), 6)
        for operations, most in (([TREE], 300), ([TREE, TREE], 1 << 20)):
            with self.assertRaises(TransactionTooLarge):
                all_steps(fsm.read(operations, most))

    def test_read_shows_one_moment(self) -> None:
        """What changes between its steps is not seen by any of the operations."""
        machine = Machine(*puts(6))
        expected = list(machine.fsm.records())
        operations = [
            Operation(OperationKind.GET, expected[-1].key),
            TREE,
            Operation(OperationKind.CHECK_NOT_EXISTS, "new"),
        ]
        steps = machine.fsm.read(operations)
        next(steps)

        for record in expected:
            machine.apply(encode_put(record.key, b"changed"))
        machine.apply(encode_put("new", b""))

        outcome = all_steps(steps)
        self.assertEqual(outcome.errors, [])
        self.assertEqual(outcome.records, [expected[-1], *expected])

    def test_read_leaves_nothing_behind(self) -> None:
        """Neither at its end nor when it is given up."""
        fsm = Machine(*puts(6)).fsm
        all_steps(fsm.read([TREE]))
        given_up = fsm.read([TREE, TREE])
        next(given_up)
        given_up.close()

        self.assertEqual(len(fsm._keys.views), 0)

    def test_answer_bytes_is_a_bound(self) -> None:
        """A key may consist of characters that JSON writes in six bytes each."""
        record = Record("\x01" * 99, b"v" * 1000, *[(1 << 64) - 1] * 4, "\x02" * 40)
        text = json.dumps({"KV": record_as_json(record)})
        self.assertLessEqual(len(text) + 1, answer_bytes(record.key, record[1:]))


class Operations(SynchronousTestCase):
    """How many operations a transaction has depends on its level."""

    def test_most(self) -> None:
        machine = active()
        for count, level, fits in (
            (MAX_OPERATIONS, 0, True),
            (MAX_OPERATIONS + 1, 0, False),
            (MAX_OPERATIONS_3, 1, True),
            (MAX_OPERATIONS_3 + 1, 1, False),
        ):
            operations = [Operation(OperationKind.SET, f"k{i}") for i in range(count)]
            outcome = machine.apply(encode_transact(operations, level))
            self.assertEqual(
                (count, isinstance(outcome, TransactionResult)), (count, fits)
            )

    def test_release_by_a_session_that_is_gone(self) -> None:
        """It holds nothing, which is a condition that fails, and no broken request."""
        for level, invalid in ((0, True), (1, False)):
            machine = active(encode_put("k", b""))
            operation = Operation(OperationKind.UNLOCK, "k", session="gone")

            outcome = cast(
                TransactionResult, machine.apply(encode_transact([operation], level))
            )

            self.assertEqual([error.invalid for error in outcome.errors], [invalid])

    def test_session_that_is_not_named(self) -> None:
        for kind in (OperationKind.LOCK, OperationKind.UNLOCK):
            machine = active()

            outcome = cast(
                TransactionResult,
                machine.apply(encode_transact([Operation(kind, "k")], 1)),
            )

            self.assertEqual(outcome.errors, [(0, "missing session", True)])


class OldCosts(SynchronousTestCase):
    """What stands in an old log costs no more than it did, wherever it can be less."""

    def counting(self, machine: Machine) -> Counting:
        index = Counting(machine.fsm._state.rows, 0)
        for _ in index.fill():
            pass
        machine.fsm._keys = index
        return index

    def test_trees_that_nobody_waits_for(self) -> None:
        machine = Machine(*puts(100))
        machine.fsm.is_awaited = lambda index: False
        index = self.counting(machine)

        machine.do(*[TREE] * 63, Operation(OperationKind.SET, "z"))

        self.assertEqual(index.visited, 0)

    def test_trees_that_are_more_than_is_answered(self) -> None:
        """The first that does not fit ends the collecting."""
        self.patch(state, "MAX_VISITED_KEYS_3", 10)
        machine = Machine(*puts(100))
        index = self.counting(machine)

        machine.do(*[TREE] * 63, Operation(OperationKind.SET, "z"))

        self.assertLessEqual(index.visited, 11)

    def test_deleting_a_tree_many_times(self) -> None:
        """Each key is come across once, whatever the operations."""
        machine = Machine(*puts(100))
        index = self.counting(machine)
        list(machine.fsm.keys())
        index.visited = 0

        machine.do(
            *(
                Operation(OperationKind.DELETE_TREE, prefix)
                for prefix in ("k/1", "k", "k/") * 20
            )
        )

        self.assertEqual(index.visited, 100)
        self.assertEqual(len(machine.fsm), 0)


def slowly(
    rows: dict[str, Row], machine: Machine, operations: list[Operation]
) -> list[Record]:
    """Do *operations* on *rows* as releases without levels did: key by key."""
    view = TransactionView(machine.fsm._state, machine.fsm._keys, machine.index + 1)
    records: list[Record] = []
    for operation in operations:
        if operation.kind is OperationKind.DELETE_TREE:
            found = [key for key, _ in view.under(operation.key, lambda: None)]
            run(view, [Operation(OperationKind.DELETE, key) for key in found])
        else:
            records += run(view, [operation]).records
    for key, row in view.changes.items():
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row
    return records


def plain(kind: OperationKind, key: str, value: bytes = b"") -> Operation:
    """Make an operation that needs nothing else."""
    return Operation(kind, key, value)


TREES = st.builds(
    plain,
    st.sampled_from([OperationKind.DELETE_TREE, OperationKind.GET_TREE]),
    st.sampled_from(["", "a", "a/", "a/b", "b", "zz"]),
    st.just(b""),
)
WRITES = st.builds(
    plain,
    st.sampled_from(
        [OperationKind.SET, OperationKind.DELETE, OperationKind.GET_OR_EMPTY]
    ),
    st.sampled_from(["a", "a/b", "a/c", "b", "é", "a/b/d"]),
    st.binary(max_size=2),
)


class Trees(SynchronousTestCase):
    """Deleting a tree is one step, and means what deleting its keys means."""

    @settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
    @given(st.lists(st.lists(WRITES | TREES, max_size=8), max_size=5), st.booleans())
    def test_as_key_by_key(
        self, transactions: list[list[Operation]], ordered: bool
    ) -> None:
        machine = Machine()
        for operations in transactions:
            if ordered:
                list(machine.fsm.keys())
            expected = dict(machine.fsm._state.rows)
            records = slowly(expected, machine, operations)

            outcome = machine.do(*operations)

            self.assertEqual(outcome, (records, [], True))
            self.assertEqual(
                list(machine.fsm._state.rows.items()), list(expected.items())
            )
            self.assertEqual(list(machine.fsm.keys()), sorted(expected))
            self.assertEqual(machine.fsm.state_bytes, state.size_of(machine.fsm._state))
            self.assertEqual(machine.fsm._held, {})

    @settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
    @given(st.lists(st.lists(OPERATIONS | TREES, max_size=5), max_size=6))
    def test_what_is_derived_stays_in_step(
        self, transactions: list[list[Operation]]
    ) -> None:
        machine = Machine(session("s1"), session("s2"))
        for operations in transactions:
            machine.do(*operations)

            rows = machine.fsm._state.rows
            self.assertEqual(machine.fsm._held, state._locks(rows))
            self.assertEqual(machine.fsm.state_bytes, state.size_of(machine.fsm._state))
            self.assertEqual(list(machine.fsm.keys()), sorted(rows))

    def test_who_waits_is_woken(self) -> None:
        for ordered in (False, True):
            machine = Machine(*puts(3), encode_put("k", b""), encode_put("other", b""))
            if ordered:
                list(machine.fsm.keys())
            woken: list[Topic] = []
            for scope, text in (
                (Scope.KEY, "k/1"),
                (Scope.KEY, "k"),
                (Scope.KEY, "k/absent"),
                (Scope.PREFIX, ""),
                (Scope.PREFIX, "k/"),
                (Scope.PREFIX, "k/2"),
                (Scope.PREFIX, "k/22"),
                (Scope.PREFIX, "k/absent"),
                (Scope.PREFIX, "other"),
            ):
                topic = Topic(scope, text)
                machine.fsm.watches.add(topic, partial(woken.append, topic))

            machine.do(Operation(OperationKind.DELETE_TREE, "k/"))

            self.assertCountEqual(
                woken,
                [
                    Topic(Scope.KEY, "k/1"),
                    Topic(Scope.PREFIX, ""),
                    Topic(Scope.PREFIX, "k/"),
                    Topic(Scope.PREFIX, "k/2"),
                ],
            )
            self.assertEqual(len(machine.fsm.watches), 5)

    def test_what_is_written_after_it_is_read(self) -> None:
        """Whether or not the key was there before the tree was deleted."""
        machine = Machine(*puts(3))

        outcome = machine.do(
            Operation(OperationKind.DELETE_TREE, "k"),
            Operation(OperationKind.SET, "k/1"),
            Operation(OperationKind.SET, "k/9"),
            Operation(OperationKind.DELETE, "k/9"),
            Operation(OperationKind.SET, "k/0a"),
            Operation(OperationKind.GET_TREE, "k/"),
        )

        read = [record.key for record in outcome.records[-2:]]
        self.assertEqual(read, ["k/0a", "k/1"])
        self.assertEqual(list(machine.fsm.keys()), ["k/0a", "k/1"])

    def test_nothing_to_delete_changes_nothing(self) -> None:
        machine = Machine(encode_put("k", b""))
        machine.fsm.watches.add(Topic(Scope.PREFIX), self.fail)

        machine.do(Operation(OperationKind.DELETE_TREE, "absent"))

        self.assertEqual(machine.fsm.index, 1)

    def test_when_keys_went(self) -> None:
        """A reader that comes late is told of a change, whether few went or many."""
        self.patch(keyindex, "MAX_TOMBSTONES", 4)
        for count in (3, 9):
            machine = Machine(*puts(count), encode_put("other", b""))

            machine.do(Operation(OperationKind.DELETE_TREE, "k/"))

            for topic in (Topic(Scope.KEY, "k/0"), Topic(Scope.PREFIX, "k/")):
                self.assertEqual(machine.fsm.changed_at(topic), machine.index)

    def test_locks_go_with_their_keys(self) -> None:
        machine = Machine(session("s"))
        machine.do(Operation(OperationKind.LOCK, "k/1", session="s"))

        machine.do(Operation(OperationKind.DELETE_TREE, "k/"))

        self.assertEqual(machine.fsm._held, {})


class Size(SynchronousTestCase):
    """What keys and sessions take is counted, and the same after a snapshot."""

    def test_state_bytes(self) -> None:
        machine = Machine(encode_put("key", b"value"), session("s"))

        size = machine.fsm.state_bytes

        self.assertEqual(
            size, state.KEY_BYTES + 3 + 5 + state.SESSION_BYTES + len("namenode")
        )
        machine.apply(encode_put("key", b"val"))
        self.assertEqual(machine.fsm.state_bytes, size - 2)


class Constants(SynchronousTestCase):
    """Constants of version 3 are part of what stands in logs: they never change."""

    def test_values(self) -> None:
        self.assertEqual(
            (MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3, MAX_OPERATIONS_3, RECORD_BYTES),
            (16 << 20, 16_384, 128, 200),
        )
        record = Record("é\n", b"12345", 0, 0, 0, 0, "s")
        self.assertEqual(answer_bytes(record.key, record[1:]), 200 + 18 + 6)

    def test_answer_without_bounds(self) -> None:
        answer = TransactionAnswer(None, None)
        answer.add([("k", (b"", 0, 0, 0, 0, ""))])

        self.assertEqual(len(answer.records), 1)
