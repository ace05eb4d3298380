"""The application's code: its calls, its errors, and the values it may return."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import ClusterCase
from txraft.core.entry import Entry
from txraft.errors import (
    ContractBroken,
    NodeFailed,
    NotLeader,
    RaftError,
    RaftShutdown,
    ShutdownWhileCommitting,
    SnapshotFailed,
    WrongThread,
)
from txraft.node.application import (
    FINISHED,
    MOST_TYPES,
    awaited,
    is_unfinished,
    refuse_unfinished,
)
from txraft.node.events import Observer, RaftState
from txraft.node.raft import Raft
from txraft.node.shell import DUE, IDLE, STOPPED
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.peer_stores import StaticPeers
from txraft.testing import Cluster, ListFSM
from txraft.testing.cluster import FAST, ListSnapshot, _NodeStores
from txraft.transport.inmem import InmemTransport


class Boom(BaseException):
    """What is no Exception, as SystemExit, or as what `pytest.fail` raises."""


def boom(*arguments: object) -> Any:
    """Raise it."""
    raise Boom("boom")


class Fragile(ListFSM):
    """Does what is no Exception where `where` says."""

    where = ""

    def apply(self, log: Entry) -> object:
        if self.where == "apply":
            boom()
        if self.where == "late apply":
            return fail(Boom("boom"))
        return super().apply(log)

    def snapshot(self) -> ListSnapshot:
        if self.where == "snapshot":
            boom()
        captured = ListSnapshot(list(self.commands))
        if self.where in ("persist", "release"):
            setattr(captured, self.where, boom)
        return captured

    def restore(self, source: BinaryIO) -> None:
        if self.where == "restore":
            boom()
        super().restore(source)


class Unfinished(SynchronousTestCase):
    """`is_unfinished`, `awaited` and `refuse_unfinished`."""

    def test_what_is_there(self) -> None:
        """Responses of any other kind, of classes that are made as we go."""
        for result in (None, 1, b"x", [Deferred()], ValueError()):
            self.assertFalse(is_unfinished(result))
        for _ in range(2 * MOST_TYPES):
            self.assertFalse(is_unfinished(type("Response", (), {})()))
        self.assertLessEqual(len(FINISHED), MOST_TYPES)

    def test_object_that_can_be_awaited(self) -> None:
        """Whatever has `__await__`."""

        class Wrapped:
            def __await__(self) -> Any:
                return (yield from succeed(3).__await__())

        self.assertTrue(is_unfinished(Wrapped()))
        self.assertEqual(self.successResultOf(awaited(Wrapped(), "it")), 3)

    def test_refused_coroutine_is_closed(self) -> None:
        """Python has nothing to warn of."""

        async def later() -> None:
            pass

        for _ in range(2):
            error = self.assertRaises(
                ContractBroken, refuse_unfinished, later(), "f", "no"
            )
            self.assertEqual(str(error), "f returned a coroutine: no")
        self.assertEqual(self.flushWarnings(), [])
        self.assertIsInstance(error, TypeError)


class BaseExceptionCase(ClusterCase):
    """A cluster on whose clock what is no Exception may come out."""

    def fragile(self, **options: Any) -> Cluster:
        return self.cluster(3, make_fsm=Fragile, trailing_logs=0, **options)

    def steps(self, cluster: Cluster, seconds: float) -> int:
        """Let time pass; return how often it came out."""
        escaped = 0
        for _ in range(round(seconds / 0.01)):
            try:
                cluster.advance(0.01)
            except Boom:
                escaped += 1
        return escaped

    def assertStopped(self, outcome: list[Any], word: str) -> None:
        """Assert that a node says why it has stopped."""
        [reason] = outcome
        self.assertIsInstance(reason, NodeFailed)
        self.assertIn("Boom", str(reason))
        self.assertIn(word, str(reason))

    def assertGoesOn(self, cluster: Cluster) -> None:
        """Assert that the others go on without it."""
        for address in [
            n.address
            for n in cluster.nodes.values()
            if n.raft.state is RaftState.SHUTDOWN
        ]:
            del cluster.nodes[address]
        cluster.wait_for_leader()
        for node in cluster.nodes.values():
            node.fsm.where = ""  # type: ignore[attr-defined]
        cluster.apply(b"on")
        self.flushLoggedErrors(Boom)


class StateMachines(BaseExceptionCase):
    def test_apply(self) -> None:
        """The leader stops, all its Deferreds fire, and another one leads."""
        for where in ("apply", "late apply"):
            cluster = self.fragile()
            cluster.apply(b"one")
            leader = cluster.leader
            leader.fsm.where = where  # type: ignore[attr-defined]
            stopped = self.outcome(leader.raft.when_stopped())
            died = self.outcome(leader.raft.apply(b"die"))
            behind = self.outcome(leader.raft.apply(b"behind"))
            barrier = self.outcome(leader.raft.barrier())

            escaped = self.steps(cluster, 1.0)

            self.assertEqual(escaped, 1)
            self.assertStopped(stopped, "entry 4 (term")
            self.assertFailedWith(died, ShutdownWhileCommitting)
            self.assertFailedWith(behind, ShutdownWhileCommitting)
            self.assertFailedWith(barrier, ShutdownWhileCommitting)
            shell = leader.raft._shell
            assert shell is not None
            self.assertIs(shell._turn_state, STOPPED)
            self.assertGoesOn(cluster)

    def test_snapshot(self) -> None:
        """Whoever asked for it is told, nothing stays taken, and the node stops."""
        for where in ("snapshot", "persist"):
            cluster = self.fragile()
            cluster.apply(b"one")
            cluster.wait_for_all()
            node = cluster.followers[0]
            node.fsm.where = where  # type: ignore[attr-defined]
            stopped = self.outcome(node.raft.when_stopped())

            outcome = self.outcome(node.raft.snapshot())
            self.steps(cluster, 0.5)

            self.assertFailedWith(outcome, SnapshotFailed)
            self.assertStopped(stopped, "snapshot")
            self.assertEqual(node.snapshots.list(), [])
            self.assertEqual(node.store.first_index(), 1)
            shell = node.raft._shell
            assert shell is not None
            self.assertFalse(shell.snapshots.busy)
            self.assertGoesOn(cluster)

    def test_release(self) -> None:
        """The node stops; what is durable stays, and a restart begins with it."""
        cluster = self.fragile()
        cluster.apply(b"one")
        cluster.wait_for_all()
        node = cluster.followers[0]
        node.fsm.where = "release"  # type: ignore[attr-defined]
        stopped = self.outcome(node.raft.when_stopped())

        outcome = self.outcome(node.raft.snapshot())
        self.steps(cluster, 0.5)

        self.assertSucceeded(outcome)
        self.assertStopped(stopped, "released")
        self.assertEqual(len(node.snapshots.list()), 1)
        self.flushLoggedErrors(Boom)
        cluster.restart(node.address)
        self.assertSameState(cluster, [b"one"])

    def test_restore(self) -> None:
        """A leader's snapshot that is not restored stops the node."""
        cluster = self.fragile()
        cluster.apply(b"one")
        node = cluster.followers[0]
        cluster.isolate(node.address)
        others = set(cluster.nodes) - {node.address}
        leader = cluster.wait_for_leader(among=others)
        for _ in range(5):
            cluster.result(leader.raft.apply(b"more"))
        cluster.result(leader.raft.snapshot())
        cluster.advance(0.1)
        node.fsm.where = "restore"  # type: ignore[attr-defined]
        stopped = self.outcome(node.raft.when_stopped())

        cluster.heal()
        escaped = self.steps(cluster, 2.0)

        self.assertEqual(escaped, 1)
        self.assertStopped(stopped, "did not restore")
        self.assertGoesOn(cluster)

    def test_asynchronous_restore(self) -> None:
        """At the start it is refused, with a sentence, and nothing has changed."""
        cluster = self.cluster(1, trailing_logs=0)
        cluster.apply(b"one")
        cluster.result(cluster.leader.raft.snapshot())

        class Later(ListFSM):
            def restore(self, source: BinaryIO) -> Any:
                return Deferred()

        cluster._make_fsm = Later
        node = cluster.restart("a")
        waiter = self.outcome(node.raft.when_leader())
        started = self.outcome(node.started)
        cluster.advance(0.1)

        error = self.assertFailedWith(started, ContractBroken)
        self.assertIn("Later.restore returned a Deferred: it runs on", str(error))
        self.assertFailedWith(waiter, RaftShutdown)


