"""D4: AppendEntries, as hashicorp/raft's authors wanted to test it.

Crashes between any two writes are in tests/storage (test_recovery, test_stable,
test_snapshots), the paper's rules section by section in tests/core, and whole nodes
under faults in tests/simulation.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    answer_of,
    append,
    candidate,
    log_of,
    server,
    sync,
    terms_of,
)
from tests.support.raft_cluster import ClusterCase, FaultyStore, commands_of
from txraft import (
    AppendEntriesResponse,
    Configuration,
    Log,
    LogType,
    NodeFailed,
    RaftState,
)
from txraft.core.consensus import Consensus
from txraft.core.follower import Follower
from txraft.core.messages import AppendEntriesRequest
from txraft.core.ready import SnapshotMark
from txraft.testing.cluster import FAST, _NodeStores
from txraft.wire.entries import encode_new


def ask(consensus: Consensus, request: AppendEntriesRequest) -> AppendEntriesResponse:
    """Deliver *request* and return the answer to it."""
    consensus.request(request, "reply")
    answer = answer_of(sync(consensus))
    assert isinstance(answer, AppendEntriesResponse)
    return answer


class Terms(SynchronousTestCase):
    def test_term_too_small(self) -> None:
        """D4: refused, naming the newer term; nothing has changed."""
        follower = server(log=log_of(1, 2), term=3)

        answer = ask(follower, append(2, (2, 2), [2]))

        self.assertEqual((answer.success, answer.term), (False, 3))
        self.assertEqual(terms_of(follower), [1, 2])

    def test_term_larger(self) -> None:
        """D4: adopted, and the entries taken."""
        follower = server(log=log_of(1), term=1)

        answer = ask(follower, append(5, (1, 1), [5]))

        self.assertEqual((answer.success, answer.term), (True, 5))
        self.assertEqual((follower.term, terms_of(follower)), (5, [1, 5]))

    def test_equal_term_while_candidate(self) -> None:
        """D4: the candidate follows the leader of its own term."""
        consensus = candidate(term=4, log=log_of(1))
        sync(consensus)

        answer = ask(consensus, append(4, (1, 1), [4]))

        self.assertTrue(answer.success)
        self.assertIsInstance(consensus.role, Follower)
        self.assertEqual((consensus.term, consensus.leader), (4, "b"))


class PreviousEntry(SynchronousTestCase):
    def follower(self) -> Consensus:
        """A server with a snapshot up to 3, and entries 4 to 6 of terms 1, 2, 2."""
        members = Configuration.of_voters("abc")
        mark = SnapshotMark(3, 1, members, 1)
        return server(log=log_of(1, 2, 2, base=(3, 1)), term=2, snapshot=mark)

    def test_within_the_snapshot(self) -> None:
        """D4: what the snapshot covers is committed, so it matches."""
        follower = self.follower()

        answer = ask(follower, append(2, (1, 1), [1, 1, 1, 2, 2]))

        self.assertTrue(answer.success)
        self.assertEqual(terms_of(follower), [1, 2, 2])

    def test_at_the_edge_of_the_snapshot(self) -> None:
        """D4: the last index and term of the snapshot stand for its entry."""
        self.assertTrue(ask(self.follower(), append(2, (3, 1), [1, 2, 2])).success)

    def test_an_entry(self) -> None:
        """D4: index and term decide."""
        self.assertTrue(ask(self.follower(), append(2, (5, 2), [2])).success)
        answer = ask(self.follower(), append(3, (5, 3), [3]))
        self.assertEqual((answer.success, answer.no_retry_backoff), (False, True))

    def test_past_the_end(self) -> None:
        """D4: refused, with the last index as a hint, to be tried again at once."""
        answer = ask(self.follower(), append(2, (9, 2), [2]))

        self.assertEqual(
            (answer.success, answer.last_log, answer.no_retry_backoff),
            (False, 6, True),
        )


class Entries(SynchronousTestCase):
    def follower(self) -> Consensus:
        """A server whose entries 1 to 5 are of terms 1, 1, 2, 2, 2."""
        return server(log=log_of(1, 1, 2, 2, 2), term=3)

    def check(self, prev: tuple[int, int], sent: list[int], result: list[int]) -> None:
        follower = self.follower()
        self.assertTrue(ask(follower, append(3, prev, sent)).success)
        self.assertEqual(terms_of(follower), result)

    def test_all_new(self) -> None:
        """D4: appended."""
        self.check((5, 2), [3, 3], [1, 1, 2, 2, 2, 3, 3])

    def test_all_duplicate(self) -> None:
        """D4, A12.1: a late duplicate of the first entries removes nothing.

        hashicorp/raft cuts the log back to it, committed and applied entries too.
        """
        self.check((0, 0), [1, 1], [1, 1, 2, 2, 2])

    def test_partly_duplicate(self) -> None:
        """D4: only what is new is appended."""
        self.check((3, 2), [2, 2, 3], [1, 1, 2, 2, 2, 3])

    def test_all_conflicting(self) -> None:
        """D4: the log is cut at the first of them."""
        self.check((2, 1), [3, 3], [1, 1, 3, 3])

    def test_duplicate_then_conflicting(self) -> None:
        """D4: cut at the conflict, not before it."""
        self.check((2, 1), [2, 3], [1, 1, 2, 3])

    def test_conflict_with_what_is_committed(self) -> None:
        """D4, A12.1: never cut at or below the commit index."""
        follower = self.follower()
        ask(follower, append(3, (5, 2), [], commit=5))
        self.assertEqual(follower.commit_index, 5)

        follower.request(append(3, (2, 1), [3]), "reply")
        sync(follower)

        self.assertEqual(terms_of(follower), [1, 1, 2, 2, 2])


class CommitIndex(SynchronousTestCase):
    def test_no_further_than_what_was_proven(self) -> None:
        """D4, A12.2: a stale tail is not committed by a leader's commit index."""
        follower = server(log=log_of(1, 1, 2, 2, 2), term=3)

        ask(follower, append(3, (1, 1), [1], commit=5))
        self.assertEqual(follower.commit_index, 2)

        ask(follower, append(3, (2, 1), [3], commit=3))
        self.assertEqual((follower.commit_index, terms_of(follower)), (3, [1, 1, 3]))

    def test_no_further_than_the_leader_says(self) -> None:
        """D4: what is sent beyond it waits."""
        follower = server(log=log_of(1), term=1)

        ask(follower, append(1, (1, 1), [1, 1, 1], commit=2))

        self.assertEqual(follower.commit_index, 2)


