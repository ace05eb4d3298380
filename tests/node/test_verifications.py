"""Reads that wait: one question for a turn, one pass over all that are confirmed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_applier import ApplierCase
from tests.support.raft_cluster import ClusterCase
from txraft.core.messages import AppendEntriesRequest
from txraft.errors import NotLeader, RaftShutdown
from txraft.node.verifications import LEAST_WITHDRAWN, Verification, Verifications
from txraft.testing import Cluster

SLICE = 0.005


def steps_of(work: Callable[[], object]) -> int:
    """Count the steps of the interpreter in *work*, whatever machine it runs on."""
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


class ManyReads(ClusterCase):
    def read(self, cluster: Cluster, count: int) -> int:
        """Have *count* reads wait together; return the steps that this took."""
        raft = cluster.leader.raft
        answered: list[int] = []

        def read() -> None:
            for _ in range(count):
                raft.linearizable().addCallback(answered.append)
            cluster.wait_until(lambda: len(answered) == count)

        return steps_of(read)

    def test_what_a_read_costs_does_not_grow_with_those_that_wait(self) -> None:
        """Eight times the reads take at most ten times the steps."""
        cluster = self.cluster(3)
        self.read(cluster, 1)

        few, many = self.read(cluster, 50), self.read(cluster, 400)

        self.assertLess(many, 10 * few)

    def test_all_reads_of_a_turn_share_one_round(self) -> None:
        """A thousand of them cost one heartbeat to each follower."""
        cluster = self.cluster(3)
        cluster.advance(0.1)
        sent: list[object] = []
        send = cluster.leader.transport.append_entries

        def counting(target: str, args: AppendEntriesRequest) -> Any:
            sent.append(target)
            return send(target, args)

        self.patch(cluster.leader.transport, "append_entries", counting)
        outcomes = [self.outcome(cluster.leader.raft.linearizable()) for _ in range(99)]
        cluster.clock.advance(0)

        self.assertEqual(len(sent), 2)
        cluster.advance(0.1)
        for outcome in outcomes:
            self.assertSucceeded(outcome)

    def test_a_read_that_comes_while_a_round_is_on_its_way_has_its_own(self) -> None:
        """The answers to what was sent before it say nothing about it."""
        cluster = self.cluster(3, latency=0.01)
        cluster.advance(0.1)
        early = self.outcome(cluster.leader.raft.linearizable())
        cluster.advance(0.015)

        late = self.outcome(cluster.leader.raft.linearizable())
        cluster.advance(0.015)
        self.assertSucceeded(early)
        self.assertEqual(late, [])
        cluster.advance(0.02)

        self.assertSucceeded(late)

    def test_reads_that_wait_fail_with_the_leadership(self) -> None:
        """Those asked for and those not yet."""
        cluster = self.cluster(3)
        old = cluster.leader
        cluster.isolate(old.address)
        outcomes = [self.outcome(old.raft.linearizable()) for _ in range(9)]
        cluster.advance(0.5)

        for outcome in outcomes:
            self.assertFailedWith(outcome, NotLeader)


class Settlement(ApplierCase, SynchronousTestCase):
    def setUp(self) -> None:
        self.build()
        self.verifications = Verifications(self.applier, self.clock, SLICE)
        self.answers: list[int] = []
        self.failures: list[Failure] = []
        self.failures_take = 0.0

    def verification(self, takes: float = 0.0, applied: bool = True) -> Verification:
        def answered(index: int) -> None:
            self.clock.rightNow += takes
            self.answers.append(index)

        def failed(failure: Failure) -> None:
            self.clock.rightNow += self.failures_take
            self.failures.append(failure)

        verification = Verification(
            Deferred(lambda _: self.verifications.withdraw(verification)), applied
        )
        verification.deferred.addCallbacks(answered, failed)
        self.verifications.add(verification)
        return verification

    def test_take_hands_out_each_once(self) -> None:
        """One question to consensus for all of a turn."""
        both = [self.verification(), self.verification()]

        self.assertEqual(list(self.verifications.take().readers), both)
        self.assertFalse(self.verifications.take())

    def test_a_read_is_answered_when_its_index_is_applied(self) -> None:
        """And a plain verification at once."""
        self.verification()
        self.verification(applied=False)
        self.verifications.confirmed(self.verifications.take(), 3)
        self.assertEqual(self.answers, [0])
        self.applier.advance(2)
        self.assertEqual(self.answers, [0])

        self.applier.advance(3)

        self.assertEqual(self.answers, [0, 3])

    def test_reads_for_later_indexes_wait_on(self) -> None:
        """Each gets what is applied when it is answered, in order."""
        for index in (2, 4, 6):
            self.verification()
            self.verifications.confirmed(self.verifications.take(), index)

        self.applier.advance(4)
        self.assertEqual(self.answers, [4, 4])
        self.applier.advance(6)

        self.assertEqual(self.answers, [4, 4, 6])

    def test_many_answers_give_way_after_a_slice(self) -> None:
        """Others have a turn, and those that are left are answered after it."""
        for _ in range(10):
            self.verification(takes=SLICE / 2)
        self.verifications.confirmed(self.verifications.take(), 0)
        self.assertEqual(len(self.answers), 2)

        self.turn()

        self.assertEqual(len(self.answers), 4)

    def test_what_is_confirmed_meanwhile_is_answered_after_it(self) -> None:
        """In order, and not in the middle of the other."""
        for _ in range(3):
            self.verification(takes=SLICE)
        self.verifications.confirmed(self.verifications.take(), 0)
        self.verification()
        self.verifications.confirmed(self.verifications.take(), 0)
        self.assertEqual(len(self.answers), 1)

        for _ in range(3):
            self.turn()

        self.assertEqual(len(self.answers), 4)

    def test_fail_reaches_who_was_confirmed_and_not_answered(self) -> None:
        """Each Deferred fires once."""
        for _ in range(3):
            self.verification(takes=SLICE)
        self.verifications.confirmed(self.verifications.take(), 0)

        self.verifications.fail(NotLeader(None))
        self.turn()

        self.assertEqual((len(self.answers), len(self.failures)), (1, 2))
        self.assertEqual(len(self.verifications), 0)

    def test_fail_gives_way_after_a_slice(self) -> None:
        """Those that come meanwhile wait: another leadership may answer them."""
        self.failures_take = SLICE
        for _ in range(3):
            self.verification()
        self.verifications.fail(NotLeader(None))
        self.verification()
        self.assertEqual(len(self.failures), 1)

        self.turn()
        self.turn()

        self.assertEqual(len(self.failures), 3)
        self.assertEqual(len(self.verifications), 1)

    def test_fail_spares_who_was_withdrawn(self) -> None:
        """One that is cancelled before its turn comes is told nothing else."""
        self.failures_take = SLICE
        _, late = self.verification(), self.verification()
        self.verifications.fail(NotLeader(None))

        late.deferred.cancel()
        self.turn()

        self.assertEqual([f.type for f in self.failures], [NotLeader, CancelledError])

    def test_fail_now_leaves_nobody(self) -> None:
        """Who was failed, and has not been told so yet, is told: the node stops."""
        self.failures_take = SLICE
        for _ in range(5):
            self.verification()
        self.verifications.fail(NotLeader(None))

        self.verifications.fail_now(RaftShutdown())

        told = [failure.type for failure in self.failures]
        self.assertEqual(told, [NotLeader, *[RaftShutdown] * 4])
        self.turn()
        self.assertEqual(len(self.failures), 5)

    def steps_for(self, count: int, settle: Callable[[], object]) -> int:
        for number in range(count):
            self.verification(takes=SLICE, applied=bool(number % 2))
        return steps_of(settle)

    def test_no_turn_does_anything_for_all_that_wait(self) -> None:
        """Twenty times as many take no more steps in the turn that settles them."""
        self.failures_take = SLICE
        verifications = self.verifications
        settles: tuple[Callable[[], object], ...] = (
            lambda: verifications.confirmed(verifications.take(), 0),
            lambda: verifications.confirmed(verifications.take(), 9),
            lambda: verifications.fail(NotLeader(None)),
        )
        for settle in settles:
            few = self.steps_for(50, settle)
            verifications.fail_now(NotLeader(None))
            self.turn()

            many = self.steps_for(1000, settle)
            verifications.fail_now(NotLeader(None))
            self.turn()

            self.assertLess(many, few + 50)

    def test_withdrawn_reads_leave_nothing_while_the_state_machine_hangs(self) -> None:
        """However many come and go, few are kept."""
        for _ in range(20 * LEAST_WITHDRAWN):
            verification = self.verification()
            self.verifications.confirmed(self.verifications.take(), 9)
            verification.deferred.cancel()

        kept = sum(len(batch) for _, batch in self.verifications._unapplied)
        self.assertLessEqual(kept, 2 * LEAST_WITHDRAWN)
        self.assertEqual(len(self.applier._waiting), 1)
