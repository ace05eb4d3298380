"""Captures of the state: they never change, and cost next to nothing.

Records are looked at after each change of the dict that holds them, as the thread that
writes a snapshot may do at any moment.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_state import snapshot_of
from tests.support.kv_commands import PLAIN, Machine, session
from tests.support.turns import steps_of, take_turn
from txraft.kv import keyindex, state
from txraft.kv.commands import (
    Operation,
    encode_delete,
    encode_destroy_sessions,
    encode_put,
    encode_restore,
    encode_transact,
)
from txraft.kv.records import Row
from txraft.kv.snapshot import KeyValueSnapshot, read_state
from txraft.kv.verbs import OperationKind

KEYS = [f"k{number:02d}" for number in range(20)]


class Watched(dict[str, Row]):
    """Records that call *changed* whenever one of them has changed."""

    changed: Callable[[], object]

    def __setitem__(self, key: str, row: Row) -> None:
        super().__setitem__(key, row)
        self.changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.changed()

    def pop(self, *arguments: Any) -> Any:
        found = super().pop(*arguments)
        self.changed()
        return found


def bytes_of(captured: KeyValueSnapshot) -> bytes:
    return b"".join(captured.pieces(1 << 20))


def digest_of(captured: KeyValueSnapshot) -> str:
    """Return the digest of what *captured* would be restored to."""
    fsm = state.KeyValueFSM()
    fsm._become(read_state(BytesIO(bytes_of(captured))))
    return fsm.digest()


class Commands(SynchronousTestCase):
    """What was captured stays as it was, whatever is done later."""

    def watched(self, *commands: bytes) -> tuple[Machine, dict[str, Row]]:
        """Make a machine whose capture is looked at whenever a record changes."""
        machine = Machine(*commands)
        rows = Watched(machine.fsm._state.rows)
        rows.changed = lambda: None
        machine.fsm._state.rows = machine.fsm._keys.rows = rows
        captured, expected = machine.fsm.snapshot(), dict(rows)
        self.looks = 0

        def look() -> None:
            self.looks += 1
            assert captured._captured is not None, "it is not released"
            self.assertEqual(dict(captured._captured[1].items()), expected)

        rows.changed = look
        return machine, expected

    def test_each_way_to_change_records(self) -> None:
        """Between any two steps of a command, too."""
        locks = [
            Operation(OperationKind.LOCK, key, b"v", session="s") for key in KEYS[10:15]
        ]
        kept = [
            Operation(OperationKind.LOCK, key, b"v", session="d") for key in KEYS[15:]
        ]
        before = [session("s", 1000), session("d", deletes=True)]
        before += [encode_put(key, b"old") for key in KEYS]
        before += [encode_transact([*locks, *kept])]
        for change in (
            encode_put("k01", b"new"),
            encode_put("other", b"new"),
            encode_delete("k02"),
            encode_destroy_sessions(["s"]),
            encode_destroy_sessions(["d"]),
            encode_transact([Operation(OperationKind.SET, "k03", b"new")]),
            encode_transact([Operation(OperationKind.DELETE_TREE, "k0")]),
            encode_transact(
                [
                    Operation(OperationKind.DELETE_TREE, ""),
                    Operation(OperationKind.SET, "k05", b"new"),
                ]
            ),
        ):
            machine, _ = self.watched(*before)
            machine.apply(change)
            machine.apply(change)
            self.assertGreater(self.looks, 0)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(PLAIN, max_size=30), st.lists(PLAIN, max_size=30), st.integers(0, 9)
    )
    def test_whatever_follows(
        self, before: list[bytes], after: list[bytes], more: int
    ) -> None:
        """Leaves that are split and merged meanwhile leave it as it was, too."""
        self.patch(keyindex, "MAX_LEAF_KEYS", 4)
        machine = Machine(*before, *[encode_put(key, b"1") for key in KEYS[:more]])
        captured, digest = machine.fsm.snapshot(), machine.fsm.digest()

        for key in KEYS:
            machine.apply(encode_put(key, b"2"))
        for command in after:
            machine.apply(command)

        self.assertEqual(digest_of(captured), digest)

    def test_two_captures(self) -> None:
        """Each shows its own moment; the end of one takes nothing from the other."""
        machine = Machine(*[encode_put(key, b"1") for key in KEYS])
        first, expected = machine.fsm.snapshot(), snapshot_of(machine.fsm)
        machine.apply(encode_put("k01", b"2"))
        second, later = machine.fsm.snapshot(), machine.fsm.digest()
        machine.apply(encode_put("k01", b"3"))

        self.assertEqual(bytes_of(first), expected)
        first.release()
        machine.apply(encode_put("k02", b"3"))

        self.assertEqual(digest_of(second), later)

    def test_backup_takes_the_place(self) -> None:
        """The records that it replaces are there until the capture is released."""
        backup = snapshot_of(Machine(encode_put("new", b"")).fsm)
        machine = Machine(*[encode_put(key, b"1") for key in KEYS])
        captured, expected = machine.fsm.snapshot(), machine.fsm.digest()

        machine.apply(encode_restore("id", 0, len(backup), backup))
        machine.apply(encode_put("k01", b"2"))

        self.assertEqual(list(machine.fsm.keys()), ["k01", "new"])
        self.assertEqual(digest_of(captured), expected)

    def test_capture_between_the_turns_of_a_restoration(self) -> None:
        """Whichever turns it lies between, and whatever was captured before."""
        self.patch(state, "TURN_KEYS", 8)
        backup = snapshot_of(
            Machine(*[encode_put(f"n{n}", b"") for n in range(20)]).fsm
        )
        turn = 0
        while True:
            machine = Machine(*[encode_put(key, b"1") for key in KEYS])
            turns: list[Callable[[], None]] = []
            machine.fsm.later = turns.append
            first, expected = machine.fsm.snapshot(), machine.fsm.digest()
            machine.apply(encode_restore("id", 0, len(backup), backup))
            for _ in range(turn):
                turns.pop()()
            captured, then = machine.fsm.snapshot(), machine.fsm.digest()
            is_last = not turns

            while turns:
                turns.pop()()
            machine.apply(encode_put("n1", b"2"))

            self.assertEqual(digest_of(captured), then, f"after {turn} turns")
            self.assertEqual(digest_of(first), expected)
            if is_last:
                break
            turn += 1
        self.assertGreater(turn, 4)


class Costs(SynchronousTestCase):
    """A capture costs what changes while it is there."""

    def test_capture_is_a_step_for_many_keys(self) -> None:
        """It does not touch each of them."""
        fsm = Machine(*[encode_put(f"{n:05d}", b"v") for n in range(5000)]).fsm

        self.assertLess(steps_of(fsm.snapshot), 200)

    def test_nothing_is_kept_for_nobody(self) -> None:
        """A capture that was released costs nothing any more."""
        machine = Machine(*[encode_put(key, b"1") for key in KEYS])
        captured = machine.fsm.snapshot()

        captured.release()
        captured.release()
        machine.apply(encode_delete("k01"))

        self.assertEqual(machine.fsm._captures, ())

    def test_new_keys_are_not_kept(self) -> None:
        """So what is kept is never more than there was."""
        machine = Machine(encode_put("old", b"1"))
        machine.fsm.snapshot()
        [capture] = machine.fsm._captures

        for number in range(100):
            machine.apply(encode_put(f"{number}", b""))
            machine.apply(encode_put("old", b"%d" % number))
            machine.apply(encode_delete(f"{number}"))

        self.assertEqual(list(capture._kept), ["old"])

    def test_what_was_kept_is_freed_in_turns(self) -> None:
        """However much has changed meanwhile."""
        self.patch(state, "TURN_KEYS", 8)
        machine, clock = Machine(*[encode_put(key, b"1") for key in KEYS]), Clock()
        machine.fsm.later = lambda call: clock.callLater(0, call)
        captured = machine.fsm.snapshot()
        [capture] = machine.fsm._captures
        for key in KEYS:
            machine.apply(encode_put(key, b"2"))

        captured.release()
        left = [len(capture._kept)]
        while clock.getDelayedCalls():
            take_turn(clock)
            left.append(len(capture._kept))

        self.assertEqual(left, [12, 4, 0])
