"""Commands and queries of replicated objects."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.errors import (
    ApplicationError,
    CallRefused,
    CannotTravel,
    CommandFailed,
    ContractBroken,
    DataCorrupted,
    FormatTooNew,
    NotLeader,
    OnlyInCommands,
    UnknownCommand,
    WrongApplication,
)
from txraft.interfaces import (
    FSM,
    BatchingFSM,
    DiscerningFSM,
    NamedFSM,
    StampingFSM,
)
from txraft.node.pending import ApplyResult
from txraft.replicated.machine import Machine, bind, machine_of, unbind
from txraft.replicated.objects import Replicated, command, query
from txraft.replicated.values import value
from txraft.testing.cluster import ListFSM
from txraft.testing.contracts.fsm import FSMContract


class NoSuchJob(Exception):
    """There is no job of that name."""


@value
class Job:
    """What is to be done."""

    name: str
    until: float = 0.0


class Jobs(Replicated):
    """A queue, with a method for each rule."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self.jobs: dict[str, Job] = {name: Job(name) for name in first}
        self.log: list[Any] = []
        self.tags: dict[str, set[str]] = {}
        self.count = 0
        self.many: list[int] = []
        self.big = ""

    @property
    def length(self) -> int:
        """How many jobs there are."""
        return len(self.jobs)

    @command
    def put(self, name: str, *, until: float = 0.0) -> int:
        """Add one."""
        self.jobs[name] = Job(name, until)
        self.count += 1
        return self.count

    @command(raises=NoSuchJob)
    def take(self, name: str) -> Job:
        """Take one out."""
        self.count -= 1
        self.log.append(name)
        if name not in self.jobs:
            raise NoSuchJob(name)
        return self.jobs.pop(name)

    @command
    def break_off(self, error: Exception | None = None) -> None:
        """Change all there is, and raise."""
        self.count = -1
        self.log = [1]
        self.big = "x"
        self.jobs.clear()
        self.tags = {"a": {"b"}}
        raise error or KeyError("broken off")

    @command
    def put_two(self, one: str, other: str) -> int:
        """Run two commands within this one."""
        self.put.here(one)
        return self.put.here(other, until=1.0)

    @command
    def take_any(self, *names: str) -> str | None:
        """Go on after one that fails."""
        for name in names:
            try:
                return self.take.here(name).name
            except NoSuchJob:
                pass
        return None

    @command
    def call_directly(self, which: str) -> Any:
        """Call without `here`."""
        return getattr(self, which)("a")

    @command
    def run(self, what: str) -> Any:
        """Evaluate an expression of `self`."""
        return eval(what)

    @command
    def return_all(self) -> Any:
        """Return what is in the state."""
        return [self.jobs, (self.log,) if not self.log else self.log, self.tags]

    @query
    def names(self) -> list[str]:
        """List the names."""
        return [*self.jobs]

    @query
    def dirty(self) -> None:
        """Try to change what is there."""
        self.count = 7

    @query
    def dirty_inside(self) -> None:
        """Likewise, of a container."""
        self.jobs["x"] = Job("x")

    @query
    def ask(self, what: str) -> Any:
        """Evaluate an expression of `self`."""
        return eval(what)


