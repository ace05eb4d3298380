"""Find a piece of syntax in the package, and put another in its place.

A piece is an expression, or statements in a row. What stands for what:

* A local name of the piece stands for any local name, or an attribute chain of one, the
  same one each time: `server` fits `consensus`, `self.server` and `self`.
* `...` stands for any expression, for all arguments of a call, or for a block; among
  statements in a row, for one of them. In what is put in its place, the first `...`
  that is a statement is what the first such one fitted, and so on; likewise those that
  are expressions.
* Attributes, globals, builtins, constants and operators stand for themselves. So do names
  that are no node of their own: a parameter where it is declared, `except E as name`.

It is looked for under a qualified name; if it does not fit there, in whatever has the
same last name; then in the whole package. It must fit once.
"""

from __future__ import annotations

import ast
import builtins
import copy
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from textwrap import dedent
from typing import Any, Self, cast

BUILTINS = frozenset(dir(builtins)) | {"__file__", "__name__"}

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NO_SPOT = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)
_NOT_COMPARED = frozenset({"ctx", "kind", "type_comment"})


class Unplantable(Exception):
    """A piece does not fit, fits twice, or what replaces it cannot be made."""


@dataclass(slots=True, eq=False)
class Spot:
    """A node of a module: where it hangs, and the names that are local there."""

    node: ast.AST
    above: Spot | None
    field: str
    index: int | None
    own: frozenset[str]
    name: str
    """The qualified name of the function, class or constant that it is in."""

    def row(self, length: int) -> list[ast.stmt] | None:
        """Return *length* statements from this one on, None if there are not as many."""
        if self.index is None or not isinstance(self.node, ast.stmt):
            return None
        assert self.above is not None
        block: list[ast.stmt] = getattr(self.above.node, self.field)
        row = block[self.index : self.index + length]
        return row if len(row) == length else None


class Module:
    """A parsed module. Its nodes are indexed when something is looked for in it."""

    def __init__(self, path: str, text: str) -> None:
        """Parse the module; *path* is below the package."""
        self.path = path
        self.tree = ast.parse(text, path)
        self.globals = _bound(self.tree)
        self.last_names = frozenset(
            name for statement in _statements(self.tree) for name in _defined(statement)
        )

    def knows(self, name: str) -> bool:
        """Tell whether a name is that of a builtin or a global here."""
        return name in self.globals or name in BUILTINS

    @cached_property
    def index(self) -> Index:
        """The nodes, and where what has a name is among them."""
        index = Index()
        index.add(self.tree, None, "", None, frozenset(), "")
        return index


@dataclass(slots=True, eq=False)
class Index:
    """The nodes of a module, in the order of the source."""

    spots: list[Spot] = field(default_factory=list)
    named: dict[str, list[range]] = field(default_factory=lambda: defaultdict(list))
    """Where what has a qualified name is among *spots*."""
    _by_type: dict[type, list[int]] = field(default_factory=lambda: defaultdict(list))

    def within(self, place: range, kind: type | None) -> Iterator[Spot]:
        """Go through the nodes of one *kind*, or all, in a part of the module."""
        if kind is None:
            yield from self.spots[place.start : place.stop]
            return
        numbers = self._by_type.get(kind, [])
        first = bisect_left(numbers, place.start)
        for number in numbers[first : bisect_left(numbers, place.stop)]:
            yield self.spots[number]

    def add(
        self,
        node: ast.AST,
        above: Spot | None,
        name_of_field: str,
        index: int | None,
        own: frozenset[str],
        inside: str,
    ) -> None:
        """Add *node* and all below it."""
        names = _defined(node)
        if isinstance(node, _SCOPES):
            own |= _bound(node)
        elif own and not isinstance(node, ast.ClassDef):
            names = []  # a local variable is no constant
        prefix = f"{inside}." if inside else ""
        inner = prefix + names[0] if names else inside
        spot = Spot(node, above, name_of_field, index, own, inner)
        start = len(self.spots)
        self.spots.append(spot)
        self._by_type[type(node)].append(start)
        for child_field, child_index, child in _children(node):
            self.add(child, spot, child_field, child_index, own, inner)
        for name in names:
            self.named[prefix + name].append(range(start, len(self.spots)))


