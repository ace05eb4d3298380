"""A command that no member can apply, and the way out of it."""

from __future__ import annotations

from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import ConfigurationRefused, SkipRefused, StorageError
from txraft.node.events import RaftState
from txraft.node.skipping import (
    MAX_SKIPPED,
    SKIPPED,
    FailedRun,
    SkippedEntry,
    Skips,
    decode_skips,
    encode_skips,
    noted_failure,
    noted_skips,
    read_failure,
    read_skips,
    skip_entry,
)
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.testing import Cluster, ListFSM
from txraft.testing.cluster import ListSnapshot
from txraft.wire.entries import encode_new

POISON = b"poison"
DIGEST = sha256(POISON).hexdigest()


class FragileFSM(ListFSM):
    """Fails at one command."""

    def apply(self, log: Entry) -> object:
        if log.data == POISON:
            raise ZeroDivisionError
        return super().apply(log)


class FragileBatchFSM(FragileFSM):
    """Fails somewhere in a batch."""

    def apply_batch(self, logs: list[Entry]) -> list[object]:
        return [self.apply(log) for log in logs]


def command(index: int, data: bytes = b"x", term: int = 1) -> Entry:
    entry = Entry(index, term, LogType.COMMAND, data)
    encode_new(entry)
    return entry


class SkipEntry(SynchronousTestCase):
    """`skip_entry`, on a node that has stopped at entry 4."""

    def setUp(self) -> None:
        self.store = InmemStore()
        self.snapshots = InmemSnapshotStore()
        self.log = [
            command(1),
            Entry(2, 1, LogType.NOOP),
            command(3),
            command(4, POISON, 2),
            command(5, b"y", 2),
        ]
        encode_new(self.log[1])
        self.store.store_logs(self.log)
        self.fail_at(4)

    def fail_at(self, first: int, last: int | None = None) -> None:
        failed = self.log[first - 1 : last or first]
        self.store.set_many(noted_failure(failed))

    def skip_it(
        self, index: int = 4, term: int = 2, digest: str = DIGEST
    ) -> SkippedEntry:
        return skip_entry(self.store, self.store, self.snapshots, index, term, digest)

    def refusal(self, *named: object) -> str:
        before = read_skips(self.store)
        error = self.assertRaises(SkipRefused, self.skip_it, *named)
        self.assertEqual(read_skips(self.store), before)
        return str(error)

    def test_skip(self) -> None:
        """It is on record then; the same again changes nothing."""
        for digest in (DIGEST, DIGEST[:16].upper()):
            skipped = self.skip_it(4, 2, digest)

            self.assertEqual(str(skipped), f"4:2:{DIGEST[:16]}")
            self.assertEqual(read_skips(self.store), [skipped])

    def test_entry_that_is_not_known_to_be_committed(self) -> None:
        """Neither behind the one at which the node stopped, nor if it never did."""
        digest = sha256(b"y").hexdigest()
        self.assertIn("not known to be committed", self.refusal(5, 2, digest))

        self.store.set_many(dict.fromkeys(noted_failure(self.log), b""))
        self.assertIn("start this node", self.refusal())

    def test_log_that_was_replaced(self) -> None:
        """What the note speaks of must be the log that is there."""
        self.store.delete_range(4, 5)
        self.assertIn("no entry 4", self.refusal())

        self.store.store_log(command(4, POISON, 3))
        self.assertIn("not known to be committed", self.refusal(4, 3, DIGEST))

    def test_entry_that_was_applied(self) -> None:
        """What is before it has had its effect here."""
        digest = sha256(b"x").hexdigest()

        self.assertIn("entry 3 was applied here", self.refusal(3, 1, digest))

    def test_another_entry_than_is_meant(self) -> None:
        """Index, term and digest must all be of the same command."""
        self.assertIn("is of term 2, not 1", self.refusal(4, 1, DIGEST))
        for digest in ("", DIGEST[:15], sha256(b"y").hexdigest(), DIGEST + "0"):
            self.assertIn(f"is {DIGEST}, of which", self.refusal(4, 2, digest))
        self.assertIn("is a NOOP", self.refusal(2, 1, sha256().hexdigest()))
        for index in (0, 6):
            self.assertIn(f"no entry {index}", self.refusal(index, 2, DIGEST))

    def test_snapshot_that_covers_it(self) -> None:
        """What it did may be in there."""
        self.snapshots.create(4, 2, Configuration(), 0).close()

        self.assertIn("a snapshot covers entry 4", self.refusal())

    def test_one_of_a_batch(self) -> None:
        """Which one has failed is to be found out first."""
        self.fail_at(4, 5)

        self.assertEqual(read_failure(self.store), FailedRun(4, 5, 2))
        self.assertIn("start it once more", self.refusal())

    def test_bound(self) -> None:
        """The record has a most."""
        many = [SkippedEntry(i, 1, bytes(32)) for i in range(100, 100 + MAX_SKIPPED)]
        self.store.set_many(noted_skips(many))

        self.assertIn("1000 entries are skipped", self.refusal())


