"""Proposals: bounded, withdrawn or detached, and answered with the truth once."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.errors import (
    ApplicationError,
    EnqueueTimeout,
    LeadershipLost,
    NotLeader,
    QueueFull,
)
from txraft.node.pending import ApplyResult, Pending, Proposal


def command(data: bytes = b"x") -> Entry:
    return Entry(0, 0, LogType.COMMAND, data)


class PendingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.pending = Pending(max_entries=3, max_bytes=10)

    def appended(self, *entries: Entry, term: int = 1, first: int = 1) -> None:
        """Queue, take and append *entries* in *term* from index *first* on."""
        taken, _ = self.pending.take(0.0)
        for index, proposal in enumerate(taken, first):
            proposal.entry.index, proposal.entry.term = index, term
        self.pending.keep(taken)


class Bounds(PendingCase):
    def test_queue_refuses_more_than_max_entries(self) -> None:
        """The fourth of three entries is refused, and the first three wait on."""
        for _ in range(3):
            self.pending.queue(command(), None)

        self.assertRaises(QueueFull, self.pending.queue, command(), None)
        self.assertEqual(len(self.pending), 3)

    def test_queue_refuses_more_than_max_bytes(self) -> None:
        """Bytes are counted over all that waits, appended or not."""
        self.pending.queue(command(b"12345678"), None)
        self.appended()

        self.assertRaises(QueueFull, self.pending.queue, command(b"123"), None)
        self.pending.queue(command(b"12"), None)

    def test_queue_has_room_again_after_every_kind_of_outcome(self) -> None:
        """Applied, failed, late and withdrawn proposals give their bytes back."""
        proposal = self.pending.queue(command(b"1234567890"), None)
        self.appended()
        self.pending.applied([proposal.entry], [None])
        self.assertEqual(self.successResultOf(proposal.deferred).index, 1)

        late = self.pending.queue(command(b"1234567890"), 1.0)
        _, late_ones = self.pending.take(2.0)
        self.assertEqual(late_ones, [late])

        withdrawn = self.pending.queue(command(b"1234567890"), None)
        withdrawn.deferred.cancel()
        self.failureResultOf(withdrawn.deferred, CancelledError)
        self.assertEqual(self.pending.take(2.0), ([], []))

        failed = self.pending.queue(command(b"1234567890"), None)
        self.pending.fail_queued(NotLeader("b"))
        self.failureResultOf(failed.deferred, NotLeader)

        self.pending.queue(command(b"1234567890"), None)

    def test_membership_data_made_after_queueing_are_not_given_back(self) -> None:
        """A change is never counted, so its end must not make room for others."""
        change = Proposal(Entry(5, 1, LogType.CONFIGURATION), None)
        self.pending.keep([change])
        change.entry.data = b"1234567890"
        self.pending.applied([change.entry], [None])
        self.successResultOf(change.deferred)

        self.pending.queue(command(b"1234567890"), None)
        self.assertRaises(QueueFull, self.pending.queue, command(b"1"), None)


class Outcomes(PendingCase):
    def test_take_gives_late_ones_apart(self) -> None:
        """A deadline that has passed withdraws; one that is now has not."""
        early = self.pending.queue(command(), 1.0)
        late = self.pending.queue(command(), 0.5)

        self.assertEqual(self.pending.take(1.0), ([early], [late]))
        late.fail(EnqueueTimeout())
        self.failureResultOf(late.deferred, EnqueueTimeout)

    def test_applied_answers_with_index_term_and_response(self) -> None:
        """The caller learns where the entry stands."""
        proposal = self.pending.queue(command(), None)
        self.appended(term=4, first=7)

        self.pending.applied([proposal.entry], ["response"])

        self.assertEqual(
            self.successResultOf(proposal.deferred), ApplyResult(7, 4, "response")
        )
        self.assertEqual(len(self.pending), 0)

    def test_applied_with_a_refusal_fails_the_caller(self) -> None:
        """An ApplicationError is the command's own outcome."""
        proposal = self.pending.queue(command(), None)
        self.appended()

        self.pending.applied([proposal.entry], [ApplicationError("no")])

        self.failureResultOf(proposal.deferred, ApplicationError)

    def test_applied_another_entry_at_the_same_index_is_no_success(self) -> None:
        """What another leader committed in this place is not what was proposed."""
        proposal = self.pending.queue(command(b"ours"), None)
        self.appended(term=1, first=7)

        self.pending.applied([Entry(7, 2, LogType.COMMAND, b"theirs")], ["response"])

        self.failureResultOf(proposal.deferred, LeadershipLost)

    def test_fail_appended_after_keeps_what_is_committed(self) -> None:
        """Entries up to the index are committed and will be applied."""
        kept = self.pending.queue(command(), None)
        failed = self.pending.queue(command(), None)
        self.appended(first=4)

        self.pending.fail_appended_after(4, LeadershipLost())

        self.assertNoResult(kept.deferred)
        self.failureResultOf(failed.deferred, LeadershipLost)

    def test_cancel_after_append_only_detaches(self) -> None:
        """The entry still counts until it is applied, and nobody is answered."""
        proposal = self.pending.queue(command(), None)
        self.appended()

        proposal.deferred.cancel()
        self.failureResultOf(proposal.deferred, CancelledError)
        self.assertEqual(len(self.pending), 1)
        self.pending.applied([proposal.entry], [None])

        self.assertEqual(len(self.pending), 0)
