"""A state machine that hangs: it is told, and it does not fill the memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase, commands_of
from txraft.core.entry import Entry
from txraft.node.applier import REPEAT_SECONDS, StuckWatch
from txraft.testing import ListFSM, Node

LIMIT = 10.0
MAX_TAIL_BYTES = 100_000


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.watch = StuckWatch("a", LIMIT)
        self.now = 0.0
        self.told: list[Any] = []
        globalLogPublisher.addObserver(self.told.append)  # type: ignore[arg-type]
        self.addCleanup(
            globalLogPublisher.removeObserver,
            self.told.append,  # type: ignore[arg-type]
        )

    def look(self, seconds: float, applied: int = 4, backlog: int = 3) -> None:
        """Look ten times a second for so long."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.watch.look(self.now, applied, backlog)

    def test_told_once_and_then_at_growing_intervals(self) -> None:
        """With the entry that it hangs at."""
        self.look(LIMIT - 0.5)
        self.assertEqual((self.watch.seconds, self.told), (0.0, []))

        self.look(1)
        self.assertEqual([event["index"] for event in self.told], [5])
        self.assertGreaterEqual(self.watch.seconds, LIMIT)
        self.look(REPEAT_SECONDS - 2)
        self.assertEqual(len(self.told), 1)
        self.look(3)
        self.assertEqual(len(self.told), 2)
        self.look(2 * REPEAT_SECONDS - 4)

        self.assertEqual(len(self.told), 2)

    def test_told_when_it_goes_on(self) -> None:
        """And it is not stuck any more."""
        self.look(LIMIT + 1)
        self.look(0.1, applied=5, backlog=2)

        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.watch.seconds, 0.0)

    def test_neither_rest_nor_slowness_is_told(self) -> None:
        """Nothing to do, or one entry now and then."""
        self.look(3 * LIMIT, backlog=0)
        for applied in range(5, 9):
            self.look(LIMIT - 1, applied)

        self.assertEqual(self.told, [])

    def test_a_process_that_was_paused_is_not_stuck(self) -> None:
        """The time in which it did not run does not count."""
        self.look(1)
        self.now += 3 * LIMIT
        self.look(1)

        self.assertEqual((self.watch.seconds, self.told), (0.0, []))


class HangingFSM(ListFSM):
    """Hangs when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.gate: Deferred[object] | None = None

    def apply(self, log: Entry) -> object:
        super().apply(log)
        if self.hangs and self.gate is None:
            self.gate = Deferred()
            return self.gate
        return None


class Hanging(ClusterCase):
    def held_bytes(self, node: Node) -> int:
        """Return how many bytes of entries the memory of *node* holds."""
        shell = node.raft._shell
        assert shell is not None
        entries = shell.tail.slice(shell.tail.first, shell.tail.last) or []
        return sum(len(entry.encoded) for entry in entries)

    def test_a_follower_that_hangs_keeps_to_its_bound_and_catches_up(self) -> None:
        """What it has not applied is read back from its disk, in order."""
        cluster = self.cluster(
            3, HangingFSM, max_tail_bytes=MAX_TAIL_BYTES, stuck_timeout=0.5
        )
        follower = cluster.followers[0]
        assert isinstance(follower.fsm, HangingFSM)
        follower.fsm.hangs = True
        commands = [b"%04d" % number + bytes(1000) for number in range(400)]
        for command in commands:
            cluster.apply(command)
            self.assertLess(self.held_bytes(follower), MAX_TAIL_BYTES)
        cluster.advance(1)
        self.assertGreater(float(follower.raft.stats()["fsm_stuck_seconds"]), 0.5)
        self.assertGreater(follower.raft.metrics().stuck_seconds, 0.5)
        self.assertNotIn("fsm_stuck_seconds", cluster.leader.raft.stats())

        assert follower.fsm.gate is not None
        follower.fsm.gate.callback(None)
        cluster.wait_for_all()
        cluster.advance(0.1)

        self.assertEqual(commands_of(follower), commands)
        self.assertEqual(follower.raft.metrics().stuck_seconds, 0.0)
