"""A YAML document in which every value knows its file and line.

Only structure and plain values are taken; no object is constructed. There are no tags,
aliases or merge keys, so a hostile file can neither run code nor grow in memory.
`txraft.settings.settings` knows what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from txraft.errors import ConfigError

MAX_DOCUMENT_BYTES = 1 << 20
MAX_DURATION = 366 * 86400.0

Kind = Literal["text", "integer", "number", "boolean", "null", "other"]

_KINDS: dict[str, Kind] = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "null",
}

_TRUE = ("true", "yes", "on")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9_]*)\Z")
_DURATION = re.compile(
    r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+) ?(ms|s|m|h|)\Z", re.ASCII
)
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True, order=True)
class SettingPlace:
    """The place of a value: a line of a file, or a flag when *line* is 0."""

    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(slots=True)
class Faults:
    """The faults found in a document, to be reported all at once."""

    found: list[tuple[SettingPlace, str]] = field(default_factory=list)

    def add(self, place: SettingPlace, problem: str) -> None:
        """Note that *problem* is at *place*."""
        self.found.append((place, problem))

    def told(self) -> list[str]:
        """List the faults, each with its place, in the order of the lines."""
        self.found.sort(key=lambda fault: fault[0])
        return [f"{place}: {problem}" for place, problem in self.found]

    def check(self) -> None:
        """Raise if there are faults.

        Raises: ConfigError, whose `problems` are in the order of the lines.
        """
        if self.found:
            raise ConfigError(self.told())


@dataclass(frozen=True, slots=True)
class Scalar:
    """One plain value, as the file has it."""

    kind: Kind
    text: str
    place: SettingPlace


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of values."""

    items: tuple[Value, ...]
    place: SettingPlace


@dataclass(frozen=True, slots=True)
class Mapping:
    """Values by key; the place of a value is the line of its key."""

    entries: dict[str, Value]
    place: SettingPlace


Value = Scalar | Sequence | Mapping


def read_document(path: str, faults: Faults) -> Mapping:
    """Read the YAML mapping in the file *path*; duplicate keys go to *faults*.

    Raises: ConfigError when the file cannot be read or is not a YAML mapping.
    """
    try:
        with open(path, "rb") as file:
            # One byte more than allowed tells a file that is too long, of any length.
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot read it: {error.strerror}"]) from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ConfigError([f"{path}: longer than {MAX_DOCUMENT_BYTES} bytes"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text"]) from error
    return parse_document(text, path, faults)


