"""Members that come back under their old name without their data."""

from __future__ import annotations

from copy import deepcopy

from twisted.trial.unittest import SynchronousTestCase

from tests.node.kit import ClusterCase
from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.ready import Ready
from txraft.errors import StorageError
from txraft.node.incarnations import (
    KNOWN_INCARNATIONS,
    VOID,
    Incarnations,
    decode_known,
    encode_known,
    read_incarnations,
)
from txraft.storage.memory import InmemStore
from txraft.testing import Cluster
from txraft.testing.cluster import _Disk

ABC = ["a", "b", "c"]


class Wiped(ClusterCase):
    def wiped(self, **options: object) -> tuple[Cluster, str]:
        """Make a cluster one of whose followers has lost its data."""
        cluster = self.cluster(3, **options)  # type: ignore[arg-type]
        cluster.apply(b"1")
        cluster.wait_for_all()
        cluster.advance(1.0)
        lost = cluster.followers[0].address
        cluster.wipe(lost)
        return cluster, lost

    def test_wiped_founder_is_refused(self) -> None:
        """A node that founds the cluster anew under its old name takes no part."""
        cluster, lost = self.wiped()
        node = cluster.start_node(lost, ABC)
        cluster.advance(3.0)

        cluster.apply(b"2")

        self.assertEqual(node.raft.applied_index, 0)
        self.assertEqual(cluster.leader.raft.stats()["refused_peers"], lost)
        [error] = [e for e in self.flush(lost) if "refuses" in e]
        self.assertIn("join: true", error)

    def test_wiped_member_counts_for_no_quorum(self) -> None:
        """What it answers is no acknowledgement, and its vote is no vote."""
        cluster, lost = self.wiped()
        other = next(n.address for n in cluster.followers if n.address != lost)
        cluster.start_node(lost)
        cluster.advance(1.0)
        cluster.crash(other)

        outcome = self.outcome(cluster.leader.raft.apply(b"2"))
        cluster.advance(3.0)

        self.assertEqual(cluster.leaders(), [])
        cluster.restart(other)
        cluster.wait_until(lambda: bool(cluster.leaders()))
        cluster.apply(b"3")
        self.assertEqual(len(outcome), 1)
        self.assertEqual(cluster.nodes[lost].raft.applied_index, 0)

    def test_removed_and_added_again(self) -> None:
        """The way back is the one that every new member takes."""
        cluster, lost = self.wiped()
        cluster.start_node(lost)
        cluster.advance(1.0)
        cluster.result(cluster.leader.raft.remove_peer(lost))
        cluster.wipe(lost)
        node = cluster.start_node(lost)

        cluster.result(cluster.leader.raft.add_peer(lost))
        cluster.apply(b"2")

        cluster.wait_until(
            lambda: node.raft.applied_index == cluster.leader.raft.applied_index
        )
        self.assertNotIn("refused_peers", cluster.leader.raft.stats())

    def test_restarted_members_are_known(self) -> None:
        """All that restart keep their lives, and each other's."""
        cluster = self.cluster(3)
        for address in ABC:
            cluster.restart(address)
            cluster.wait_for_leader()
        for address in ABC:
            cluster.crash(address)
        for address in ABC:
            cluster.start_node(address)
        cluster.wait_for_leader()
        cluster.apply(b"1")
        for node in cluster.nodes.values():
            self.assertNotIn("refused_peers", node.raft.stats())

    def test_memory_survives_a_restart(self) -> None:
        """Everybody restarts: the one without data is still told from the others."""
        cluster, lost = self.wiped()
        rest = [address for address in ABC if address != lost]
        for address in rest:
            cluster.restart(address)
        cluster.wait_for_leader(rest)
        node = cluster.start_node(lost, ABC)
        cluster.advance(3.0)
        cluster.apply(b"2")
        self.assertEqual(node.raft.applied_index, 0)

    def flush(self, lost: str) -> list[str]:
        """Return what was logged as an error of *lost*, each line once."""
        from twisted.logger import formatEvent

        return list(
            dict.fromkeys(formatEvent(e) for e in self.events if e.get("peer") == lost)
        )

    def setUp(self) -> None:
        from twisted.logger import globalLogPublisher

        super().setUp()
        self.events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(self.events.append)  # type: ignore[arg-type]
        self.addCleanup(
            globalLogPublisher.removeObserver,
            self.events.append,  # type: ignore[arg-type]
        )


