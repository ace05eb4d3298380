"""Leadership that is handed over, kept over a stall, and kept over lost connections."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.raft_cluster import ClusterCase
from txraft.core.messages import RequestPreVoteRequest, TimeoutNowRequest
from txraft.errors import TransferFailed
from txraft.testing import Cluster, Node


class Transfers(ClusterCase):
    """What a transfer may do, and to whom."""

    def hold_timeout_now(self, node: Node) -> list[Any]:
        """Keep what *node* tells the target of a transfer; return how to send it."""
        held: list[Any] = []
        send = node.transport.timeout_now

        def hold(target: str, request: TimeoutNowRequest) -> Deferred[Any]:
            held.append(partial(send, target, request))
            return Deferred()

        self.patch(node.transport, "timeout_now", hold)
        return held

    def test_the_order_to_campaign_that_comes_late_deposes_nobody(self) -> None:
        """The transfer has failed, and its leader serves again.  Source: §3.10."""
        cluster = self.cluster(3)
        leader = cluster.leader
        held = self.hold_timeout_now(leader)
        self.assertFailedAfter(cluster, leader.raft.transfer_leadership())
        term = leader.raft.term

        for send in held:
            send().addErrback(lambda _: None)
        cluster.advance(1)

        self.assertEqual(len(held), 1)
        self.assertIs(cluster.leader, leader)
        self.assertEqual(leader.raft.term, term)

    def assertFailedAfter(self, cluster: Cluster, transfer: Deferred[None]) -> None:
        outcome = self.outcome(transfer)
        cluster.advance(2)
        self.assertFailedWith(outcome, TransferFailed)

    def test_an_order_that_comes_in_time_is_followed(self) -> None:
        """The leader consents, and the target campaigns."""
        cluster = self.cluster(3, latency=0.01)
        leader, target = cluster.leader, cluster.followers[0].address

        cluster.result(leader.raft.transfer_leadership(target))
        cluster.advance(0.5)

        self.assertEqual(cluster.leader.address, target)

    def test_a_consent_that_waited_while_the_target_was_held_up(self) -> None:
        """Sockets are read before it is known how late it is."""
        cluster = self.cluster(3)
        leader, target = cluster.leader, cluster.followers[0]
        term = leader.raft.term
        ask = target.transport.request_pre_vote
        waiting: Deferred[Any] = Deferred()
        answers: list[Any] = []

        def hold(to: str, request: RequestPreVoteRequest) -> Deferred[Any]:
            if request.transfer is None:
                return ask(to, request)
            ask(to, request).addCallback(answers.append)
            return waiting

        self.patch(target.transport, "request_pre_vote", hold)
        outcome = self.outcome(leader.raft.transfer_leadership(target.address))
        cluster.advance(0.05)
        [answer] = answers
        self.assertTrue(answer.granted)

        cluster.clock.rightNow += 1.0  # type: ignore[union-attr]
        waiting.callback(answer)
        cluster.advance(1.0)

        self.assertFailedWith(outcome, TransferFailed)
        self.assertEqual(cluster.leader.raft.term, term)

    def test_by_default_to_one_that_is_there(self) -> None:
        """Whichever is dead, and though it has as much of the log."""
        for dead in (0, 1):
            cluster = self.cluster(3, seed=dead)
            cluster.apply(b"one")
            cluster.wait_for_all()
            gone, other = cluster.followers[dead], cluster.followers[1 - dead]
            cluster.crash(gone.address)
            cluster.advance(3)

            cluster.result(cluster.leader.raft.transfer_leadership())
            cluster.advance(0.5)

            self.assertEqual(cluster.leader.address, other.address)

    def test_to_one_that_is_dead_fails_at_once(self) -> None:
        """And the leader goes on serving."""
        cluster = self.cluster(3)
        gone = cluster.followers[0].address
        cluster.crash(gone)
        cluster.advance(3)

        outcome = self.outcome(cluster.leader.raft.transfer_leadership(gone))

        error = self.assertFailedWith(outcome, TransferFailed)
        self.assertRegex(str(error), rf"{gone} has not answered for 3\.\d s")
        cluster.apply(b"one")

    def test_with_no_one_there_fails_at_once(self) -> None:
        """A leader of two that has just lost the other."""
        cluster = self.cluster(2, heartbeat_timeout=5.0, election_timeout=5.0)
        leader = cluster.leader
        cluster.crash(cluster.followers[0].address)
        cluster.advance(0.08)
        cluster.clock.advance(0.2)

        outcome = self.outcome(leader.raft.transfer_leadership())

        self.assertFailedWith(outcome, TransferFailed)
        cluster.advance(6)


class Stalls(ClusterCase):
    """A leader that is held up for longer than its lease, by its own process."""

    def stall(self, cluster: Cluster, seconds: float) -> None:
        """Let the leader's process, and all of its timers, stand still."""
        cluster.clock.advance(seconds)

    def test_a_stall_costs_no_leadership(self) -> None:
        """All followers are there, and answer the round after it."""
        cluster = self.cluster(3, latency=0.002)
        cluster.apply(b"one")
        term = cluster.leader.raft.term
        for _ in range(5):
            self.stall(cluster, 0.15)
            cluster.advance(0.3)

        self.assertEqual(cluster.leader.raft.term, term)

    def test_a_stall_while_the_leader_was_cut_off_ends_it(self) -> None:
        """Nobody answers its round; it resigns after a heartbeat timeout."""
        cluster = self.cluster(3)
        old = cluster.leader
        cluster.isolate(old.address)

        self.stall(cluster, 0.15)
        read = self.outcome(old.raft.linearizable())
        cluster.advance(0.5)

        self.assertFalse(old.raft.leader == old.address)
        self.assertEqual(len(read), 1)


class LostConnections(ClusterCase):
    """Followers take the end of a connection for the end of their leader."""

    def test_a_reset_of_all_connections_costs_no_leadership(self) -> None:
        """The leader dials again and says at once that it is there."""
        for seed in range(8):
            cluster = self.cluster(3, seed=seed, latency=0.002)
            cluster.apply(b"one")
            cluster.advance(0.3 + 0.007 * seed)
            leader = cluster.leader
            term = leader.raft.term

            cluster.isolate(leader.address)
            cluster.heal()
            cluster.advance(1)

            self.assertEqual(cluster.leader.raft.term, term, seed)