def parse_document(text: str, name: str, faults: Faults) -> Mapping:
    """Parse *text*, whose places are called *name*; as `read_document`."""
    try:
        # compose, not load: nodes have marks for line numbers, and nothing is built of
        # them. An integer or a date would be, by load.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        top = SettingPlace(1, name)
        if node is None:
            return Mapping({}, top)
        document = _Converter(name, faults).convert(node, top)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = error.problem or error.context
        problem = (
            f"{name}:{line}: not valid YAML: {what}; a setting is `key: value`, what "
            "belongs to a section is indented by spaces below it, all of it alike"
        )
        raise ConfigError([problem]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"{name}:{line}: not valid YAML: {error.reason}"
        raise ConfigError([problem]) from error
    except RecursionError as error:
        raise ConfigError([f"{name}: nested too deeply"]) from error
    if not isinstance(document, Mapping):
        raise ConfigError([f"{name}:1: not a mapping of settings; write `key: value`"])
    return document


class _Converter:
    """Turns composed nodes into values, each node once."""

    def __init__(self, name: str, faults: Faults) -> None:
        self._name = name
        self._faults = faults
        self._seen: set[int] = set()

    def convert(self, node: Node, place: SettingPlace) -> Value:
        # An alias is the same node object again. Following it would let a few lines
        # stand for gigabytes, and one that contains itself would never end.
        if id(node) in self._seen:
            self._faults.add(place, "an alias (*name); write the value itself")
            return Scalar("null", "", place)
        self._seen.add(id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            items = (self.convert(item, self._place(item)) for item in node.value)
            return Sequence(tuple(items), place)
        assert isinstance(node, ScalarNode)
        return Scalar(_KINDS.get(node.tag, "other"), node.value, place)

    def _mapping(self, node: MappingNode, place: SettingPlace) -> Mapping:
        entries: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key_place = self._place(key_node)
            value = self.convert(value_node, key_place)
            if not isinstance(key_node, ScalarNode):
                self._faults.add(key_place, "a key that is not a plain word")
            elif key_node.value in entries:
                first = entries[key_node.value].place.line
                self._faults.add(
                    key_place,
                    f'duplicate key "{key_node.value}", first given in line {first}',
                )
            else:
                entries[key_node.value] = value
        return Mapping(entries, place)

    def _place(self, node: Node) -> SettingPlace:
        return SettingPlace(node.start_mark.line + 1, self._name)


class Section:
    """Reads the values of one mapping, and notes each fault at its place.

    After a fault the default takes the value's place, so that reading goes on and finds
    the other faults.
    """

    def __init__(self, mapping: Mapping, faults: Faults, path: str = "") -> None:
        self._mapping = mapping
        self._faults = faults
        self._path = path
        self._unsound: set[str] = set()

    def names(self) -> list[str]:
        """List the keys that were written, for a mapping with free keys."""
        return list(self._mapping.entries)

    def given(self, key: str) -> bool:
        """Tell whether *key* was written."""
        return key in self._mapping.entries

    def sound(self, *keys: str) -> bool:
        """Tell whether no fault was noted for any of *keys*."""
        return self._unsound.isdisjoint(keys)

    def place(self, key: str) -> SettingPlace:
        """Return the place of *key*, or of the whole mapping when it is absent."""
        value = self._mapping.entries.get(key)
        return value.place if value else self._mapping.place

    def fault(self, key: str, problem: str, place: SettingPlace | None = None) -> None:
        """Note *problem*, a sentence without its subject, the key's name."""
        self._unsound.add(key)
        self._faults.add(place or self.place(key), f"{self._path}{key} {problem}")

    def known(self, keys: Iterable[str], elsewhere: dict[str, str]) -> None:
        """Note each key that is not one of *keys*, and suggest the one that was meant.

        *elsewhere* maps keys of other sections to their full names.
        """
        keys = list(keys)
        for key in self._mapping.entries:
            if key not in keys:
                # Settings of a section that were not indented are the commonest slip,
                # so an exact match elsewhere goes before a similar key here.
                near = (
                    [key]
                    if key in elsewhere
                    else get_close_matches(key, keys, 1)
                    or get_close_matches(key, elsewhere, 1, 0.8)
                )
                meant = elsewhere.get(near[0], self._path + near[0]) if near else ""
                hint = f"did you mean {meant}?" if near else f"known: {', '.join(keys)}"
                self.fault(key, f"is not a setting; {hint}")

    def section(self, key: str) -> Section:
        """Return the mapping at *key*, an empty one when there is none."""
        value = self._mapping.entries.get(key)
        if not isinstance(value, Mapping):
            if value is not None and not _is_null(value):
                self.fault(key, f"is {_shown(value)}, it must be a mapping of settings")
            value = Mapping({}, self.place(key))
        return Section(value, self._faults, f"{self._path}{key}.")

    def null(self, key: str) -> bool:
        """Tell whether *key* was written with an empty value."""
        value = self._mapping.entries.get(key)
        return value is not None and _is_null(value)

    def read(self, key: str, default: T, convert: Callable[[Scalar], T]) -> T:
        """Return the value of *key* as *convert* makes it, or *default*.

        *convert* refuses a value with a ValueError whose text says what it must be.
        """
        value = self._mapping.entries.get(key)
        return (
            default if value is None else self._converted(key, value, convert, default)
        )

    def read_all(
        self,
        key: str,
        convert: Callable[[Scalar], T],
        convert_mapping: Callable[[Section], T | None] | None = None,
    ) -> list[tuple[T, SettingPlace]]:
        """Convert each item of the list at *key*; refused items are left out.

        An item that is a mapping goes to *convert_mapping*, if there is one.
        """
        value = self._mapping.entries.get(key)
        if not isinstance(value, Sequence):
            if value is not None:
                self.fault(key, f"is {_shown(value)}, it must be a list")
            return []
        converted = [
            (
                self._converted_mapping(key, item, convert_mapping)
                if isinstance(item, Mapping) and convert_mapping is not None
                else self._converted(key, item, convert, None),
                item.place,
            )
            for item in value.items
        ]
        return [(item, place) for item, place in converted if item is not None]

    def _converted_mapping(
        self, key: str, item: Mapping, convert: Callable[[Section], T | None]
    ) -> T | None:
        section = Section(item, self._faults, f"{self._path}{key}.")
        converted = convert(section)
        if section._unsound:
            self._unsound.add(key)
        return converted

    def _converted(
        self, key: str, value: Value, convert: Callable[[Scalar], T], default: U
    ) -> T | U:
        try:
            if not isinstance(value, Scalar):
                raise ValueError("a single value")
            return convert(value)
        except ValueError as error:
            wanted = f"is {_shown(value)}, it must be {error}"
            self.fault(key, wanted, value.place)
            return default


def text(value: Scalar) -> str:
    """Convert text; empty text is refused."""
    if value.kind != "text" or not value.text:
        raise ValueError("text (in quotes if it looks like a number)")
    return value.text


def boolean(value: Scalar) -> bool:
    """Convert `true` or `false`."""
    if value.kind != "boolean":
        raise ValueError("true or false")
    return value.text.lower() in _TRUE  # YAML 1.1 also takes yes and on


def integer(value: Scalar) -> int:
    """Convert a plain decimal number without fraction."""
    # YAML 1.1 reads 010 as 8 and 1:30 as 90, which nobody means in a setting.
    if value.kind != "integer" or not _DECIMAL.match(value.text):
        raise ValueError("a whole decimal number")
    return int(value.text.replace("_", ""))


def duration(value: Scalar) -> float:
    """Convert `1s`, `500ms` or plain seconds to float seconds."""
    match = _DURATION.match(value.text)
    if value.kind not in ("text", "integer", "number") or not match:
        raise ValueError("a duration: 1s, 500ms or plain seconds")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError(f"at most {MAX_DURATION} s")
    return seconds


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and value.kind == "null"


def _shown(value: Value) -> str:
    if isinstance(value, Sequence):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    if value.kind == "null":
        return "empty"
    return repr(value.text) if value.kind == "text" else value.text
