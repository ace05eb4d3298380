"""The node at an address is asked for its identity before it becomes a member.

Source: Raft dissertation §4.2.1.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase
from txraft.core.configuration import Configuration, Suffrage
from txraft.errors import ConnectionFailed, NotAdmitted, NotLeader
from txraft.node.admission import Admission, Probed, why_not
from txraft.testing import Cluster, Node
from txraft.testing.cluster import FAST

OURS, OTHER = b"o" * 16, b"x" * 16
MEMBERS = Configuration.of_voters(["a", "b"])
FRESH = Probed("z", 1, "z", "z", None, b"i" * 16, 0, 0, 0)


class Judging(SynchronousTestCase):
    def judge(self, found: Probed, cluster: bytes | None = OURS) -> str:
        return why_not(found, MEMBERS, cluster) or ""

    def test_one_that_is_empty(self) -> None:
        """It waits to be added."""
        self.assertEqual(self.judge(FRESH), "")

    def test_one_that_was_a_member_before(self) -> None:
        """It may come back with what it has."""
        self.assertEqual(self.judge(replace(FRESH, cluster=OURS, last_index=9)), "")

    def test_one_of_another_cluster(self) -> None:
        """And the way out of that."""
        found = replace(FRESH, cluster=OTHER, last_index=9)

        self.assertIn("z is in another cluster", self.judge(found))

    def test_one_that_founds_a_cluster_of_its_own(self) -> None:
        """It has a log, but nothing of it is committed yet."""
        self.assertIn("started with peers", self.judge(replace(FRESH, last_index=1)))

    def test_a_member_under_another_name(self) -> None:
        """One server never votes twice."""
        found = replace(FRESH, own_address="b")

        self.assertIn("the server at z is b, which is a member", self.judge(found))

    def test_one_that_calls_itself_otherwise(self) -> None:
        """The others could not tell who it is."""
        self.assertIn("add y", self.judge(replace(FRESH, own_address="y")))

    def test_another_implementation(self) -> None:
        """It tells nothing that would speak against it."""
        found = Probed("z", 1, None, None, None, None, None, 7, 9)

        self.assertTrue(found.is_foreign)
        self.assertEqual(self.judge(found), "")

    def test_a_cluster_that_has_no_name_yet(self) -> None:
        """As at protocol version 0, and before the first commit."""
        found = replace(FRESH, cluster=OTHER, last_index=9)

        self.assertEqual(self.judge(found, None), "")


class Admitting(ClusterCase):
    def refused(self, cluster: Cluster, address: str) -> str:
        outcome = self.outcome(cluster.leader.raft.admit_peer(address))
        cluster.advance(1)
        return str(self.assertFailedWith(outcome, NotAdmitted))

    def connect(self, one: Node, other: Node) -> None:
        """Let two nodes of different clusters reach each other."""
        one.transport.connect(other.address, other.transport)
        other.transport.connect(one.address, one.transport)

    def test_an_address_where_nobody_listens_costs_no_quorum(self) -> None:
        """A single node goes on alone."""
        cluster = self.cluster(1)

        self.assertIn("nobody answers as a peer at zz", self.refused(cluster, "zz"))

        cluster.apply(b"one")
        self.assertEqual(cluster.leader.raft.peers(), ["a"])

    def test_one_that_does_not_answer(self) -> None:
        """It was there, but has no time for us."""
        cluster = self.cluster(1, heartbeat_timeout=0.3, election_timeout=0.3)
        cluster.start_node("d")
        cluster.nodes["d"].transport.latency = 3.0

        self.assertIn("did not answer in time", self.refused(cluster, "d"))
        cluster.advance(3)

    def test_a_server_that_waits_becomes_a_member(self) -> None:
        """And to ask again changes nothing."""
        cluster = self.cluster(1)
        cluster.start_node("d")

        for _ in range(2):
            admission = cluster.result(cluster.leader.raft.admit_peer("d"))
            self.assertEqual(admission, Admission(True))

        self.assertEqual(cluster.leader.raft.peers(), ["a", "d"])
        cluster.apply(b"one")

    def test_a_member_of_another_cluster_is_refused(self) -> None:
        """And goes on in its own."""
        cluster = self.cluster(1)
        cluster.apply(b"one")
        other = Cluster(1, FAST, seed=5, clock=cluster.clock)
        other.start_node("x", ["x"])
        other.wait_until(lambda: bool(other.leaders()))
        other.apply(b"two")
        self.clusters.append(other)
        self.connect(cluster.leader, other.leader)

        self.assertIn("x is in another cluster", self.refused(cluster, "x"))

        other.apply(b"three")

    def test_a_member_under_another_name_is_refused(self) -> None:
        """It answers at both addresses."""
        cluster = self.cluster(3)
        leader, follower = cluster.leader, cluster.followers[0]
        leader.transport.connect("alias", follower.transport)

        reason = self.refused(cluster, "alias")

        self.assertIn(f"is {follower.address}, which is a member already", reason)

    def test_a_nonvoter_gets_its_vote_when_it_has_caught_up(self) -> None:
        """At protocol version 3, and under its own id."""
        cluster = self.cluster(1, protocol_version=3, latency=0.02)
        for number in range(300):
            cluster.apply(b"%d" % number)
        raft = cluster.leader.raft
        cluster.start_node("d")

        first = cluster.result(raft.admit_peer("d"))
        self.assertEqual((first.is_voter, first.behind > 250), (False, True))
        too_early = self.successResultOf(raft.admit_peer("d"))
        self.assertFalse(too_early.is_voter)
        server = raft.configuration.server("d")
        assert server is not None
        self.assertEqual(server.suffrage, Suffrage.NONVOTER)
        cluster.advance(2)
        second = cluster.result(raft.admit_peer("d"))

        self.assertEqual(second, Admission(True))
        self.assertTrue(raft.configuration.is_voter("d"))

    def test_a_nonvoter_that_went_away_gets_no_vote(self) -> None:
        """However much it had."""
        cluster = self.cluster(1, protocol_version=3)
        raft = cluster.leader.raft
        cluster.start_node("d")
        cluster.result(raft.admit_peer("d"))
        cluster.advance(0.3)
        cluster.crash("d")
        cluster.advance(1)

        self.assertFalse(cluster.result(raft.admit_peer("d")).is_voter)
        cluster.apply(b"one")

    def test_probe_of_a_member(self) -> None:
        """It tells what it is; nothing changes there."""
        cluster = self.cluster(3)
        cluster.apply(b"one")
        cluster.wait_for_all()
        leader, follower = cluster.leader, cluster.followers[0]

        found = cluster.result(leader.raft.probe_peer(follower.address))
        cluster.advance(1)

        self.assertEqual(found.own_address, follower.address)
        self.assertEqual(found.last_index, leader.raft.last_index)
        self.assertIsNotNone(found.cluster)
        self.assertFalse(found.is_foreign)
        self.assertEqual(cluster.leader.raft.term, found.term)

    def test_only_a_leader_asks(self) -> None:
        """Others would not know who is a member."""
        cluster = self.cluster(3)
        follower = cluster.followers[0].raft
        for asked in (follower.probe_peer("z"), follower.admit_peer("z")):
            self.assertFailedWith(self.outcome(asked), NotLeader)
        outcome = self.outcome(cluster.leader.raft.probe_peer("z"))
        self.assertFailedWith(outcome, ConnectionFailed)