class Alone:
    """A proposer that commits at once."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.index = 0
        self.entries: list[Entry] = []
        self.failure: Exception | None = None

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        """Apply one."""
        if self.failure is not None:
            return fail(self.failure)
        self.index += 1
        entry = Entry(self.index, 1, LogType.COMMAND, self.machine.stamp(data, 1))
        self.entries.append(entry)
        try:
            response = self.machine.apply(entry)
        except ApplicationError as error:
            return fail(error)
        return succeed(ApplyResult(self.index, 1, response))

    def linearizable(self, timeout: float | None = None) -> Deferred[int]:
        """Return the index."""
        return fail(self.failure) if self.failure is not None else succeed(self.index)


class Sink(io.BytesIO):
    """A sink in memory."""

    id = "memory"

    def cancel(self) -> None:
        """Do nothing."""


def packed(machine: FSM) -> bytes:
    """Return the snapshot of *machine*."""
    sink = Sink()
    machine.snapshot().persist(sink)
    return sink.getvalue()


class Case(SynchronousTestCase):
    """A queue on a node of its own."""

    def setUp(self) -> None:
        self.jobs = Jobs(("a", "b"))
        self.wall, self.steady = 1_000_000.0, 0.0
        self.machine = Machine({"": self.jobs}, lambda: self.wall, lambda: self.steady)
        self.node = Alone(self.machine)
        bind(self.machine, self.node)

    def state(self) -> Any:
        """Return what a snapshot has, but its place in the log."""
        self.machine._context.index = self.machine._context.microseconds = 0
        return packed(self.machine)


class Commands(Case):
    """A command runs as an entry of the log."""

    def test_call_returns_what_the_method_returned(self) -> None:
        """As does the next one."""
        self.assertEqual(self.successResultOf(self.jobs.put("c")), 1)
        self.assertEqual(self.successResultOf(self.jobs.put("d", until=2.5)), 2)

        self.assertEqual(self.jobs.jobs["d"], Job("d", 2.5))
        self.assertEqual(len(self.node.entries), 2)

    def test_call_by_the_class(self) -> None:
        """As of any method."""
        self.assertEqual(self.successResultOf(Jobs.put(self.jobs, "c")), 1)
        names = self.successResultOf(Jobs.names(self.jobs))

        self.assertEqual(names, ["a", "b", "c"])

    def test_error_is_the_cause(self) -> None:
        """The caller gets to know what was raised."""
        error = self.failureResultOf(self.jobs.break_off(), CommandFailed).value

        self.assertIsInstance(error.__cause__, KeyError)
        self.assertIn("Jobs.break_off raised KeyError", str(error))

    def test_error_shows_copies(self) -> None:
        """What it tells does not change with the next command."""

        class Wrong(Exception):
            pass

        class Things(Replicated):
            def __init__(self) -> None:
                self.items = [1]

            @command
            def fail(self) -> None:
                self.items.append(2)
                error = Wrong(self.items, "x", (self.items,))
                error.items = self.items  # type: ignore[attr-defined]
                raise error

            @command
            def put(self, item: int) -> None:
                self.items.append(item)

        things = Things()
        node = Alone(Machine({"": things}))
        bind(node.machine, node)

        cause: Any = self.failureResultOf(things.fail()).value.__cause__
        self.successResultOf(things.put(3))

        self.assertEqual(cause.args, ([1, 2], "x", ([1, 2],)))
        self.assertEqual(cause.items, [1, 2])
        self.assertIs(type(cause.items), list)
        self.assertEqual(node.index, 2)

    def test_declared_error_is_itself(self) -> None:
        """It can be caught by its class."""
        error = self.failureResultOf(self.jobs.take("x"), NoSuchJob).value

        self.assertEqual(error.args, ("x",))

    def test_command_that_raises_is_undone(self) -> None:
        """Attributes that were set, and all containers."""
        self.successResultOf(self.jobs.put("c"))
        before = self.state()

        self.failureResultOf(self.jobs.break_off(), CommandFailed)

        self.assertEqual(self.state(), before)
        self.assertEqual(self.jobs.log, [])

    def test_attributes_are_those_of_init(self) -> None:
        """A command makes none and deletes none: a restore would not do so."""
        before = vars(self.jobs).copy()
        for what, told in (
            ("setattr(self, 'new', 1)", "Jobs.new is no attribute of the state"),
            ("delattr(self, 'log')", "Jobs.log cannot be deleted"),
            ("delattr(self, 'new')", "new"),
        ):
            error = self.failureResultOf(self.jobs.run(what), CommandFailed).value
            self.assertIsInstance(error.__cause__, AttributeError)
            self.assertIn(told, str(error))

        self.assertEqual(vars(self.jobs), before)

    def test_what_a_failed_command_made_is_gone(self) -> None:
        """Its attributes are those of before, and can be changed as before."""
        self.failureResultOf(self.jobs.break_off(), CommandFailed)

        self.successResultOf(self.jobs.put("x"))

        self.assertEqual([*self.jobs.jobs], ["a", "b", "x"])

    def test_no_memory_stops_the_node(self) -> None:
        """It says nothing about the other members, so nothing goes on here."""
        for what in ("1/0", "(lambda f: f(f))(lambda f: f(f))", "self.raise_memory()"):
            Jobs.raise_memory = _raise_memory  # type: ignore[attr-defined]
            call = Entry(1, 1, LogType.COMMAND, Jobs.run.encoded("", (what,), {}))
            if what == "1/0":
                self.assertRaises(CommandFailed, self.machine.apply, call)
                continue
            expected = MemoryError if "memory" in what else RecursionError
            self.assertRaises(expected, self.machine.apply, call)

    def test_error_that_cannot_be_told(self) -> None:
        """One whose text raises is told by its class."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        machine = self.machine
        call = machine._calls[""]["run"]
        call._method = lambda jobs, what: (_ for _ in ()).throw(Mute())

        error = self.failureResultOf(self.jobs.run("x"), CommandFailed).value

        self.assertIn("Mute", str(error))

    def test_wrong_arguments_are_refused_before_they_travel(self) -> None:
        """By their number, by their names and by their kinds."""
        put: Any = self.jobs.put
        self.assertRaises(TypeError, put)
        self.assertRaises(TypeError, put, "a", "b")
        self.assertRaises(TypeError, put, "a", since=1)
        self.assertRaises(TypeError, self.jobs.take, "a", "b")
        self.assertRaises(CannotTravel, put, bytearray())
        self.assertRaises(CannotTravel, put, "a", until=float("nan"))

        self.assertEqual(self.node.entries, [])

    def test_wrong_arguments_name_the_method(self) -> None:
        """As Python does; also where a decorator hides what the method takes."""

        def traced(method: Any) -> Any:
            @functools.wraps(method)
            def call(self: Any, *args: Any) -> Any:
                return method(self, *args)

            return call

        class Traced(Replicated):
            @command
            @traced
            def put(self, name: str) -> None:
                """Do nothing."""

        put: Any = self.jobs.put
        traced_put: Any = Traced.put

        error = self.assertRaises(TypeError, put)
        self.assertEqual(str(error), "Jobs.put: missing a required argument: 'name'")
        self.assertRaises(TypeError, traced_put.encoded, "", (), {})
        traced_put.encoded("", ("a",), {})

    def test_what_is_no_exception_is_undone_and_told(self) -> None:
        """A node that stopped for it would do so again at each start."""
        self.successResultOf(self.jobs.put("c"))
        before = self.state()
        for error in (GeneratorExit(), asyncio.CancelledError("x"), CancelledError()):
            self.machine._calls[""]["run"]._method = _broken_off_by(error)

            told = self.failureResultOf(self.jobs.run("x"), CommandFailed).value

            self.assertIs(told.__cause__, error)
            self.assertEqual(self.state(), before)

    def test_what_stops_the_node_is_undone(self) -> None:
        """Nothing half done is in a snapshot that is taken before the end."""
        self.successResultOf(self.jobs.put("c"))
        before = self.state()
        for error in (SystemExit(1), KeyboardInterrupt(), MemoryError()):
            self.machine._calls[""]["run"]._method = _broken_off_by(error)
            call = Entry(1, 1, LogType.COMMAND, Jobs.run.encoded("", ("x",), {}))

            self.assertRaises(type(error), self.machine.apply, call)

            self.assertEqual(self.state(), before)

    def test_arguments_of_every_kind(self) -> None:
        """A dict in the last place is no arguments by name."""
        arguments: tuple[Any, ...] = (
            {"until": 1}, {}, [1], {2}, (3,), Job("x"), None, 2**70, frozenset({1}),
        )  # fmt: skip
        for each in arguments:
            method: Any = lambda jobs, what: what  # noqa: E731
            self.machine._calls[""]["run"]._method = method
            run: Any = self.jobs.run
            self.assertEqual(self.successResultOf(run(each)), each)

    def test_container_of_the_state_as_argument(self) -> None:
        """It travels as what it holds."""
        self.machine._calls[""]["run"]._method = lambda jobs, what: what
        run: Any = self.jobs.run

        found = self.successResultOf(run(self.jobs.jobs))

        self.assertEqual(found, {"a": Job("a"), "b": Job("b")})
        self.assertIs(type(found), dict)

    def test_result_is_a_copy(self) -> None:
        """It does not change with the next command, and can be changed."""
        jobs, log, _ = self.successResultOf(self.jobs.return_all())

        self.successResultOf(self.jobs.put("x"))
        jobs["y"] = 1

        self.assertEqual([*jobs], ["a", "b", "y"])
        self.assertEqual(log, ([],))
        self.assertIs(type(log[0]), list)

    def test_result_that_shows_the_state_is_refused(self) -> None:
        """A view, an iterator or the object itself; the command is undone."""
        for what in ("self.jobs.keys()", "iter(self.log)", "self", "lambda: 1"):
            error = self.failureResultOf(self.jobs.run(what), CommandFailed).value
            self.assertIsInstance(error.__cause__, CannotTravel, what)

    def test_shared_container_undoes_the_command(self) -> None:
        """What would be two things after a restore is refused."""
        error = self.failureResultOf(
            self.jobs.run("self.__setattr__('log', self.jobs)"), CommandFailed
        ).value

        self.assertIsInstance(error.__cause__, CannotTravel)
        self.assertEqual(self.jobs.log, [])

    def test_failures_of_the_node_are_passed_on(self) -> None:
        """They are no errors of the command."""
        self.node.failure = NotLeader("b")

        self.failureResultOf(self.jobs.put("x"), NotLeader)
        self.failureResultOf(self.jobs.take("x"), NotLeader)
        self.failureResultOf(self.jobs.names(), NotLeader)


