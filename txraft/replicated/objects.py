"""Replicated objects: methods that run on every member, in the order of the log.

    class Jobs(Replicated):
        def __init__(self) -> None:
            self.leases: dict[str, float] = {}

        @command
        def claim(self, name: str, seconds: float) -> bool:
            if self.leases.get(name, 0.0) > self.context.time:
                return False
            self.leases[name] = self.context.time + seconds
            return True

        @query
        def names(self) -> list[str]:
            return [*self.leases]

`await jobs.claim("a", 30.0)` becomes an entry of the log: the method runs on every
member, and the result is what it returned here. One that raises is undone and fails
with CommandFailed. `await jobs.names()` runs here, once all is applied that was
committed before the call; `jobs.names.stale()` runs at once.

Within a command, `self.claim.here("a", 30.0)` runs another one as a part of it. The
attributes that `__init__` sets are the state; a command makes no others. They are what
`txraft.replicated.values` lists, and the containers of `txraft.replicated.containers`.
The same entries must make the same state: so a command reads its arguments, its state
and `context`, and nothing else.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, update_wrapper
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    NoReturn,
    ParamSpec,
    Protocol,
    SupportsIndex,
    TypeVar,
    overload,
)

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txraft.embedding.outcome import Outcome
from txraft.errors import CallRefused, CommandFailed
from txraft.node.pending import ApplyResult
from txraft.replicated.containers import CONTAINERS
from txraft.replicated.context import Context
from txraft.replicated.encoding import encode, make_packer
from txraft.replicated.journal import Journal, plain
from txraft.replicated.values import ATOMS

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Replicated")
S_contra = TypeVar("S_contra", bound="Replicated", contravariant=True)

COMMAND = b"\xd7\x01"
"""The first bytes of an entry: a byte that begins no text, and the version."""

UNSTAMPED = bytes(8)
"""Where the leader puts the time, in microseconds."""

HEAD_BYTES = len(COMMAND) + len(UNSTAMPED)

_pack = make_packer()  # of the reactor's thread
_MISSING: Any = object()


class Proposer(Protocol):
    """What an object's commands and queries go through: a node, or a test's cluster."""

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        """Commit a command and apply it here."""

    def linearizable(self, timeout: float | None = None) -> Deferred[int]:
        """Wait until all is applied here that was committed before the call."""


class Place:
    """Where an object is: its name on a node, its journal, and who proposes for it."""

    __slots__ = (
        "attributes",
        "context",
        "initial",
        "journal",
        "name",
        "proposer",
        "taken",
    )

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.context: Context | None = None
        self.name = ""
        self.proposer: Proposer | None = None
        # Its state before the first command, once it has been on a node.
        self.initial: bytes | None = None
        self.taken = False
        # Those that `__init__` has set, None while it runs. A command may not make
        # others: a snapshot of an older version of the class has none of them, while
        # a member that replays the log would.
        self.attributes: frozenset[str] | None = None

    def check_attribute(self, name: str) -> None:
        """Refuse an attribute that `__init__` has not set. Raises: AttributeError"""
        if self.attributes is not None and name not in self.attributes:
            raise AttributeError(
                f"{self.journal.place}.{name} is no attribute of the state: set it in "
                "__init__, so that all members have it, also after a restore"
            )


class Running:
    """What runs: the name of a command or query, "" while none does.

    It is one for all objects, and not of each: a command that calls another object's
    would propose it on every member.
    """

    name = ""


class ReplicatedType(ABCMeta):
    """Makes objects whose `__init__` may set up the state."""

    # By the metaclass, as `__init__` may come from a decorator such as `dataclass`.
    if not TYPE_CHECKING:

        def __call__(cls, *args, **named):
            made = cls.__new__(cls, *args, **named)
            journal = place_of(made).journal
            journal.begin()
            try:
                made.__init__(*args, **named)
                journal.check_places(state_of(made).values())
                place_of(made).attributes = frozenset(state_of(made))
            finally:
                journal.end()
            return made


class _Stored(metaclass=ReplicatedType):
    """Where the attributes are: in `__dict__`, and the same dict in `_txraft_state`."""

    __slots__ = ("__dict__", "__weakref__", "_txraft_place", "_txraft_state")


class Replicated(_Stored):
    """The base of classes whose objects are replicated; see the module above.

    `__init__` makes the state that the log begins with, so it must make the same on
    every member. `application_name`, such as "example.org/jobs", is stored with the
    data of a node, so that no other application takes them over; it never changes.
    """

    __slots__ = ()

    application_name: ClassVar[str] = ""
    _txraft_commands: ClassVar[Mapping[str, Command[Any, Any, Any]]] = {}
    _txraft_setters: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls, *args: Any, **named: Any) -> Any:
        """Make an object whose state is empty."""
        made = object.__new__(cls)
        place = Place(Journal(cls.__name__))
        object.__setattr__(made, "_txraft_place", place)
        replace_state(made, {})
        return made

    # Python reads an attribute in the real dict, whatever this returns; so reading is
    # as fast as ever. What writes to this, as `vars(self)["n"] = 1` or a cache, would
    # go past the journal, and the order of the real one is another after a restore.
    if not TYPE_CHECKING:

        @property
        def __dict__(self):
            """The state, sorted by the names of the attributes, to be read."""
            return MappingProxyType(dict(sorted(state_of(self).items())))

    def __dir__(self) -> Iterable[str]:
        """Return the names of all attributes."""
        return [*object.__dir__(self), *state_of(self)]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse a copy. Raises: TypeError, always"""
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} is neither copied nor pickled, as its commands are in one log: "
            "make another one, or return what you need of it from a query"
        )

    def __init_subclass__(cls, **named: Any) -> None:
        """Refuse what would be state that nobody sees.

        Raises: TypeError
        """
        super().__init_subclass__(**named)
        # Bases that are no Replicated, too: they have not been looked at.
        mixed = [b for b in cls.__mro__[1:-1] if not issubclass(b, _Stored)]
        for base in (*mixed, cls):
            for name, item in vars(base).items():
                _check_cached(f"{base.__name__}.{name}", item)
        for name, item in vars(cls).items():
            if name == "__slots__" and item:
                raise TypeError(
                    f"{cls.__name__} has __slots__: what is in them is in no snapshot"
                )
            if isinstance(item, (list, dict, set, bytearray)) and name[:2] != "__":
                raise TypeError(
                    f"{cls.__name__}.{name} is a {type(item).__name__} of the class, "
                    "which is none of the state and can change: make it in __init__, "
                    "or use a tuple"
                )
        found: dict[str, Command[Any, Any, Any]] = {}
        setters: set[str] = set()
        for base in reversed(cls.__mro__):
            for name, item in vars(base).items():
                found.pop(name, None)
                if isinstance(item, Command):
                    found[name] = item
                if hasattr(type(item), "__set__") and not issubclass(Replicated, base):
                    setters.add(name)
        cls._txraft_commands = found
        cls._txraft_setters = frozenset({*setters, "context", "__dict__"})

    @property
    def context(self) -> Context:
        """The entry, the time and the random numbers of the running command.

        Raises: CallRefused, on an object that is on no node.
        """
        context = place_of(self).context
        if context is None:
            _refuse_homeless(self, "context")
        return context

    def __setattr__(self, name: str, item: Any) -> None:
        """Change the state. Raises: OnlyInCommands, CannotTravel, AttributeError"""
        journal: Journal = self._txraft_place.journal  # type: ignore[attr-defined]
        entries = journal.entries
        if entries is None:
            journal.refuse()
        if name in self._txraft_setters:
            object.__setattr__(self, name, item)
            return
        state: dict[str, Any] = self._txraft_state  # type: ignore[attr-defined]
        old = state.get(name, _MISSING)
        if old is item:
            return  # as `self.names += [name]` ends: it has not moved
        if type(item) not in ATOMS:
            item = journal.own(item)
        if old is _MISSING:
            self._txraft_place.check_attribute(name)  # type: ignore[attr-defined]
            entries.append((state.__delitem__, (name,)))
        else:
            entries.append((state.__setitem__, (name, old)))
        state[name] = item
        if type(item) in CONTAINERS:
            journal.keep(item, entries)
        if type(old) in CONTAINERS:
            journal.drop(old, entries)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute, in `__init__`.

        Raises: AttributeError, in a command, as a restore would bring it back;
            OnlyInCommands
        """
        place = place_of(self)
        journal = place.journal
        entries = journal.entries
        if entries is None:
            journal.refuse()
        state = state_of(self)
        if name not in state:
            object.__delattr__(self, name)
            return
        if place.attributes is not None:
            raise AttributeError(
                f"{journal.place}.{name} cannot be deleted, as a restore would bring "
                "it back: set it to None or to what is empty"
            )
        old = state.pop(name)
        if type(old) in CONTAINERS:
            journal.drop(old, entries)


def place_of(target: Replicated) -> Place:
    """Return where *target* is."""
    found: Place = target._txraft_place  # type: ignore[attr-defined]
    return found


def state_of(target: Replicated) -> dict[str, Any]:
    """Return the attributes of *target*, to be read: `vars(target)` is a copy."""
    found: dict[str, Any] = target._txraft_state  # type: ignore[attr-defined]
    return found


def replace_state(target: Replicated, state: dict[str, Any]) -> None:
    """Make *state* the attributes of *target*, in one step."""
    _set_dict(target, state)
    object.__setattr__(target, "_txraft_state", state)


_set_dict = vars(_Stored)["__dict__"].__set__


class BoundCommand(Generic[P, R]):
    """A command of one object: called, it is replicated; `here` runs within another."""

    __slots__ = ("_command", "_target")

    def __init__(self, target: Any, command: Command[Any, P, R]) -> None:
        self._target = target
        self._command = command

    def __call__(self, *args: P.args, **named: P.kwargs) -> Outcome[R]:
        """Commit the command, and run it on every member.

        Returns: an Outcome of what it returned here; it may be cancelled as
            `Node.apply`. It fails with CommandFailed, whose `__cause__` is what the
            method has raised; with that itself, if `command(raises=...)` declares it;
            and else as `Node.apply` fails.
        Raises: CannotTravel, for an argument; TypeError, if the method does not take
            them; CallRefused, within a command or query, or on no node.
        """
        command, place = self._command, self._target._txraft_place
        if Running.name:
            _refuse_within(self._target, command.name)
        proposer = place.proposer
        if proposer is None:
            _refuse_homeless(self._target, command.name)
        work: Any = proposer.apply(command.encoded(place.name, args, named))
        work.addCallbacks(_response, command.told if command.raises else None)
        return work if isinstance(work, Outcome) else Outcome.of(work)

    def here(self, *args: P.args, **named: P.kwargs) -> R:
        """Run it as a part of the command that runs. If it raises, it is undone.

        Raises: whatever it raises; CallRefused, outside a command of this object.
        """
        journal: Journal = self._target._txraft_place.journal
        entries = journal.entries
        if entries is None or not Running.name:
            raise CallRefused(
                f"{journal.place}.{self._command.name}.here() is for commands of the "
                f"same object: from elsewhere, call {self._command.name}() and await it"
            )
        mark = len(entries)
        try:
            return self._command.method(self._target, *args, **named)
        except BaseException:  # whatever the outer command goes on after
            journal.undo(mark)
            raise


def _response(result: ApplyResult) -> Any:
    return result.response


class Command(Generic[S_contra, P, R]):
    """A method that `command` has made a command."""

    def __init__(
        self,
        method: Callable[Concatenate[S_contra, P], R],
        raises: tuple[type[Exception], ...] = (),
    ) -> None:
        _check_method(method, "command")
        self.method: Callable[..., R] = method
        self.raises = raises
        self.name = method.__name__
        self._owner = ""
        self._signature = inspect.signature(method)
        # How many arguments it takes by their places: all calls but wrong ones are
        # found in here, which is ten times as fast as `problem`.
        # One that is wrapped has the signature of another function than itself.
        is_wrapped = hasattr(method, "__wrapped__")
        code: Any = None if is_wrapped else getattr(method, "__code__", None)
        most = code.co_argcount - 1 if code is not None else -1
        least = most - len(getattr(method, "__defaults__", None) or ())
        only_named = code is None or code.co_kwonlyargcount
        self.places = range(0) if only_named else range(least, most + 1)
        update_wrapper(self, method)

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self.name = owner.__name__, name

    @overload
    def __get__(self, target: None, owner: type) -> Command[S_contra, P, R]: ...

    @overload
    def __get__(self, target: S_contra, owner: type) -> BoundCommand[P, R]: ...

    def __get__(self, target: S_contra | None, owner: type) -> Any:
        return self if target is None else BoundCommand(target, self)

    def __call__(
        self, target: S_contra, /, *args: P.args, **named: P.kwargs
    ) -> Outcome[R]:
        """Call it on *target*: `Jobs.claim(jobs, 30.0)` is `jobs.claim(30.0)`."""
        bound: BoundCommand[P, R] = BoundCommand(target, self)
        return bound(*args, **named)

    def problem(self, args: Sequence[object], named: Mapping[str, object]) -> str:
        """Return why the method does not take these arguments, or ""."""
        try:
            self._signature.bind(None, *args, **named)
        except TypeError as error:
            return str(error)
        return ""

    def encoded(
        self, place: str, args: tuple[object, ...], named: Mapping[str, object]
    ) -> bytes:
        """Return the entry that calls it on the object called *place*.

        Raises: CannotTravel, TypeError
        """
        if named or len(args) not in self.places:
            problem = self.problem(args, named)
            if problem:
                raise TypeError(f"{self._owner}.{self.name}: {problem}")
        row: list[object] = [place, self.name]
        for each in args:
            row.append(each if type(each) in ATOMS_OF_MSGPACK else encode(each))
        if named:
            row.append({name: encode(each) for name, each in named.items()})
        return COMMAND + UNSTAMPED + _pack(row)

    def told(self, failure: Failure) -> Any:
        """Return *failure*, or for one that is declared what the method has raised."""
        error = failure.value
        cause = error.__cause__ if isinstance(error, CommandFailed) else None
        if isinstance(cause, self.raises):
            return Failure(cause, type(cause), cause.__traceback__)
        return failure


ATOMS_OF_MSGPACK: frozenset[type] = frozenset({type(None), bool, str, bytes})


class BoundQuery(Generic[P, R]):
    """A query of one object: called, it is linearizable; `stale` reads at once."""

    __slots__ = ("_query", "_target")

    def __init__(self, target: Any, query: Query[Any, P, R]) -> None:
        self._target = target
        self._query = query

    def __call__(self, *args: P.args, **named: P.kwargs) -> Outcome[R]:
        """Read what contains all that was committed before this call.

        Returns: an Outcome of what the method returned. It fails with whatever it
            raises, and as `Node.linearizable` fails.
        Raises: CallRefused, within a command or query, or on no node.
        """
        place: Place = self._target._txraft_place
        if Running.name:
            _refuse_within(self._target, self._query.name)
        proposer = place.proposer
        if proposer is None:
            _refuse_homeless(self._target, self._query.name)
        work: Any = proposer.linearizable()
        work.addCallback(lambda _: self._run(args, named))
        return work if isinstance(work, Outcome) else Outcome.of(work)

    def stale(self, *args: P.args, **named: P.kwargs) -> R:
        """Read what is applied here now, which may be old.

        Raises: whatever the method raises; CallRefused, within a command or query.
        """
        if Running.name:
            _refuse_within(self._target, self._query.name)
        return self._run(args, named)

    def here(self, *args: P.args, **named: P.kwargs) -> R:
        """Read within a command or another query of this object.

        Raises: whatever the method raises; CallRefused, elsewhere.
        """
        if not Running.name:
            name = self._query.name
            raise CallRefused(
                f"{name}.here() is for commands and queries of the same object: from "
                f"elsewhere, await {name}() or call {name}.stale()"
            )
        return self._read(args, named)

    def _run(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> R:
        # The result is a copy: what it shows must not change with the next command.
        result: R = plain(self._read(args, named))
        return result

    def _read(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> R:
        journal: Journal = self._target._txraft_place.journal
        before = journal.entries, journal.query, Running.name
        name = f"{journal.place}.{self._query.name}"
        journal.entries, journal.query, Running.name = None, name, name
        try:
            return self._query.method(self._target, *args, **named)
        finally:
            journal.entries, journal.query, Running.name = before


class Query(Generic[S_contra, P, R]):
    """A method that `query` has made a query."""

    def __init__(self, method: Callable[Concatenate[S_contra, P], R]) -> None:
        _check_method(method, "query")
        self.method: Callable[..., R] = method
        self.name = method.__name__
        update_wrapper(self, method)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, target: None, owner: type) -> Query[S_contra, P, R]: ...

    @overload
    def __get__(self, target: S_contra, owner: type) -> BoundQuery[P, R]: ...

    def __get__(self, target: S_contra | None, owner: type) -> Any:
        return self if target is None else BoundQuery(target, self)

    def __call__(
        self, target: S_contra, /, *args: P.args, **named: P.kwargs
    ) -> Outcome[R]:
        """Call it on *target*: `Jobs.names(jobs)` is `jobs.names()`."""
        bound: BoundQuery[P, R] = BoundQuery(target, self)
        return bound(*args, **named)


@overload
def command(method: Callable[Concatenate[S, P], R], /) -> Command[S, P, R]: ...


@overload
def command(
    *, raises: type[Exception] | tuple[type[Exception], ...]
) -> Callable[[Callable[Concatenate[S, P], R]], Command[S, P, R]]: ...


def command(
    method: Any = None,
    /,
    *,
    raises: type[Exception] | tuple[type[Exception], ...] = (),
) -> Any:
    """Make a method a command: it runs on every member, as an entry of the log.

    What it raises undoes it, and fails the caller's Outcome: classes in *raises* as
    they are, others as the `__cause__` of a CommandFailed. MemoryError, RecursionError
    and what ends a process, as SystemExit, stop the node instead: they need not happen
    on all members.

    Raises: TypeError, for a coroutine or a generator.
    """
    classes = raises if isinstance(raises, tuple) else (raises,)
    if method is None:
        return lambda method: Command(method, classes)
    return Command(method, classes)


def query(method: Callable[Concatenate[S, P], R], /) -> Query[S, P, R]:
    """Make a method a query: a linearizable read of the state, which changes nothing.

    Raises: TypeError, for a coroutine or a generator.
    """
    return Query(method)


_CACHED = (cached_property, type(lru_cache(len)))


def _check_cached(place: str, item: object) -> None:
    """Refuse a method or property that remembers. Raises: TypeError"""
    inner = item.method if isinstance(item, (Command, Query)) else item
    inner = inner.fget if isinstance(inner, property) else inner
    if isinstance(inner, _CACHED):
        raise TypeError(
            f"{place} remembers what it returned ({type(inner).__name__}), at another "
            "time on each member, and the state changes: use @property or a method"
        )


def _check_method(method: Any, what: str) -> None:
    if (
        inspect.iscoroutinefunction(method)
        or inspect.isgeneratorfunction(method)
        or inspect.isasyncgenfunction(method)
    ):
        raise TypeError(
            f"{method.__qualname__} is a coroutine or a generator: a {what} runs from "
            "beginning to end at one place of the log, and waits for nothing"
        )


def _refuse_within(target: object, name: str) -> NoReturn:
    raise CallRefused(
        f"{Running.name} has called {type(target).__name__}.{name}(), which every "
        f"member would propose again: within a command, call self.{name}.here()"
    )


def _refuse_homeless(target: object, name: str) -> NoReturn:
    kind = type(target).__name__
    raise CallRefused(
        f"{kind}.{name} was asked for, and this {kind} is on no running node: give it "
        f"to one, as in `async with Node(directory, {kind.lower()}, ...)`"
    )
