"""Tests of `Node`: the order of start and stop, commands, reads and ends."""

from __future__ import annotations

import gc
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.support.forgery import Forge
from tests.support.memory_host import MemoryNode, NodeCase
from txraft.errors import (
    ConfigError,
    NodeFailed,
    NodeRemoved,
    NotLeader,
    RaftShutdown,
    StorageError,
)
from txraft.interfaces import FSM
from txraft.node.events import RaftState
from txraft.testing.cluster import ListFSM

OPENED = ["lock", "listen", "stores"]
CLOSED = ["transport closed", "stores closed", "unlock"]


class Starts(NodeCase):
    """`Node.start`."""

    def test_start_opens_in_order(self) -> None:
        """The lock comes before the files, and the port before what may take long."""
        node = self.nodes[0]

        started = node.start()
        self.settle()

        self.successResultOf(started)
        self.assertEqual(node.host.events, OPENED)

    def test_start_needs_no_leader(self) -> None:
        """One of three takes part, and waits for the others."""
        node = self.nodes[0]

        started = node.start()
        self.settle()

        self.successResultOf(started)
        self.assertIs(node.raft.state, RaftState.FOLLOWER)

    def test_start_that_fails_at_the_port_closes(self) -> None:
        """What was opened is closed before the failure is told."""
        node = self.nodes[0]
        error = CannotListenError("127.0.0.1", 1, OSError(98, "in use"))
        node.host.errors["listen"] = error

        failure = self.failureResultOf(node.start(), CannotListenError)

        self.assertIs(failure.value, error)
        self.assertEqual(
            node.host.events, ["lock", "listen", "transport closed", "unlock"]
        )

    def test_start_that_fails_at_the_stores_closes(self) -> None:
        """The port is free again, and so is the directory."""
        node = self.nodes[0]
        node.host.errors["stores"] = StorageError("a damaged log")

        started = node.start()
        self.settle()

        self.failureResultOf(started, StorageError)
        self.assertEqual(node.host.events, [*OPENED, "transport closed", "unlock"])

    def test_start_that_fails_in_the_raft_closes(self) -> None:
        """Stores that hold what the Raft refuses are closed after it."""
        node = self.nodes[0]
        node.host.store.set(b"CurrentTerm", b"no number")

        started = node.start()
        self.settle()

        self.failureResultOf(started)
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])

    def test_start_that_does_not_close_tells_why_it_failed(self) -> None:
        """The first error is what the user has to know; the second is logged."""
        node = self.nodes[0]
        node.host.store.set(b"CurrentTerm", b"no number")
        node.host.errors["close"] = OSError("a full disk")

        started = node.start()
        self.settle()

        self.assertNotIsInstance(self.failureResultOf(started).value, OSError)
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_start_that_is_cancelled_closes(self) -> None:
        """It fires when that is done."""
        node = self.nodes[0]
        node.host.held["listen"] = Deferred()
        started = node.start()

        started.cancel()

        self.failureResultOf(started, CancelledError)
        self.assertEqual(
            node.host.events, ["lock", "listen", "transport closed", "unlock"]
        )

    def test_start_that_is_cancelled_in_the_raft_closes(self) -> None:
        """What it reads meanwhile is waited for, as the stores are closed then."""
        node = self.nodes[0]
        started = node.start()
        self.assertEqual(node.host.events, OPENED)

        started.cancel()
        self.settle()

        self.failureResultOf(started, CancelledError)
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])

    def test_start_twice_is_refused(self) -> None:
        """A node is started once; another one may be made."""
        node = self.nodes[0]
        node.start()

        self.assertRaises(RuntimeError, node.start)

    def test_use_before_the_start_is_refused(self) -> None:
        """The message says what is missing."""
        node = self.nodes[0]

        error = self.assertRaises(RuntimeError, node.apply, b"x")

        self.assertIn("async with", str(error))


