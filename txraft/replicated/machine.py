"""The machine of replicated objects: an FSM whose commands are method calls.

An entry names an object and a method, and carries the arguments. Applying it runs the
method, with the journal of the object open, in the context of the entry. What it
returns is the response; if it raises, the journal is undone and the response is a
CommandFailed. An entry whose method is not known here, or does not take its arguments,
stops the node: another version knows what it does, and would do something else.
"""

from __future__ import annotations

import io
import struct
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from txraft.core.entry import Entry
from txraft.errors import (
    ApplicationError,
    CommandFailed,
    ContractBroken,
    FormatTooNew,
    UnknownCommand,
)
from txraft.interfaces import FSM, FSMSnapshot
from txraft.replicated.context import Context
from txraft.replicated.encoding import decode, unpack
from txraft.replicated.entry_time import EntryTime
from txraft.replicated.journal import Journal, detach, plain
from txraft.replicated.objects import (
    COMMAND,
    HEAD_BYTES,
    Command,
    Place,
    Proposer,
    Replicated,
    Running,
    place_of,
    replace_state,
    state_of,
)
from txraft.replicated.snapshot import MAGIC, Position, capture, read
from txraft.replicated.values import ATOMS

_HEAD = struct.Struct(">2sQ")
"""What an entry begins with, as it was stamped."""