class SetBack(ClusterCase):
    """A member whose disk is an older copy of itself."""

    def set_back(self, cluster: Cluster) -> tuple[str, str]:
        """Set a follower back to before an entry; return it and the other follower."""
        lost, other = (node.address for node in cluster.followers)
        cluster.wait_for_all()
        cluster.advance(1.0)
        copy = deepcopy(cluster.nodes[lost].store)
        cluster.apply(b"2")
        cluster.wait_for_all()
        cluster.advance(1.0)
        cluster.crash(lost)
        cluster._disks[lost] = _Disk(store=copy)
        cluster.start_node(lost)
        cluster.advance(3.0)
        return lost, other

    def test_refused_by_leader_and_followers(self) -> None:
        """Its leader notices what it has forgotten, and everybody refuses it."""
        cluster = self.cluster(3)
        cluster.apply(b"1")

        lost, other = self.set_back(cluster)

        for node in (cluster.leader, cluster.nodes[other]):
            known = decode_known(node.store.get(KNOWN_INCARNATIONS))
            self.assertTrue(known[lost].startswith(VOID))
        self.assertEqual(cluster.leader.raft.stats()["refused_peers"], lost)
        self.assertEqual(cluster.nodes[lost].raft.applied_index, 0)

    def test_elects_nobody(self) -> None:
        """With its vote an entry could be lost that it had acknowledged."""
        cluster = self.cluster(3)
        cluster.apply(b"1")
        self.set_back(cluster)

        cluster.crash(cluster.leader.address)
        cluster.advance(5.0)

        self.assertEqual(cluster.leaders(), [])

    def test_removed_and_added_again(self) -> None:
        """The way back is the one that every new member takes."""
        cluster = self.cluster(3)
        cluster.apply(b"1")
        lost, _ = self.set_back(cluster)
        cluster.result(cluster.leader.raft.remove_peer(lost))
        cluster.wipe(lost)
        cluster.start_node(lost)

        cluster.result(cluster.leader.raft.add_peer(lost))

        cluster.wait_for_all()
        self.assertNotIn("refused_peers", cluster.leader.raft.stats())


class Memory(SynchronousTestCase):
    def setUp(self) -> None:
        self.saved: list[object] = []
        self.incarnations = Incarnations("a", b"A", {}, self.saved.append)
        self.history = ConfigurationHistory(1, Configuration.of_voters(ABC))

    def test_go_peers_have_none(self) -> None:
        """Who sends none is heard, whatever was known."""
        self.assertIsNone(self.incarnations.refuses("b", None, self.history))
        self.assertIsNone(self.incarnations.refuses("b", b"B", self.history))
        self.assertIsNone(self.incarnations.refuses("b", None, self.history))

    def test_strangers_are_not_remembered(self) -> None:
        """Only members take memory."""
        self.assertIsNone(self.incarnations.refuses("x", b"X", self.history))
        self.assertIsNone(self.incarnations.refuses("x", b"Y", self.history))
        self.assertEqual(self.saved, [])

    def test_removal_between_two_looks(self) -> None:
        """Removed and added again in one batch is a new life all the same."""
        self.incarnations.turned(self.history, Ready(commit_index=1))
        self.incarnations.refuses("b", b"B", self.history)
        self.assertIsNotNone(self.incarnations.refuses("b", b"B2", self.history))
        self.history.append(2, Configuration.of_voters(["a", "c"]))
        self.history.append(3, Configuration.of_voters(ABC))

        self.incarnations.turned(self.history, Ready(commit_index=2))
        self.assertIsNotNone(self.incarnations.refuses("b", b"B2", self.history))
        self.incarnations.turned(self.history, Ready(commit_index=3))

        self.assertIsNone(self.incarnations.refuses("b", b"B2", self.history))
        self.assertIsNotNone(self.incarnations.refuses("b", b"B", self.history))

    def test_leader_tells(self) -> None:
        """A follower knows members it never heard; nonsense teaches it nothing."""
        told = encode_known({"b": b"B", "x": b"X", "a": b"other"})
        for lesson in (told, b"\xc1", b"\x01"):
            self.incarnations.learn(lesson, self.history)
        self.assertIsNotNone(self.incarnations.refuses("b", b"B2", self.history))
        self.assertIsNone(self.incarnations.refuses("x", b"X2", self.history))
        self.assertEqual(len(self.saved), 1)

    def test_void(self) -> None:
        """A member that has forgotten is refused, until it is added as a new one."""
        self.incarnations.turned(self.history, Ready(commit_index=1))
        self.incarnations.refuses("b", b"B", self.history)

        for _ in range(2):
            self.incarnations.turned(self.history, Ready(forgetful=["b", "go"]))

        self.assertIsNotNone(self.incarnations.refuses("b", b"B", self.history))
        self.assertEqual(list(self.incarnations.refused), ["b"])
        self.history.append(2, Configuration.of_voters(["a", "c"]))
        self.history.append(3, Configuration.of_voters(ABC))
        self.incarnations.turned(self.history, Ready(commit_index=3))
        self.assertIsNone(self.incarnations.refuses("b", b"B2", self.history))

    def test_leader_tells_who_is_void(self) -> None:
        """Its followers refuse it, too; a later life is not meant."""
        for life, refused in ((b"B", True), (b"B2", False)):
            here = Incarnations("a", b"A", {"b": life}, self.saved.append)

            here.learn(encode_known({"b": VOID + b"B"}), self.history)

            reason = here.refuses("b", life, self.history)
            self.assertEqual(reason is not None, refused)

    def test_own_is_made_once(self) -> None:
        store = InmemStore()
        numbers = iter((b"first", b"second"))
        own, known = read_incarnations(store, lambda size: next(numbers))
        again, _ = read_incarnations(store, lambda size: next(numbers))
        self.assertEqual((own, again, known), (b"first", b"first", {}))

    def test_encoding(self) -> None:
        """Any address comes back as it was; anything else is damage."""
        known = {"b:1": b"B", "\udcff:2": b"\x00" * 16}
        self.assertEqual(decode_known(encode_known(known)), known)
        self.assertEqual(decode_known(b""), {})
        for damaged in (b"\x01", b"\x81", b"\x81\x01\x02", b"\xc1"):
            self.assertRaises(StorageError, decode_known, damaged)