def _broken_off_by(error: BaseException) -> Any:
    """Return a method that changes something and raises *error*."""

    def method(jobs: Any, what: str) -> None:
        jobs.count = -1
        jobs.jobs.clear()
        raise error

    return method


def _raise_memory(self: Any) -> None:
    raise MemoryError


class WithinCommands(Case):
    """Commands and queries within a command."""

    def test_here_runs_in_place(self) -> None:
        """In one entry, with its result at once."""
        self.assertEqual(self.successResultOf(self.jobs.put_two("c", "d")), 2)

        self.assertEqual(len(self.node.entries), 1)
        self.assertEqual(self.jobs.jobs["d"].until, 1.0)

    def test_here_that_raises_is_undone_alone(self) -> None:
        """What was done before it stays, if the command goes on."""
        self.assertEqual(self.successResultOf(self.jobs.take_any("x", "y", "b")), "b")

        self.assertEqual(self.jobs.log, ["b"])
        self.assertEqual(self.jobs.count, -1)

    def test_direct_call_is_refused_by_name(self) -> None:
        """Each member would propose it once more."""
        for which in ("put", "ask"):
            failed = self.failureResultOf(self.jobs.call_directly(which), CommandFailed)
            cause = failed.value.__cause__
            self.assertIsInstance(cause, CallRefused)
            self.assertIn(f"self.{which}.here()", str(cause))
            self.assertIn("Jobs.call_directly", str(cause))

        self.assertEqual(len(self.node.entries), 2)

    def test_direct_call_of_another_object(self) -> None:
        """It would be proposed by every member as well."""
        other = Jobs()
        bind(machine := Machine({"other": other}), Alone(machine))
        call = self.machine._calls[""]["run"]
        call._method = lambda jobs, what: other.put("x")

        failed = self.failureResultOf(self.jobs.run(""), CommandFailed)

        self.assertIsInstance(failed.value.__cause__, CallRefused)

    def test_change_of_another_object(self) -> None:
        """A command changes its own object only."""
        other = Jobs()
        call = self.machine._calls[""]["run"]
        call._method = lambda jobs, what: other.jobs.clear()

        failed = self.failureResultOf(self.jobs.run(""), CommandFailed)

        self.assertIsInstance(failed.value.__cause__, OnlyInCommands)

    def test_here_elsewhere_is_refused(self) -> None:
        """It would change this member alone."""
        self.assertRaises(CallRefused, self.jobs.put.here, "x")
        self.assertRaises(CallRefused, self.jobs.names.here)
        self.assertEqual(self.jobs.length, 2)

    def test_query_within_a_command(self) -> None:
        """It reads what the command has done until then, and changes nothing."""
        names = self.successResultOf(
            self.jobs.run("[self.put.here('x'), self.names.here()]")
        )
        failed = self.failureResultOf(self.jobs.run("self.dirty.here()"), CommandFailed)

        self.assertEqual(names, [1, ["a", "b", "x"]])
        self.assertIsInstance(failed.value.__cause__, OnlyInCommands)