class Stops(NodeCase):
    """`Node.stop`, and the end of an `async with`."""

    def test_stop_closes_in_order(self) -> None:
        """Stores after the Raft, which writes to them, and the lock last of all."""
        node = self.nodes[0]
        node.start()
        self.settle()

        stopped = node.stop()
        self.settle()

        self.successResultOf(stopped)
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])

    def test_stop_transfers_leadership_first(self) -> None:
        """When the leader has stopped another one leads, without an election."""
        leader = self.start_all()
        others = [node for node in self.nodes if node is not leader]

        stopped = leader.stop()
        self.settle()

        self.successResultOf(stopped)
        self.assertIn(RaftState.LEADER, [node.raft.state for node in others])

    def test_stop_without_anybody_who_could_lead(self) -> None:
        """A transfer that fails is waited for a while, and then the node stops."""
        leader = self.start_all()
        for node in self.nodes:
            node.host.network.disconnect_all()

        stopped = leader.stop()
        self.pass_time(3.0)

        self.successResultOf(stopped)
        self.assertEqual(leader.host.events[-1], "unlock")

    def test_stop_that_fails_unlocks(self) -> None:
        """Whoever stopped it is told, and the directory is free all the same."""
        node = self.nodes[0]
        node.start()
        self.settle()
        node.host.errors["close"] = OSError("a full disk")

        stopped = node.stop()
        self.settle()

        self.failureResultOf(stopped, OSError)
        self.assertEqual(node.host.events[-1], "unlock")

    def test_stop_that_fails_and_nobody_waits_for_is_logged(self) -> None:
        """A failure is never lost."""
        node = self.nodes[0]
        node.start()
        self.settle()
        node.host.errors["close"] = OSError("a full disk")

        node.stop().cancel()
        self.settle()
        gc.collect()

        self.assertEqual(len(self.flushLoggedErrors(OSError, CancelledError)), 2)

    def test_stop_twice(self) -> None:
        """Both wait for the one stop."""
        node = self.nodes[0]
        node.start()
        self.settle()

        first, second = node.stop(), node.stop()
        self.settle()

        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(node.stop())
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])

    def test_stop_while_it_starts(self) -> None:
        """The start is cancelled, and has closed when the stop is told as done."""
        node = self.nodes[0]
        node.host.held["listen"] = Deferred()
        started = node.start()

        stopped = node.stop()
        self.settle()

        self.failureResultOf(started)
        self.successResultOf(stopped)
        self.assertEqual(node.host.events[-1], "unlock")

    def test_stop_while_it_starts_and_does_not_heed(self) -> None:
        """A start that ends although it was cancelled is stopped then."""
        node = self.nodes[0]
        node.host.held["listen"] = Deferred().addErrback(lambda _: None)
        started = node.start()

        stopped = node.stop()
        self.settle()

        self.successResultOf(started)
        self.successResultOf(stopped)
        self.assertEqual(node.host.events, [*OPENED, *CLOSED])

    def test_stop_of_a_node_that_never_started(self) -> None:
        """There is nothing to close, and it cannot be started any more."""
        node = self.nodes[0]

        self.successResultOf(node.stop())

        self.assertEqual(node.host.events, [])
        self.assertRaises(RuntimeError, node.start)

    def test_stop_after_a_start_that_failed(self) -> None:
        """All was closed then."""
        node = self.nodes[0]
        node.host.errors["listen"] = OSError("no")
        self.failureResultOf(node.start(), OSError)

        self.successResultOf(node.stop())

    def test_async_with(self) -> None:
        """The block has the node, and its end stops it."""
        node = self.nodes[0]
        seen: list[object] = []

        async def main() -> None:
            async with node as entered:
                seen.append((entered is node, list(node.host.events)))
            seen.append(node.host.events)

        running = Deferred.fromCoroutine(main())
        self.settle()

        self.successResultOf(running)
        self.assertEqual(seen, [(True, OPENED), [*OPENED, *CLOSED]])

    def test_async_with_that_is_cancelled_waits_for_the_end(self) -> None:
        """A block that is left by a cancel is left when the files are closed."""
        node = self.start_all()
        others = [other for other in self.nodes if other is not node]
        for other in others:  # the transfer takes its time
            other.host.network.disconnect_all()
        aside = node.__aexit__(None, None, None)

        aside.cancel()
        self.assertNoResult(aside)
        self.pass_time(3.0)

        self.successResultOf(aside)
        self.assertEqual(node.host.events[-1], "unlock")


