"""Values that travel, and values that are refused by name, with the way out."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import pathlib
import sys
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from random import Random
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import CannotTravel, DataCorrupted
from txraft.replicated.encoding import decode, encode, make_packer, unpack
from txraft.replicated.journal import Journal, plain
from txraft.replicated.values import MAX_DEPTH, check_value, value


@value
class Point:
    """Two of anything."""

    x: Any
    y: Any = 0


@value(name="shape")
@dataclasses.dataclass(frozen=True)
class Named:
    """One field."""

    only: Any

    def __post_init__(self) -> None:
        if self.only == "refused":
            raise ValueError("it is refused")


@value
class Colour(enum.Enum):
    """A plain enum."""

    RED = 1
    GREEN = "green"


@value
class Size(enum.IntEnum):
    """One of numbers."""

    SMALL = 1


@value
class Rights(enum.Flag):
    """One of flags."""

    READ = enum.auto()
    WRITE = enum.auto()


POINT = f"{__name__}.Point"
"""What entries call that class."""


def travel(item: Any) -> Any:
    """Encode and decode *item*."""
    return decode(unpack(make_packer()(encode(item))))


TRAVELLERS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    3**5000,
    -(7**3000),
    0.0,
    -0.0,
    1.5,
    float("inf"),
    5e-324,
    "",
    "tree 🌳",
    "lone \ud800 surrogate",
    b"",
    b"\x00\xff",
    (),
    (1, ("a", (b"b",))),
    frozenset(),
    frozenset({1, "a", (2, None), frozenset({3})}),
    datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001
    datetime(2024, 10, 27, 2, 30, fold=1),  # noqa: DTZ001
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=-1))),
    date(9999, 12, 31),
    time(1, 2, 3),
    time(1, 2, tzinfo=UTC),
    timedelta(days=-3, microseconds=1),
    Point(1),
    Point((Point(None),), frozenset({Colour.RED})),
    Named("x"),
    Colour.RED,
    Colour.GREEN,
    Size.SMALL,
    Rights.READ,
    Rights.READ | Rights.WRITE,
    Rights(0),
    [1, [2, {"a": {3}}]],
    {"b": 1, "a": [2], (1, 2): None, 5: {}},
    {1, "a", (2,)},
)


class Travel(SynchronousTestCase):
    """A value is the same after it has travelled, and of the same type."""

    def test_values_come_back_as_they_were(self) -> None:
        """Types and signs, orders and surrogates included."""
        for item in TRAVELLERS:
            found = travel(item)

            self.assertEqual(found, item)
            self.assertIs(type(found), type(item))
            if not isinstance(item, (set, frozenset)):
                self.assertEqual(repr(found), repr(item))

    def test_enum_members_are_the_same(self) -> None:
        """They can be compared by `is`."""
        self.assertIs(travel(Colour.RED), Colour.RED)

    def test_fold_is_kept(self) -> None:
        """Of two times in the night when summer time ends it is the same one."""
        night = datetime(2024, 10, 27, 2, 30, fold=1)  # noqa: DTZ001

        self.assertEqual(travel(night).fold, 1)

    def test_encoding_is_the_same_for_equal_sets(self) -> None:
        """Whatever order they have."""
        for seed in range(20):
            words = [f"word {number}" for number in range(30)]
            sets = []
            for _ in range(2):
                Random(seed).shuffle(words)
                sets.append(frozenset(words))
                words.reverse()
            packed = [make_packer()(encode(each)) for each in sets]
            self.assertEqual(*packed)

    def test_init_does_not_run_again(self) -> None:
        """What once was made may be refused by newer code, and is read all the same."""
        made = object.__new__(Named)
        object.__setattr__(made, "only", "refused")

        self.assertEqual(travel(made).only, "refused")

    def test_field_that_is_new_has_its_default(self) -> None:
        """What was stored without it can be read."""
        self.assertEqual(decode([5, POINT, 7]), Point(7, 0))

    def test_field_that_is_new_without_a_default_is_refused(self) -> None:
        """It is named."""
        error = self.assertRaises(CannotTravel, decode, [5, POINT])

        self.assertIn("Point.x", str(error))

    def test_more_fields_than_are_known(self) -> None:
        """It was stored by a newer version."""
        error = self.assertRaises(CannotTravel, decode, [5, "shape", 1, 2])

        self.assertIn("upgrade", str(error))

    def test_class_that_is_not_known(self) -> None:
        """The message says what to import."""
        for raw in ([5, "Nobody", 1], [6, "Nobody", "A"]):
            error = self.assertRaises(CannotTravel, decode, raw)
            self.assertIn("'Nobody'", str(error))
        error = self.assertRaises(
            CannotTravel, decode, [6, POINT.replace("Point", "Colour"), "BLUE"]
        )
        self.assertIn("BLUE", str(error))

    def test_damage_is_named(self) -> None:
        """Nothing else than an error of ours comes out."""
        for raw in ([], [99], ["x"], [7, "d", "x"], [2, 1], [8, "a", 1, 2], [9, "x"]):
            self.assertRaises(DataCorrupted, decode, raw)


class Text(str):
    """A text that can do more."""


class Undeclared:
    """A class that nobody has declared."""


@dataclasses.dataclass(frozen=True)
class UndeclaredData:
    """Likewise, a dataclass."""

    x: int


class UndeclaredEnum(enum.Enum):
    """Likewise, an enum."""

    A = 1


def deep(levels: int, wrap: Any = lambda item: (item,)) -> Any:
    """Nest so many."""
    item: Any = 1
    for _ in range(levels):
        item = wrap(item)
    return item


class Refused(SynchronousTestCase):
    """What cannot travel is named, with what to use instead."""

    def test_each_with_its_way_out(self) -> None:
        """As argument and as state alike."""
        nan = float("nan")
        rome = datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))
        named = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))
        refused: tuple[tuple[Any, str], ...] = (
            (nan, "None"),
            ((1, (nan,)), "None"),
            (frozenset({nan}), "None"),
            (Point(nan), "None"),
            (Text("a"), "plain str"),
            (bytearray(b"a"), "bytes(x)"),
            (uuid.UUID(int=1), "str(x)"),
            (decimal.Decimal(1), "str(x)"),
            (pathlib.PurePosixPath("a"), "made of None, bool"),
            (deque([1]), "a list"),
            (defaultdict(list), "setdefault"),
            (OrderedDict(), "a dict"),
            (Counter(), "a dict"),
            ({}.keys(), "list(x)"),
            ((i for i in ()), "list(x)"),
            (range(3), "tuple(x)"),
            (Undeclared(), "with @value"),
            (UndeclaredData(1), "declare UndeclaredData with @value"),
            (UndeclaredEnum.A, "declare UndeclaredEnum with @value"),
            (succeed(1), "await"),
            (rome, "astimezone"),
            (named, "astimezone"),
            (lambda: 1, "made of None, bool"),
        )
        for item, way_out in refused:
            for take in (encode, check_value, Journal("Thing").own, plain):
                error = self.assertRaises(CannotTravel, take, item)
                self.assertIn(way_out, str(error), repr(item))

    def test_list_in_what_cannot_change(self) -> None:
        """A tuple, or a declared class, of the state has nothing that can change."""
        for item in (([],), Point([]), Point({}), (Point(set()),)):
            error = self.assertRaises(CannotTravel, check_value, item)
            self.assertIn("lists, dicts and sets", str(error))

    def test_time_zone_with_a_part_of_a_second(self) -> None:
        """What is stored of it is another zone."""
        for part in (timedelta(microseconds=1), -timedelta(hours=1, microseconds=5)):
            bad = datetime(2020, 1, 1, tzinfo=timezone(part))

            self.assertRaises(CannotTravel, check_value, bad)
            self.assertRaises(CannotTravel, encode, bad)
        good = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-1, seconds=-7)))
        self.assertEqual(travel(good).utcoffset(), good.utcoffset())

    def test_depth(self) -> None:
        """It is bounded, in what is kept and in what is sent."""
        for wrap in (lambda i: (i,), lambda i: [i], lambda i: {1: i}, Point):
            good, bad = deep(MAX_DEPTH - 1, wrap), deep(MAX_DEPTH + 1, wrap)

            self.assertEqual(travel(good), good)
            self.assertRaises(CannotTravel, encode, bad)
            self.assertRaises(CannotTravel, Journal("Thing").own, bad)
            self.assertRaises(CannotTravel, encode, deep(10_000, wrap))


class Declaring(SynchronousTestCase):
    """`value` takes what cannot change."""

    def test_it_makes_a_frozen_dataclass(self) -> None:
        """With equality and a hash."""
        self.assertEqual({Point(1, 2)}, {Point(1, 2)})
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, Point(1), "x", 2)

    def test_dataclass_that_can_change_is_refused(self) -> None:
        """Members would share it."""

        @dataclasses.dataclass
        class Changing:
            x: int

        error = self.assertRaises(TypeError, value, Changing)
        self.assertIn("frozen", str(error))

    def test_field_without_init_is_refused(self) -> None:
        """It could not be restored."""

        @dataclasses.dataclass(frozen=True)
        class Hidden:
            x: int = dataclasses.field(init=False, default=1)

        error = self.assertRaises(TypeError, value, Hidden)
        self.assertIn("Hidden.x", str(error))

    def test_class_that_is_equal_by_identity_is_refused(self) -> None:
        """After a restore it is another object."""

        @dataclasses.dataclass(frozen=True, eq=False)
        class Same:
            x: int

        @dataclasses.dataclass(frozen=True, eq=False)
        class Hashed(Same):
            __hash__ = object.__hash__

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Hashed) and self.x == other.x

        @dataclasses.dataclass(frozen=True, eq=False)
        class Fine(Same):
            def __eq__(self, other: object) -> bool:
                return isinstance(other, Fine) and self.x == other.x

            def __hash__(self) -> int:
                return self.x

        for made in (Same, Hashed):
            error = self.assertRaises(TypeError, value, made)
            self.assertIn(f"{made.__name__} is equal to itself only", str(error))
        self.assertEqual(travel(value(Fine)(1)), Fine(1))

    def test_attribute_that_is_no_field_is_refused(self) -> None:
        """A restore would lose it; it is refused as it is made, so on all members."""

        @value
        @dataclasses.dataclass(frozen=True)
        class After:
            x: int

            def __post_init__(self) -> None:
                if self.x:
                    object.__setattr__(self, "twice", 2 * self.x)

        @value
        @dataclasses.dataclass(frozen=True)
        class Own:
            x: int

            def __init__(self, x: int) -> None:
                object.__setattr__(self, "x", x)
                object.__setattr__(self, "twice", 2 * x)

        for made in (After, Own):
            error = self.assertRaises(TypeError, made, 1)
            self.assertIn(f"{made.__name__}.twice", str(error))
        self.assertEqual(travel(After(0)), After(0))

    def test_name_is_that_of_the_module_and_the_class(self) -> None:
        """Two modules may each have one; a script is called as it is imported."""
        self.assertEqual(encode(Point(1, 2)), [5, POINT, 1, 2])
        main = sys.modules["__main__"]
        spec, file = main.__spec__, getattr(main, "__file__", None)
        self.addCleanup(setattr, main, "__spec__", spec)
        self.addCleanup(setattr, main, "__file__", file)

        main.__spec__, main.__file__ = None, "/home/me/jobs.py"
        made = type("Made", (), {"__module__": "__main__", "__annotations__": {}})

        self.assertEqual(encode(value(made)()), [5, "jobs.Made"])

    def test_two_classes_with_one_name(self) -> None:
        """They are refused when they are used, and both are named."""

        @value(name="double")
        class One:
            x: int

        @value(name="double")
        class Two:
            x: int

        error = self.assertRaises(CannotTravel, encode, One(1))  # type: ignore[call-arg]
        self.assertIn("One", str(error))
        self.assertIn("Two", str(error))
        self.assertIn("@value(name=...)", str(error))

    def test_declared_again(self) -> None:
        """A module that is loaded again replaces its classes."""
        made = []
        for _ in range(2):

            @value
            class Reloaded:
                x: int

            made.append(Reloaded)

        self.assertIs(type(travel(made[1](1))), made[1])  # type: ignore[call-arg]