class Listeners(BaseExceptionCase):
    """Observers, their filters, `leader_ch` and `notify`."""

    def run_with(self, kind: str) -> tuple[Cluster, int, list[list[Any]]]:
        """Start three nodes that all raise in *kind* once one of them leads."""

        def explode(argument: Any) -> Any:
            data = getattr(argument, "data", argument)
            if data is RaftState.LEADER or data is True:
                boom()
            return True

        config = replace(FAST, notify=explode) if kind == "notify" else FAST
        cluster = Cluster(3, config)
        self.clusters.append(cluster)
        for address in "abc":
            raft = cluster.start_node(address, "abc").raft
            if kind == "observer":
                raft.register_observer(Observer(explode))
            elif kind == "filter":
                raft.register_observer(Observer(lambda _: None, explode))
            elif kind == "leader_ch":
                raft.leader_ch(explode)
        stopped = [
            self.outcome(node.raft.when_stopped()) for node in cluster.nodes.values()
        ]
        return cluster, self.steps(cluster, 3.0), stopped

    def test_each_stops_its_node(self) -> None:
        """One node after the other leads and stops, until there is no quorum."""
        for kind in ("observer", "filter", "leader_ch", "notify"):
            cluster, escaped, stopped = self.run_with(kind)

            self.assertEqual(escaped, 2, kind)
            failed = [outcome for outcome in stopped if outcome]
            self.assertEqual(len(failed), 2, kind)
            for outcome in failed:
                self.assertStopped(outcome, "ended it")
            for node in cluster.nodes.values():
                shell = node.raft._shell
                assert shell is not None
                self.assertIn(shell._turn_state, (IDLE, DUE, STOPPED))
                self.assertIsNot(node.raft.state, RaftState.LEADER)
            self.flushLoggedErrors(Boom)

    def test_other_observers_are_told(self) -> None:
        """Of the new role, and that the node has stopped because of the first one."""
        cluster = self.unstarted(1)
        raft = cluster.start_node("a", ["a"]).raft
        seen: list[object] = []
        raft.register_observer(
            Observer(lambda o: boom() if o.data is RaftState.LEADER else None)
        )
        raft.register_observer(Observer(lambda o: seen.append(o.data)))

        self.steps(cluster, 1.0)

        states = [state for state in seen if isinstance(state, RaftState)]
        self.assertEqual(states[-2:], [RaftState.LEADER, RaftState.SHUTDOWN])
        self.flushLoggedErrors(Boom)

    def test_exception_fails_only_its_own_call(self) -> None:
        """The node goes on, whoever of them raises."""

        def raising(_: object) -> Any:
            raise ValueError("no")

        cluster = self.unstarted(1, notify=raising)
        raft = cluster.start_node("a", ["a"]).raft
        raft.register_observer(Observer(raising))
        raft.register_observer(Observer(lambda _: None, raising))
        raft.leader_ch(raising)
        cluster.wait_for_leader()

        cluster.apply(b"on")
        cluster.shutdown()
        self.assertTrue(self.flushLoggedErrors(ValueError))

    def test_coroutines(self) -> None:
        """A callback is awaited; a filter and `notify` cannot be, and are refused."""
        ran: list[object] = []

        async def callback(argument: object) -> None:
            ran.append(getattr(argument, "data", argument))

        async def filter(argument: object) -> bool:
            raise AssertionError("it never runs")

        for notify in (filter, None):
            ran.clear()
            cluster = self.unstarted(1, notify=notify)
            raft = cluster.start_node("a", ["a"]).raft
            raft.register_observer(Observer(callback))
            raft.register_observer(Observer(callback, filter))  # type: ignore[arg-type]
            raft.leader_ch(callback)
            cluster.wait_for_leader()
            cluster.shutdown()

            self.assertEqual(ran.count(RaftState.LEADER), 1)
            self.assertEqual(
                [e for e in ran if isinstance(e, bool)], [False, True, False]
            )
            self.assertTrue(self.flushLoggedErrors(ContractBroken))
        self.assertEqual(self.flushWarnings(), [])


