"""The journal of one replicated object: what its running command has changed.

Every change of a container or an attribute of the state appends what undoes it. When
the command raises, the journal is undone from its end; so undoing costs as much as was
changed, whatever the size of the state.

                begin                      end
    closed ───────────────> open ──────────────────────> closed
      │ a change raises       │ a change is noted, and undone
      v                       v  if the command raises
    OnlyInCommands          mark, undo(mark): for a command within a command

A list, dict or set that is put into the state is copied into a container of the same
content; from then on it is the container that counts. A container has one place: as a
snapshot has no two references to one thing, it would be two after a restore. While a
command runs it may be in two, as `a, b = b, a` needs it; at the end it may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from txraft.errors import CannotTravel, OnlyInCommands
from txraft.replicated.values import ATOMS, MAX_DEPTH, check_depth, check_value


class Contained(Protocol):
    """What `Journal` has to know of a container of the state.

    `places` counts where it is in the state, and in what was taken out of it; `nested`
    how many containers are in it.
    """

    journal: Journal
    places: int
    nested: int

    def inner(self) -> Iterable[object]:
        """Return all that is in it and may be a container."""

    def plain(self, depth: int) -> Any:
        """Return a copy that is an ordinary list, dict or set, all through."""


containers: set[type] = set()
"""The containers, by their exact type."""

adopt: dict[type, Callable[[Any, Journal, int], Any]] = {}
"""How to copy an ordinary list, dict or set into a container of a journal."""


loose: list[Journal] = []
"""The journal of sets that are of no object, once there is one."""


class Journal:
    """What undoes the changes of the running command of the object called *place*.

    `entries` are calls, the last change last; None while no command runs. `query` names
    the query that runs, "" if none does.
    """

    __slots__ = ("entries", "place", "query", "shared")

    def __init__(self, place: str) -> None:
        self.place = place
        self.query = ""
        self.entries: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        # Containers that were put where they may be in a second place.
        self.shared: list[Contained] = []

    def begin(self) -> None:
        """Let the state be changed."""
        self.entries = []

    def end(self) -> None:
        """Let the state be changed no more; what was changed stays."""
        self.entries = None
        if self.shared:
            self.shared.clear()

    def undo(self, mark: int = 0) -> None:
        """Undo all changes behind the first *mark* ones, the last one first."""
        entries = self.entries
        assert entries is not None, "only a running command is undone"
        while len(entries) > mark:
            function, arguments = entries.pop()
            function(*arguments)

    def refuse(self) -> NoReturn:
        """Refuse a change. Raises: OnlyInCommands, always"""
        if self.query:
            raise OnlyInCommands(
                f"{self.query} is a query, which changes nothing: make it a @command"
            )
        raise OnlyInCommands(
            f"the state of {self.place} changes in its commands only: do it in a "
            "method with @command, and call that"
        )

    def own(self, item: Any, depth: int = MAX_DEPTH) -> Any:
        """Return *item* as it is kept in the state: a container, or what cannot change.

        Raises: CannotTravel
        """
        kind = type(item)
        if kind in ATOMS:
            return item
        if kind in containers:
            if item.journal is not self:
                if item.journal in loose:
                    return adopt[set](item, self, depth)
                raise CannotTravel(
                    f"a {kind.__name__} of {item.journal.place} cannot be in "
                    f"{self.place} too: store copy.deepcopy(x)"
                )
            return item
        copy = adopt.get(kind)
        if copy is not None:
            check_depth(depth)
            return copy(item, self, depth - 1)
        check_value(item, depth)
        return item

    def keep(self, container: Contained, entries: list[Any]) -> None:
        """Note that *container* has one place more."""
        container.places += 1
        entries.append((_less, (container,)))
        if container.places > 1:
            self.shared.append(container)

    def drop(self, container: Contained, entries: list[Any]) -> None:
        """Note that *container* has one place less."""
        container.places -= 1
        entries.append((_more, (container,)))

    def check_places(self, state: Iterable[object]) -> None:
        """Refuse a container that has two places in *state*, which is all of it.

        Raises: CannotTravel
        """
        shared = {id(c): c for c in self.shared if c.places > 1}
        self.shared.clear()
        if not shared:
            return
        # A place that is counted may be in what was taken out, and is none any more. So
        # it is looked at: hardly ever, and with the same result on all members.
        found = dict.fromkeys(shared, 0)
        seen: set[int] = set()
        waiting: list[Any] = list(state)
        while waiting:
            item = waiting.pop()
            if type(item) not in containers:
                continue
            if id(item) in found:
                found[id(item)] += 1
            if id(item) not in seen:
                seen.add(id(item))
                waiting += item.inner()
        for key, count in found.items():
            if count > 1:
                raise CannotTravel(
                    f"a {type(shared[key]).__name__} is in {count} places of "
                    f"{self.place}, and would be as many after a restore: "
                    "take it out of one, or store copy.deepcopy(x)"
                )
        for key, count in found.items():
            shared[key].places = count


def _less(container: Contained) -> None:
    container.places -= 1


def _more(container: Contained) -> None:
    container.places += 1


def fill(parent: Contained, child: Any) -> None:
    """Count *child* in *parent*, a container that is new."""
    if type(child) in containers:
        parent.nested += 1
        entries = parent.journal.entries
        if entries is None:  # it is made by `__init__`, or by a restore
            child.places += 1
        else:
            parent.journal.keep(child, entries)


def detach(error: BaseException) -> None:
    """Have *error* show copies of containers, as its caller keeps it."""
    if any(_may_hold(each) for each in error.args):
        error.args = tuple([_detached(each) for each in error.args])
    for name, each in vars(error).items():
        if _may_hold(each):
            setattr(error, name, _detached(each))


def _may_hold(item: object) -> bool:
    kind = type(item)
    return kind in containers or kind in adopt or kind is tuple


def _detached(item: Any) -> Any:
    try:
        return plain(item)
    except CannotTravel:  # an ordinary list of anything
        return item


def plain(item: Any, depth: int = MAX_DEPTH) -> Any:
    """Return *item* with ordinary lists, dicts and sets for containers of the state.

    Raises: CannotTravel, for what is none of the kinds that travel.
    """
    kind = type(item)
    if kind in ATOMS:
        return item
    check_depth(depth)
    if kind in containers:
        return item.plain(depth)
    if kind is list:
        return [plain(each, depth - 1) for each in item]
    if kind is dict:
        return {key: plain(each, depth - 1) for key, each in item.items()}
    if kind is tuple:
        return tuple([plain(each, depth - 1) for each in item])
    if kind is set:
        for each in item:
            check_value(each, depth - 1)
        return item
    check_value(item, depth)
    return item
