"""Replicas that have applied the same commands are equal, however they came to it."""

import io
from collections.abc import Callable

from hypothesis import given, settings
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_state import snapshot_of, stream
from tests.support.kv_commands import WORKLOADS, Machine, session
from tests.support.turns import most_steps
from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError, DataCorrupted
from txraft.kv import keyindex, state
from txraft.kv.commands import (
    Operation,
    encode_destroy_sessions,
    encode_once,
    encode_put,
    encode_restore,
    encode_transact,
)
from txraft.kv.delays import DelaysBegun
from txraft.kv.snapshot import read_state
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind
from txraft.kv.watches import Scope, Topic

RICH = (
    encode_put("k", b"v", 5),
    session("s", 1000, True, 10_000),
    session("t", 1000),
    encode_transact(
        [
            Operation(OperationKind.LOCK, key, session=id)
            for key, id in (("l", "s"), ("m", "t"))
        ]
    ),
    encode_destroy_sessions(["t"]),
    encode_once("c", 7, encode_put("o", b"")),
    encode_restore("id", 0, 9, b"part"),
)


class Snapshots(SynchronousTestCase):
    """Nothing is lost on the way through a snapshot."""

    @settings(max_examples=60)
    @given(WORKLOADS, WORKLOADS)
    def test_replica_from_a_snapshot_goes_on_alike(
        self, before: list[bytes], after: list[bytes]
    ) -> None:
        """Any commands, a snapshot anywhere, any more: the same content and answers."""
        whole, cut = Machine(*before), Machine()
        cut.index = whole.index
        cut.fsm.restore(io.BytesIO(snapshot_of(whole.fsm)))
        self.assertEqual(cut.fsm.digest(), whole.fsm.digest())

        for command in after:
            self.assertEqual(repr(cut.apply(command)), repr(whole.apply(command)))

        self.assertEqual(cut.fsm.digest(), whole.fsm.digest())

    def test_bytes(self) -> None:
        """Snapshots outlive releases, so their bytes must not change by accident."""
        machine = Machine(*RICH)

        self.assertEqual(
            snapshot_of(machine.fsm),
            stream(
                [0, "txraft-kv", 2, 6, 5],
                [1, "k", b"v", 5, 1, 1, 0, ""],
                [1, "l", b"", 0, 4, 4, 1, "s"],
                [1, "m", b"", 0, 4, 5, 1, ""],
                [1, "o", b"", 0, 6, 6, 0, ""],
                [4, "s", "name", "node", 1000, True, 10_000, 2, 2],
                [5, "m", 5, 1000],
                [6, "c", 0, [[7, b"\xc3"]]],
                [7, "id", 9, [b"part"]],
                [3, 8],
            ).getvalue(),
        )

    def test_version_1_is_still_read(self) -> None:
        state = read_state(
            stream(
                [0, "txraft-kv", 1, 9],
                [1, "k", b"v", 0, 3, 4, 0],
                [2, "a:1", "u"],
                [3, 2],
            )
        )

        self.assertEqual(state.rows, {"k": (b"v", 0, 3, 4, 0, "")})
        self.assertEqual((state.index, state.session_index), (9, 0))

    def test_malformed_records(self) -> None:
        header = [0, "txraft-kv", 2, 9, 9]
        good = [4, "s", "n", "n", 0, False, 0, 1, 1]
        read_state(stream(header, good, [3, 1]))
        for records in (
            [[*good, 0]],
            [[*good[:5], 0, *good[6:]]],
            [[4, "", *good[2:]]],
            [[*good[:7], 2, 1]],
            [[*good[:7], 1, 10]],
            [good, good],
            [[1, "k", b"v", 0, 3, 4, 0, "nobody"]],
            [[5, "k", 1]],
            [[5, "k", -1, 1]],
            [[5, "k", 1, 1], [5, "k", 1, 1]],
            [[6, "c", 0, []]],
            [[6, "c", 0, [[1, "text"]]]],
            [[6, "c", 0, [[1]]]],
            [[6, "c", 0, [[1, b""]]], [6, "c", 0, [[1, b""]]]],
            [[7, "id", 9, ["text"]]],
            [[7, "id", 9, []], [7, "id", 9, []]],
        ):
            whole = stream(header, *records, [3, len(records)])
            self.assertRaises(DataCorrupted, read_state, whole)

    def test_version_1_has_no_later_records(self) -> None:
        whole = stream([0, "txraft-kv", 1, 9], [5, "k", 1, 1], [3, 1])

        self.assertRaises(DataCorrupted, read_state, whole)


