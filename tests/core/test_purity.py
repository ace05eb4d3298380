"""The layers of the package, read from its imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txraft

PACKAGE = Path(txraft.__file__).parent

IMPURE = {"time", "os", "threading", "socket", "datetime", "secrets", "uuid", "asyncio"}

BELOW = {
    "errors": set(),
    "core": {"core", "errors"},
    "wire": {"wire", "core", "errors"},
    "storage": {"storage", "wire", "core", "errors", "interfaces"},
    "transport": {
        "transport",
        "wire",
        "core",
        "errors",
        "interfaces",
        "reasons",
        "clock",
        "_twisted",
    },
    "node": {
        "node",
        "core",
        "wire",
        "errors",
        "interfaces",
        "config",
        "addresses",
        "clock",
    },
    "embedding": {
        "embedding",
        "_twisted",
        "addresses",
        "clock",
        "config",
        "consistency",
        "core",
        "errors",
        "interfaces",
        "node",
        "replicated",
        "storage",
        "transport",
        "wire",
    },
    "replicated": {
        "replicated",
        "core",
        "errors",
        "interfaces",
        "node",  # ApplyResult
        "embedding",  # Outcome
    },
    "interfaces": {"core", "errors"},
    "config": {"errors", "consistency"},
    "consistency": set(),
    "reasons": set(),
    "_twisted": set(),
    "clock": {"_twisted"},
}
"""What each layer may import of the package, for the layers that are at the bottom.

`txraft.node` and `txraft.wire` meet in the form of entries; nothing at the bottom
knows the service, HTTP or the command line.
"""


def modules(layer: str) -> list[Path]:
    """List the modules of one layer: a package, or a single module."""
    single = PACKAGE / f"{layer}.py"
    return [single] if single.exists() else sorted((PACKAGE / layer).glob("**/*.py"))


def parse(path: Path) -> ast.Module:
    """Read one module."""
    return ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """Name all modules that *tree* imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class Layers(SynchronousTestCase):
    """Dependencies point one way."""

    def test_core_imports_the_standard_library_only(self) -> None:
        """No Twisted, no msgpack; and nothing that knows time, files or threads."""
        for path in modules("core"):
            for name in imported(parse(path)):
                top = name.split(".")[0]
                self.assertIn(top, {*sys.stdlib_module_names, "txraft"}, path.name)
                self.assertNotIn(top, IMPURE, path.name)

    def test_layers_import_only_what_is_below(self) -> None:
        """An arrow the wrong way is named with its module."""
        wrong = []
        for layer, below in BELOW.items():
            for path in modules(layer):
                for name in imported(parse(path)):
                    parts = name.split(".")
                    if parts[0] != "txraft" or len(parts) == 1:
                        continue
                    if parts[1] not in below and (PACKAGE / parts[1]).exists():
                        wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
                    single = PACKAGE / f"{parts[1]}.py"
                    if parts[1] not in below and single.exists():
                        wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")

        self.assertEqual(wrong, [])

    def test_layers_are_there(self) -> None:
        """A layer that was renamed would pass every check."""
        self.assertEqual([layer for layer in BELOW if not modules(layer)], [])


class Core(SynchronousTestCase):
    """The modules of the core stand on each other, and one class assigns the role."""

    def test_core_has_no_circle(self) -> None:
        """A module can be understood without those above it.

        Imports for types only count as well.
        """
        below = {
            path.stem: {
                name.split(".")[2]
                for name in imported(parse(path))
                if name.startswith("txraft.core.")
            }
            for path in modules("core")
        }

        while free := [module for module in below if not below[module] & below.keys()]:
            for module in free:
                del below[module]

        self.assertEqual(below, {}, "each of these is above and below the others")

    def test_role_is_assigned_by_transitions_only(self) -> None:
        """A role that replaced itself would run on as what it no longer is."""
        assigning = {
            f"{path.stem}.{node.name}"
            for path in (*modules("core"), *modules("node"), *modules("testing"))
            for node in ast.walk(parse(path))
            if isinstance(node, ast.FunctionDef)
            for target in ast.walk(node)
            if isinstance(target, ast.Attribute)
            and isinstance(target.ctx, ast.Store)
            and target.attr == "role"
        }

        self.assertEqual(
            assigning,
            {
                "consensus.__init__",
                "consensus.become_follower",
                "consensus.become_pre_candidate",
                "consensus.become_candidate",
                "consensus.become_leader",
            },
        )


class Determinism(SynchronousTestCase):
    """The same inputs make the same outputs, in every process."""

    def places(self) -> Iterator[tuple[str, ast.AST]]:
        """Go through the core, and the simulation of whole clusters of it."""
        for path in (*modules("core"), *modules("testing/simulation")):
            for node in ast.walk(parse(path)):
                yield f"{path.name}:{getattr(node, 'lineno', 0)}", node

    def test_core_asks_no_identity_or_hash(self) -> None:
        """`id` and `hash` differ from process to process."""
        found = [
            place
            for place, node in self.places()
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"id", "hash"}
        ]

        self.assertEqual(found, [])

    def test_core_draws_from_a_given_random_only(self) -> None:
        """The functions of the random module share a state that is nobody's."""
        found = [
            place
            for place, node in self.places()
            if isinstance(node, ast.Import | ast.ImportFrom)
            and "random" in imported(ast.Module([node], []))
            and [alias.name for alias in node.names] != ["Random"]
        ]

        self.assertEqual(found, [])

    def test_core_iterates_over_no_set(self) -> None:
        """The order of a set of strings differs from process to process.

        Seen are sets where they are looped over, and the names and attributes that
        are given one in the same module.
        """
        found = []
        for path in (*modules("core"), *modules("testing/simulation")):
            tree = parse(path)
            sets = {name for node in ast.walk(tree) for name in _given_a_set(node)}
            for node in ast.walk(tree):
                if isinstance(node, ast.For | ast.comprehension):
                    over = node.iter
                    if _is_set(over) or _name(over) in sets:
                        found.append(f"{path.name}: {ast.unparse(over)}")

        self.assertEqual(found, [])


def _is_set(node: ast.AST | None) -> bool:
    """Tell whether *node* is a set where it stands."""
    if isinstance(node, ast.Call):
        return _name(node.func) in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _given_a_set(node: ast.AST) -> Iterator[str]:
    """Name what *node* assigns a set to."""
    if isinstance(node, ast.Assign) and _is_set(node.value):
        yield from (_name(target) for target in node.targets)
    elif isinstance(node, ast.AnnAssign) and (
        _is_set(node.value) or ast.unparse(node.annotation).startswith(("set", "froz"))
    ):
        yield _name(node.target)