class Outside(Case):
    """Outside a command nothing changes."""

    def test_changes_are_refused(self) -> None:
        """Of attributes, containers, and what they hold."""
        before = self.state()

        self.assertRaises(OnlyInCommands, setattr, self.jobs, "count", 1)
        self.assertRaises(OnlyInCommands, delattr, self.jobs, "count")
        self.assertRaises(OnlyInCommands, self.jobs.jobs.clear)

        self.assertEqual(self.state(), before)

    def test_object_that_is_on_no_node(self) -> None:
        """The message says what to do with it."""
        jobs = Jobs()

        for call in (lambda: jobs.put("a"), jobs.names, lambda: jobs.context):
            error = self.assertRaises(CallRefused, call)
            self.assertIn("async with Node(directory, jobs, ...)", str(error))

    def test_class_that_hides_state_is_refused(self) -> None:
        """What no snapshot has is found when the class is made."""

        def shared() -> None:
            class Shared(Replicated):
                jobs: dict[str, int] = {}  # noqa: RUF012

        def slots() -> None:
            class Slots(Replicated):
                __slots__ = ("jobs",)

        for make, named in ((shared, "Shared.jobs"), (slots, "Slots")):
            error = self.assertRaises(TypeError, make)
            self.assertIn(named, str(error))

    def test_what_remembers_is_refused(self) -> None:
        """A read on one member alone would change what a command sees there."""

        class Mixin:
            @functools.cached_property
            def total(self) -> int:
                return 1

        def prop() -> None:
            class Prop(Replicated):
                @functools.cached_property
                def total(self) -> int:
                    return 1

        def cached() -> None:
            class Cached(Replicated):
                @functools.lru_cache  # noqa: B019
                def total(self) -> int:
                    return 1

        def within() -> None:
            class Within(Replicated):
                total = property(functools.cache(lambda self: 1))
                other = query(functools.cache(lambda self: 1))

        def mixed() -> None:
            class Mixed(Mixin, Replicated):
                pass

        for make, named in (
            (prop, "Prop.total"),
            (cached, "Cached.total"),
            (within, "Within.total"),
            (mixed, "Mixin.total"),
        ):
            error = self.assertRaises(TypeError, make)
            self.assertIn(f"{named} remembers", str(error))

    def test_dict_of_the_attributes_is_a_view(self) -> None:
        """It has one order on all members, and nothing goes past the journal by it."""

        class Things(Replicated):
            def __init__(self) -> None:
                self.second = [1]
                self.first = 2
                try:
                    self.__dict__ = {}
                except AttributeError:
                    self.third = 3

        things = Things()

        self.assertEqual([*vars(things)], ["first", "second", "third"])
        self.assertEqual([*things.__dict__], ["first", "second", "third"])
        with self.assertRaises(TypeError):
            vars(things)["first"] = 3
        with self.assertRaises(AttributeError):
            things.__dict__.update(first=3)
        self.assertEqual((things.first, things.second), (2, [1]))
        self.assertIn("second", dir(things))
        error = self.assertRaises(TypeError, copy.copy, things)
        self.assertIn("Things is neither copied", str(error))

    def test_methods_that_wait_are_refused(self) -> None:
        """A command has an end at its place of the log."""

        async def later(self: Any) -> None: ...

        def some(self: Any) -> Any:
            yield 1

        for method in (later, some):
            for make in (command, query):
                self.assertRaises(TypeError, make, method)


