"""Containers of the state: a list, a dict and a set that journal their changes.

They are equal to ordinary ones of the same content, and have all their methods.
Outside a command they raise OnlyInCommands, before anything has changed.

- `JournaledDict` is a dict and `JournaledSet` is a set, by `isinstance`, so reading
  them is as fast. What writes to a dict or set behind its methods, in C, would go past
  the journal; nothing in the standard library does.
- `JournaledList` is no list, as `heapq` does just that: it raises TypeError, instead of
  a change that only this member has. `isinstance(x, MutableSequence)` is true.
- A `JournaledSet` has an order, that of its additions, so a loop over it is the same on
  all members. An ordinary set has none: its order is another in each process and after
  a restore, so its items are sorted when they are added here, and to a list or dict.
  What its methods and operators return has an order too, and belongs to no object; a
  list's and a dict's return ordinary ones.
- What was deleted from a dict or set, and comes back as a command is undone, comes
  last. It does so on all members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from collections.abc import Set as AbstractSet
from operator import is_
from typing import Any, SupportsIndex, TypeVar, overload

from txraft.replicated.encoding import ENCODERS, in_order
from txraft.replicated.journal import (
    Contained,
    Journal,
    adopt,
    containers,
    fill,
    loose,
    plain,
)
from txraft.replicated.values import ATOMS, MAX_DEPTH, check_value

K = TypeVar("K")
V = TypeVar("V")

_set_item = dict.__setitem__
_get_item = dict.__getitem__
_del_item = dict.__delitem__
_MISSING: Any = object()


def _key(key: object) -> None:
    """Refuse a key that could change, or is not equal to itself."""
    if type(key) not in ATOMS:
        check_value(key)


class _Probe:
    """Equal to *item*, and told by a look-up what else is: `found`."""

    def __init__(self, item: object) -> None:
        self.item = self.found = item

    def __hash__(self) -> int:
        return hash(self.item)

    def __eq__(self, other: object) -> bool:
        if other != self.item:
            return False
        self.found = other
        return True


def _kept(container: Any, item: Any) -> Any:
    """Return the key of *container* that is equal to *item*, as True is to 1."""
    if type(item) is str or type(item) is bytes:
        return item  # no other value is equal to one of these
    probe = _Probe(item)
    if probe not in container:
        # An `__eq__` that says False, and not NotImplemented, for another type.
        return next((each for each in container if each == item), item)
    return probe.found


def _changing(container: Contained) -> list[Any]:
    """Return where changes are noted. Raises: OnlyInCommands"""
    entries = container.journal.entries
    if entries is None:
        container.journal.refuse()
    return entries


def _nest(parent: Contained, child: Any, entries: list[Any]) -> None:
    """Note that *parent* has *child*, a container, now."""
    parent.nested += 1
    entries.append((_less_nested, (parent,)))
    parent.journal.keep(child, entries)


def _unnest(parent: Contained, child: Any, entries: list[Any]) -> None:
    """Note that *parent* has *child*, a container, no more."""
    parent.nested -= 1
    entries.append((_more_nested, (parent,)))
    parent.journal.drop(child, entries)


def _less_nested(parent: Contained) -> None:
    parent.nested -= 1


def _more_nested(parent: Contained) -> None:
    parent.nested += 1


def _unnest_all(parent: Contained, items: Iterable[Any], entries: list[Any]) -> None:
    if parent.nested:  # else none of them is a container
        for item in items:
            if type(item) in containers:
                _unnest(parent, item, entries)


class JournaledDict(dict[K, V]):
    """A dict of the state, in which the order of the keys is part of the state."""

    __slots__ = ("journal", "nested", "places")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.places = self.nested = 0

    def inner(self) -> Iterable[object]:
        """Return all values."""
        return self.values() if self.nested else ()

    def plain(self, depth: int) -> dict[K, V]:
        """Return an ordinary copy, all through."""
        if not self.nested:
            return dict(self)
        return {key: plain(each, depth - 1) for key, each in self.items()}

    def __setitem__(self, key: K, item: V) -> None:
        entries = self.journal.entries
        if entries is None:
            self.journal.refuse()
        # All that can raise comes before the first change.
        kind = type(item)
        if kind not in ATOMS and (kind is not float or item != item):
            item = self.journal.own(item)
        if type(key) not in ATOMS:
            check_value(key)
        old = self.get(key, _MISSING)
        if old is item:
            return  # as `self.lists[key] += [1]` ends: it has not moved
        if old is _MISSING:
            entries.append((_del_item, (self, key)))
        else:
            entries.append((_set_item, (self, key, old)))
        _set_item(self, key, item)
        if type(item) in containers:
            _nest(self, item, entries)
        if type(old) in containers:
            _unnest(self, old, entries)

    def __delitem__(self, key: K) -> None:
        self.pop(key)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Take out what *key* has; without it, return *default* or raise KeyError."""
        entries = _changing(self)
        old: Any = self.get(key, _MISSING)
        if old is _MISSING:
            if default is _MISSING:
                raise KeyError(key)
            return default
        entries.append((_set_item, (self, _kept(self, key), old)))
        _del_item(self, key)
        if type(old) in containers:
            _unnest(self, old, entries)
        return old

    def popitem(self) -> tuple[K, V]:
        """Take out the newest key, with what it has. Raises: KeyError"""
        _changing(self)
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Take out all."""
        entries = _changing(self)
        old = dict(self)
        entries.append((dict.update, (self, old)))
        dict.clear(self)
        _unnest_all(self, old.values(), entries)

    def update(self, *others: Any, **named: Any) -> None:
        """Set many keys, as `dict.update` does."""
        _changing(self)
        if others and isinstance(others[0], AbstractSet):
            others = (ordered(others[0]), *others[1:])
        for key, item in dict(*others, **named).items():
            self[key] = item

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return what *key* has; set it to *default* before, if it has nothing.

        Returns: the container that is in the state, if *default* is a list, dict or
            set.
        """
        if key not in self:
            self[key] = default
        else:
            _changing(self)
        return self[key]

    def __ior__(self, other: Any) -> JournaledDict[K, V]:  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> dict[K, V]:
        """Return an ordinary dict; containers in it are those of the state."""
        return dict(self)

    @classmethod
    def fromkeys(cls, keys: Any, value: Any = None) -> dict[Any, Any]:
        """Return an ordinary dict."""
        return dict.fromkeys(ordered(keys), value)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # For `copy` and pickle: an ordinary dict comes out.
        return dict, (), None, None, iter(self.items())


