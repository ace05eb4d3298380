"""Members that come back under their old name without their data."""

from __future__ import annotations

from copy import deepcopy

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import server, settled_leader
from tests.support.raft_cluster import ClusterCase
from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.entry import Entry, LogType
from txraft.core.messages import AppendEntriesRequest, Header
from txraft.core.ready import Ready
from txraft.errors import StorageError
from txraft.node.incarnations import (
    KNOWN_INCARNATIONS,
    VOID,
    Incarnations,
    decode_known,
    encode_known,
    pardon_all,
    read_incarnations,
    read_pardoned,
)
from txraft.storage.memory import InmemStore
from txraft.testing import Cluster
from txraft.testing.cluster import _NodeStores
from txraft.transport.inmem import InmemTransport
from txraft.wire.decisions import encode_void, voided_incarnation

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

    def test_wiped_first_member_is_refused(self) -> None:
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
        cluster._stores[lost] = _NodeStores(store=copy)
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
        self.incarnations.after_turn(self.history, Ready(commit_index=1))
        self.incarnations.refuses("b", b"B", self.history)
        self.assertIsNotNone(self.incarnations.refuses("b", b"B2", self.history))
        self.history.append(2, Configuration.of_voters(["a", "c"]))
        self.history.append(3, Configuration.of_voters(ABC))

        self.incarnations.after_turn(self.history, Ready(commit_index=2))
        self.assertIsNotNone(self.incarnations.refuses("b", b"B2", self.history))
        self.incarnations.after_turn(self.history, Ready(commit_index=3))

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

    def test_leader_tells_nothing_else(self) -> None:
        """What is known stays: nobody can void a life, or change it, by a message."""
        for told in (VOID + b"B", b"B2", b"", b"x" * 10_000):
            self.incarnations.refuses("b", b"B", self.history)
            self.incarnations.learn(encode_known({"b": told}), self.history)
            self.assertIsNone(self.incarnations.refuses("b", b"B", self.history))

    def test_leader_tells_what_is_void_to_who_is_new(self) -> None:
        """Who got a snapshot in place of the entry that says so learns it as well."""
        self.incarnations.learn(encode_known({"b": VOID + b"B"}), self.history)
        self.assertIsNotNone(self.incarnations.refuses("b", b"B", self.history))

    def test_long_ones_are_not_heard(self) -> None:
        """They would be kept, and sent with every heartbeat."""
        long = b"B" * 65
        self.assertIsNotNone(self.incarnations.refuses("b", long, self.history))
        self.incarnations.learn(encode_known({"b": VOID + long}), self.history)
        self.assertEqual(self.saved, [])


class Voids(SynchronousTestCase):
    """Lives that are declared void by an entry."""

    def setUp(self) -> None:
        self.saved: list[object] = []
        self.history = ConfigurationHistory(1, Configuration.of_voters(ABC))
        self.incarnations = Incarnations("a", b"A", {"b": b"B"}, self.saved.append)

    def refuses(self, incarnation: bytes) -> bool:
        refusal = self.incarnations.refuses("b", incarnation, self.history)
        return refusal is not None

    def void(self, index: int, incarnation: bytes = b"B", peer: str = "b") -> None:
        data = encode_void(peer, incarnation)
        entry = Entry(index, 1, LogType.NOOP, data)
        self.incarnations.applied(entry, self.history)

    def readd(self, index: int) -> None:
        """Remove b by the entry at *index*, and add it again by the next one."""
        self.history.append(index, Configuration.of_voters(["a", "c"]))
        self.history.append(index + 1, Configuration.of_voters(ABC))

    def test_leader_refuses_at_once(self) -> None:
        """What a member that has forgotten says next must not count for the entry."""
        self.incarnations.after_turn(self.history, Ready(forgetful=["b", "go"]))

        self.assertTrue(self.refuses(b"B"))
        self.assertEqual(list(self.incarnations.refused), ["b"])
        self.assertEqual(self.saved, [], "it is void when that is committed")

    def test_leader_appends_it(self) -> None:
        """Once in a term; who does not lead appends nothing."""
        self.incarnations.after_turn(self.history, Ready(forgetful=["b"]))
        follower, first, second = server(), settled_leader(1), settled_leader(2)

        for consensus in (follower, first, first, second):
            self.incarnations.propose(consensus)

        self.assertEqual(follower.coming.append, [])
        for consensus in (first, second):
            [entry] = consensus.coming.append
            self.assertEqual(entry.type, LogType.NOOP)
            self.assertEqual(voided_incarnation(entry.data or b""), ("b", b"B"))

    def test_committed(self) -> None:
        """Everybody refuses it, also after a restart; a later life is not meant."""
        self.void(5)
        self.assertTrue(self.refuses(b"B"))
        [stored] = self.saved
        self.assertEqual(stored, {KNOWN_INCARNATIONS: encode_known({"b": VOID + b"B"})})

        other = Incarnations("c", b"C", {"b": b"B2"}, self.saved.append)
        entry = Entry(5, 1, LogType.NOOP, encode_void("b", b"B"))
        other.applied(entry, self.history)
        self.assertIsNone(other.refuses("b", b"B2", self.history))

    def test_unknown_life(self) -> None:
        """A member that never heard it refuses it, too."""
        self.incarnations = Incarnations("a", b"A", {}, self.saved.append)
        self.void(5)
        self.assertTrue(self.refuses(b"B"))

    def test_said_again_to_who_has_missed_it(self) -> None:
        """A snapshot may have covered the entry: each leader says it anew."""
        self.void(5)
        leader = settled_leader(3)
        self.incarnations.propose(leader)
        self.assertEqual(len(leader.coming.append), 1)

    def test_removed_and_added_again(self) -> None:
        """A new life is heard, and no replay of the log takes it for the old one."""
        self.void(5)
        self.readd(6)
        self.incarnations.after_turn(self.history, Ready(commit_index=7))
        self.assertFalse(self.refuses(b"B2"))

        self.void(5)
        self.assertFalse(self.refuses(b"B2"))
        self.incarnations = Incarnations(
            "a", b"A", {}, self.saved.append, seen_membership=7
        )
        self.void(5)
        self.assertFalse(self.refuses(b"B2"))

    def test_added_again_and_void_in_one_batch(self) -> None:
        """The new life is what the later entry means: it is not forgotten again."""
        self.readd(6)
        self.void(8)
        self.incarnations.after_turn(self.history, Ready(commit_index=8))
        self.assertTrue(self.refuses(b"B"))

    def test_not_itself(self) -> None:
        """A node does not judge its own life: others do not hear it, that is enough."""
        self.void(5, b"A", "a")
        self.assertEqual(self.saved, [])

    def test_other_data(self) -> None:
        """What is no such decision is skipped."""
        good = encode_void("b", b"B")
        for data in (b"", good[:-1], good[:12], b"txraft-void:", b"x"):
            self.incarnations.applied(Entry(5, 1, LogType.NOOP, data), self.history)
        self.assertEqual(self.saved, [])
        self.assertFalse(self.refuses(b"B"))

    def test_pardon(self) -> None:
        """An operator can have all lives learned anew, on a stopped node."""
        store = InmemStore()
        store.set_many({KNOWN_INCARNATIONS: encode_known({"b": VOID + b"B"})})

        pardon_all(store, 7)

        own, known = read_incarnations(store, bytes)
        self.incarnations = Incarnations(
            "a",
            own,
            known,
            self.saved.append,
            seen_membership=1,
            pardoned=read_pardoned(store),
        )
        self.void(7)
        self.assertFalse(self.refuses(b"B"))
        self.void(8)
        self.assertTrue(self.refuses(b"B"))