class Records(SynchronousTestCase):
    """What is stored and sent of skipped entries."""

    def test_malformed(self) -> None:
        """It is refused with a sentence, in whatever way it is broken."""
        one = encode_skips([SkippedEntry(1, 1, bytes(32))])
        for data in (
            b"\xc1",
            one[:-1],
            one + b"\x00",
            b"\x01",
            b"\x91\x01",
            encode_skips([SkippedEntry(0, 1, bytes(32))]),
            encode_skips([SkippedEntry(1, 1, bytes(31))]),
            encode_skips([SkippedEntry(1, 1, bytes(32))] * (MAX_SKIPPED + 1)),
        ):
            self.assertRaises(StorageError, decode_skips, data)
        self.assertEqual(decode_skips(one), [SkippedEntry(1, 1, bytes(32))])
        self.assertEqual(decode_skips(b""), [])


class Around(SynchronousTestCase):
    """`Skips`, while the node runs."""

    def setUp(self) -> None:
        self.poison = command(4, POISON, 2)
        self.named = SkippedEntry(4, 2, sha256(POISON).digest())

    def test_around(self) -> None:
        """A barrier stands in the place of the entry that is named."""
        other = command(5)

        entries = Skips("a", [self.named]).around([self.poison, other])

        self.assertEqual(entries[0], Entry(4, 2, LogType.BARRIER))
        self.assertIs(entries[1], other)

    def test_another_entry_in_its_place(self) -> None:
        """Where index, term or digest differ nothing is skipped."""
        skips = Skips("a", [self.named])
        for entry in (command(4, POISON, 3), command(4, b"x", 2)):
            self.assertIs(skips.around([entry])[0], entry)

    def test_inherit(self) -> None:
        """Up to the end of a snapshot it is what its sender has skipped."""
        digest = bytes(32)
        own = [SkippedEntry(index, 1, digest) for index in (3, 9)]
        sender = Skips("b", [SkippedEntry(index, 1, digest) for index in (4, 5, 8)])
        skips = Skips("a", own)

        values = skips.inherit(sender.encoded_up_to(5), 5)

        self.assertEqual([each.index for each in skips.skipped], [4, 5, 9])
        self.assertEqual(decode_skips(values[SKIPPED]), skips.skipped)
        self.assertEqual(skips.inherit(sender.encoded_up_to(5), 5), {})
        self.assertEqual(skips.inherit(b"nonsense", 5), {})
        self.assertEqual(Skips("c").inherit(b"", 5), {})


