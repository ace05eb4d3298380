"""Replicated objects on nodes: any member takes their commands and reads."""

from __future__ import annotations

from typing import Any

from tests.support.memory_host import MemoryNode, NodeCase
from txraft.embedding.outcome import Outcome
from txraft.errors import (
    CallRefused,
    CommandFailed,
    ContractBroken,
    NodeFailed,
    NotLeader,
    ShutdownWhileCommitting,
)
from txraft.replicated.objects import Replicated, command, query
from txraft.testing.cluster import ListFSM


class Taken(Exception):
    """Somebody else has it."""


class Names(Replicated):
    """Gives each name once."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}

    @command(raises=Taken)
    def take(self, name: str, owner: str) -> int:
        """Take a name."""
        if name in self.owners:
            raise Taken(self.owners[name])
        self.owners[name] = owner
        return len(self.owners)

    @command
    def exhaust(self) -> None:
        """Stop the node."""
        raise MemoryError

    @command
    def fail(self) -> None:
        """Change something, and fail."""
        self.owners.clear()
        raise KeyError("failed")

    @query
    def all(self) -> dict[str, str]:
        """Return all owners."""
        return self.owners


class OnNodes(NodeCase):
    """Three nodes with an object each."""

    def setUp(self) -> None:
        super().setUp()
        peers = [node.address for node in self.nodes]
        self.names = [Names() for _ in peers]
        self.others = [Names() for _ in peers]
        self.nodes = [
            MemoryNode(self.clock, address, peers, names=names, others=others)
            for address, names, others in zip(
                peers, self.names, self.others, strict=True
            )
        ]
        for one in self.nodes:
            for other in self.nodes:
                if one is not other:
                    one.host.network.connect(other.address, other.host.network)

    def object_of(self, node: MemoryNode) -> Names:
        """Return the object that is on *node*."""
        return self.names[self.nodes.index(node)]

    def done(self, outcome: Outcome[Any]) -> Any:
        """Wait for a result."""
        self.pass_time(0.2)
        return self.successResultOf(outcome)

    def test_commands_and_queries_on_any_member(self) -> None:
        """Each returns what the method returned there."""
        self.start_all()

        for number, names in enumerate(self.names, 1):
            self.assertEqual(self.done(names.take(f"n{number}", "me")), number)
        for names in self.names:
            found = self.done(names.all())
            self.assertEqual(found, {"n1": "me", "n2": "me", "n3": "me"})
            self.assertEqual(names.all.stale(), found)

    def test_errors_on_any_member(self) -> None:
        """They are those that the method raised there."""
        self.start_all()
        self.done(self.names[0].take("a", "first"))

        for names in self.names:
            taken, failed = names.take("a", "second"), names.fail()
            self.pass_time(0.2)

            self.assertEqual(str(self.failureResultOf(taken, Taken).value), "first")
            cause = self.failureResultOf(failed, CommandFailed).value.__cause__
            self.assertIsInstance(cause, KeyError)
        self.assertEqual(self.done(self.names[0].all()), {"a": "first"})

    def test_objects_have_names(self) -> None:
        """A command is for that of its name."""
        self.start_all()

        self.done(self.names[0].take("a", "me"))
        self.done(self.others[1].take("b", "me"))

        self.assertEqual(self.names[2].all.stale(), {"a": "me"})
        self.assertEqual(self.others[2].all.stale(), {"b": "me"})

    def test_outcomes_are_awaited_in_both_worlds(self) -> None:
        """A command returns an Outcome, as all of a node does."""
        self.start_all()

        for call in (self.names[0].take("a", "me"), self.names[1].all()):
            self.assertIsInstance(call, Outcome)
            self.done(call)

    def test_object_before_the_start_and_after_the_stop(self) -> None:
        """It is refused, and said what to do; what waits is failed."""
        names = self.names[0]
        self.assertRaises(CallRefused, names.take, "a", "me")
        self.nodes[0].start()
        self.settle()
        waiting = names.take("a", "me")

        stopped = self.nodes[0].stop()
        self.pass_time(12.0)

        self.successResultOf(stopped)
        self.failureResultOf(waiting)
        self.assertRaises(CallRefused, names.take, "a", "me")

    def test_object_on_a_second_node(self) -> None:
        """Not at the same time; afterwards it begins anew."""
        names = self.names[0]
        self.assertRaises(ContractBroken, MemoryNode, self.clock, "d:1", [], names)
        self.nodes[0].start()
        self.settle()
        self.nodes[0].stop()
        self.pass_time(2.0)

        node = MemoryNode(self.clock, "127.0.0.1:9", ["127.0.0.1:9"], names)
        node.start()
        self.pass_time(1.0)

        self.assertEqual(self.done(names.take("a", "me")), 1)

    def test_start_that_fails_lets_go_of_the_object(self) -> None:
        """It can be given to the next try."""
        self.nodes[0].host.errors["stores"] = OSError("no")

        self.failureResultOf(self.nodes[0].start(), OSError)

        MemoryNode(self.clock, "127.0.0.1:9", [], self.names[0])

    def test_node_that_never_started_lets_go_of_the_object(self) -> None:
        """Once it is stopped."""
        self.successResultOf(self.nodes[0].stop())

        MemoryNode(self.clock, "127.0.0.1:9", [], self.names[0])

    def test_block_of_a_node_that_failed_ends_with_the_failure(self) -> None:
        """Its body goes on, as nobody can end it; but not as if nothing was."""
        node, names = self.alone()
        waiting = names.exhaust()
        self.pass_time(1.0)

        unknown = self.failureResultOf(waiting, ShutdownWhileCommitting).value
        ready = self.failureResultOf(node.when_ready(), NodeFailed).value
        ended = node.__aexit__(None, None, None)
        self.pass_time(2.0)

        self.assertIs(self.failureResultOf(ended, NodeFailed).value, ready)
        self.assertIs(unknown.__cause__, ready)
        self.assertIn("it may still commit", str(unknown))
        self.assertNotIn("leadership", str(unknown))
        self.flushLoggedErrors(MemoryError)

    def test_block_that_failed_itself_keeps_its_error(self) -> None:
        """It is nearer to the cause, and says more."""
        node, names = self.alone()
        names.exhaust().addErrback(lambda _: None)
        self.pass_time(1.0)

        ended = node.__aexit__(KeyError, KeyError("x"), None)
        self.pass_time(2.0)

        self.assertIsNone(self.successResultOf(ended))
        self.flushLoggedErrors(MemoryError)

    def alone(self) -> tuple[MemoryNode, Names]:
        """Start a node of its own, which leads."""
        names = Names()
        node = MemoryNode(self.clock, "127.0.0.1:9", ["127.0.0.1:9"], names)
        node.start()
        self.pass_time(1.0)
        return node, names

    def test_machine_and_objects(self) -> None:
        """One or the other."""
        error = self.assertRaises(
            ContractBroken,
            MemoryNode,
            self.clock,
            "127.0.0.1:9",
            [],
            ListFSM(),
            names=Names(),
        )

        self.assertIn("names", str(error))

    def test_no_leader_in_time(self) -> None:
        """It was not applied, and is said so."""
        self.nodes[0].start()
        self.settle()

        calls: list[Outcome[Any]] = [self.names[0].take("a", "me"), self.names[0].all()]
        self.pass_time(10.5)

        for call in calls:
            self.failureResultOf(call, NotLeader)