class Told(ClusterCase):
    """What strangers say of members, by requests that pass for a leader's."""

    def say(
        self, cluster: Cluster, to: str, term: int, identity: bytes | None = None
    ) -> None:
        """Have *to* get a heartbeat that tells that all members' lives are void."""
        lives = {}
        for node in cluster.nodes.values():
            shell = node.raft._shell
            assert shell is not None
            lives[node.address] = VOID + (shell.incarnations.own or b"")
        header = Header(3, known=encode_known(lives), cluster=identity)
        stranger = InmemTransport(cluster.clock, "stranger")
        stranger.connect(to, cluster.nodes[to].transport)
        request = AppendEntriesRequest(term, "stranger", header=header)
        stranger.append_entries(to, request).addErrback(lambda _: None)
        cluster.advance(0)

    def test_nothing_is_void(self) -> None:
        """Nobody can keep members from hearing each other, whatever term they name."""
        cluster = self.cluster(3)
        cluster.apply(b"1")
        cluster.wait_for_all()
        cluster.advance(1.0)
        term = cluster.leader.raft.term
        for address in ABC:
            for told in (0, term - 1, term, term + 1):
                self.say(cluster, address, told)
        cluster.advance(1.0)
        for address in ABC:
            cluster.restart(address)
            cluster.wait_for_leader()

        cluster.apply(b"2")

        self.assertSameState(cluster, [b"1", b"2"])
        for node in cluster.nodes.values():
            self.assertNotIn("refused_peers", node.raft.stats())

    def test_only_the_leader_is_heard(self) -> None:
        """Of who is not followed nothing is learned, not even what is unknown."""
        cluster = self.cluster(3)
        cluster.advance(1.0)
        here = cluster.followers[0]
        shell = here.raft._shell
        assert shell is not None
        term = here.raft.term
        shell.incarnations.forget_all()

        self.say(cluster, here.address, term - 1)
        self.say(cluster, here.address, term, b"another one 1234")
        self.assertEqual(decode_known(here.store.get(KNOWN_INCARNATIONS)), {})

        cluster.advance(0.5)
        known = decode_known(here.store.get(KNOWN_INCARNATIONS))
        self.assertEqual(set(known), set(ABC) - {here.address})


class Repair(ClusterCase):
    """Members that all refuse each other, though none has lost anything."""

    def test_learned_anew(self) -> None:
        """Pardoned on their stopped nodes they find together again, for good."""
        cluster = self.cluster(3)
        cluster.apply(b"1")
        cluster.wait_for_all()
        cluster.advance(1.0)
        for address in ABC:
            cluster.crash(address)
            store = cluster._stores[address].store
            known = decode_known(store.get(KNOWN_INCARNATIONS))
            void = {peer: VOID + each for peer, each in known.items()}
            store.set_many({KNOWN_INCARNATIONS: encode_known(void)})
        for address in ABC:
            cluster.start_node(address)
        cluster.advance(3.0)
        self.assertEqual(cluster.leaders(), [])

        for address in ABC:
            cluster.crash(address)
            store = cluster._stores[address].store
            pardon_all(store, store.last_index())
        for address in ABC:
            cluster.start_node(address)

        cluster.wait_for_leader()
        cluster.apply(b"2")
        self.assertSameState(cluster, [b"1", b"2"])
        self.assertNotIn("refused_peers", cluster.leader.raft.stats())


class Own(SynchronousTestCase):
    """A node's own incarnation, and the encoding of what it knows."""

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