class Poison(ClusterCase):
    """A command that stops every member, skipped by each."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.flushLoggedErrors, ZeroDivisionError)

    def stopped(self, cluster: Cluster) -> list[str]:
        """Return the nodes that have stopped, once they have closed all."""
        nodes = cluster.nodes.values()
        stopped = [n for n in nodes if n.raft.state is RaftState.SHUTDOWN]
        for node in stopped:
            cluster.result(node.raft.when_stopped())
        return [node.address for node in stopped]

    def why(self, cluster: Cluster, address: str) -> str:
        """Return why the node at *address* has stopped."""
        return str(cluster.result(cluster.nodes[address].raft.when_stopped()))

    def skip_it(self, cluster: Cluster, address: str, index: int) -> SkippedEntry:
        """Have the stopped node at *address* skip the poison, and start it."""
        node = cluster.nodes[address]
        term = node.store.get_log(index).term
        skipped = skip_entry(
            node.store, node.store, node.snapshots, index, term, DIGEST
        )
        cluster.restart(address)
        return skipped

    def poisoned(self) -> tuple[Cluster, int]:
        """Make a cluster in which two of three have stopped at an entry, and it."""
        cluster = self.cluster(3, FragileFSM)
        cluster.apply(b"before")
        cluster.wait_for_all()
        self.outcome(cluster.leader.raft.apply(POISON))
        cluster.wait_until(lambda: len(self.stopped(cluster)) == 2, 60)
        return cluster, read_failure(cluster.nodes[self.stopped(cluster)[0]].store).last

    def add(self, cluster: Cluster, address: str) -> None:
        """Add a server, once the leader has cut its log behind what it skips."""
        leader = cluster.leader
        cluster.wait_until(lambda: leader.store.first_index() > 1)
        if address not in cluster.nodes:
            cluster.start_node(address)
        cluster.result(leader.raft.add_peer(address))

    def test_skipped_by_all(self) -> None:
        """All are equal, and a server that joins later never gets the entry."""
        cluster, index = self.poisoned()
        for address in self.stopped(cluster):
            self.assertIn(
                f"COMMAND, 6 bytes, digest {DIGEST}", self.why(cluster, address)
            )
            self.skip_it(cluster, address, index)

        # The third learns that it is committed, and stops at it in its turn.
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        [third] = self.stopped(cluster)
        skipped = self.skip_it(cluster, third, index)
        cluster.wait_for_leader()
        cluster.apply(b"after")
        self.add(cluster, "d")
        cluster.wait_for_all()

        self.assertSameState(cluster, [b"before", b"after"])
        self.assertEqual(
            [n.raft.stats()["skipped_entries"] for n in cluster.nodes.values()],
            [str(skipped)] * 4,
        )
        for node in cluster.nodes.values():
            self.assertGreaterEqual(node.snapshots.list()[0].index, index)
            self.assertGreater(node.store.first_index(), index)

    def test_record_after_a_restart(self) -> None:
        """What is skipped, or came with a snapshot, stays on record."""
        cluster, index = self.poisoned()
        for address in self.stopped(cluster):
            self.skip_it(cluster, address, index)
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        [third] = self.stopped(cluster)
        cluster.wipe(third)
        cluster.wait_for_leader()
        cluster.result(cluster.leader.raft.remove_peer(third))
        self.add(cluster, "d")
        cluster.wait_for_all()
        for address in list(cluster.nodes):
            cluster.restart(address)
        cluster.wait_for_leader()

        self.assertSameState(cluster, [b"before"])
        records = {str(read_skips(n.store)) for n in cluster.nodes.values()}
        self.assertEqual(len(records), 1)
        self.assertIn(f"index={index}", records.pop())

    def test_newcomer_before_the_snapshot(self) -> None:
        """It is not added: it would get the entry, and stop."""
        cluster = self.cluster(1, FragileFSM)
        self.outcome(cluster.leader.raft.apply(POISON))
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        index = read_failure(cluster.nodes["a"].store).last
        cluster.slow_snapshots("a", 1.0)
        self.skip_it(cluster, "a", index)
        leader = cluster.wait_for_leader()
        cluster.wait_until(lambda: leader.raft.applied_index > index)

        cluster.start_node("b")
        error = self.assertRaises(
            ConfigurationRefused, cluster.result, leader.raft.add_peer("b")
        )
        self.assertIn(f"entry {index} is skipped here, and b would get it", str(error))
        self.add(cluster, "b")

        self.assertSameState(cluster, [])

    def test_member_that_has_it_to_come(self) -> None:
        """One that has not stopped at it must not skip it: it may never commit."""
        cluster, index = self.poisoned()
        stopped = self.stopped(cluster)
        [third] = [a for a in cluster.nodes if a not in stopped]
        cluster.crash(third)
        disk = cluster.start_node(third)

        self.assertRaises(
            SkipRefused,
            skip_entry,
            disk.store,
            disk.store,
            disk.snapshots,
            index,
            disk.store.get_log(index).term,
            DIGEST,
        )

    def test_batch(self) -> None:
        """Which one of a batch it was is found out by the next start."""
        cluster = self.cluster(1, FragileBatchFSM)
        for data in (b"1", POISON, b"2"):
            self.outcome(cluster.leader.raft.apply(data))
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        self.assertIn("one of the entries", self.why(cluster, "a"))
        index = read_failure(cluster.nodes["a"].store).first + 1
        self.assertRaises(SkipRefused, self.skip_it, cluster, "a", index)

        cluster.restart("a")
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        self.assertIn(f"entry {index} (term", self.why(cluster, "a"))
        self.skip_it(cluster, "a", index)
        cluster.wait_for_leader()

        self.assertSameState(cluster, [b"1", b"2"])

    def test_snapshot_that_fails(self) -> None:
        """It is tried again with the next regular check, not at every tick."""
        tries: list[int] = []

        class UnwritableFSM(FragileFSM):
            def snapshot(self) -> ListSnapshot:
                tries.append(len(self.commands))
                if len(tries) < 3:
                    raise ZeroDivisionError
                return super().snapshot()

        cluster = self.cluster(1, UnwritableFSM, snapshot_interval=2.0)
        self.outcome(cluster.leader.raft.apply(POISON))
        cluster.wait_until(lambda: bool(self.stopped(cluster)))
        index = read_failure(cluster.nodes["a"].store).last

        self.skip_it(cluster, "a", index)
        cluster.wait_for_leader()
        cluster.advance(1.0)
        self.assertEqual(len(tries), 1)
        cluster.wait_until(lambda: bool(cluster.nodes["a"].snapshots.list()), 30)

        self.assertEqual(len(tries), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
