"""The contract of a state machine: replicas with the same commands are the same."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError
from txraft.interfaces import FSM, BatchingFSM
from txraft.node.application import awaited, is_unfinished, refuse_unfinished
from txraft.storage.memory import InmemSnapshotStore
from txraft.testing.contracts.case import Contract

MAX_PIECE_BYTES = 1 << 20
"""Bytes that a state machine may give to its sink in one `write`."""


class FSMContract(Contract):
    """Tests of an `FSM`: a subclass makes it and lists some commands.

    .. code-block:: python

        class CounterIsAnFSM(FSMContract, SynchronousTestCase):
            commands = (b"add 1", b"add 2", b"reset")

            def make_fsm(self) -> FSM:
                return Counter()

    Two state machines are taken for equal if they answer `commands` alike and then
    write the same snapshot. Override `state` if equal ones may write different
    snapshots.
    """

    commands: Sequence[bytes] = ()

    def make_fsm(self) -> FSM:
        """Make a new state machine, to which nothing was applied."""
        raise NotImplementedError

    def state(self, fsm: FSM) -> object:
        """Return an object that is equal for equal states; by default the snapshot."""
        return self.snapshot_of(fsm)

    def test_same_commands_make_the_same_state(self) -> None:
        """Two replicas give the same answers and end in the same state."""
        self.assertTrue(self.commands, "the contract needs commands")
        one, other = self.make_fsm(), self.make_fsm()

        answers = [self.apply(fsm, self.commands) for fsm in (one, other)]

        self.assertEqual(answers[0], answers[1])
        self.assertEqual(self.state(one), self.state(other))

    def test_snapshot_restores_the_same_state(self) -> None:
        """A restored state machine is equal to the captured one."""
        fsm, restored = self.make_fsm(), self.make_fsm()
        self.apply(fsm, self.commands)

        restored.restore(io.BytesIO(self.snapshot_of(fsm)))

        self.assertEqual(self.state(restored), self.state(fsm))

    def test_restore_discards_what_was_there(self) -> None:
        """`restore` replaces the whole state: nothing of the old one is left."""
        empty = self.snapshot_of(self.make_fsm())
        fsm = self.make_fsm()
        self.apply(fsm, self.commands)

        fsm.restore(io.BytesIO(empty))

        self.assertEqual(self.state(fsm), self.state(self.make_fsm()))

    def test_restored_state_goes_on(self) -> None:
        """Later commands have the same effect on a restored state machine."""
        half = len(self.commands) // 2
        whole, restored = self.make_fsm(), self.make_fsm()
        self.apply(whole, self.commands[:half])
        restored.restore(io.BytesIO(self.snapshot_of(whole)))

        answers = [
            self.apply(fsm, self.commands[half:], half + 1) for fsm in (whole, restored)
        ]

        self.assertEqual(answers[0], answers[1])
        self.assertEqual(self.state(restored), self.state(whole))

    def test_snapshot_is_of_the_moment_it_was_taken(self) -> None:
        """A snapshot has the state at `snapshot`, not that at `persist`."""
        half = len(self.commands) // 2
        fsm = self.make_fsm()
        self.apply(fsm, self.commands[:half])
        before = self.snapshot_of(fsm)

        captured = fsm.snapshot()
        self.apply(fsm, self.commands[half:], half + 1)
        sink = _Sink()
        captured.persist(sink)
        captured.release()

        self.assertEqual(bytes(sink.data), before)

    def test_persist_writes_pieces_and_leaves_the_sink_open(self) -> None:
        """A piece has 1 MiB at most; the node closes the sink, not `persist`."""
        fsm = self.make_fsm()
        self.apply(fsm, self.commands)
        captured, sink = fsm.snapshot(), _Sink()

        captured.persist(sink)
        captured.release()

        self.assertLessEqual(sink.largest, MAX_PIECE_BYTES)
        self.assertFalse(sink.ended)

    def test_persist_writes_something(self) -> None:
        """`persist` writes at least once, even b"": else it is no snapshot."""
        captured, sink = self.make_fsm().snapshot(), _Sink()

        captured.persist(sink)
        captured.release()

        self.assertTrue(sink.written, 'an empty state is written as b""')

    def test_nothing_is_left_to_await(self) -> None:
        """`snapshot`, `persist`, `release` and `restore` are done when they return.

        Only `apply` and `apply_batch` may return a Deferred or a coroutine.
        """
        fsm: Any = self.make_fsm()
        self.apply(fsm, self.commands)
        store = InmemSnapshotStore()
        sink = store.create(1, 1, Configuration(), 0)

        captured = fsm.snapshot()
        refuse_unfinished(captured, "snapshot", "it must have captured all")
        for what, result in (
            ("persist", captured.persist(sink)),
            ("release", captured.release()),
        ):
            refuse_unfinished(result, what, "it must be done when it returns")
        sink.close()
        _, source = store.open(sink.id)
        with source:
            restored: Any = self.make_fsm()
            refuse_unfinished(
                restored.restore(source), "restore", "it must be done when it returns"
            )

    def test_batch_is_one_command_after_the_other(self) -> None:
        """`apply_batch`, if there is one, answers and ends as `apply` does."""
        one, other = self.make_fsm(), self.make_fsm()
        if not isinstance(one, BatchingFSM):
            return

        given: object = one.apply_batch(entries_of(self.commands))
        answers: Any = self._wait_for(given) if is_unfinished(given) else given
        single = self.apply(other, self.commands)

        self.assertEqual([_comparable(answer) for answer in answers], single)
        self.assertEqual(self.state(one), self.state(other))

    def apply(
        self, fsm: FSM, commands: Sequence[bytes], first_index: int = 1
    ) -> list[object]:
        """Apply *commands* one by one; return the answers, errors as text."""
        return [self._answer(fsm, entry) for entry in entries_of(commands, first_index)]

    def _answer(self, fsm: FSM, entry: Entry) -> object:
        try:
            answer = fsm.apply(entry)
        except ApplicationError as error:
            return _comparable(error)
        return _comparable(self._wait_for(answer) if is_unfinished(answer) else answer)

    def _wait_for(self, answer: object) -> object:
        outcome: list[object] = []
        awaited(answer, "apply").addBoth(outcome.append)
        self.assertTrue(outcome, "the answer of a contract's command is due now")
        return outcome[0]

    def snapshot_of(self, fsm: FSM) -> bytes:
        """Take a snapshot through a store in memory, and read it back."""
        store = InmemSnapshotStore()
        captured = fsm.snapshot()
        sink = store.create(1, 1, Configuration(), 0)
        captured.persist(sink)
        captured.release()
        sink.close()
        _, source = store.open(sink.id)
        with source:
            return source.read()


def entries_of(commands: Sequence[bytes], first_index: int = 1) -> list[Entry]:
    """Make entries with *commands*, the first at *first_index*."""
    return [
        Entry(index, 1, LogType.COMMAND, data)
        for index, data in enumerate(commands, first_index)
    ]


def _comparable(answer: object) -> object:
    if isinstance(answer, Failure):
        answer = answer.value
    if isinstance(answer, ApplicationError):
        return f"{type(answer).__name__}: {answer}"
    return answer


class _Sink:
    """A sink that records the calls it gets."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.largest = 0
        self.written = False
        self.ended = False

    @property
    def id(self) -> str:
        return "contract"

    def write(self, data: bytes) -> int:
        self.data += data
        self.written = True
        self.largest = max(self.largest, len(data))
        return len(data)

    def close(self) -> None:
        self.ended = True

    def cancel(self) -> None:
        self.ended = True
