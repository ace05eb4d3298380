"""The operations of a transaction, one by one and together."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kv_commands import COMMANDS, OPERATIONS, Machine, session
from txraft.kv.commands import Operation, encode_put
from txraft.kv.records import Record
from txraft.kv.verbs import OperationKind


def value_of(machine: Machine, key: str) -> bytes | None:
    record = machine.fsm.get(key)
    return None if record is None else record.value


class Conditions(SynchronousTestCase):
    """Operations that succeed or not, the state being what it is."""

    def test_cas(self) -> None:
        """Index 0 wants the key to be absent, another one to be its ModifyIndex."""
        machine = Machine()

        made = machine.succeeds(Operation(OperationKind.CAS, "k", b"1", modify_index=0))
        again = machine.succeeds(
            Operation(OperationKind.CAS, "k", b"2", modify_index=0)
        )
        stale = machine.succeeds(
            Operation(OperationKind.CAS, "k", b"3", modify_index=2)
        )
        right = machine.succeeds(
            Operation(OperationKind.CAS, "k", b"4", modify_index=1)
        )
        absent = machine.succeeds(
            Operation(OperationKind.CAS, "x", b"5", modify_index=9)
        )

        self.assertEqual(
            [made, again, stale, right, absent], [True, False, False, True, False]
        )
        self.assertEqual(value_of(machine, "k"), b"4")
        self.assertIs(machine.fsm.get("x"), None)

    def test_delete_cas(self) -> None:
        """A key that is gone already counts as deleted."""
        machine = Machine(encode_put("k", b"v"))

        stale = machine.succeeds(
            Operation(OperationKind.DELETE_CAS, "k", modify_index=7)
        )
        right = machine.succeeds(
            Operation(OperationKind.DELETE_CAS, "k", modify_index=1)
        )
        gone = machine.succeeds(
            Operation(OperationKind.DELETE_CAS, "k", modify_index=1)
        )

        self.assertEqual([stale, right, gone], [False, True, True])

    def test_checks(self) -> None:
        machine = Machine(session("s"), encode_put("k", b"v"))
        machine.do(Operation(OperationKind.LOCK, "locked", session="s"))

        for operation, passes in (
            (Operation(OperationKind.CHECK_INDEX, "k", modify_index=2), True),
            (Operation(OperationKind.CHECK_INDEX, "k", modify_index=1), False),
            (Operation(OperationKind.CHECK_INDEX, "x", modify_index=0), False),
            (Operation(OperationKind.CHECK_SESSION, "locked", session="s"), True),
            (Operation(OperationKind.CHECK_SESSION, "locked", session="t"), False),
            (Operation(OperationKind.CHECK_SESSION, "x", session="s"), False),
            (Operation(OperationKind.CHECK_NOT_EXISTS, "x"), True),
            (Operation(OperationKind.CHECK_NOT_EXISTS, "k"), False),
            (Operation(OperationKind.GET, "k"), True),
            (Operation(OperationKind.GET, "x"), False),
            (Operation(OperationKind.GET_OR_EMPTY, "x"), True),
        ):
            self.assertEqual(
                (operation, machine.succeeds(operation)), (operation, passes)
            )

    def test_trees(self) -> None:
        machine = Machine(*(encode_put(key, b"v") for key in ("a/2", "a/1", "b", "a")))

        read = machine.do(Operation(OperationKind.GET_TREE, "a/"))
        machine.do(Operation(OperationKind.DELETE_TREE, "a/"))

        self.assertEqual([record.key for record in read.records], ["a/1", "a/2"])
        self.assertEqual(list(machine.fsm.keys()), ["a", "b"])


class Locks(SynchronousTestCase):
    """A key is locked by one session at a time.  Source: Consul, "Sessions"."""

    def test_lock_and_unlock(self) -> None:
        """LockIndex counts the times the lock was taken, not the writes under it."""
        machine = Machine(session("s"), session("t"))

        taken = machine.succeeds(Operation(OperationKind.LOCK, "k", b"1", session="s"))
        kept = machine.succeeds(Operation(OperationKind.LOCK, "k", b"2", session="s"))
        refused = machine.succeeds(
            Operation(OperationKind.LOCK, "k", b"3", session="t")
        )
        foreign = machine.succeeds(
            Operation(OperationKind.UNLOCK, "k", b"4", session="t")
        )
        held = machine.fsm.get("k")
        freed = machine.succeeds(
            Operation(OperationKind.UNLOCK, "k", b"5", session="s")
        )
        passed = machine.succeeds(Operation(OperationKind.LOCK, "k", b"6", session="t"))

        self.assertEqual([taken, kept, refused, foreign], [True, True, False, False])
        self.assertEqual(held, Record("k", b"2", 0, 3, 4, 1, "s"))
        self.assertEqual([freed, passed], [True, True])
        self.assertEqual(machine.fsm.get("k"), Record("k", b"6", 0, 3, 8, 2, "t"))

    def test_session_that_does_not_exist(self) -> None:
        for kind in (OperationKind.LOCK, OperationKind.UNLOCK):
            outcome = Machine().do(Operation(kind, "k", session="s"))

            self.assertEqual([e.invalid for e in outcome.errors], [True])
            self.assertIn('invalid session "s"', outcome.errors[0].sentence)

    def test_put_leaves_the_lock(self) -> None:
        """Locks are advisory: anybody writes, the holder stays."""
        machine = Machine(session("s"))
        machine.do(Operation(OperationKind.LOCK, "k", b"1", session="s"))

        machine.apply(encode_put("k", b"2"))
        machine.do(Operation(OperationKind.SET, "k", b"3"))

        self.assertEqual(machine.fsm.get("k"), Record("k", b"3", 0, 2, 4, 1, "s"))


class Transactions(SynchronousTestCase):
    """All operations happen, or none."""

    def test_operations_see_each_other(self) -> None:
        machine = Machine(encode_put("old", b"v"))

        outcome = machine.do(
            Operation(OperationKind.SET, "k", b"1"),
            Operation(OperationKind.DELETE, "old"),
            Operation(OperationKind.CHECK_NOT_EXISTS, "old"),
            Operation(OperationKind.GET, "k"),
            Operation(OperationKind.GET_TREE, ""),
        )

        self.assertEqual(
            [(record.key, record.value) for record in outcome.records],
            [("k", b""), ("k", b"1"), ("k", b"1")],
        )

    def test_one_error_undoes_everything(self) -> None:
        """And all that fails is told, not only the first."""
        machine = Machine(session("s"), encode_put("k", b"v"))
        before = machine.fsm.digest()

        outcome = machine.do(
            Operation(OperationKind.SET, "new", b"1"),
            Operation(OperationKind.CHECK_INDEX, "k", modify_index=9),
            Operation(OperationKind.DELETE_TREE, ""),
            Operation(OperationKind.LOCK, "l", session="s"),
            Operation(OperationKind.GET, "new"),
        )

        self.assertEqual([e.position for e in outcome.errors], [1, 4])
        self.assertEqual(outcome.records, [])
        self.assertEqual(machine.fsm.digest(), before)

    def test_key_that_comes_and_goes(self) -> None:
        machine = Machine()

        machine.do(
            Operation(OperationKind.SET, "k", b"1"),
            Operation(OperationKind.DELETE, "k"),
        )

        self.assertEqual(list(machine.fsm), [])

    @given(st.lists(COMMANDS, max_size=12), st.lists(OPERATIONS, max_size=4))
    def test_failed_transactions_change_nothing(
        self, commands: list[bytes], operations: list[Operation]
    ) -> None:
        machine = Machine(*commands)
        before = machine.fsm.digest()

        outcome = machine.do(*operations)

        if outcome.errors:
            self.assertEqual(machine.fsm.digest(), before)