class Callbacks(BaseExceptionCase):
    def test_callback_of_a_user(self) -> None:
        """What it raises stays in its own Deferred, and the turn is a whole one."""
        for error in (Boom("boom"), ValueError("no")):
            cluster = self.fragile()
            raft = cluster.leader.raft

            def callback(_: object, error: BaseException = error) -> None:
                raise error

            outcomes = [
                self.outcome(raft.apply(b"one").addCallback(callback)),
                self.outcome(raft.apply(b"two")),
                self.outcome(raft.barrier().addCallback(callback)),
                self.outcome(raft.linearizable().addCallback(callback)),
            ]

            self.assertEqual(self.steps(cluster, 0.5), 0)
            self.assertTrue(all(outcomes))
            cluster.apply(b"on")


class Stores(BaseExceptionCase):
    def test_log_store(self) -> None:
        """The node stops; nothing is left waiting."""
        for method in ("store_logs", "get_logs"):
            cluster = self.fragile()
            node = cluster.leader
            stopped = self.outcome(node.raft.when_stopped())
            self.patch(node.store, method, boom)
            written = self.outcome(node.raft.apply(b"one"))

            self.steps(cluster, 1.0)
            if method == "store_logs":
                self.assertStopped(stopped, "could not be written")
                self.assertGoesOn(cluster)
            self.assertTrue(written)

    def test_turn_that_is_interrupted(self) -> None:
        """The other half is never done: the node stops, and all who wait are told."""
        cluster = self.fragile()
        node = cluster.leader
        stopped = self.outcome(node.raft.when_stopped())
        shell = node.raft._shell
        assert shell is not None
        self.patch(shell.consensus, "propose", boom)
        proposed = self.outcome(node.raft.apply(b"one"))

        self.assertEqual(self.steps(cluster, 1.0), 1)

        self.assertStopped(stopped, "a turn was interrupted")
        self.assertFailedWith(proposed, NotLeader)
        self.assertIs(shell._turn_state, STOPPED)
        self.assertGoesOn(cluster)

    def test_turn_that_runs_out_of_memory(self) -> None:
        """It is called by its name, and no invariant's fault."""

        def propose(*arguments: object) -> None:
            raise MemoryError

        cluster = self.fragile()
        stopped = self.outcome(cluster.leader.raft.when_stopped())
        shell = cluster.leader.raft._shell
        assert shell is not None
        self.patch(shell.consensus, "propose", propose)
        self.outcome(cluster.leader.raft.apply(b"one"))

        cluster.advance(1.0)

        self.assertIn("out of memory", str(stopped))
        self.flushLoggedErrors(MemoryError)

    def test_transport_that_raises_at_the_end(self) -> None:
        """All are told all the same, and the node has stopped."""
        cluster = self.fragile()
        node = cluster.leader
        shell = node.raft._shell
        assert shell is not None
        self.patch(shell.outbox, "stop", boom)
        proposed = self.outcome(node.raft.apply(b"one"))
        stopped = self.outcome(node.raft.when_stopped())

        self.assertRaises(Boom, node.raft.shutdown)
        cluster.advance(0.1)

        self.assertFailedWith(proposed, RaftShutdown)
        self.assertSucceeded(stopped)
        del cluster.nodes[node.address]