class Disks(ClusterCase):
    def test_follower_whose_log_fails(self) -> None:
        """D4: it stops and says why; the others go on."""
        cluster = self.unstarted(3)
        stores = {address: FaultyStore() for address in "abc"}
        for address, store in stores.items():
            cluster._stores[address] = _NodeStores(store=store)
        cluster.start()
        failing = cluster.followers[0]
        stopped = self.outcome(failing.raft.when_stopped())
        stores[failing.address].error = OSError("input/output error")

        cluster.apply(b"one")
        cluster.advance(0.2)

        self.assertIs(failing.raft.state, RaftState.SHUTDOWN)
        self.assertIsInstance(stopped[0], NodeFailed)
        cluster.apply(b"two")
        self.assertEqual(commands_of(cluster.leader), [b"one", b"two"])
        self.assertNotEqual(self.flushLoggedErrors(OSError), [])

    def test_old_style_entries_at_start(self) -> None:
        """D4: a log as hashicorp/raft writes it, memberships of types 2 and 3 and
        no-ops among commands, is replayed.
        """
        cluster = self.unstarted(1)
        store = FaultyStore()
        members = Configuration.of_voters("ab")
        entries = [
            Log(1, 1, LogType.ADD_PEER, configuration=members),
            Log(2, 1, LogType.COMMAND, b"one"),
            Log(3, 1, LogType.REMOVE_PEER, configuration=members.without("b")),
            Log(4, 1, LogType.NOOP),
            Log(5, 1, LogType.COMMAND, b"two"),
            Log(6, 1, LogType.BARRIER),
        ]
        for entry in entries:
            encode_new(entry, 0)
        store.store_logs(entries)
        store.set_uint64(b"CurrentTerm", 1)
        cluster._stores["a"] = _NodeStores(store=store)

        node = cluster.start_node("a")
        cluster.wait_for_leader()
        cluster.apply(b"three")

        self.assertEqual(node.raft.peers(), ["a"])
        self.assertEqual(commands_of(node), [b"one", b"two", b"three"])

    def test_snapshot_of_the_previous_format(self) -> None:
        """D4: a snapshot that lists peers by address only, as version 0 sends it,
        installs in a server of a later version.
        """
        cluster = self.cluster(2, protocol_version=0, trailing_logs=0)
        for command in (b"one", b"two"):
            cluster.apply(command)
        cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.1)
        self.assertEqual(cluster.leader.store.first_index(), 0)
        joining = cluster.start_node("c", config=replace(FAST, protocol_version=1))

        cluster.result(cluster.leader.raft.add_peer("c"))
        cluster.wait_for_all()

        self.assertEqual(len(joining.snapshots.list()), 1)
        self.assertEqual(commands_of(joining), [b"one", b"two"])
        self.assertEqual(joining.raft.peers(), ["a", "b", "c"])