class Machine:
    """The state machine of *objects*, which are called by their names in the log.

    *wall* tells the time of day, and *steady* one that only grows, in seconds.
    """

    def __init__(
        self,
        objects: Mapping[str, Replicated],
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects = dict(sorted(objects.items()))
        self._context = Context()
        self._time = EntryTime(wall, steady)
        self._calls: dict[str, dict[str, _Call]] = {}
        for name, target in self.objects.items():
            if not isinstance(target, Replicated):
                raise ContractBroken(
                    f"{name}={target!r} is no Replicated: make its class one"
                )
            if place_of(target).taken:
                raise ContractBroken(
                    f"this {type(target).__name__} is on a node already: make another"
                )
        if len({id(target) for target in self.objects.values()}) < len(self.objects):
            raise ContractBroken("one object was given under two names")
        for name, target in self.objects.items():
            self._take(name, target)

    def _take(self, name: str, target: Replicated) -> None:
        """Have *target* begin where the log does, under *name*."""
        place = place_of(target)
        if place.initial is None:
            place.initial = _packed(target)
        else:  # it was on a node before, and has the state of then
            replace_state(target, _unpacked(place))
        place.name, place.context, place.taken = name, self._context, True
        self._calls[name] = {
            called: _Call(place, command, target)
            for called, command in target._txraft_commands.items()
        }

    @property
    def application_name(self) -> str:
        """The first name of an application that a class of the objects has, or ""."""
        names = [target.application_name for target in self.objects.values()]
        return next(filter(None, names), "")

    def is_own_command(self, data: bytes) -> bool:
        """Tell whether *data* may be a call of a method."""
        return data[:1] == COMMAND[:1]

    def is_own_snapshot(self, head: bytes) -> bool:
        """Tell whether a snapshot that begins with *head* may be one of objects."""
        return head.startswith(MAGIC)

    def bind(self, proposer: Proposer) -> None:
        """Have commands and queries of the objects go through *proposer*."""
        for target in self.objects.values():
            place_of(target).proposer = proposer

    def unbind(self) -> None:
        """Have them refused again; the objects can be given to another node."""
        for target in self.objects.values():
            place = place_of(target)
            place.proposer, place.taken = None, False

    # The log

    def stamp(self, data: bytes, term: int) -> bytes:
        """Return *data* with the time of its entry. Thread: reactor."""
        if data[:1] != COMMAND[:1] or len(data) < HEAD_BYTES:
            return data  # it is refused when it is applied
        return _HEAD.pack(data[:2], self._time.stamp()) + data[HEAD_BYTES:]

    def apply(self, log: Entry) -> object:
        """Run the command of one entry; return what it returned.

        Raises: CommandFailed, if it raised; ApplicationError, for what is no command;
            UnknownCommand, FormatTooNew, CannotTravel, for one that is not known here.
        """
        response = self._apply(log)
        self._time.settle()
        if isinstance(response, ApplicationError):
            raise response
        return response

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Run the commands of many entries; return what each returned or raised."""
        responses = [self._apply(log) for log in logs]
        self._time.settle()
        return responses

    def _apply(self, log: Entry) -> object:
        # For each command on each member: few calls, and no look-ups of what is known.
        data = log.data
        if data is None or len(data) < HEAD_BYTES or data[0] != COMMAND[0]:
            return ApplicationError(
                f"entry {log.index} is no command of an object: call its methods"
            )
        head, stamp = _HEAD.unpack_from(data)
        if head > COMMAND:
            raise FormatTooNew(
                f"entry {log.index} has format {data[1]}, and this version of txraft "
                f"knows {COMMAND[1]}: upgrade this node"
            )
        context = self._context
        context.index, context.term = log.index, log.term
        context.microseconds = self._time.applied(stamp)
        try:
            row = unpack(data[HEAD_BYTES:])
            if type(row) is not list:  # a text has parts, too
                raise ValueError(f"{type(row).__name__} is no list")
            name, called, *args = row
        except ValueError as error:
            return ApplicationError(f"entry {log.index} is no command: {error}")
        try:
            call = self._calls[name][called]
        except (KeyError, TypeError):
            if type(name) is not str or type(called) is not str:
                return ApplicationError(
                    f"entry {log.index} is no command: a name is no text"
                )
            raise UnknownCommand(self._unknown(log.index, name, called)) from None
        return call.run(args, context)

    def _unknown(self, index: int, name: str, called: str) -> str:
        """Tell what an entry calls, what is known here, and the ways out."""
        what = f"entry {index} calls {called!r} of {_worded(name, self.objects)}"
        if name not in self.objects:
            known = ", ".join(
                repr(each) if each else "one without a name" for each in self.objects
            )
            return (
                f"{what}, and the objects of this node are {known}: either this node "
                "is older than the one that has called it, so upgrade it; or an object "
                "was taken away or renamed, so give it to the node again under that "
                "name as long as the log may hold calls of it"
            )
        kind = type(self.objects[name]).__name__
        known = ", ".join(sorted(self._calls[name])) or "none"
        return f"{what}, and the commands of {kind} are {known} here: {_WAYS_OUT}"

    def describe(self, log: Entry) -> str:
        """Return the method that an entry calls, and on which object, for a message."""
        try:
            name, called, *_ = unpack((log.data or b"")[HEAD_BYTES:])
            return self._calls[name][called].name
        except (ValueError, KeyError, TypeError):
            return "which is no command"

    # Snapshots

    def snapshot(self) -> FSMSnapshot:
        """Copy the containers of all objects; `persist` packs them."""
        context = self._context
        position = Position(context.index, context.term, context.microseconds)
        states = (
            (name, type(target).__name__, state_of(target))
            for name, target in self.objects.items()
        )
        return capture(self.application_name, position, states)

    def restore(self, source: BinaryIO) -> None:
        """Replace the state of all objects. An object that is not in it begins anew.

        So does an attribute of which the snapshot knows nothing, as one that the class
        has got since; one that `__init__` sets no more is dropped.
        Raises: as `txraft.replicated.snapshot.read`; nothing is changed then.
        Thread: snapshot.
        """
        places = {name: place_of(target) for name, target in self.objects.items()}
        journals = {name: place.journal for name, place in places.items()}
        restored = read(source, self.application_name, journals)
        states = [
            (target, _completed(places[name], restored.objects.get(name, {})))
            for name, target in self.objects.items()
        ]
        at, context = restored.position, self._context
        for target, state in states:
            replace_state(target, state)
        context.index, context.term = at.index, at.term
        context.microseconds = at.microseconds
        self._time.restored(at.microseconds)


_STOPS = MemoryError, RecursionError
"""They need not happen on all members: this one stops, and has nothing half done."""

_FAILS = Exception, CancelledError, GeneratorExit
"""What fails a command. The last two are no Exception, and raised by code like any
other: a node that stopped for one would do so again at each start."""

_WAYS_OUT = (
    "either this node is older than the one that has called it, so upgrade it; or the "
    "class has changed since, so keep the old method, with its arguments, as long as "
    "the log may hold calls of it"
)


def _worded(name: str, objects: Mapping[str, Replicated]) -> str:
    """Return how a message names the object called *name*."""
    if name:
        return f"the object {name!r}"
    return (
        "the node's only object" if [*objects] == [""] else "an object without a name"
    )


class _Call:
    """One command of one object."""

    __slots__ = ("_command", "_journal", "_method", "_places", "_target", "name")

    def __init__(
        self, place: Place, command: Command[Any, Any, Any], target: Replicated
    ) -> None:
        self._journal = place.journal
        self._command = command
        self._method = command.method
        self._places = command.places
        self._target = target
        self.name = f"{place.journal.place}.{command.name}"

    def run(self, raw: list[Any], context: Context) -> object:
        """Run it with the encoded arguments *raw*; return the response.

        Raises: UnknownCommand, if it does not take them; it has not begun then.
        """
        args = [decode(each) if type(each) is list else each for each in raw]
        named: dict[str, Any] = {}
        if args and type(args[-1]) is dict and type(raw[-1]) is dict:
            named = {key: decode(each) for key, each in args.pop().items()}
        # Its caller has checked them, by the version of the class there. To fail here
        # as a command that raises would lose what the others have done by this call.
        if named or len(args) not in self._places:
            problem = self._command.problem(args, named)
            if problem:
                raise UnknownCommand(
                    f"entry {context.index} calls {self.name} with other arguments "
                    f"than it takes here ({problem}): {_WAYS_OUT}"
                )
        journal = self._journal
        before, Running.name = Running.name, self.name
        context.in_command = True
        journal.entries = []
        try:
            result = self._method(self._target, *args, **named)
            if type(result) not in ATOMS:
                # A copy: the next command must not change what its caller looks at.
                result = plain(result)
            if journal.shared:
                journal.check_places(state_of(self._target).values())
            return result
        except BaseException as error:
            stops = isinstance(error, _STOPS) or not isinstance(error, _FAILS)
            if not stops:
                detach(error)  # before: it tells what was there as it was raised
            journal.undo()
            if stops:
                raise
            return self._failed(error)
        finally:
            journal.entries = None
            if journal.shared:
                journal.shared.clear()
            context.in_command = False
            Running.name = before

    def _failed(self, error: BaseException) -> CommandFailed:
        try:
            why = f"{type(error).__name__}: {error}"
        except Exception:  # its __str__ may need what was undone
            why = type(error).__name__
        failed = CommandFailed(f"{self.name} raised {why}")
        failed.__cause__ = error
        return failed


class _Memory(io.BytesIO):
    """A sink in memory."""

    id = "memory"

    def cancel(self) -> None:
        """Do nothing."""


def _packed(target: Replicated) -> bytes:
    """Return the state of *target*, as a snapshot of it alone."""
    sink = _Memory()
    name = type(target).__name__
    capture("", Position(), [("", name, state_of(target))]).persist(sink)
    return sink.getvalue()


def _unpacked(place: Place) -> dict[str, Any]:
    """Return the attributes that the object at *place* begins with."""
    assert place.initial is not None, "it was packed when a node took it"
    journals: dict[str, Journal] = {"": place.journal}
    return read(io.BytesIO(place.initial), "", journals).objects[""]


def _completed(place: Place, found: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the object at *place*, as many as *found* has of them.

    The others are as `__init__` has made them here: so a member that restores has the
    same as one that has replayed the log, which knows nothing of a newer attribute.
    """
    return {name: found.get(name, first) for name, first in _unpacked(place).items()}


def machine_of(
    machine: FSM | Replicated | None, objects: Mapping[str, Replicated]
) -> FSM:
    """Return the state machine of a node: *machine* itself, if it is an FSM.

    A Replicated has the name "" in the log, and *objects* have theirs.
    Raises: ContractBroken, for an FSM and objects, for nothing at all, and for what is
        no FSM and no Replicated.
    """
    if isinstance(machine, Replicated):
        return Machine({"": machine, **objects})
    if machine is None and not objects:
        raise ContractBroken("a node needs an object or a state machine")
    if machine is None:
        return Machine(objects)
    if objects:
        raise ContractBroken(
            f"{type(machine).__name__} is a state machine, so the node cannot have "
            f"{', '.join(objects)} too: give it objects only"
        )
    return machine


def bind(fsm: object, proposer: Proposer) -> None:
    """Have the objects of *fsm*, if it has any, propose by *proposer*."""
    if isinstance(fsm, Machine):
        fsm.bind(proposer)


def unbind(fsm: object) -> None:
    """Take the objects of *fsm*, if it has any, off their node."""
    if isinstance(fsm, Machine):
        fsm.unbind()
