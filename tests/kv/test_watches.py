"""Whoever waits is woken by the change, once, and by nothing else."""

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kv_commands import Machine, session
from txraft.kv.commands import (
    Operation,
    encode_delete,
    encode_destroy_sessions,
    encode_put,
)
from txraft.kv.verbs import OperationKind
from txraft.kv.watches import SESSIONS, Scope, Topic


class Watched(SynchronousTestCase):
    """Changes of keys, of what is under prefixes, and of sessions."""

    def setUp(self) -> None:
        self.machine = Machine(session("s"))
        self.woken: list[str] = []

    def watch(self, name: str, topic: Topic) -> None:
        self.machine.fsm.watches.add(topic, lambda: self.woken.append(name))

    def assert_woken(self, *names: str) -> None:
        self.assertEqual(sorted(self.woken), sorted(names))
        self.woken.clear()

    def test_put_and_delete(self) -> None:
        def watch_all() -> None:
            self.watch("key", Topic(Scope.KEY, "a/b"))
            self.watch("tree", Topic(Scope.PREFIX, "a/"))
            self.watch("itself", Topic(Scope.PREFIX, "a/b"))
            self.watch("all", Topic(Scope.PREFIX, ""))

        self.watch("longer", Topic(Scope.KEY, "a/b/c"))
        self.watch("other", Topic(Scope.PREFIX, "b"))
        self.watch("sessions", SESSIONS)
        for command in (
            encode_put("a/b", b"1"),
            encode_put("a/b", b"2"),
            encode_delete("a/b"),
        ):
            watch_all()
            self.machine.apply(command)
            self.assert_woken("key", "tree", "itself", "all")
        self.machine.apply(encode_put("a/b", b"1"))
        self.assert_woken()

    def test_one_session(self) -> None:
        """Changes of others wake nobody who waits for one.  Source: `SessionGet`."""
        mine = Topic(Scope.SESSION, "s1")
        self.watch("mine", mine)
        self.machine.apply(session("s2"))
        self.assert_woken()

        self.machine.apply(session("s1"))

        self.assert_woken("mine")
        self.assertEqual(self.machine.fsm.changed_at(mine), 3)
        self.watch("mine", mine)
        self.machine.apply(encode_destroy_sessions(["s2"]))
        self.assert_woken()
        self.assertEqual(self.machine.fsm.changed_at(mine), 3)
        self.machine.apply(encode_destroy_sessions(["s", "s1"]))
        self.assert_woken("mine")
        self.assertEqual(self.machine.fsm.changed_at(mine), 5)

    def test_what_changes_nothing_wakes_nobody(self) -> None:
        self.machine.apply(encode_put("k", b"v"))
        self.watch("key", Topic(Scope.KEY, "k"))
        self.watch("gone", Topic(Scope.KEY, "gone"))

        self.machine.apply(encode_put("k", b"v"))
        self.machine.apply(encode_delete("gone"))
        self.machine.do(Operation(OperationKind.SET, "k", b"v"))
        self.machine.do(
            Operation(OperationKind.SET, "k", b"new"),
            Operation(OperationKind.CHECK_NOT_EXISTS, "k"),
        )

        self.assert_woken()

    def test_end_of_a_session(self) -> None:
        self.machine.do(Operation(OperationKind.LOCK, "k", session="s"))
        self.watch("key", Topic(Scope.KEY, "k"))
        self.watch("sessions", SESSIONS)

        self.machine.apply(encode_destroy_sessions(["s"]))

        self.assert_woken("key", "sessions")

    def test_discard(self) -> None:
        watches = self.machine.fsm.watches
        for topic in (Topic(Scope.KEY, "k"), Topic(Scope.PREFIX, "k"), SESSIONS):
            for wake in (self.woken.clear, self.woken.reverse):
                watches.add(topic, wake)
            self.assertEqual(len(watches), 2)
            for wake in (self.woken.clear, self.woken.clear, self.woken.reverse):
                watches.discard(topic, wake)
            self.assertEqual(len(watches), 0)
        self.assertEqual(dict(watches._lengths), {})
