"""The catalogue of planted bugs fits the code, and bugs are really caught."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.mutants.catalogue import MUTANTS, table
from tests.mutants.mutant import ROOT, copy_of_package, failed_seeds, failed_tests
from tests.mutants.syntax import Package, Unplantable

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "planted-bugs.rst"


class Catalogue(SynchronousTestCase):
    """What is planted, and where."""

    def test_every_bug_can_be_planted(self) -> None:
        """The code that a bug replaces is there, once, and what replaces it compiles.

        Whoever changes such code changes its entry here too. A name that only the bug
        has is refused: its code would fail whatever is tested.
        """
        package = Package.read(ROOT / "txraft")
        refused = []
        for mutant in MUTANTS:
            try:
                mutant.find(package).check()
            except Unplantable as error:
                refused.append(str(error))
            except SyntaxError as error:
                refused.append(f"{mutant.name}: what is planted: {error}")

        self.assertEqual(refused, [])

    def test_every_bug_is_where_its_entry_says(self) -> None:
        """A bug that was found elsewhere can be planted, but its `at` is out of date."""
        package = Package.read(ROOT / "txraft")
        moved = []
        for mutant in MUTANTS:
            try:
                found = mutant.find(package)
            except Unplantable:  # the test above tells of it
                continue
            if found.elsewhere:
                moved.append(f"{mutant.name}: at={found.at!r}, not {mutant.at!r}")

        self.assertEqual(moved, [])

    def test_every_bug_has_a_name_and_a_catcher(self) -> None:
        """A bug is caught by something, or it says why nothing can catch it."""
        names = Counter(mutant.name for mutant in MUTANTS)
        answered = [bool(m.caught_by) != bool(m.equivalent) for m in MUTANTS]

        self.assertEqual(max(names.values()), 1)
        self.assertTrue(all(answered))
        for mutant in MUTANTS:
            self.assertFalse(mutant.caught_by.startswith("seed"), mutant.name)
        self.assertGreaterEqual(sum(bool(m.caught_by) for m in MUTANTS), 60)

    def test_every_catcher_exists(self) -> None:
        """Tests move as well: a bug whose test is gone would be caught by nothing.

        A method without the name in its own class may come from a base class, where it
        is not looked for.
        """
        missing = []
        for mutant in MUTANTS:
            if mutant.caught_by:
                module, name, method = mutant.caught_by.rsplit(".", 2)
                path = ROOT / (module.replace(".", "/") + ".py")
                if not path.exists() or not _has_test(path, name, method):
                    missing.append(f"{mutant.name}: {mutant.caught_by}")

        self.assertEqual(missing, [])

    def test_page_of_the_manual(self) -> None:
        """The page lists what is planted.

        `python -m tests.mutants --table > docs/reference/planted-bugs.rst` makes it.
        """
        self.assertEqual(sorted(PAGE.parents[1].rglob(PAGE.name)), [PAGE])
        self.assertEqual(PAGE.read_text(), table())


@cache
def _classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text(), str(path))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _has_test(path: Path, name: str, method: str) -> bool:
    """Tell whether the class *name* in *path* has, or may inherit, *method*."""
    found = _classes(path).get(name)
    if found is None:
        return False
    bases = {ast.unparse(base) for base in found.bases}
    own = {node.name for node in found.body if isinstance(node, ast.FunctionDef)}
    return method in own or not bases <= {"SynchronousTestCase", "TestCase"}


class Planting(SynchronousTestCase):
    """One bug, caught by its test and seen by its seed; without it, not."""

    def test_caught_only_where_it_is_planted(self) -> None:
        """Test and seed fail on the planted code and pass on the real code."""
        mutant = next(m for m in MUTANTS if m.seed is not None)
        assert mutant.seed is not None
        with copy_of_package() as root:
            self.assertEqual(failed_tests(root, [mutant.caught_by]), {})
            self.assertEqual(failed_seeds(root, [mutant.seed]), [])

            mutant.plant(root)

            self.assertEqual(
                failed_tests(root, [mutant.caught_by]), {mutant.caught_by: ""}
            )
            self.assertEqual(failed_seeds(root, [mutant.seed]), [mutant.seed])