class Queries(Case):
    """A query reads what is committed, and changes nothing."""

    def test_linearizable(self) -> None:
        """It waits for the node."""
        waiting: Deferred[int] = Deferred()
        self.node.linearizable = lambda timeout=None: waiting  # type: ignore[method-assign]
        names = self.jobs.names()
        self.assertNoResult(names)

        self.successResultOf(self.jobs.put("c"))
        waiting.callback(1)

        self.assertEqual(self.successResultOf(names), ["a", "b", "c"])

    def test_stale_reads_at_once(self) -> None:
        """Whatever the node says, or without one."""
        self.node.failure = NotLeader()

        self.assertEqual(self.jobs.names.stale(), ["a", "b"])
        self.assertEqual(Jobs().names.stale(), [])

    def test_changes_are_refused(self) -> None:
        """With the name of the query."""
        for ask in (self.jobs.dirty, self.jobs.dirty_inside):
            error = self.failureResultOf(ask(), OnlyInCommands).value
            self.assertIn("Jobs.dirty", str(error))
            self.assertIn("make it a @command", str(error))
            self.assertRaises(OnlyInCommands, ask.stale)

        self.assertEqual(self.jobs.count, 0)

    def test_errors_are_passed_on(self) -> None:
        """It ran here only."""
        self.failureResultOf(self.jobs.ask("1/0"), ZeroDivisionError)

    def test_result_is_a_copy(self) -> None:
        """Of all containers."""
        found = self.jobs.ask.stale("[self.jobs, self.log]")

        self.assertEqual([type(each) for each in found], [dict, list])
        self.assertRaises(CannotTravel, self.jobs.ask.stale, "self.jobs.values()")

    def test_call_of_others_is_refused(self) -> None:
        """A query proposes nothing."""
        self.failureResultOf(self.jobs.ask("self.put('x')"), CallRefused)
        self.assertEqual(self.jobs.ask.stale("self.names.here()"), ["a", "b"])

    def test_random_is_refused(self) -> None:
        """It would be drawn here alone."""
        self.failureResultOf(self.jobs.ask("self.context.random"), OnlyInCommands)

    def test_context_is_that_of_the_last_command(self) -> None:
        """A query knows how old what it reads is."""
        self.successResultOf(self.jobs.put("x"))

        found = self.jobs.ask.stale("(self.context.index, self.context.time)")

        self.assertEqual(found, (1, 1_000_000.0))


class Contexts(Case):
    """The context is that of the entry."""

    def test_place_and_version(self) -> None:
        """They are those of the log, and 1."""
        found = self.successResultOf(
            self.jobs.run(
                "(self.context.index, self.context.term, self.context.version,"
                " self.context.time, self.context.now.year)"
            )
        )

        self.assertEqual(found, (1, 1, 1, 1_000_000.0, 1970))

    def test_random_is_alike_on_all_members(self) -> None:
        """It depends on the entry alone, and is another in each."""
        what = (
            "[self.context.random.random(), self.context.random.randint(1, 6),"
            " self.context.random.choice('abc'), self.context.random.uniform(1, 2),"
            " self.context.random.sample(range(9), 3)]"
        )
        drawn = [self.successResultOf(self.jobs.run(what)) for _ in range(2)]
        other = Machine({"": Jobs(("a", "b"))})

        again = [other.apply(entry) for entry in self.node.entries]

        self.assertEqual(again, drawn)
        self.assertNotEqual(*drawn)

    def test_random_is_the_same_for_ever(self) -> None:
        """These numbers are in the state of somebody's cluster."""
        draw = (
            "[self.context.random.randrange(1000), self.context.random.randint(1, 6),"
            " self.context.random.sample(range(9), 3), self.context.random.random()]"
        )

        found = self.successResultOf(self.jobs.run(draw))

        self.assertEqual(found[:3], NUMBERS)

    def test_random_shuffles_the_state(self) -> None:
        """A list of the state, in place."""
        self.successResultOf(self.jobs.run("self.log.extend([[i] for i in range(9)])"))
        self.successResultOf(self.jobs.run("self.context.random.shuffle(self.log)"))

        self.assertEqual(
            sorted(self.jobs.ask.stale("self.log")), [[i] for i in range(9)]
        )

    def test_random_of_nothing(self) -> None:
        """The errors are those of the standard library."""
        for what, error in (
            ("choice([])", IndexError),
            ("randrange(0)", ValueError),
            ("randrange(0, 2**60)", ValueError),
            ("sample([1], 2)", ValueError),
        ):
            failed = self.failureResultOf(
                self.jobs.run(f"self.context.random.{what}"), CommandFailed
            )
            self.assertIsInstance(failed.value.__cause__, error)


