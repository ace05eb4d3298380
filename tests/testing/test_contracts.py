"""The contract of state machines: kept by ours, and broken by those that are wrong."""

from __future__ import annotations

import json
import unittest
from random import Random
from typing import BinaryIO

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry
from txraft.errors import ApplicationError
from txraft.interfaces import FSM, SnapshotSink
from txraft.kv.commands import encode_delete, encode_put
from txraft.kv.state import KeyValueFSM
from txraft.testing import ListFSM
from txraft.testing.cluster import ListSnapshot
from txraft.testing.contracts import FSMContract


class Lists(FSMContract, SynchronousTestCase):
    """The contract, by the state machine of the test clusters."""

    commands = (b"one", b"", b"two", b"one")

    def make_fsm(self) -> FSM:
        return ListFSM()


class KeysAndValues(FSMContract, SynchronousTestCase):
    """The contract, by the replicated key-value store; one command is refused."""

    commands = (
        encode_put("a", b"1"),
        encode_put("b", b"2" * 1000),
        encode_delete("a"),
        b"nonsense",
        encode_put("b", b"3"),
    )

    def make_fsm(self) -> FSM:
        return KeyValueFSM()


class Broken(SynchronousTestCase):
    """A state machine with a bug fails the contract."""

    def failures(self, make_fsm: type[ListFSM]) -> set[str]:
        """Run the contract by *make_fsm*; name the tests that fail."""

        class Case(FSMContract, SynchronousTestCase):
            commands = (b"one", b"two", b"three")

            def make_fsm(self) -> FSM:
                return make_fsm()

        failed = set()
        for name in dir(Case):
            if name.startswith("test_"):
                result = unittest.TestResult()
                Case(name).run(result)
                if not result.wasSuccessful():
                    failed.add(name)
        return failed

    def test_correct(self) -> None:
        """One without a bug passes: the runner below does find what it should."""
        self.assertEqual(self.failures(ListFSM), set())

    def test_chance(self) -> None:
        """Answers that are drawn differ between replicas."""
        random = Random(1)

        class Drawing(ListFSM):
            def apply(self, log: Entry) -> object:
                super().apply(log)
                return random.random()

        self.assertIn("test_same_commands_make_the_same_state", self.failures(Drawing))

    def test_live_capture(self) -> None:
        """A snapshot that shares the state changes with it."""

        class Sharing(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return ListSnapshot(self.commands)

        self.assertEqual(
            self.failures(Sharing), {"test_snapshot_is_of_the_moment_it_was_taken"}
        )

    def test_restore_that_adds(self) -> None:
        """A restore that keeps what was there is found."""

        class Adding(ListFSM):
            def restore(self, source: BinaryIO) -> None:
                self.commands += [bytes.fromhex(text) for text in json.load(source)]

        self.assertIn("test_restore_discards_what_was_there", self.failures(Adding))

    def test_forgotten_part(self) -> None:
        """State that the snapshot leaves out shows in what comes after it."""

        class Forgetting(ListFSM):
            def __init__(self) -> None:
                super().__init__()
                self.refused = False

            def apply(self, log: Entry) -> object:
                if self.refused:
                    raise ApplicationError("closed")
                self.refused = True
                return super().apply(log)

        self.assertIn("test_restored_state_goes_on", self.failures(Forgetting))

    def test_closed_sink(self) -> None:
        """A snapshot that ends its sink, or writes it in one huge piece, is found."""

        class Closing(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return ClosingSnapshot(list(self.commands))

        class ClosingSnapshot(ListSnapshot):
            def persist(self, sink: SnapshotSink) -> None:
                super().persist(sink)
                sink.close()

        self.assertIn(
            "test_persist_writes_pieces_and_leaves_the_sink_open",
            self.failures(Closing),
        )

    def test_asynchronous_snapshot(self) -> None:
        """A `persist` or a `restore` that is a coroutine is found."""

        class LatePersist(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return LateSnapshot(list(self.commands))

        class LateSnapshot(ListSnapshot):
            async def persist(self, sink: SnapshotSink) -> None:  # type: ignore[override]
                super().persist(sink)

        class LateRestore(ListFSM):
            async def restore(self, source: BinaryIO) -> None:  # type: ignore[override]
                super().restore(source)

        for machine in (LatePersist, LateRestore):
            self.assertIn("test_nothing_is_left_to_await", self.failures(machine))
        self.flushWarnings()

    def test_silent_persist(self) -> None:
        """One that writes nothing for an empty state is found."""

        class Silent(ListFSM):
            def snapshot(self) -> ListSnapshot:
                return SilentSnapshot(list(self.commands))

        class SilentSnapshot(ListSnapshot):
            def persist(self, sink: SnapshotSink) -> None:
                if self.commands:
                    super().persist(sink)

        self.assertIn("test_persist_writes_something", self.failures(Silent))

    def test_asynchronous_apply(self) -> None:
        """A coroutine is as good as what it returns."""

        class Late(ListFSM):
            async def apply(self, log: Entry) -> object:
                return super().apply(log)

        self.assertEqual(self.failures(Late), set())
