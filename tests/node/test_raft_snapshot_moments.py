"""The moment of a snapshot: the state machine is where the applied index says."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from tests.support.raft_cluster import ClusterCase
from txraft.core.entry import Entry
from txraft.errors import RaftShutdown
from txraft.interfaces import SnapshotMeta
from txraft.testing import Cluster, ListFSM


class SlowFSM(ListFSM):
    """Does what a command says, and answers for some commands when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[object]] = []

    def apply(self, log: Entry) -> object:
        result = super().apply(log)
        if not (log.data or b"").startswith(b"slow"):
            return result
        self.waiting.append(Deferred())
        return self.waiting[-1]


class BatchFSM(SlowFSM):
    """Takes whatever is there at once, up to a command that it is slow to answer."""

    def apply_batch(self, logs: Sequence[Entry]) -> list[object]:
        answers: list[object] = []
        for log in logs:
            answers.append(self.apply(log))
            if isinstance(answers[-1], Deferred):
                break
        return answers


class Moments(ClusterCase):
    """A command is in a snapshot, or behind it; never both, or a restart does it twice.

    Source: the contract of `FSM.snapshot`.
    """

    def assertHolds(self, cluster: Cluster, meta: SnapshotMeta, count: int) -> None:
        """The snapshot holds *count* commands, and the index of the last of them."""
        restarted = cluster.restart("a")
        cluster.advance(0.1)
        fsm = restarted.fsm
        assert isinstance(fsm, ListFSM)
        self.assertEqual(len(fsm.commands), count)
        self.assertEqual(len(set(fsm.commands)), count)

    def test_snapshot_waits_for_a_command_that_is_half_done(self) -> None:
        """The state has it already, the applied index has not."""
        cluster = self.cluster(1, make_fsm=SlowFSM, trailing_logs=0)
        raft, fsm = cluster.leader.raft, cluster.leader.fsm
        assert isinstance(fsm, SlowFSM)
        cluster.apply(b"one")
        self.outcome(raft.apply(b"slow two"))
        cluster.advance(0.1)

        taken = self.outcome(raft.snapshot())
        cluster.advance(0.1)

        self.assertEqual((fsm.commands, taken), ([b"one", b"slow two"], []))
        fsm.waiting.pop().callback(None)
        cluster.advance(0.1)
        [meta] = taken
        assert isinstance(meta, SnapshotMeta)
        self.assertEqual(meta.index, raft.applied_index)
        self.assertHolds(cluster, meta, 2)

    def test_snapshot_within_a_batch(self) -> None:
        """A caller that hears of a command asks for one while the batch goes on."""
        cluster = self.cluster(1, make_fsm=BatchFSM, trailing_logs=0)
        raft, fsm, taken = cluster.leader.raft, cluster.leader.fsm, []
        assert isinstance(fsm, BatchFSM)
        first = raft.apply(b"one")
        first.addCallback(lambda _: taken.append(self.outcome(raft.snapshot())))
        self.outcome(raft.apply(b"slow two"))
        cluster.advance(0.2)
        self.assertEqual((fsm.commands, taken), ([b"one", b"slow two"], [[]]))

        fsm.waiting.pop().callback(None)
        cluster.advance(0.2)

        [[meta]] = taken
        assert isinstance(meta, SnapshotMeta)
        self.assertEqual(meta.index, raft.applied_index)
        self.assertHolds(cluster, meta, 2)

    def test_shutdown_while_a_snapshot_waits(self) -> None:
        """It fails, though the state machine never answers."""
        cluster = self.cluster(1, make_fsm=SlowFSM)
        raft = cluster.leader.raft
        cluster.apply(b"one")
        self.outcome(raft.apply(b"slow two"))
        cluster.advance(0.1)
        taken = self.outcome(raft.snapshot())

        raft.shutdown()
        cluster.advance(0.1)

        self.assertFailedWith(taken, RaftShutdown)

    def test_commands_go_on_behind_a_snapshot(self) -> None:
        """The state machine is left alone for no longer than it takes to capture."""
        cluster = self.cluster(1, make_fsm=SlowFSM, disk_seconds=0.05)
        raft, fsm = cluster.leader.raft, cluster.leader.fsm
        assert isinstance(fsm, SlowFSM)
        self.outcome(raft.apply(b"slow one"))
        later = self.outcome(raft.apply(b"two"))
        cluster.advance(0.2)
        taken = self.outcome(raft.snapshot())

        fsm.waiting.pop().callback(None)

        self.assertEqual(fsm.commands, [b"slow one", b"two"])
        self.assertEqual(len(later), 1)
        cluster.advance(0.5)
        self.assertEqual(len(taken), 1)