NUMBERS = [438, 3, [6, 7, 3]]
"""What the first command draws at one million seconds; Python keeps it."""


class Machines(Case):
    """The state machine of objects is one like others."""

    def test_plug_points(self) -> None:
        """A node finds what it offers."""
        for point in (BatchingFSM, DiscerningFSM, NamedFSM, StampingFSM):
            self.assertIsInstance(self.machine, point)

    def test_several_objects(self) -> None:
        """Each has its name in the log, and in snapshots."""
        one, other = Jobs(), Jobs()
        machine = machine_of(None, {"one": one, "other": other})
        bind(machine, node := Alone(machine))

        self.successResultOf(one.put("x"))
        self.successResultOf(other.put("y"))

        again = Machine({"one": Jobs(), "other": Jobs()})
        again.restore(io.BytesIO(packed(machine)))
        self.assertEqual(packed(again), packed(machine))
        self.assertEqual(again.objects["other"].jobs, {"y": Job("y")})  # type: ignore[attr-defined]
        self.assertEqual(len(node.entries), 2)

    def test_state_machine_is_taken_as_it_is(self) -> None:
        """An application may have both kinds, but not on one node."""
        fsm = ListFSM()

        self.assertIs(machine_of(fsm, {}), fsm)
        bind(fsm, self.node)
        unbind(fsm)
        error = self.assertRaises(ContractBroken, machine_of, fsm, {"jobs": Jobs()})
        self.assertIn("jobs", str(error))
        self.assertRaises(ContractBroken, machine_of, None, {})
        self.assertRaises(ContractBroken, machine_of, None, {"jobs": 1})

    def test_object_is_on_one_node(self) -> None:
        """Two would each change it."""
        self.assertRaises(ContractBroken, machine_of, self.jobs, {})
        jobs = Jobs()
        self.assertRaises(ContractBroken, machine_of, jobs, {"again": jobs})

    def test_object_begins_anew_on_its_next_node(self) -> None:
        """That node applies the log from its beginning."""
        self.successResultOf(self.jobs.put("x"))
        entries = self.node.entries

        unbind(self.machine)
        machine = machine_of(self.jobs, {})

        self.assertEqual([*self.jobs.jobs], ["a", "b"])
        for entry in entries:
            machine.apply(entry)
        self.assertEqual([*self.jobs.jobs], ["a", "b", "x"])
        self.assertRaises(CallRefused, self.jobs.put, "y")

    def test_data_of_others(self) -> None:
        """They are refused alike on all members, and told apart."""
        head = b"\xd7\x01" + bytes(8)
        payloads = (b"", b"\xc1", b"\x01", b"\xa2ab", b"\x90", b"\x92\x01\x90")
        for data in (b"", b"x", b"\xd7", *(head + each for each in payloads)):
            entry = Entry(1, 1, LogType.COMMAND, data)
            self.assertRaises(ApplicationError, self.machine.apply, entry)
            self.assertEqual(self.machine.stamp(data, 1)[:1], data[:1])
        self.assertFalse(self.machine.is_own_command(b"x"))
        self.assertTrue(self.machine.is_own_command(Jobs.put.encoded("", ("a",), {})))
        self.assertFalse(self.machine.is_own_snapshot(b"x"))
        self.assertTrue(self.machine.is_own_snapshot(packed(self.machine)[:64]))

    def test_command_that_is_not_known_stops_the_node(self) -> None:
        """Newer members know what it does; this one must not go on without it."""
        data = Jobs.put.encoded("", ("a",), {})
        newer = Entry(1, 1, LogType.COMMAND, data.replace(b"put", b"pot"))
        other = Entry(1, 1, LogType.COMMAND, Jobs.put.encoded("x", ("a",), {}))
        format = Entry(1, 1, LogType.COMMAND, b"\xd7\x02" + data[2:])

        for entry in (newer, other):
            error = self.assertRaises(UnknownCommand, self.machine.apply, entry)
            self.assertIn("upgrade", str(error))
            self.assertIn("as long as the log may hold calls of it", str(error))
        self.assertRaises(FormatTooNew, self.machine.apply, format)

    def test_command_that_is_not_known_is_told_with_those_that_are(self) -> None:
        """In the words of who wrote the class."""

        class Small(Replicated):
            @command
            def put(self) -> None:
                """Do nothing."""

            @command
            def add(self) -> None:
                """Do nothing."""

        only, named = Machine({"": Small()}), Machine({"a": Small()})
        for machine, name, parts in (
            (only, "", ("the node's only object", "Small are add, put")),
            (named, "a", ("the object 'a'", "Small are add, put")),
            (named, "b", ("the object 'b'", "this node are 'a'")),
            (named, "", ("an object without a name", "node are 'a'")),
            (only, "b", ("the object 'b'", "are one without a name")),
        ):
            entry = Entry(9, 1, LogType.COMMAND, Jobs.take.encoded(name, ("x",), {}))

            error = self.assertRaises(UnknownCommand, machine.apply, entry)

            for part in ("entry 9 calls 'take'", *parts):
                self.assertIn(part, str(error))

    def test_subclasses_and_dataclasses(self) -> None:
        """`__init__` may come from anywhere; a method can be replaced."""

        @dataclasses.dataclass
        class Counter(Replicated):
            counts: dict[str, int] = dataclasses.field(default_factory=dict)

            @command
            def count(self, name: str) -> int:
                self.counts[name] = self.counts.get(name, 0) + 1
                return self.counts[name]

        class Double(Counter):
            @property
            def twice(self) -> int:
                return 0

            @twice.setter
            def twice(self, number: int) -> None:
                self.counts["twice"] = number

            @command
            def count(self, name: str) -> int:
                self.twice = 2
                return super().count.here(name) * 2

        counter = Double()
        bind(machine := machine_of(counter, {}), Alone(machine))

        self.assertEqual(self.successResultOf(counter.count("a")), 2)
        self.assertEqual(vars(counter), {"counts": {"twice": 2, "a": 1}})


