"""Turns of a node: at once, or together with what else comes."""

from __future__ import annotations

from tests.support.raft_cluster import ClusterCase
from txraft.core.entry import Entry, LogType
from txraft.core.messages import AppendEntriesRequest, Response
from txraft.core.ready import Ready
from txraft.errors import RaftShutdown
from txraft.node.shell import Shell
from txraft.testing import ListFSM, Node
from txraft.wire.entries import encode_new

DISK_SECONDS = 0.02


class Asked:
    """A request that is on no wire, and whether it was answered."""

    body = None
    connection = None

    def __init__(self, command: AppendEntriesRequest) -> None:
        self.command = command
        self.answered = False

    def respond(self, response: Response) -> None:
        self.answered = True

    def fail(self, error: str) -> None:
        self.answered = True


class HookedFSM(ListFSM):
    """Calls `hook` while a command is applied, within the turn."""

    def hook(self) -> None:
        """Do nothing yet."""

    def apply(self, entry: Entry) -> object:
        self.hook()
        return super().apply(entry)


def shell_of(node: Node) -> Shell:
    shell = node.raft._shell
    assert shell is not None, "it takes part"
    return shell


def next_entry(node: Node, leader: str, ahead: int = 1) -> Asked:
    """Make a request of *leader* that brings the entry *ahead* of the log of *node*."""
    raft = node.raft
    entry = Entry(raft.last_index + ahead, raft.term, LogType.COMMAND, b"x")
    encode_new(entry, 3)
    last = raft.last_index + ahead - 1
    return Asked(AppendEntriesRequest(raft.term, leader, last, raft.term, [entry]))


class Turns(ClusterCase):
    """Entries from a leader, at a follower that talks to nobody else meanwhile."""

    def follower(self) -> Node:
        """Return a follower whose disk is idle."""
        self.running = self.cluster(3, disk_seconds=DISK_SECONDS)
        self.running.wait_for_all()
        self.leader = self.running.leader.address
        return next(n for n in self.running.nodes.values() if n.address != self.leader)

    def test_entries_while_the_disk_rests(self) -> None:
        """They are on their way to the disk before the reactor does anything else."""
        follower = self.follower()
        shell = shell_of(follower)
        self.assertTrue(shell.writer.is_idle)

        shell.rpc_received(next_entry(follower, self.leader))

        self.assertFalse(shell.writer.is_idle)

    def test_entries_while_the_disk_works(self) -> None:
        """They wait for what else the reactor has, and share one write with it."""
        follower = self.follower()
        shell = shell_of(follower)
        second = next_entry(follower, self.leader, ahead=2)
        shell.rpc_received(next_entry(follower, self.leader))
        before = follower.raft.last_index

        shell.rpc_received(second)

        self.assertEqual(follower.raft.last_index, before)
        self.running.advance(0)
        self.assertEqual(follower.raft.last_index, before + 1)

    def test_no_turn_within_a_turn(self) -> None:
        """What arrives while a command is applied is not answered from in there."""
        cluster = self.cluster(1, make_fsm=HookedFSM)
        node = cluster.leader
        fsm, shell = node.fsm, shell_of(node)
        assert isinstance(fsm, HookedFSM)
        self.assertGreater(node.raft.term, 1)
        stale = Asked(AppendEntriesRequest(1, "b", 1, 1))
        answered_within: list[bool] = []

        def ask() -> None:
            self.assertTrue(shell.writer.is_idle)
            shell.rpc_received(stale)
            answered_within.append(stale.answered)

        self.patch(fsm, "hook", ask)
        cluster.apply(b"command")

        self.assertEqual(answered_within, [False])
        cluster.advance(0)
        self.assertTrue(stale.answered)

    def test_what_the_answered_propose_goes_out_with_the_same_turn(self) -> None:
        """A command that follows another is written by the turn that applies that."""
        cluster = self.cluster(1, disk_seconds=DISK_SECONDS)
        cluster.advance(5 * DISK_SECONDS)
        raft = cluster.leader.raft
        outcome = self.outcome(
            raft.apply(b"first").addCallback(lambda _: raft.apply(b"second"))
        )
        cluster.clock.advance(0)

        turns: list[list[Entry]] = []
        shell = shell_of(cluster.leader)
        act = shell._act

        def noted(ready: Ready) -> None:
            turns.append(ready.append)
            act(ready)

        self.patch(shell, "_act", noted)
        cluster.clock.advance(DISK_SECONDS)

        self.assertEqual(
            [[e.data for e in entries] for entries in turns], [[b"second"]]
        )
        cluster.advance(DISK_SECONDS)
        self.assertSucceeded(outcome)

    def test_stopped_by_who_is_answered(self) -> None:
        """Nothing is written or sent after that, whatever was proposed before it."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        shell = shell_of(cluster.leader)
        after: list[list[object] | None] = []

        def stop(_: object) -> None:
            after.append(self.outcome(raft.apply(b"too late")))
            self.outcome(raft.shutdown())
            self.patch(shell, "_act", lambda ready: after.append(None))

        self.outcome(raft.apply(b"command").addCallback(stop))
        cluster.advance(0.1)

        [outcome] = after
        self.assertFailedWith(outcome, RaftShutdown)