class Commands(NodeCase):
    """`Node.apply` and `Node.linearizable`."""

    def test_apply_on_the_leader(self) -> None:
        """It fires with what the machine returned."""
        leader = self.start_all()

        outcome = leader.apply(b"one")
        self.settle()

        self.assertEqual(self.successResultOf(outcome).response, 1)

    def test_apply_on_a_follower(self) -> None:
        """The leader commits it, and the follower's own machine answers."""
        self.start_all()

        outcome = self.follower.apply(b"one")
        self.settle()

        self.assertEqual(self.successResultOf(outcome).response, 1)
        machine = self.follower._machine
        assert isinstance(machine, ListFSM)
        self.assertEqual(machine.commands, [b"one"])

    def test_apply_waits_for_a_leader(self) -> None:
        """A command that comes before the first election is not refused."""
        node = self.nodes[0]
        for other in self.nodes:
            other.start()
        self.settle()

        outcomes = [other.apply(b"one") for other in self.nodes]
        self.pass_time(2.0)

        results = [self.successResultOf(outcome).response for outcome in outcomes]
        self.assertEqual(sorted(results), [1, 2, 3])
        self.assertEqual(node.raft.applied_index, self.leader.raft.applied_index)

    def test_apply_waits_for_so_long(self) -> None:
        """Without a quorum there is no leader, and after the timeout that is told."""
        node = self.nodes[0]
        node.start()
        self.settle()

        outcome = node.apply(b"one", timeout=5.0)
        self.pass_time(4.9)
        self.assertNoResult(outcome)
        self.pass_time(0.2)

        failure = self.failureResultOf(outcome, NotLeader)
        self.assertIsNone(failure.value.leader)

    def test_apply_by_default_waits_for_the_timeout_of_the_node(self) -> None:
        """It is 10 s unless the node has another."""
        node = self.nodes[0]
        node.start()
        self.settle()

        outcome = node.apply(b"one")
        self.pass_time(9.9)
        self.assertNoResult(outcome)
        self.pass_time(0.2)

        self.failureResultOf(outcome, NotLeader)

    def test_apply_that_is_cancelled_is_withdrawn(self) -> None:
        """What is not appended yet never will be."""
        leader = self.start_all()

        outcome = leader.apply(b"one")
        outcome.cancel()
        self.settle()

        self.failureResultOf(outcome, CancelledError)
        machine = leader._machine
        assert isinstance(machine, ListFSM)
        self.assertEqual(machine.commands, [])

    def test_apply_that_is_cancelled_while_it_waits_for_a_leader(self) -> None:
        """It is not appended when there is one."""
        for node in self.nodes:
            node.start()
        self.settle()

        outcomes = [node.apply(b"one") for node in self.nodes]
        for outcome in outcomes:
            outcome.cancel()
            self.failureResultOf(outcome, CancelledError)
        self.pass_time(2.0)

        machine = self.leader._machine
        assert isinstance(machine, ListFSM)
        self.assertEqual(machine.commands, [])

    def test_apply_refuses_what_is_no_time(self) -> None:
        """It is not taken for no bound."""
        node = self.nodes[0]
        node.start()
        self.settle()

        self.assertRaises(ValueError, node.apply, b"x", timeout=-1.0)
        self.assertRaises(ValueError, node.linearizable, timeout=-1.0)

    def test_linearizable_on_the_leader(self) -> None:
        """It fires with an index that covers what was committed before."""
        leader = self.start_all()
        applied = leader.apply(b"one")
        self.settle()

        outcome = leader.linearizable()
        self.pass_time(0.1)

        index = self.successResultOf(outcome)
        self.assertGreaterEqual(index, self.successResultOf(applied).index)

    def test_linearizable_on_a_follower(self) -> None:
        """It sees what was committed before, wherever that was asked for."""
        leader = self.start_all()
        applied = leader.apply(b"one")
        self.settle()

        outcome = self.follower.linearizable()
        self.pass_time(0.1)

        index = self.successResultOf(outcome)
        self.assertGreaterEqual(index, self.successResultOf(applied).index)
        self.pass_time(0.1)
        self.successResultOf(self.follower.linearizable(max_stale=1.0))

    def test_apply_while_leadership_is_transferred(self) -> None:
        """What this node does not append any more, its successor does."""
        leader = self.start_all()
        moved = leader.raft.transfer_leadership()

        outcome = leader.apply(b"one")  # at once: a transfer is soon done
        self.pass_time(2.0)

        self.successResultOf(moved)
        self.assertEqual(self.successResultOf(outcome).response, 1)

    def test_linearizable_waits_for_so_long(self) -> None:
        """As a command does."""
        node = self.nodes[0]
        node.start()
        self.settle()

        outcome = node.linearizable(timeout=1.0)
        self.pass_time(1.1)

        self.failureResultOf(outcome, NotLeader)

    def test_apply_after_the_stop(self) -> None:
        """It was never appended, and says so."""
        leader = self.start_all()
        leader.stop()
        self.pass_time(2.0)

        self.failureResultOf(leader.apply(b"x"), RaftShutdown)