class Snapshots(Case):
    """A snapshot has all of the state, or nothing of it is taken."""

    def setUp(self) -> None:
        super().setUp()
        for what in (
            "self.tags.update({str(i): {str(i), 'x'} for i in range(3)})",
            "self.log.extend([1, [2, [3, {4: (5, None)}]], {}, [], set()])",
            "setattr(self, 'many', list(range(2500)))",
            "setattr(self, 'big', 'x' * 3_000_000)",
        ):
            self.successResultOf(self.jobs.run(what))

    def test_restored_state_is_the_same(self) -> None:
        """Values, containers, their order, and where in the log it is."""
        again = Jobs()
        machine = Machine({"": again})

        machine.restore(io.BytesIO(packed(self.machine)))

        self.assertEqual(vars(again), vars(self.jobs))
        self.assertEqual(packed(machine), packed(self.machine))
        self.assertEqual(again.context.index, self.jobs.context.index)
        self.assertEqual(again.context.time, self.jobs.context.time)

    def test_restored_containers_journal(self) -> None:
        """They go on as those that were captured, nested or not."""
        again = Machine({"": Jobs()})
        again.restore(io.BytesIO(packed(self.machine)))
        bind(again, node := Alone(again))
        node.index = self.node.index
        jobs: Any = again.objects[""]

        self.assertRaises(OnlyInCommands, jobs.log[1][1].append, 1)
        for each in (self.jobs, jobs):
            for what in (
                "self.log[1][1].append(self.log.pop(0))",
                "self.log.append(self.log.pop(0))",
                "[t.discard('x') for t in self.tags.values()]",
                "self.put.here('x')",
            ):
                self.successResultOf(each.run(what))
            self.failureResultOf(each.break_off(), CommandFailed)
            self.failureResultOf(
                each.run("self.log.append(self.log[0])"), CommandFailed
            )

        self.assertEqual(vars(jobs), vars(self.jobs))

    def test_snapshot_is_of_its_moment(self) -> None:
        """What changes meanwhile, at any depth, is not in it."""
        before = packed(self.machine)
        captured, sink = self.machine.snapshot(), Sink()

        self.successResultOf(self.jobs.run("self.log[1][1][1].clear()"))
        self.failureResultOf(self.jobs.break_off(), CommandFailed)
        self.successResultOf(self.jobs.run("self.tags['0'].add('y')"))
        captured.persist(sink)

        self.assertEqual(sink.getvalue(), before)

    def test_time_goes_on(self) -> None:
        """From that of the snapshot, on a member whose clock is behind."""
        again = Machine({"": Jobs()}, lambda: 5.0, lambda: 5.0)

        again.restore(io.BytesIO(packed(self.machine)))
        bind(again, Alone(again))
        jobs: Any = again.objects[""]

        found = self.successResultOf(jobs.run("self.context.time"))
        self.assertGreater(found, self.jobs.context.time)
        self.assertLess(found, self.jobs.context.time + 1)

    def test_damage_is_refused_and_nothing_is_changed(self) -> None:
        """Wherever a byte is another one, or the rest is missing."""
        self.successResultOf(self.jobs.run("setattr(self, 'big', '')"))
        self.successResultOf(self.jobs.run("self.many.clear()"))
        data = packed(self.machine)
        again = Jobs(("only",))
        machine = Machine({"": again})

        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 0x11
            for bad in (bytes(flipped), data[:place]):
                error = DataCorrupted if bad[14:15] <= b"\x01" else FormatTooNew
                self.assertRaises(error, machine.restore, io.BytesIO(bad))

        self.assertEqual(vars(again), vars(Jobs(("only",))))
        self.assertRaises(DataCorrupted, machine.restore, io.BytesIO(data + data[15:]))

    def test_snapshot_of_another_application(self) -> None:
        """By its name, or by the names of its objects."""

        class Own(Jobs):
            application_name = "example.org/own"

        class Other(Jobs):
            application_name = "example.org/other"

        own, other = Machine({"": Own()}), Machine({"": Other()})
        self.assertEqual(own.application_name, "example.org/own")
        for machine, source, named in (
            (own, other, "example.org/other"),
            (Machine({"jobs": Jobs()}), self.machine, "'jobs'"),
            (self.machine, Machine({"jobs": Jobs()}), "called 'jobs'"),
        ):
            error = self.assertRaises(
                WrongApplication, machine.restore, io.BytesIO(packed(source))
            )
            self.assertIn(named, str(error))
        own.restore(io.BytesIO(packed(self.machine)))  # from before it had a name

    def test_object_that_is_new_begins_anew(self) -> None:
        """One that the snapshot does not know has no commands before it."""
        one = Machine({"one": Jobs()})
        new = Jobs(("a",))
        both = Machine({"one": Jobs(), "two": new})
        bind(both, node := Alone(both))
        self.successResultOf(new.put("b"))

        both.restore(io.BytesIO(packed(one)))

        self.assertEqual([*new.jobs], ["a"])
        self.assertEqual(node.index, 1)