class JournaledList(MutableSequence[V]):
    """A list of the state."""

    __slots__ = ("_items", "journal", "nested", "places")

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.places = self.nested = 0
        self._items: list[V] = []

    def inner(self) -> Iterable[object]:
        """Return all items."""
        return self._items if self.nested else ()

    def plain(self, depth: int) -> list[V]:
        """Return an ordinary copy, all through."""
        if not self.nested:
            return self._items.copy()
        return [plain(each, depth - 1) for each in self._items]

    # Reading

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: SupportsIndex) -> V: ...

    @overload
    def __getitem__(self, index: slice) -> list[V]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __iter__(self) -> Iterator[V]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[V]:
        return reversed(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def index(self, value: Any, *between: Any) -> int:
        """Return where *value* is first. Raises: ValueError"""
        return self._items.index(value, *between)

    def count(self, value: Any) -> int:
        """Return how often *value* is there."""
        return self._items.count(value)

    def copy(self) -> list[V]:
        """Return an ordinary list; containers in it are those of the state."""
        return self._items.copy()

    def __repr__(self) -> str:
        return repr(self._items)

    def __eq__(self, other: object) -> bool:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items == found

    def __lt__(self, other: Any) -> bool:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items < found

    def __le__(self, other: Any) -> bool:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items <= found

    def __gt__(self, other: Any) -> bool:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items > found

    def __ge__(self, other: Any) -> bool:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items >= found

    def __add__(self, other: Any) -> list[V]:
        found = _ordinary(other)
        return NotImplemented if found is None else self._items + found

    def __radd__(self, other: Any) -> list[V]:
        found = _ordinary(other)
        return NotImplemented if found is None else found + self._items

    def __mul__(self, times: SupportsIndex) -> list[V]:
        return self._items * times

    __rmul__ = __mul__

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self._items.copy(),)

    # Changing

    def insert(self, index: SupportsIndex, value: V) -> None:
        """Put *value* in before *index*."""
        entries = _changing(self)
        value = self.journal.own(value)
        items = self._items
        items.insert(index, value)
        # Where it is now; of equal ones it does not matter which is taken out again,
        # but the place does.
        place = min(max(_from_start(index, len(items) - 1), 0), len(items) - 1)
        entries.append((items.pop, (place,)))
        if type(value) in containers:
            _nest(self, value, entries)

    def append(self, value: V) -> None:
        """Put *value* in at the end."""
        entries = self.journal.entries
        if entries is None:
            self.journal.refuse()
        if type(value) not in ATOMS:
            value = self.journal.own(value)
        self._items.append(value)
        entries.append((self._items.pop, ()))
        if type(value) in containers:
            _nest(self, value, entries)

    def pop(self, index: SupportsIndex = -1) -> V:
        """Take out what is at *index*. Raises: IndexError"""
        entries = _changing(self)
        items = self._items
        place = _from_start(index, len(items))
        old = items.pop(index)
        entries.append((items.insert, (place, old)))
        if type(old) in containers:
            _unnest(self, old, entries)
        return old

    def remove(self, value: V) -> None:
        """Take out the first *value*. Raises: ValueError"""
        _changing(self)
        self.pop(self._items.index(value))

    @overload
    def __setitem__(self, index: SupportsIndex, item: V) -> None: ...

    @overload
    def __setitem__(self, index: slice, item: Iterable[V]) -> None: ...

    def __setitem__(self, index: Any, item: Any) -> None:
        entries = _changing(self)
        items = self._items
        if isinstance(index, slice):
            # First all that is new: it may be a generator that reads this list.
            new = [self.journal.own(each) for each in ordered(item)]
            self._replace(index, new, entries)
            return
        item = self.journal.own(item)
        old = items[index]
        if old is item:
            return
        items[index] = item
        entries.append((items.__setitem__, (index, old)))
        if type(item) in containers:
            _nest(self, item, entries)
        if type(old) in containers:
            _unnest(self, old, entries)

    def __delitem__(self, index: Any) -> None:
        entries = _changing(self)
        if not isinstance(index, slice):
            self.pop(index)
            return
        first, end, step = index.indices(len(self._items))
        if step == 1:
            self._replace(slice(first, max(first, end)), [], entries)
            return
        old = self._items.copy()
        taken = old[index]
        del self._items[index]
        entries.append((self._items.__setitem__, (slice(None), old)))
        _unnest_all(self, taken, entries)

    def _replace(self, index: slice, new: list[Any], entries: list[Any]) -> None:
        """Put *new* in for what is at *index*."""
        items = self._items
        first, end, step = index.indices(len(items))
        old = items[index]
        if step == 1:
            end = max(first, end)
            items[first:end] = new
            undone = slice(first, first + len(new))
        else:
            items[index] = new  # raises ValueError for another number of items
            undone = index
        entries.append((items.__setitem__, (undone, old)))
        for item in new:
            if type(item) in containers:
                _nest(self, item, entries)
        _unnest_all(self, old, entries)

    def extend(self, values: Iterable[V]) -> None:
        """Put many in at the end."""
        _changing(self)
        end = len(self._items)
        self[end:end] = values

    def __iadd__(self, values: Iterable[V]) -> JournaledList[V]:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> JournaledList[V]:
        self[:] = self._items * times
        return self

    def clear(self) -> None:
        """Take out all."""
        self[:] = []

    def reverse(self) -> None:
        """Turn the order around."""
        self._reorder(self._items[::-1])

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Put the items in order; nothing is changed if a comparison raises."""
        _changing(self)
        before = self._items.copy()
        new = sorted(before, key=key, reverse=reverse)
        # What *key* or a comparison changed here would be lost, as in `list.sort`.
        if len(before) != len(self._items) or not all(map(is_, before, self._items)):
            raise ValueError("list modified during sort")
        self._reorder(new)

    def _reorder(self, new: list[V]) -> None:
        entries, items = _changing(self), self._items
        entries.append((items.__setitem__, (slice(None), items.copy())))
        items[:] = new


def _from_start(index: SupportsIndex, size: int) -> int:
    place = index.__index__()
    return place + size if place < 0 else place


def _ordinary(other: object) -> list[Any] | None:
    if isinstance(other, JournaledList):
        return other._items
    return other if isinstance(other, list) else None


class JournaledSet(set[V]):
    """A set of the state, which is looped over in the order of its additions."""

    __slots__ = ("_order", "journal", "nested", "places")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.places = self.nested = 0
        self._order: dict[V, None] = {}

    def inner(self) -> Iterable[object]:
        """Return nothing: what is in a set is no container."""
        return ()

    def plain(self, depth: int) -> set[V]:
        """Return an ordinary copy."""
        return set(self._order)

    def _put(self, item: V) -> None:
        set.add(self, item)
        self._order[item] = None

    def _take(self, item: V) -> None:
        set.discard(self, item)
        del self._order[item]

    def __iter__(self) -> Iterator[V]:
        return iter(self._order)

    def __repr__(self) -> str:
        return repr(set(self._order))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return set, ([*self._order],)

    # What these return has the order too, as a loop over it may change the state. It
    # is of no object, and `Journal.own` copies it where it is put into the state.

    def copy(self) -> set[V]:
        """Return a set that is of no object, in the same order."""
        return _free(self._order)

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> set[V]:
        return _free(self._order)  # what is in it cannot change

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """Return what is here or in one of *others*, in this order."""
        return _free([*self._order, *(i for other in others for i in ordered(other))])

    def difference(self, *others: Iterable[Any]) -> set[V]:
        """Return what is in none of *others*."""
        left = set.difference(self, *others)
        return _free([item for item in self._order if item in left])

    def intersection(self, *others: Iterable[Any]) -> set[V]:
        """Return what is in all of *others* too."""
        left = set.intersection(self, *others)
        return _free([item for item in self._order if item in left])

    def symmetric_difference(self, other: Iterable[Any]) -> set[Any]:
        """Return what is here or in *other*, and not in both."""
        more = dict.fromkeys(ordered(other))
        here = [item for item in self._order if item not in more]
        return _free([*here, *(item for item in more if item not in self)])

    def __or__(self, other: Any) -> set[Any]:
        return self.union(other) if isinstance(other, AbstractSet) else NotImplemented

    def __and__(self, other: Any) -> set[V]:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self.intersection(other)

    def __sub__(self, other: Any) -> set[V]:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self.difference(other)

    def __xor__(self, other: Any) -> set[Any]:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self.symmetric_difference(other)

    # As this is a kind of set, Python asks these before `set.__or__` of what is left.

    def __ror__(self, other: Any) -> set[Any]:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return _free([*ordered(other), *self._order])

    def __rsub__(self, other: Any) -> set[Any]:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return _free([item for item in ordered(other) if item not in self])

    __rand__ = __and__
    __rxor__ = __xor__

    def add(self, item: V) -> None:
        """Add one."""
        entries = _changing(self)
        _key(item)
        if item not in self:
            entries.append((self._take, (item,)))
            self._put(item)

    def discard(self, item: Any) -> None:
        """Take one out, if it is there."""
        entries = _changing(self)
        if item in self:
            kept = _kept(self, item)
            entries.append((self._put, (kept,)))
            self._take(kept)

    def remove(self, item: V) -> None:
        """Take one out. Raises: KeyError"""
        _changing(self)
        if item not in self:
            raise KeyError(item)
        self.discard(item)

    def pop(self) -> V:
        """Take out the newest. Raises: KeyError"""
        _changing(self)
        if not self:
            raise KeyError("pop from an empty set")
        item = next(reversed(self._order))
        self.discard(item)
        return item

    def clear(self) -> None:
        """Take out all."""
        entries = _changing(self)
        entries.append((self._put_all, ([*self._order],)))
        set.clear(self)
        self._order.clear()

    def _put_all(self, items: list[V]) -> None:
        for item in items:
            self._put(item)

    def update(self, *others: Iterable[V]) -> None:
        """Add many."""
        _changing(self)
        for other in others:
            for item in ordered(other):
                self.add(item)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Take out all of *others*."""
        _changing(self)
        for other in others:
            for item in ordered(other):
                self.discard(item)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what is in all of *others*."""
        _changing(self)
        kept = set.intersection(self, *others)
        for item in [each for each in self._order if each not in kept]:
            self.discard(item)

    def symmetric_difference_update(self, other: Iterable[V]) -> None:
        """Keep what is in one of the two only."""
        _changing(self)
        for item in ordered(dict.fromkeys(ordered(other))):
            if item in self:
                self.discard(item)
            else:
                self.add(item)

    def __ior__(self, other: AbstractSet[Any]) -> JournaledSet[V]:  # type: ignore[override,misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: AbstractSet[Any]) -> JournaledSet[V]:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: AbstractSet[Any]) -> JournaledSet[V]:  # type: ignore[misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: AbstractSet[Any]) -> JournaledSet[V]:  # type: ignore[override,misc]
        if not isinstance(other, AbstractSet):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self


class _Forgetful(list[Any]):
    """Where changes are noted that are never undone."""

    def append(self, entry: object) -> None:
        """Forget it at once."""


FREE = Journal("no object")
FREE.entries = _Forgetful()
"""The journal of sets that are of no object: they change at any time."""

loose.append(FREE)


def _free(items: Iterable[V]) -> JournaledSet[V]:
    """Return a set of *items*, in their order, that is of no object."""
    made: JournaledSet[V] = JournaledSet(FREE)
    made._order = dict.fromkeys(items)
    set.update(made, made._order)
    return made


def ordered(items: Iterable[V]) -> list[V]:
    """Return *items* in an order that is the same on all members."""
    kind = type(items)
    if kind is list or kind is JournaledSet:
        return list(items)
    if isinstance(items, (set, frozenset)):
        return in_order(items)
    return list(items)


# How they are made: of ordinary ones, by `Journal.own`, and by a restore.


def new_dict(items: dict[Any, Any], journal: Journal, depth: int) -> Any:
    """Copy *items* into a container of *journal*."""
    made: JournaledDict[Any, Any] = JournaledDict(journal)
    for key, item in items.items():
        _key(key)
        item = journal.own(item, depth)
        _set_item(made, key, item)
        fill(made, item)
    return made


def new_list(items: list[Any], journal: Journal, depth: int) -> Any:
    """Copy *items* into a container of *journal*."""
    made: JournaledList[Any] = JournaledList(journal)
    for item in items:
        item = journal.own(item, depth)
        made._items.append(item)
        fill(made, item)
    return made


def new_set(items: Iterable[Any], journal: Journal, depth: int = MAX_DEPTH) -> Any:
    """Copy *items* into a container of *journal*."""
    made: JournaledSet[Any] = JournaledSet(journal)
    for item in ordered(items):
        _key(item)
        made._put(item)
    return made


adopt.update({dict: new_dict, list: new_list, set: new_set})
CONTAINERS: frozenset[type] = frozenset({JournaledDict, JournaledList, JournaledSet})
"""The containers, by their exact type; importing this makes the journal know them."""

containers.update(CONTAINERS)


def _encode_as(kind: type, copy: Any) -> Any:
    return lambda item, depth: ENCODERS[kind](copy(item), depth)


# As arguments they travel like ordinary ones.
ENCODERS[JournaledDict] = _encode_as(dict, dict)
ENCODERS[JournaledList] = _encode_as(list, list)
ENCODERS[JournaledSet] = _encode_as(set, set)