class Certificates(NodeCase):
    """A `Node` with TLS checks who sends, and watches its certificates."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        forge = Forge(directory)
        self.pair = forge.issue("127.0.0.1")
        self.messages: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        tls = {
            "certificate": self.pair.certificate,
            "private_key": self.pair.key,
            "ca": forge.ca_file,
        }
        self.node = MemoryNode(self.clock, "127.0.0.1:9", ["127.0.0.1:9"], tls=tls)

    def observe(self, event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            self.messages.append(formatEvent(event))

    def test_start_checks_senders_before_it_takes_requests(self) -> None:
        """No message of a peer is taken that was not checked."""
        self.node.start()
        self.settle()

        self.assertIs(self.node.host.checked, True)

    def test_certificate_that_expires_soon(self) -> None:
        """It is logged at the start, and once a day until the node stops."""
        self.node.start()
        self.settle()
        (warning,) = self.messages
        self.assertIn(str(self.pair.certificate), warning)
        self.assertIn("it expires within a day", warning)
        self.assertIn("Node.reload", warning)

        self.node.stop()
        self.settle()

        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reload(self) -> None:
        """A file that cannot be used is refused, and the old one stays in force."""
        self.pair.certificate.write_text("no certificate")

        self.assertRaises(ConfigError, self.node.reload)


class Broken(ListFSM):
    """A machine whose first command ends the node."""

    def apply(self, log: object) -> object:
        """Raise what is no refusal."""
        raise MemoryError("no memory left")


class Ends(NodeCase):
    """`Node.when_stopped` tells three ends apart."""

    def test_when_stopped_after_stop(self) -> None:
        """It fires with None."""
        node = self.nodes[0]
        node.start()
        self.settle()
        ended = node.when_stopped()
        self.assertNoResult(ended)

        node.stop()
        self.settle()

        self.assertIsNone(self.successResultOf(ended))

    def test_when_stopped_after_a_removal(self) -> None:
        """It fires with what says so."""
        leader = self.start_all()
        removed = self.follower
        ended = removed.when_stopped()

        leader.raft.remove_peer(removed.address)
        self.pass_time(2.0)

        self.assertIsInstance(self.successResultOf(ended), NodeRemoved)

    def test_when_stopped_after_a_failure(self) -> None:
        """It fails with what has happened; stop closes the rest."""
        machine: FSM = Broken()
        node = MemoryNode(self.clock, "127.0.0.1:9", ["127.0.0.1:9"], machine)
        node.start()
        self.pass_time(1.0)
        ended = node.when_stopped()

        failed = node.apply(b"x")
        self.pass_time(1.0)

        self.failureResultOf(ended, NodeFailed)
        self.failureResultOf(failed)
        self.assertNotIn("unlock", node.host.events)
        self.flushLoggedErrors()
        stopped = node.stop()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(node.host.events[-2:], ["stores closed", "unlock"])

    def test_when_ready(self) -> None:
        """It tells who leads."""
        leader = self.start_all()

        ready = self.successResultOf(self.follower.when_ready())

        self.assertEqual(ready, leader.address)

    def test_clock_is_what_was_given(self) -> None:
        """Nothing else is asked for the time."""
        self.assertIsInstance(self.nodes[0].host.clock, Clock)