class PlugPoints(ClusterCase):
    """What the constructor of `Raft` refuses."""

    def parts(self) -> dict[str, Any]:
        """Return what a node is made of."""
        parts = self.cluster(1).leader.raft._parts
        return {
            "config": parts.config,
            "fsm": ListFSM(),
            "log_store": InmemStore(),
            "stable_store": InmemStore(),
            "snapshots": InmemSnapshotStore(),
            "peer_store": StaticPeers(),
            "local_addr": "a",
            "transport": InmemTransport(parts.clock, "a"),
            "clock": parts.clock,
            "workers": parts.workers,
        }

    def test_object_that_lacks_a_method(self) -> None:
        """It is named, and so are the method and the plug point."""
        parts = self.parts()
        Raft(**parts)
        for part, plug_point, method in (
            ("fsm", "FSM", "restore"),
            ("log_store", "LogStore", "delete_range"),
            ("stable_store", "StableStore", "set_many"),
            ("snapshots", "SnapshotStore", "list"),
            ("peer_store", "PeerStore", "set_peers"),
            ("transport", "Transport", "timeout_now"),
        ):
            kind = type(parts[part])
            lacking = type("Lacking", (kind,), {method: None})
            broken = lacking.__new__(lacking)

            error = self.assertRaises(
                TypeError, lambda p, b: Raft(**{**parts, p: b}), part, broken
            )

            self.assertEqual(
                str(error), f"Lacking lacks the method `{method}` of {plug_point}"
            )
        self.assertRaises(TypeError, lambda: Raft(**{**parts, "fsm": ListFSM}))

    def test_coroutine_function(self) -> None:
        """It is refused where nothing awaits it, on a thread above all."""

        async def later(*arguments: object) -> None:
            raise AssertionError("it never runs")

        parts = self.parts()
        for part, method in (
            ("fsm", "snapshot"),
            ("fsm", "restore"),
            ("log_store", "store_logs"),
            ("stable_store", "set_many"),
            ("snapshots", "list"),
            ("peer_store", "set_peers"),
            ("transport", "local_addr"),
        ):
            kind = type(parts[part])
            asynchronous = type("Later", (kind,), {method: later})
            broken = asynchronous.__new__(asynchronous)

            error = self.assertRaises(
                ContractBroken, lambda p, b: Raft(**{**parts, p: b}), part, broken
            )

            self.assertIn(f"Later.{method} is a coroutine function", str(error))
        for part, method in (("fsm", "apply"), ("transport", "request_vote")):
            asynchronous = type("Later", (type(parts[part]),), {method: later})
            Raft(**{**parts, part: asynchronous.__new__(asynchronous)})

    def test_store_that_defers(self) -> None:
        """What it has not done when it returns does not count as durable."""

        class Deferring(InmemStore):
            def store_logs(self, entries: Any) -> Any:
                return Deferred()

        cluster = self.unstarted(1)
        cluster._stores["a"] = _NodeStores(store=Deferring())
        node = cluster.start_node("a", ["a"])
        started = self.outcome(node.started)
        cluster.advance(0.5)

        error = self.assertFailedWith(started, ContractBroken)
        self.assertIn("Deferring.store_logs returned a Deferred", str(error))


