"""Membership by id: nonvoters, promotions, demotions, and the bootstrap."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.errors import (
    ConfigurationRefused,
    KnownPeer,
    LeadershipLost,
    TransferFailed,
    UnknownPeer,
)
from txraft.node.bootstrap import first_membership
from txraft.node.events import RaftState


class ById(ClusterCase):
    """The changes that protocol version 3 has."""

    def test_nonvoter_gets_entries_and_no_vote(self) -> None:
        """It counts for nothing; promoted, it does.  Source: §4.2.1."""
        cluster = self.cluster(3, protocol_version=3)
        joining = cluster.start_node("d")
        raft = cluster.leader.raft

        cluster.result(raft.add_nonvoter("id-of-d", "d"))
        cluster.apply(b"one")

        self.assertSameState(cluster, [b"one"])
        server = raft.configuration.server("d")
        self.assertEqual(server, Server("id-of-d", "d", Suffrage.NONVOTER))
        for follower in cluster.followers:
            if follower is not joining:
                cluster.crash(follower.address)
        unanswered = self.outcome(raft.apply(b"two"))
        cluster.advance(3)
        self.assertNotEqual(joining.raft.state, RaftState.CANDIDATE)
        self.assertFailedWith(unanswered, LeadershipLost)

    def test_promotion_and_demotion(self) -> None:
        """A server keeps its id and address through all of it."""
        cluster = self.cluster(3, protocol_version=3)
        cluster.start_node("d")
        raft = cluster.leader.raft
        cluster.result(raft.add_nonvoter("id-of-d", "d"))

        cluster.result(raft.add_voter("id-of-d", "d"))
        self.assertTrue(raft.configuration.is_voter("d"))
        cluster.result(raft.demote_voter("id-of-d"))
        self.assertFalse(raft.configuration.is_voter("d"))
        transfer = self.outcome(raft.transfer_leadership("d"))
        self.assertFailedWith(transfer, TransferFailed)
        cluster.result(raft.remove_server("id-of-d"))

        self.assertIsNone(raft.configuration.server("d"))

    def test_demoted_leader_leads_no_more(self) -> None:
        """Its successor is one of those that vote.  Source: §4.2.2."""
        cluster = self.cluster(3, protocol_version=3)
        before = cluster.leader

        cluster.result(before.raft.demote_voter(before.address))
        cluster.advance(3)

        after = cluster.leader
        self.assertIsNot(after, before)
        self.assertFalse(after.raft.configuration.is_voter(before.address))
        cluster.apply(b"one")
        self.assertSameState(cluster, [b"one"])

    def test_refused(self) -> None:
        """What is no single legal step, with the reason."""
        cluster = self.cluster(3, protocol_version=3)
        raft = cluster.leader.raft
        for change, error in (
            (lambda: raft.add_nonvoter("a", "a"), KnownPeer),
            (lambda: raft.add_nonvoter("a", "d"), ConfigurationRefused),
            (lambda: raft.add_voter("a", "d"), ConfigurationRefused),
            (lambda: raft.add_nonvoter("", "d"), ConfigurationRefused),
            (lambda: raft.demote_voter("d"), UnknownPeer),
            (lambda: raft.remove_server("d"), UnknownPeer),
        ):
            outcome = self.outcome(change())
            cluster.advance(0.1)
            self.assertFailedWith(outcome, error)

    def test_demotion_of_a_nonvoter_is_refused(self) -> None:
        """There is no vote to take; nor may its address get another id."""
        cluster = self.cluster(3, protocol_version=3)
        cluster.start_node("d")
        raft = cluster.leader.raft
        cluster.result(raft.add_nonvoter("id-of-d", "d"))
        for change in (
            lambda: raft.demote_voter("id-of-d"),
            lambda: raft.add_voter("other", "d"),
        ):
            outcome = self.outcome(change())
            cluster.advance(0.1)
            self.assertFailedWith(outcome, ConfigurationRefused)

    def test_versions_without_ids(self) -> None:
        """Below version 3 there are no nonvoters, and ids are addresses."""
        for version in range(3):
            cluster = self.cluster(1, protocol_version=version)
            raft = cluster.leader.raft
            for change in (
                lambda raft=raft: raft.add_nonvoter("d", "d"),
                lambda raft=raft: raft.demote_voter(raft.address),
                lambda raft=raft: raft.add_voter("id-of-d", "d"),
            ):
                outcome = self.outcome(change())
                cluster.advance(0.1)
                error = self.assertFailedWith(outcome, ConfigurationRefused)
                self.assertIn("version 3", str(error))


class Bootstraps(SynchronousTestCase):
    """All first members must begin with the same configuration."""

    def test_same_for_all(self) -> None:
        """Whatever the order, and whoever asks."""
        servers = [Server("1", "b"), Server("2", "a", Suffrage.NONVOTER)]
        expected = Configuration((servers[1], servers[0]))

        self.assertEqual(first_membership(servers, "a", "2", 3), expected)
        self.assertEqual(first_membership(servers[::-1], "b", "1", 3), expected)
        self.assertEqual(first_membership([], "a", "a", 3), Configuration())

    def test_alone_under_any_id(self) -> None:
        """The list of one address is a server under the id that it has."""
        expected = Configuration((Server("id", "a"),))
        self.assertEqual(first_membership([Server("a", "a")], "a", "id", 3), expected)

    def test_refused(self) -> None:
        """Lists that first members could not agree on."""
        two = [Server("a", "a"), Server("b", "b")]
        for servers, id, version in (
            (two[1:], "a", 3),
            (two, "id-of-a", 3),
            ([Server("other", "a")], "id-of-a", 3),
            ([Server("id-of-a", "a")], "id-of-a", 2),
            ([Server("a", "a", Suffrage.NONVOTER), two[1]], "a", 2),
            ([Server("a", "a", Suffrage.NONVOTER)], "a", 3),
            ([two[0], Server("a", "b")], "a", 3),
        ):
            with self.assertRaises(ConfigurationRefused):
                first_membership(servers, "a", id, version)
