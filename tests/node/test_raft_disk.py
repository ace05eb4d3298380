"""Disks that fail or stall: nothing leaves a node before it is durable."""

from __future__ import annotations

from typing import Any

from tests.support.raft_cluster import ClusterCase, FaultyStore
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.errors import DataCorrupted, NodeFailed, ShutdownWhileCommitting
from txraft.interfaces import IncomingRPC, RPCHandler
from txraft.node.events import RaftState
from txraft.node.startup import read_hard_state
from txraft.node.worker import MemoryWorker
from txraft.storage.memory import InmemStore
from txraft.testing import Cluster, Node
from txraft.testing.cluster import _NodeStores


def stall(node: Node) -> None:
    """Let no write of *node* come to an end any more."""
    assert isinstance(node.workers.writer, MemoryWorker)
    node.workers.writer._later = lambda call: None


class FailingDisk(ClusterCase):
    def start(self, size: int) -> tuple[Cluster, dict[str, FaultyStore]]:
        cluster = self.unstarted(size, disk_seconds=0.004)
        stores = {}
        for address in "abc"[:size]:
            stores[address] = FaultyStore()
            cluster._stores[address] = _NodeStores(store=stores[address])
        cluster.start()
        return cluster, stores

    def test_failed_write_stops_the_node_and_says_why(self) -> None:
        """It takes no part any more; a retry after a failed sync proves nothing."""
        cluster, stores = self.start(3)
        leader = cluster.leader
        stores[leader.address].error = OSError(5, "input/output error")
        stopped = self.outcome(leader.raft.when_stopped())

        outcome = self.outcome(leader.raft.apply(b"x"))
        behind = self.outcome(leader.raft.snapshot())
        cluster.advance(1)

        error = stopped[0]
        assert isinstance(error, NodeFailed)
        self.assertIn("could not be written", str(error))
        self.assertIn("input/output error", str(error))
        self.assertFailedWith(outcome, ShutdownWhileCommitting)
        self.assertEqual(len(behind), 1)
        self.assertEqual(leader.raft.state, RaftState.SHUTDOWN)
        del cluster.nodes[leader.address]
        cluster.wait_for_leader()
        cluster.apply(b"the others go on")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_failed_last_write_does_not_hang_the_shutdown(self) -> None:
        """`shutdown` fires, and `when_stopped` tells what was not written."""
        cluster, stores = self.start(1)
        raft = cluster.leader.raft
        stores["a"].error = OSError(28, "no space left")
        outcome = self.outcome(raft.apply(b"x"))
        snapshot = self.outcome(raft.snapshot())
        cluster.clock.advance(0)

        stopped = self.outcome(raft.shutdown())
        why = self.outcome(raft.when_stopped())
        cluster.advance(0.5)

        self.assertSucceeded(stopped)
        self.assertIsInstance(why[0], NodeFailed)
        self.assertEqual((len(outcome), len(snapshot)), (1, 1))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_stopping_is_told_before_the_disk_answers(self) -> None:
        """`when_stopping` fires at once, and again for whoever asks later."""
        cluster, _ = self.start(1)
        raft = cluster.leader.raft
        stopping = self.outcome(raft.when_stopping())
        stopped = self.outcome(raft.when_stopped())

        done = self.outcome(raft.shutdown())

        self.assertEqual((stopping, stopped, done), ([None], [], []))
        self.assertEqual(self.outcome(raft.when_stopping()), [None])
        cluster.advance(0.5)
        self.assertEqual((stopping, stopped, len(done)), ([None], [None], 1))

    def test_start_on_a_damaged_disk_fails_and_changes_nothing(self) -> None:
        """`start` fails with what the store found; `shutdown` still works."""
        cluster = self.unstarted(1)
        disk = cluster._stores["a"] = _NodeStores()
        disk.store.store_logs(FailingDisk.some_entries())

        node = cluster.start_node("a", ["a"])
        started = self.outcome(node.started)
        cluster.advance(0.1)

        self.assertFailedWith(started, DataCorrupted)
        self.assertEqual(node.raft.term, 0)
        cluster.result(node.raft.shutdown())

    @staticmethod
    def some_entries() -> list[Any]:
        from tests.node.test_startup import entry

        return [entry(1, 1), entry(2, 1)]