@lru_cache(maxsize=1024)
def parsed(path: str, text: str) -> Module:
    """Parse a module once, as long as its text stays the same."""
    return Module(path, text)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Go through all statements below *node*."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for statement in getattr(node, block, ()):
            yield statement
            yield from _statements(statement)


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST) and not isinstance(item, _NO_SPOT):
                    yield name, index, item
        elif isinstance(value, ast.AST) and not isinstance(value, _NO_SPOT):
            yield name, None, value


def _defined(node: ast.AST) -> list[str]:
    """Return the names that a definition gives to what can be looked for."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [each.id for each in targets if isinstance(each, ast.Name)]


def _bound(scope: ast.AST) -> frozenset[str]:
    """Return the names that are local to a function, or global in a module."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Global():
                elsewhere.update(node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
                continue
            case ast.Lambda():
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.arg(arg=name):
                names.add(name)
            case ast.alias():
                names.add((node.asname or node.name).partition(".")[0])
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                names.add(name)
        waiting.extend(ast.iter_child_nodes(node))
    return frozenset(names - elsewhere)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What is looked for, and what comes in its place."""

    old: list[ast.stmt]
    new: list[ast.stmt]
    of_expression: bool
    gaps: dict[int, tuple[str, int]]
    """Kind and number of each `...`, by the identity of its node."""

    @classmethod
    def read(cls, old: str, new: str) -> Self:
        """Parse both; they are expressions if each is one, and else statements."""
        before = ast.parse(dedent(old)).body
        after = ast.parse(dedent(new)).body
        if not before or _is_gap(before[0]):
            raise Unplantable(f"{old!r} says nothing that could be looked for")
        of_expression = all(
            len(body) == 1 and isinstance(body[0], ast.Expr) for body in (before, after)
        )
        gaps = _numbered(before)
        filled = _numbered(after)
        if not set(filled.values()) <= set(gaps.values()):
            raise Unplantable(f"{new!r} has more `...` than {old!r}")
        return cls(before, after, of_expression, gaps | filled)

    def unknown(self, module: Module) -> list[str]:
        """Return the names that only *new* has, and that nothing gives a value.

        Nor may it give one to a name that neither *old* has nor itself reads: the code
        around it may call that otherwise, and would never see the value.
        """
        old, new = ast.Module(self.old, []), ast.Module(self.new, [])
        known = {node.id for node in _names(old)} | _bound_anywhere(old)
        stored = {n.id for n in _names(new) if isinstance(n.ctx, ast.Store)}
        read = {n.id for n in _names(new) if not isinstance(n.ctx, ast.Store)}
        unread = stored - read - known
        unbound = read - known - _bound_anywhere(new)
        return sorted(unread | {name for name in unbound if not module.knows(name)})


def _bound_anywhere(tree: ast.Module) -> set[str]:
    """Return the names that are bound in a tree, at whatever depth."""
    scopes = (
        node for node in ast.walk(tree) if isinstance(node, (*_SCOPES, ast.Module))
    )
    return {name for scope in scopes for name in _bound(scope)}


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Name))


def _numbered(body: list[ast.stmt]) -> dict[int, tuple[str, int]]:
    """Number the gaps by their order in the text, blocks and expressions apart."""
    nodes = [node for each in body for node in ast.walk(each)]
    blocks = [node for node in nodes if isinstance(node, ast.Expr) and _gap(node)]
    of_blocks = {id(_gap(node)) for node in blocks}
    gaps = [node for node in nodes if isinstance(node, ast.Constant) and _gap(node)]
    gaps.sort(key=lambda gap: (gap.lineno, gap.col_offset))
    numbers: dict[int, tuple[str, int]] = {}
    counts = Counter[str]()
    for gap in gaps:
        kind = "block" if id(gap) in of_blocks else "expression"
        numbers[id(gap)] = kind, counts[kind]
        counts[kind] += 1
    return numbers


def _gap(node: object) -> ast.Constant | None:
    if isinstance(node, ast.Expr):
        node = node.value
    if isinstance(node, ast.Constant) and node.value is Ellipsis:
        return node
    return None


def _is_gap(node: object) -> bool:
    return _gap(node) is not None


def _root(node: object) -> str | None:
    """Return the name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


@dataclass(slots=True, eq=False)
class _Fitting:
    """One attempt to fit a piece, and what its names and gaps stand for so far."""

    piece: Piece
    module: Module
    own: frozenset[str]
    locals: dict[str, ast.expr] = field(default_factory=dict)
    gaps: dict[tuple[str, int], object] = field(default_factory=dict)

    def fits(self, old: object, real: object) -> bool:
        """Tell whether *real* is what *old* stands for; both are nodes or parts."""
        if isinstance(old, list):
            return isinstance(real, list) and self._fits_list(old, real)
        if (gap := _gap(old)) and isinstance(real, ast.expr | ast.stmt):
            return self._fill(gap, real)
        if isinstance(old, ast.Name) and self._is_local(old.id):
            return isinstance(real, ast.expr) and self._fits_local(old.id, real)
        if isinstance(old, ast.AST):
            return type(old) is type(real) and all(
                self.fits(value, getattr(real, name))
                for name, value in ast.iter_fields(old)
                if name not in _NOT_COMPARED
            )
        return type(old) is type(real) and old == real

    def _fits_list(self, old: list[object], real: list[object]) -> bool:
        if len(old) == 1 and (gap := _gap(old[0])):
            if isinstance(old[0], ast.stmt) and not real:
                return False
            return self._fill(gap, real)
        return len(old) == len(real) and all(map(self.fits, old, real))

    def _is_local(self, name: str) -> bool:
        return name in self.own or not self.module.knows(name)

    def _fits_local(self, name: str, real: ast.expr) -> bool:
        if _root(real) not in self.own:
            return isinstance(real, ast.Name) and real.id == name
        known = self.locals.setdefault(name, real)
        return ast.unparse(known) == ast.unparse(real)

    def _fill(self, gap: ast.Constant, real: object) -> bool:
        self.gaps[self.piece.gaps[id(gap)]] = real
        return True


@dataclass(slots=True, eq=False)
class Found:
    """Where a piece fits, and what replaces it there."""

    module: Module
    spot: Spot
    piece: Piece
    fitting: _Fitting
    elsewhere: bool = False

    @property
    def path(self) -> str:
        """The file, below the package."""
        return self.module.path

    @property
    def at(self) -> str:
        """The qualified name of what it was found in, with its file."""
        return f"{self.path.removesuffix('.py')}:{self.spot.name}"

    def planted(self) -> str:
        """Return the text of the module with the replacement.

        Raises: SyntaxError if it is no Python.
        """
        *_, (_, [module]) = self._rising()
        text = ast.unparse(module)
        compile(text, self.path, "exec")
        return text

    def check(self) -> None:
        """Compile the function or constant that changes, and not the whole module.

        Raises: SyntaxError if it is no Python.
        """
        for spot, changed in self._rising():
            within_function = spot.above is not None and spot.above.own
            if isinstance(spot.node, ast.stmt) and not within_function:
                compile(ast.unparse(ast.Module(changed, [])), self.path, "exec")
                return

    def _rising(self) -> Iterator[tuple[Spot, list[Any]]]:
        """Yield the replacement and then, up to the module, a copy of what holds it.

        The module that was parsed stays as it is.
        """
        spot, put = self.spot, self._replacement()
        length = 1 if self.piece.of_expression else len(self.piece.old)
        yield spot, put
        while spot.above is not None:
            above = copy.copy(spot.above.node)
            if spot.index is None:
                setattr(above, spot.field, put[0])
            else:
                block = list(getattr(above, spot.field))
                block[spot.index : spot.index + length] = put
                if not block and spot.field == "body":
                    block = [ast.Pass()]
                setattr(above, spot.field, block)
            put, spot, length = [above], spot.above, 1
            yield spot, put

    def _replacement(self) -> list[Any]:
        if self.piece.of_expression:
            only = self.piece.new[0]
            assert isinstance(only, ast.Expr)
            return [self._filled(only.value)]
        return list(self._filled(self.piece.new))

    def _filled(self, node: object) -> Any:
        """Copy a part of *new*, with what its names and gaps stand for."""
        if isinstance(node, list):
            return [made for each in node for made in self._filled_item(each)]
        if isinstance(node, ast.Name) and node.id in self.fitting.locals:
            return copy.deepcopy(self.fitting.locals[node.id])
        if gap := _gap(node):
            items = self._filling(gap)
            if len(items) != 1:
                raise Unplantable(f"`...` stands for {len(items)} here, not for one")
            return items[0]
        if not isinstance(node, ast.AST):
            return node
        filled = copy.copy(node)
        for name, value in ast.iter_fields(node):
            setattr(filled, name, self._filled(value))
        return filled

    def _filled_item(self, node: object) -> list[Any]:
        """Copy an item of a list; a gap may have been several."""
        gap = _gap(node)
        if gap is None:
            return [self._filled(node)]
        items = self._filling(gap)
        if isinstance(node, ast.Expr):
            return [ast.Expr(i) if isinstance(i, ast.expr) else i for i in items]
        return items

    def _filling(self, gap: ast.Constant) -> list[Any]:
        real = self.fitting.gaps[self.piece.gaps[id(gap)]]
        return copy.deepcopy(real if isinstance(real, list) else [real])


class Package:
    """The modules of a package, in which pieces are found."""

    def __init__(self, modules: Iterable[Module]) -> None:
        """Take modules that were parsed."""
        self.modules = {module.path: module for module in modules}

    @classmethod
    def read(cls, root: Path) -> Self:
        """Read the package whose directory is *root*."""
        return cls(
            parsed(path.relative_to(root).as_posix(), path.read_text())
            for path in sorted(root.rglob("*.py"))
        )

    def find(self, at: str, old: str, new: str) -> Found:
        """Find the one place where *old* fits, first in what *at* names.

        Raises: Unplantable if there is none, or several, or *new* has names that are
        neither in *old* nor known there.
        """
        piece = Piece.read(old, new)
        for step, places in enumerate(self._places(at)):
            found = list(_fitting(piece, places))
            if len(found) > 1:
                names = ", ".join(dict.fromkeys(each.at for each in found))
                raise Unplantable(f"{old!r} fits {len(found)} times, in {names}")
            if found:
                if unknown := piece.unknown(found[0].module):
                    raise Unplantable(
                        f"{', '.join(unknown)} is neither in {old!r} nor known in"
                        f" {found[0].path}: what is planted would fail on the name"
                    )
                found[0].elsewhere = step > 0
                return found[0]
        raise Unplantable(f"{old!r} is neither in {at} nor anywhere else")

    def _places(self, at: str) -> Iterator[list[tuple[Module, range]]]:
        """Where to look: in what *at* names, in what is called so, everywhere."""
        file, _, name = at.rpartition(":")
        last = name.rpartition(".")[2]
        called_so = [
            (module, qualified, place)
            for module in self.modules.values()
            if last in module.last_names
            for qualified, places in module.index.named.items()
            if qualified.rpartition(".")[2] == last
            for place in places
        ]
        yield [
            (module, place)
            for module, qualified, place in called_so
            if qualified == name and file in ("", module.path.removesuffix(".py"))
        ]
        yield [(module, place) for module, _, place in called_so]
        yield [(m, range(len(m.index.spots))) for m in self.modules.values()]


def _fitting(piece: Piece, places: Iterable[tuple[Module, range]]) -> Iterator[Found]:
    """Go through the spots where a piece fits, each once."""
    seen = set()
    first: ast.AST = piece.old[0]
    if piece.of_expression:
        first = cast(ast.Expr, first).value
    for module, place in places:
        kind = None
        if not (isinstance(first, ast.Name) and not module.knows(first.id)):
            kind = type(first)
        for spot in module.index.within(place, kind):
            if spot in seen:
                continue
            fitting = _Fitting(piece, module, spot.own)
            if piece.of_expression:
                fits = isinstance(spot.node, ast.expr) and fitting.fits(
                    first, spot.node
                )
            else:
                row = spot.row(len(piece.old))
                fits = row is not None and fitting.fits(piece.old, row)
            if fits:
                seen.add(spot)
                yield Found(module, spot, piece, fitting)