class Threads(ClusterCase):
    def test_methods_from_another_thread(self) -> None:
        """They are refused with the way out, and nothing is done."""
        cluster = self.cluster(1)
        raft = cluster.leader.raft
        observer = Observer(None)
        errors: list[BaseException] = []

        def call_all() -> None:
            for call in (
                lambda: raft.apply(b"x"),
                raft.barrier,
                raft.verify_leader,
                raft.linearizable,
                raft.transfer_leadership,
                raft.snapshot,
                raft.when_leader,
                raft.when_stopped,
                raft.shutdown,
                lambda: raft.register_observer(observer),
                lambda: raft.deregister_observer(observer),
                lambda: raft.leader_ch(boom),
                lambda: raft.add_peer("b"),
                lambda: raft.remove_server("a"),
                lambda: raft.set_peers(["a"]),
                lambda: raft.probe_peer("b"),
                lambda: raft.admit_peer("b"),
            ):
                try:
                    call()
                except BaseException as error:
                    errors.append(error)

        thread = Thread(target=call_all)
        thread.start()
        thread.join()

        self.assertEqual([type(error) for error in errors], [WrongThread] * 17)
        self.assertIsInstance(errors[0], RuntimeError)
        self.assertIn("reactor.callFromThread", str(errors[0]))
        self.assertEqual(cluster.apply(b"x").response, 1)


class Errors(SynchronousTestCase):
    def test_contract_broken_is_of_both_kinds(self) -> None:
        """Who hands in the wrong object may catch a TypeError."""
        self.assertTrue(issubclass(ContractBroken, (RaftError, TypeError)))
