"""Log events have no key that Twisted's older observers take for something else."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txraft

PACKAGE = Path(txraft.__file__).parent
TAKEN = {"warning", "category", "filename", "isError", "printed", "message", "system"}
"""An event with a `warning` makes trial's reporter fail: it wants a `filename` too."""


def keys_of_events(path: Path) -> Iterator[tuple[int, str]]:
    """Find the line and the keywords of each call of a logger in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value).endswith("log")
        ):
            for keyword in node.keywords:
                yield node.lineno, keyword.arg or ""


class Keys(SynchronousTestCase):
    """The keys of all events of the package."""

    def test_no_key_is_taken(self) -> None:
        """Applications are tested by trial, with nodes that log in them."""
        found = [
            (path.relative_to(PACKAGE), line, key)
            for path in sorted(PACKAGE.rglob("*.py"))
            for line, key in keys_of_events(path)
        ]

        self.assertEqual([event for event in found if event[2] in TAKEN], [])
        self.assertIn("node", {key for _, _, key in found})
