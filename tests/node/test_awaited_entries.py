"""Entries that another node appended for this one, and their responses here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import entries_of
from txraft.core.entry import Entry
from txraft.node.applier import Applier
from txraft.node.awaited_entries import AwaitedEntries
from txraft.testing import ListFSM


class Waiter:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def applied(self, index: int, term: int, response: object) -> None:
        self.told.append((index, term, response))

    def overtaken(self, index: int) -> None:
        self.told.append(index)


class Waiting(SynchronousTestCase):
    def setUp(self) -> None:
        self.entries = entries_of(1, 1, 1, 1, 2, 2, 2, 2, 2)
        self.settled: list[int] = []
        self.applier = Applier(
            ListFSM(),
            clock=Clock(),
            slice_seconds=1.0,
            fetch=lambda first, last: self.entries[first - 1 : last],
            settled=self.settle,
            failed=lambda reason, failure: self.fail(reason),
            applied_index=0,
        )
        self.before: Callable[..., None] = self.applier.settled
        self.awaited = AwaitedEntries(self.applier, 3)
        self.waiter = Waiter()

    def settle(self, entries: Sequence[Entry], responses: Sequence[object]) -> None:
        self.settled += [entry.index for entry in entries]

    def test_wait_for_an_entry_that_is_applied_later(self) -> None:
        self.applier.advance(1)
        sent = self.awaited.sent()
        self.awaited.wait(4, 2, self.waiter)
        self.awaited.answered(sent)

        self.applier.advance(5)

        self.assertEqual(self.waiter.told, [(4, 2, 4)])
        self.assertEqual(self.settled, [1, 2, 3, 4, 5])

    def test_wait_for_an_entry_that_is_applied_already(self) -> None:
        sent = self.awaited.sent()
        self.applier.advance(3)

        self.awaited.wait(2, 1, self.waiter)
        self.awaited.answered(sent)

        self.assertEqual(self.waiter.told, [(2, 1, 2)])

    def test_wait_for_an_entry_of_another_term(self) -> None:
        """The response at that index is that of somebody else's command."""
        for applied_first in (False, True):
            waiter = Waiter()
            sent = self.awaited.sent()
            if applied_first:
                self.applier.advance(7)
            index = self.applier.applied_index + (0 if applied_first else 4)
            self.awaited.wait(index, 1, waiter)
            self.applier.advance(5)
            self.awaited.answered(sent)

            self.assertEqual(waiter.told, [index])

    def test_kept_responses_are_bounded(self) -> None:
        """The oldest goes, and whoever asks for it is told that it is not known."""
        self.awaited.sent()
        self.applier.advance(4)

        for index, told in ((1, 1), (2, (2, 1, 2))):
            waiter = Waiter()
            self.awaited.wait(index, 1, waiter)
            self.assertEqual(waiter.told, [told])

    def test_kept_as_long_as_a_message_is_on_its_way(self) -> None:
        """Of each message the responses from where this node stood when it left."""
        first = self.awaited.sent()
        self.applier.advance(1)
        second = self.awaited.sent()
        self.applier.advance(2)
        self.awaited.answered(first)

        self.assertEqual(list(self.awaited._kept), [2])
        self.awaited.answered(second)
        self.assertEqual(list(self.awaited._kept), [])

    def test_nothing_is_done_while_nobody_waits(self) -> None:
        """The applier calls what it called without this."""
        self.assertEqual(self.applier.settled, self.before)
        sent = self.awaited.sent()
        self.assertNotEqual(self.applier.settled, self.before)
        self.awaited.wait(3, 1, self.waiter)
        self.awaited.answered(sent)
        self.assertNotEqual(self.applier.settled, self.before)

        self.applier.advance(3)

        self.assertEqual(self.applier.settled, self.before)

    def test_forget(self) -> None:
        """Whoever gave up is not told, and nothing is left behind."""
        sent = self.awaited.sent()
        self.awaited.wait(3, 1, self.waiter)
        self.awaited.answered(sent)

        self.awaited.forget(3)
        self.applier.advance(4)

        self.assertEqual(self.waiter.told, [])
        self.assertEqual(self.applier.settled, self.before)

    def test_installed(self) -> None:
        """A snapshot has the entry, and not its response."""
        sent = self.awaited.sent()
        later = Waiter()
        self.awaited.wait(3, 1, self.waiter)
        self.awaited.wait(8, 2, later)
        self.awaited.answered(sent)

        self.awaited.installed(5)

        self.assertEqual(self.waiter.told, [3])
        self.assertEqual(later.told, [])
        self.assertEqual(len(self.awaited), 1)
