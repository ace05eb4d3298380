"""Values: the kinds of data that replicated objects keep, take and return.

They are atoms (None, bool, int, float, str, bytes), tuples, frozensets, dates, times,
and the enums and frozen dataclasses that `value` declares. None of them can change, so
members share nothing but what the log says. Lists, dicts and sets hold them: as
arguments and results they are copied, in the state they become containers that know how
to undo a change.

Left out, each for a reason, and refused by name:

- NaN is not equal to itself: whether `x in self.seen` finds one depends on whether it
  is the same object, and after a restore it is not.
- A subclass of an atom would come back as the atom.
- A time zone with rules, as of `zoneinfo`: members may have different rules.

Integers have any size, texts may hold lone surrogates, infinity is a float. What holds
one another is nested at most `MAX_DEPTH` deep, so that nothing here fills the stack.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum, Flag
from functools import wraps
from operator import attrgetter
from pathlib import PurePath
from typing import Any, TypeVar, dataclass_transform, overload

from txraft.errors import CannotTravel

C = TypeVar("C", bound=type)

MAX_DEPTH = 64
"""How deep values hold one another, at most."""

ATOMS: frozenset[type] = frozenset({type(None), bool, int, str, bytes})
"""Types of values that need no look. A float needs one, as it may be NaN."""

LOOKED_AT = frozenset({float, timedelta, date})
DATES = frozenset({datetime, time})

INSTEAD = {
    "UUID": "store str(x)",
    "Decimal": "store str(x)",
    "Fraction": "store the tuple (x.numerator, x.denominator)",
    "Path": "store str(x)",
    "PosixPath": "store str(x)",
    "bytearray": "store bytes(x)",
    "memoryview": "store bytes(x)",
    "deque": "use a list",
    "defaultdict": "use a dict and setdefault()",
    "OrderedDict": "use a dict, which keeps its order",
    "Counter": "use a dict and get(key, 0)",
    "dict_keys": "use list(x)",
    "dict_values": "use list(x)",
    "dict_items": "use list(x)",
    "generator": "use list(x)",
    "map": "use list(x)",
    "filter": "use list(x)",
    "zip": "use list(x)",
    "range": "use tuple(x)",
    "coroutine": "a command is no coroutine: await before you call it",
    "Deferred": "await it before you call the command",
}
"""Ways out, by the name of the type."""


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """A frozen dataclass that `value` has declared: its *names*, and all at once."""

    cls: type
    name: str
    names: tuple[str, ...]
    fields: Callable[[Any], Sequence[object]]


declared: dict[type, Declared] = {}
"""The dataclasses that `value` has declared."""

enums: dict[type, str] = {}
"""The enums that `value` has declared, and their names."""

_by_name: dict[str, list[type]] = {}


@overload
def value(cls: C, /) -> C: ...


@overload
def value(*, name: str) -> Callable[[C], C]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: Any = None, /, *, name: str = "") -> Any:
    """Declare a class whose instances are state, arguments and results.

    .. code-block:: python

        @value
        class Job:
            id: int
            body: str
            until: float = 0.0

    It becomes a frozen dataclass, if it is not one. An `enum.Enum` is declared in the
    same way. Entries and snapshots say *name*, by default "module.Class": it must not
    change as long as there is data with it, so give it when the class moves. Fields are
    stored in their order; a new one needs a default and comes last.

    Raises: TypeError, for a dataclass that is not frozen or equal by its identity, and
        for a field that its `__init__` does not take.
    """
    if cls is None:
        return lambda cls: _declare(cls, name)
    return _declare(cls, name)


def _declare(cls: Any, name: str) -> type:
    if not isinstance(cls, type):
        raise TypeError(f"@value declares a class, not {cls!r}")
    name = name or f"{_module(cls)}.{cls.__qualname__}"
    if issubclass(cls, Enum):
        enums[cls] = name
    else:
        if "__dataclass_fields__" not in vars(cls):
            cls = dataclasses.dataclass(frozen=True, slots=True)(cls)
        if not cls.__dataclass_params__.frozen:
            raise TypeError(
                f"{cls.__name__} is a dataclass that is not frozen: members would "
                "share what can change. Use @value alone, or @dataclass(frozen=True)"
            )
        names = tuple(field.name for field in dataclasses.fields(cls))
        left_out = [f.name for f in dataclasses.fields(cls) if not f.init]
        if left_out:
            raise TypeError(
                f"{cls.__name__}.{left_out[0]} has init=False: make it a property"
            )
        if object.__eq__ is cls.__eq__ or object.__hash__ is cls.__hash__:
            raise TypeError(
                f"{cls.__name__} is equal to itself only, or has the hash of its "
                "identity, and after a restore it is another: leave out eq=False, or "
                "define __eq__ and __hash__ by its fields"
            )
        # The `__init__` that dataclasses write, as "<string>", sets fields only.
        code = getattr(cls.__init__, "__code__", None)
        is_written = code is not None and code.co_filename == "<string>"
        if cls.__dictoffset__ and (hasattr(cls, "__post_init__") or not is_written):
            _refuse_more(cls, names)
        declared[cls] = Declared(cls, name, names, _getter(names))
    # The same class once more, as after a reload, replaces the one from before.
    same = [c for c in _by_name.get(name, ()) if _place(c) != _place(cls)]
    _by_name[name] = [*same, cls]
    found: type = cls
    return found


def _refuse_more(cls: Any, names: tuple[str, ...]) -> None:
    """Have `__init__` of *cls* refuse what it sets beside the fields *names*.

    At once, on all members, and not where the value is stored: a cache that a method
    fills later is harmless, and there on some members only.
    """
    init = cls.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        more = [name for name in vars(self) if name not in names]
        if more and type(self) is cls:
            raise TypeError(
                f"{cls.__name__}.{more[0]} is set as it is made, and is no field, so a "
                "restore loses it: make it a field or a property"
            )

    cls.__init__ = checked


def _getter(names: tuple[str, ...]) -> Callable[[Any], Sequence[object]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda instance: [getattr(instance, name) for name in names]


def _module(cls: type) -> str:
    """Return the name of the module of *cls*, as those call it who import it."""
    module = cls.__module__
    if module != "__main__":
        return module
    # `python jobs.py` on one member, and `import jobs` on another.
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return PurePath(getattr(main, "__file__", None) or module).stem


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def class_called(name: str) -> type:
    """Return the declared class that is called *name* in entries and snapshots.

    Raises: CannotTravel, if there is none or more than one.
    """
    found = _by_name.get(name, [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise CannotTravel(
            f"no class {name!r} is declared here: import the module where it is, and "
            "see that it has @value"
        )
    places = " and ".join(f"{c.__module__}.{c.__qualname__}" for c in found)
    raise CannotTravel(
        f"{places} are both called {name!r}: give one of them @value(name=...)"
    )


def check_value(item: object, depth: int = MAX_DEPTH) -> None:
    """Check that *item* may be part of the state, where nothing of it can change.

    Raises: CannotTravel
    """
    kind = type(item)
    if kind in ATOMS:
        return
    if kind in LOOKED_AT:
        if item != item:
            raise CannotTravel(NAN)
    elif kind is tuple or kind is frozenset:
        check_depth(depth)
        for each in item:  # type: ignore[attr-defined]
            if type(each) not in ATOMS:
                check_value(each, depth - 1)
    elif (known := declared.get(kind)) is not None:
        check_depth(depth)
        for each in known.fields(item):
            if type(each) not in ATOMS:
                check_value(each, depth - 1)
    elif kind in DATES:
        check_zone(item)
    elif kind not in enums:
        refuse(item)


NAN = (
    "NaN cannot be state, an argument or a result: it is not equal to itself, so "
    "members would differ after a restore. Use None"
)


def check_depth(depth: int) -> None:
    """Refuse what is nested too deep. Raises: CannotTravel"""
    if depth <= 0:
        raise CannotTravel(
            f"the value is nested more than {MAX_DEPTH} deep: keep its parts in a "
            "dict, and refer to them by key"
        )


def check_zone(item: Any) -> None:
    """Refuse a time whose zone members may take for different ones.

    Raises: CannotTravel
    """
    zone = item.tzinfo
    if zone is None:
        return
    if type(zone) is timezone and zone.utcoffset(None).microseconds:
        raise CannotTravel(
            f"{item!r} has a time zone with a part of a second, which is lost as it is "
            "stored: use astimezone(datetime.timezone.utc)"
        )
    if type(zone) is not timezone or len(zone.__getinitargs__()) > 1:  # type: ignore[attr-defined]
        raise CannotTravel(
            f"{item!r} has a time zone with a name or rules, which members may know "
            "differently: use astimezone(datetime.timezone.utc)"
        )


def refuse(item: object) -> None:
    """Refuse *item*, which is of no kind that travels. Raises: CannotTravel, always"""
    kind = type(item)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    out = INSTEAD.get(kind.__name__)
    if out is None:
        # By name and not by an import: neither is one of what this module is about.
        if hasattr(kind, "__await__"):
            out = "await it before you call the command"
        elif isinstance(item, (list, dict, set)) or hasattr(kind, "__iadd__"):
            out = "lists, dicts and sets stand in the state or in one another only"
            if kind not in (list, dict, set):
                out = "use a list, dict or set"
        elif isinstance(item, (Enum, Flag)) or dataclasses.is_dataclass(kind):
            out = f"declare {kind.__name__} with @value"
        elif isinstance(item, (int, float, str, bytes)):
            out = f"use the plain {kind.__mro__[-2].__name__}"
        else:
            out = (
                "use what is made of None, bool, int, float, str, bytes, tuples, "
                "frozensets, dates and classes with @value"
            )
    raise CannotTravel(f"{name} cannot be state, an argument or a result: {out}")