class Restores(SynchronousTestCase):
    """A backup replaces keys and sessions, piece by piece and then at once."""

    def backup(self, machine: Machine, size: int = 20) -> list[bytes]:
        data = snapshot_of(machine.fsm)
        return [
            encode_restore("id", start, len(data), data[start : start + size])
            for start in range(0, len(data), size)
        ]

    def test_restore_changes_all_at_once(self) -> None:
        target = Machine(encode_put("lost", b""), encode_put("k", b"other"))
        *pieces, last = self.backup(Machine(*RICH))
        for piece in pieces:
            self.assertIs(target.apply(piece), True)
        self.assertEqual(list(target.fsm.keys()), ["k", "lost"])

        self.assertIs(target.apply(last), True)

        self.assertEqual(list(target.fsm.keys()), ["k", "l", "m", "o"])
        self.assertEqual(list(target.fsm.sessions), ["s"])

    def test_restore_in_turns(self) -> None:
        """Until the last turn all is as before, and then as if done at once."""
        self.patch(state, "TURN_KEYS", 2)
        backup = Machine(*(encode_put(f"k{i}", b"new") for i in range(9)))
        before = [encode_put(f"k{i}", b"old") for i in range(5)]
        at_once, target = Machine(*before), Machine(*before)
        turns: list[Callable[[], None]] = []
        target.fsm.later = turns.append
        *pieces, last = self.backup(backup)
        for piece in [*pieces, last]:
            at_once.apply(piece)
        for piece in pieces:
            target.apply(piece)
        before_it = target.fsm.digest()

        done = target.apply(last)
        assert isinstance(done, Deferred)
        for _ in range(4):
            self.assertEqual(target.fsm.digest(), before_it)
            self.assertNoResult(done)
            turns.pop()()
        self.assertEqual(target.fsm.digest(), at_once.fsm.digest())
        while turns:
            self.assertNoResult(done)
            turns.pop()()

        self.assertIs(self.successResultOf(done), True)
        self.assertEqual(target.fsm.digest(), at_once.fsm.digest())

    def test_turns_of_a_restoration_are_bounded(self) -> None:
        """However many keys, locks, sessions and delays there are."""
        self.patch(state, "TURN_KEYS", 8)
        self.patch(keyindex, "FILLED_AT_ONCE", 8)
        backup = Machine(session("ends", 1000))
        for number in range(300):
            key, id = f"k{number}", f"s{number}"
            backup.apply(session(id))
            backup.do(Operation(OperationKind.LOCK, key, session=id))
            backup.do(Operation(OperationKind.LOCK, f"{key}+", session="ends"))
        backup.apply(encode_destroy_sessions(["ends"]))
        [whole] = self.backup(backup, size=1 << 20)
        at_once, target, clock = Machine(), Machine(), Clock()
        target.fsm.later = lambda call: clock.callLater(0, call)
        at_once.apply(whole)
        target.apply(whole)

        self.assertLess(most_steps(clock, lambda: None), 300)

        made = target.fsm
        self.assertEqual(made.digest(), at_once.fsm.digest())
        self.assertEqual(made._held, state._locks(made._state.rows))
        self.assertEqual(made.state_bytes, state.size_of(made._state))
        [begun] = made.delays_begun
        delays = DelaysBegun(made.delays)
        self.assertEqual(list(delays), [begun])
        self.assertEqual(
            made.delays_begun.some(begun, 0, 400), delays.some(begun, 0, 400)
        )

    def test_restore_in_turns_holds_up_what_follows(self) -> None:
        target = Machine()
        target.fsm.later = lambda call: None
        *pieces, last = self.backup(Machine(encode_put("k", b"new")), size=10_000)

        answers = target.fsm.apply_batch(
            [
                Entry(i, 1, LogType.COMMAND, command)
                for i, command in enumerate([*pieces, last, encode_put("k", b"")], 1)
            ]
        )

        self.assertEqual(len(answers), len(pieces) + 1)

    def test_pieces_in_a_snapshot_are_read_again(self) -> None:
        """A replica that begins in the middle of a backup takes it alike."""
        whole, cut = Machine(), Machine()
        *pieces, last = self.backup(Machine(*RICH))
        for piece in pieces:
            whole.apply(piece)
        cut.fsm.restore(io.BytesIO(snapshot_of(whole.fsm)))
        cut.index = whole.index

        whole.apply(last)
        cut.apply(last)

        self.assertEqual(cut.fsm.digest(), whole.fsm.digest())
        self.assertEqual(list(cut.fsm.keys()), ["k", "l", "m", "o"])

    def test_restored_records_count_as_changed_now(self) -> None:
        """The indexes of another history would fool a check-and-set or a watch."""
        target = Machine()
        for piece in self.backup(Machine(*RICH)):
            target.apply(piece)

        record = target.fsm.get("l")
        assert record is not None
        self.assertEqual(
            (record.create_index, record.modify_index), (target.index,) * 2
        )
        self.assertEqual(target.fsm.changed_at(Topic(Scope.KEY, "gone")), target.index)

    def test_restored_lock_index_never_falls(self) -> None:
        """Whoever held the lock since the backup must not look like the newest."""
        source = Machine(session("s"))
        source.do(Operation(OperationKind.LOCK, "k", session="s"))
        pieces = self.backup(source)
        for _ in range(2):
            source.do(Operation(OperationKind.UNLOCK, "k", session="s"))
            source.do(Operation(OperationKind.LOCK, "k", session="s"))

        for piece in pieces:
            source.apply(piece)

        record = source.fsm.get("k")
        assert record is not None
        self.assertEqual(record.lock_index, 3)

    def test_restored_locks_end_with_their_session(self) -> None:
        target = Machine()
        for piece in self.backup(Machine(*RICH)):
            target.apply(piece)

        target.apply(encode_destroy_sessions(["s"]))

        self.assertIs(target.fsm.get("l"), None)

    def test_pieces_out_of_order_are_refused(self) -> None:
        target = Machine(encode_put("kept", b""))
        first, second, *rest = self.backup(Machine(*RICH))

        refusals = [target.apply(piece) for piece in (first, *rest, second)]

        self.assertIs(refusals[0], True)
        for refusal in refusals[1:]:
            self.assertIsInstance(refusal, ApplicationError)
        self.assertEqual(list(target.fsm), ["kept"])

    def test_damaged_backup_is_refused(self) -> None:
        target = Machine(encode_put("kept", b""))

        refusal = target.apply(encode_restore("id", 0, 3, b"bad"))

        self.assertIsInstance(refusal, ApplicationError)
        self.assertEqual(list(target.fsm), ["kept"])

    def test_restore_keeps_addresses_and_first_results(self) -> None:
        """A retry of what was done before the restoration is not done again."""
        target = Machine(encode_once("c", 1, encode_put("n", b"")))
        for piece in self.backup(Machine()):
            target.apply(piece)

        target.apply(encode_once("c", 1, encode_put("n", b"")))

        self.assertEqual(list(target.fsm), [])


class OldCommands(SynchronousTestCase):
    """What older releases have written means what it meant."""

    def test_version_1(self) -> None:
        fsm = KeyValueFSM()
        machine = Machine(b"\x95\x01\x01\xa1a\xc4\x01\x00\x05", b"\x93\x01\x02\xa1b")

        record = machine.fsm.get("a")

        self.assertEqual(record, ("a", b"\x00", 5, 1, 1, 0, ""))
        self.assertEqual(len(fsm), 0)
