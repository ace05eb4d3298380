"""The order in which a node that serves HTTP stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.daemon.shutdown import LAST_WORDS_SECONDS, Shutdown
from txraft.embedding.member import TRANSFER_TIMEOUT
from txraft.errors import NodeFailed, RaftError, TransferFailed
from txraft.http.limits import HTTPLimits
from txraft.node.events import RaftState


class Scripted:
    """Raft, a site and its port; what happens to them happens when a test says so."""

    address = "a:1"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.state = RaftState.LEADER
        self.configuration = Configuration.of_voters(["a:1", "b:1"])
        self.handed: Deferred[None] = Deferred()
        self.stopping: Deferred[RaftError | None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.left: list[Deferred[None]] = []
        self.emptied: list[Deferred[None]] = []
        self.closed: Deferred[None] = Deferred()

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        self.calls.append("transfer")
        return self.handed

    def when_stopping(self) -> Deferred[RaftError | None]:
        return self.stopping

    def shutdown(self) -> Deferred[None]:
        self.calls.append("shutdown")
        return self.ended

    def drain(self) -> None:
        self.calls.append("drain")

    def when_left(self) -> Deferred[None]:
        self.calls.append("when left")
        self.left.append(Deferred())
        return self.left[-1]

    def when_empty(self) -> Deferred[None]:
        self.calls.append("when empty")
        self.emptied.append(Deferred())
        return self.emptied[-1]

    def close(self) -> None:
        self.calls.append("close")

    def cut(self) -> None:
        self.calls.append("cut")

    def stopListening(self) -> Deferred[None]:
        self.calls.append("stop listening")
        return self.closed


class ShutdownTests(SynchronousTestCase):
    """A node that stops takes from its clients what they need last of all."""

    limits = HTTPLimits(drain_timeout=10.0)

    def setUp(self) -> None:
        self.clock = Clock()
        self.node = Scripted()

    def begin(self, limits: HTTPLimits | None = None) -> Deferred[None]:
        node = self.node
        self.shutdown = Shutdown(node, node, node, self.clock, limits or self.limits)  # type: ignore[arg-type]
        return Deferred.fromCoroutine(self.shutdown.run())

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps: what waits next begins to."""
        for _ in range(round(seconds / 0.125)):
            self.clock.advance(0.125)

    def calls(self) -> list[str]:
        """Return what was called since the last time."""
        calls, self.node.calls = self.node.calls, []
        return calls

    def test_order(self) -> None:
        """Each step begins when the one before has come to its end."""
        stopped = self.begin()
        self.assertEqual(self.calls(), ["drain", "transfer"])

        self.node.handed.callback(None)
        self.advance(0.125)
        self.assertEqual(self.calls(), ["when left"])

        self.node.left[0].callback(None)
        self.assertEqual(self.calls(), ["stop listening"])

        self.node.closed.callback(None)
        self.assertEqual(self.calls(), ["drain", "when empty"])

        self.node.emptied[0].callback(None)
        self.assertEqual(self.calls(), ["close", "shutdown"])

        self.node.ended.callback(None)
        self.assertEqual(self.calls(), ["when empty"])

        self.node.emptied[1].callback(None)
        self.assertEqual(self.calls(), ["cut"])
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_others(self) -> None:
        """A single node has nobody to hand over to, and serves what is in flight."""
        self.node.configuration = Configuration.of_voters(["a:1"])

        self.begin()
        self.advance(0.125)

        self.assertEqual(self.calls(), ["drain", "when left"])

    def test_follower(self) -> None:
        """One that does not lead has nothing to hand over."""
        self.node.state = RaftState.FOLLOWER

        self.begin()
        self.advance(0.125)

        self.assertEqual(self.calls(), ["drain", "when left"])

    def test_nobody_takes_over(self) -> None:
        """Then it serves its clients as the leader."""
        self.node.handed = fail(TransferFailed("no other voter has answered of late"))

        self.begin()
        self.advance(0.125)

        self.assertEqual(self.calls(), ["drain", "transfer", "when left"])

    def test_handing_over_takes_too_long(self) -> None:
        """It waits for that for a while only."""
        self.begin()

        self.advance(TRANSFER_TIMEOUT + 0.25)

        self.assertEqual(self.calls(), ["drain", "transfer", "when left"])

    def test_deadline(self) -> None:
        """Who does not go in time is told what became of his request, and is cut."""
        self.node.handed = succeed(None)
        self.node.closed = succeed(None)
        stopped = self.begin()
        self.advance(self.limits.drain_timeout - 0.5)
        self.assertEqual(self.calls(), ["drain", "transfer", "when left"])

        self.advance(1.0)
        self.assertEqual(
            self.calls(), ["stop listening", "drain", "when empty", "close", "shutdown"]
        )
        self.node.ended.callback(None)
        self.advance(LAST_WORDS_SECONDS)

        self.assertEqual(self.calls(), ["when empty", "cut"])
        self.successResultOf(stopped)

    def test_no_patience(self) -> None:
        """0 seconds are none: clients are told at once."""
        self.node.handed = succeed(None)
        self.node.closed = succeed(None)

        self.begin(HTTPLimits(drain_timeout=0.0))
        self.advance(0.5)

        self.assertEqual(self.calls()[-2:], ["close", "shutdown"])

    def test_least_wait(self) -> None:
        """Load balancers get the time that they need, though nobody is there."""
        self.node.handed = succeed(None)

        self.begin(HTTPLimits(drain_timeout=10.0, drain_wait=5.0))
        self.advance(4.875)
        self.assertEqual(self.calls(), ["drain", "transfer"])
        self.advance(0.25)

        self.assertEqual(self.calls(), ["when left"])

    def test_least_wait_counts_from_the_beginning(self) -> None:
        """What handing over has taken is a part of it."""
        self.begin(HTTPLimits(drain_timeout=10.0, drain_wait=5.0))
        self.advance(1.0)
        self.node.handed.callback(None)

        self.advance(4.25)

        self.assertEqual(self.calls()[-1:], ["when left"])

    def test_hurry(self) -> None:
        """Whoever asks again does not want to wait."""
        self.node.handed = succeed(None)
        self.node.closed = succeed(None)
        self.begin()
        self.advance(0.125)

        self.shutdown.hurry()
        self.shutdown.hurry()
        self.advance(0.25)

        self.assertEqual(self.calls()[-2:], ["close", "shutdown"])

    def test_raft_stops_by_itself(self) -> None:
        """Then nothing can be served any more."""
        self.node.handed = succeed(None)
        self.node.closed = succeed(None)
        self.begin()
        self.advance(0.125)

        self.node.stopping.callback(NodeFailed("the disk is full"))
        self.advance(0.25)

        self.assertEqual(self.calls()[-2:], ["close", "shutdown"])