class Grown(Jobs):
    """A newer version of the class: one attribute more, and one less."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        super().__init__(first)
        del self.many
        self.extra: dict[str, list[int]] = {"a": []}
        self.grows = 0

    @command
    def grow(self) -> int:
        """Use what is new."""
        self.extra.setdefault("a", []).append(self.count)
        self.grows += 1
        return self.grows


class Versions(SynchronousTestCase):
    """Members of one version have one state, wherever theirs has come from."""

    def test_restore_and_replay_agree_on_a_new_attribute(self) -> None:
        """A member restores what an older version wrote, another replays the log."""
        old = Machine({"": Jobs()})
        bind(old, node := Alone(old))
        self.successResultOf(old.objects[""].put("x"))  # type: ignore[attr-defined]
        restored, replayed = Machine({"": Grown()}), Machine({"": Grown()})

        restored.restore(io.BytesIO(packed(old)))
        for entry in node.entries:
            replayed.apply(entry)

        grow = Entry(2, 1, LogType.COMMAND, Grown.grow.encoded("", (), {}))
        self.assertEqual(packed(restored), packed(replayed))
        self.assertEqual([restored.apply(grow), replayed.apply(grow)], [1, 1])
        self.assertEqual(packed(restored), packed(replayed))
        self.assertEqual(restored.objects[""].extra, {"a": [1]})  # type: ignore[attr-defined]

    def test_call_with_other_arguments_stops_the_node(self) -> None:
        """The version that has called it did something, which would be lost here."""

        class Newer(Jobs):
            @command
            def take(self, name: str, *, by: str) -> None:  # type: ignore[override]
                """Take an argument more."""
                self.count -= 1

            @command
            def put(self, *, until: float = 0.0) -> int:  # type: ignore[override]
                """Take an argument less."""
                return 0

        machine = Machine({"": Newer()})
        before = packed(machine)
        for call, told in (
            (Jobs.take.encoded("", ("a",), {}), "Newer.take .*argument: 'by'"),
            (Jobs.put.encoded("", ("a",), {}), "Newer.put .*too many positional"),
            (Jobs.put.encoded("", ("a",), {"until": 1.0}), "Newer.put .*too many"),
            (Jobs.call_directly.encoded("", (), {"which": "x"}), ""),
        ):
            entry = Entry(7, 1, LogType.COMMAND, call)
            if not told:  # as before
                self.assertRaises(CommandFailed, machine.apply, entry)
                continue

            error = self.assertRaises(UnknownCommand, machine.apply, entry)

            self.assertRegex(str(error), f"entry 7 calls {told}.*upgrade")
            machine._context.index = machine._context.microseconds = 0
            machine._context.term = 0
            self.assertEqual(packed(machine), before)

    def test_restore_drops_what_the_class_has_no_more(self) -> None:
        """Or a member that replays would not have it."""
        old = Machine({"": Jobs()})
        new = Machine({"": Grown()})

        new.restore(io.BytesIO(packed(old)))

        self.assertNotIn("many", vars(new.objects[""]))

    def test_each_restore_begins_with_values_of_its_own(self) -> None:
        """What was done to a new attribute is not in the next restore."""
        old, new = Machine({"": Jobs()}), Machine({"": Grown()})
        grow = Entry(1, 1, LogType.COMMAND, Grown.grow.encoded("", (), {}))

        for _ in range(2):
            new.restore(io.BytesIO(packed(old)))
            self.assertEqual(new.apply(grow), 1)


class JobsAreAnFSM(FSMContract, SynchronousTestCase):
    """The machine keeps the contract of all state machines."""

    commands = (
        Jobs.put.encoded("", ("a",), {}),
        Jobs.put.encoded("", ("b",), {"until": 1.0}),
        Jobs.take.encoded("", ("c",), {}),
        Jobs.take.encoded("", ("a",), {}),
        Jobs.run.encoded("", ("self.context.random.random()",), {}),
        b"no command",
    )

    def make_fsm(self) -> FSM:
        """Make a new one."""
        return Machine({"": Jobs()})