class StallingDisk(ClusterCase):
    def test_leader_whose_disk_stalls_steps_down(self) -> None:
        """Its heartbeats would hide that nothing commits through it."""
        cluster = self.cluster(3)
        old = cluster.leader
        stall(old)

        outcome = self.outcome(old.raft.apply(b"x"))
        cluster.advance(0.1)
        self.assertEqual(old.raft.state, RaftState.LEADER)
        cluster.advance(1)

        self.assertNotEqual(old.raft.state, RaftState.LEADER)
        self.assertEqual(len(outcome), 1)
        others = set(cluster.nodes) - {old.address}
        new = cluster.wait_for_leader(among=others)
        cluster.result(new.raft.apply(b"y"))
        cluster.crash(old.address)

    def test_quorum_commits_without_the_disk_of_the_leader(self) -> None:
        """Writes run beside sending (§10.2.1): two other copies are enough."""
        cluster = self.cluster(3)
        leader = cluster.leader
        stall(leader)

        outcome = self.outcome(leader.raft.apply(b"x"))
        cluster.advance(0.05)

        self.assertSucceeded(outcome)
        cluster.crash(leader.address)

    def test_a_copy_that_is_not_synced_does_not_count(self) -> None:
        """With one follower cut off, nothing commits before the leader's own sync."""
        cluster = self.cluster(3)
        leader = cluster.leader
        cluster.isolate(cluster.followers[0].address)
        stall(leader)

        outcome = self.outcome(leader.raft.apply(b"x"))
        cluster.advance(0.15)
        self.assertEqual(outcome, [])
        cluster.crash(leader.address)


class CheckedRPC:
    """An `IncomingRPC` that checks what the answer claims against the disk."""

    def __init__(self, rpc: IncomingRPC, store: InmemStore, seen: list[str]) -> None:
        self._rpc = rpc
        self._store = store
        self._seen = seen
        self.command = rpc.command
        self.body = rpc.body
        self.connection = rpc.connection

    def respond(self, response: Response) -> None:
        request = self.command
        if isinstance(response, RequestVoteResponse) and response.granted:
            assert isinstance(request, RequestVoteRequest)
            state = read_hard_state(self._store)
            assert (state.term, state.voted_for) == (request.term, request.candidate)
            self._seen.append("vote")
        if isinstance(response, AppendEntriesResponse) and response.success:
            assert isinstance(request, AppendEntriesRequest)
            assert read_hard_state(self._store).term >= response.term
            for entry in request.entries:
                stored = self._store.get_log(entry.index)
                assert stored.term == entry.term, "acknowledged before it was written"
                self._seen.append("entry")
        self._rpc.respond(response)

    def fail(self, error: str) -> None:
        self._rpc.fail(error)


class Checked:
    """Stands between a transport and a node, and checks every answer."""

    def __init__(self, handler: RPCHandler, store: InmemStore, seen: list[str]) -> None:
        self._handler = handler
        self._store = store
        self._seen = seen

    def rpc_received(self, rpc: IncomingRPC) -> None:
        self._handler.rpc_received(CheckedRPC(rpc, self._store, self._seen))

    def connection_closed(self, connection: object) -> None:
        self._handler.connection_closed(connection)


class BeforeItIsDurable(ClusterCase):
    def watch(self, node: Node, seen: list[str]) -> None:
        """Check whatever leaves *node* against what is on its disk then."""
        transport, store = node.transport, node.store
        give_handler, ask = transport.set_handler, transport.request_vote

        def set_handler(handler: RPCHandler) -> None:
            give_handler(Checked(handler, store, seen))

        def request_vote(target: str, request: RequestVoteRequest) -> Any:
            state = read_hard_state(store)
            assert (state.term, state.voted_for) == (request.term, node.address)
            seen.append("request")
            return ask(target, request)

        transport.set_handler = set_handler  # type: ignore[method-assign]
        transport.request_vote = request_vote  # type: ignore[method-assign]

    def test_no_vote_request_vote_or_acknowledgement_leaves_before_its_write(
        self,
    ) -> None:
        """Through elections, commands and a repair: the disk is asked each time."""
        seen: list[str] = []
        for seed in range(3):
            cluster = self.unstarted(3, seed=seed, disk_seconds=0.012)
            for address in "abc":
                self.watch(cluster.start_node(address, "abc"), seen)
            cluster.wait_for_leader()
            for i in range(20):
                self.outcome(cluster.leader.raft.apply(b"%d" % i))
            cluster.advance(0.3)
            cluster.isolate(cluster.leader.address)
            cluster.advance(1)
            cluster.heal()
            cluster.advance(1)
            cluster.apply(b"last")

        for what in ("request", "vote", "entry"):
            self.assertIn(what, seen)
