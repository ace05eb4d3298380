"""CONTRIBUTING.rst, CI and the tools agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).parents[1]
GUIDE = (CHECKOUT / "CONTRIBUTING.rst").read_text()
NEWS = CHECKOUT / "newsfragments"
ON_DEMAND = ["coverage"]


def steps() -> list[str]:
    """Ask `.ci/run` for its steps."""
    command = ["bash", str(CHECKOUT / ".ci" / "run"), "--list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    return re.findall(r"^(\w+): \w", listed.stdout, re.MULTILINE)


def settings() -> dict[str, Any]:
    """Read what pyproject.toml says to the tools."""
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]


def read_yaml(path: str) -> Any:
    """Read a file of a tool."""
    return yaml.safe_load((CHECKOUT / path).read_text())


def section(title: str) -> str:
    """Return a section of the guide."""
    _, text = GUIDE.split(f"\n{title}\n{'-' * len(title)}\n")
    return re.split(r"\n.+\n-{4,}\n", text)[0]


def modules_of(folder: str) -> list[Path]:
    """List the modules below *folder*, but for those whose names Python gives."""
    found = (CHECKOUT / folder).rglob("*.py")
    return [path for path in sorted(found) if not path.stem.startswith("__")]


def several(names: Counter[str]) -> list[str]:
    """Return the names that stand in several places."""
    return [name for name, count in names.items() if count > 1]


class Steps(SynchronousTestCase):
    """The steps of `.ci/run`, which others call by their names."""

    def test_every_step_has_a_purpose(self) -> None:
        """`.ci/run --list` tells of each step what it does, those on demand last."""
        self.assertIn("lint", steps())
        self.assertEqual(steps()[-len(ON_DEMAND) :], ON_DEMAND)

    def test_guide_lists_them(self) -> None:
        """CONTRIBUTING.rst says of each how long it takes."""
        text = section("What CI runs")

        listed = re.findall(r"^``(\w+)`` +\d+ ", text, re.MULTILINE)

        self.assertEqual(listed + ON_DEMAND, steps())
        for name in ON_DEMAND:
            self.assertIn(f"``{name}``", text)

    def test_nox_has_them(self) -> None:
        """A session of nox for each step, and those by default are among them."""
        command = [sys.executable, "-m", "nox", "--list"]
        listed = subprocess.run(
            command, check=False, cwd=CHECKOUT, capture_output=True, text=True
        )
        if "No module named nox" in listed.stderr:
            self.skipTest("nox is not installed; the extra dev has it")

        sessions = re.findall(r"^[*-] (\w+) -> \w", listed.stdout, re.MULTILINE)

        self.assertEqual(sessions, steps())

    def test_workflow_has_them(self) -> None:
        """The workflow does each step once, but for the figure of coverage."""
        (job,) = read_yaml(".github/workflows/ci.yaml")["jobs"].values()
        groups = job["strategy"]["matrix"]["steps"]

        done = [step for group in groups for step in group.split()]

        self.assertEqual(sorted([*done, "coverage"]), sorted(steps()))

    def test_hooks_are_steps(self) -> None:
        """A hook of pre-commit is a step, so that it is written down once."""
        (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]

        for hook in repository["hooks"]:
            self.assertEqual(hook["entry"], f"bash .ci/run --step {hook['id']}")
            self.assertIn(hook["id"], steps())


class Fragments(SynchronousTestCase):
    """The pieces of the changelog to come."""

    def test_types_are_explained(self) -> None:
        """The README beside the fragments has the types that towncrier knows."""
        types = [kind["directory"] for kind in settings()["towncrier"]["type"]]
        text = (NEWS / "README.rst").read_text()

        self.assertEqual(re.findall(r"^(\w+)  +[a-z]", text, re.MULTILINE), types)

    def test_every_fragment_has_a_type(self) -> None:
        """A fragment is `NUMBER.TYPE.rst` or `+NAME.TYPE.rst`, and says something."""
        types = {kind["directory"] for kind in settings()["towncrier"]["type"]}
        for path in NEWS.iterdir():
            if path.name not in settings()["towncrier"]["ignore"]:
                match = re.fullmatch(r"(?:\d+|\+[a-z0-9-]+)\.(\w+)\.rst", path.name)
                self.assertTrue(match, path.name)
                self.assertIn(path.suffixes[-2][1:], types)
                self.assertTrue(path.read_text().strip(), path.name)

    def test_changelog_has_their_place(self) -> None:
        """The changelog has the line below which towncrier writes, once."""
        start = settings()["towncrier"]["start_string"]

        self.assertEqual((CHECKOUT / "CHANGELOG.rst").read_text().count(start), 1)


class Guide(SynchronousTestCase):
    """What CONTRIBUTING.rst names is there."""

    def test_files_are_there(self) -> None:
        """Each file and folder that it names exists."""
        named = set(
            re.findall(
                r"(?<![\w/.])((?:txraft|tests|docs|benchmarks|twisted)/[\w/.-]+\w"
                r"|[\w.]+\.(?:py|toml|rst))",
                GUIDE,
            )
        )

        self.assertIn("txraft/core", named)
        self.assertIn("setup.py", named)
        missing = [name for name in named if not (CHECKOUT / name).exists()]
        self.assertEqual(
            [m for m in missing if not (NEWS / m).exists()], [], "not there"
        )

    def test_programs_are_there(self) -> None:
        """Each module that it has Python run exists."""
        named = set(
            re.findall(r"python\s+-m\s+((?:txraft|tests|benchmarks)[\w.]*)", GUIDE)
        )

        for name in named:
            path = CHECKOUT / name.replace(".", "/")
            found = (
                path.with_suffix(".py") if not path.is_dir() else path / "__main__.py"
            )
            self.assertTrue(found.exists(), name)

    def test_every_layer_is_listed(self) -> None:
        """Each folder of the package is in the first table."""
        listed = re.findall(r"^``txraft/(\w+)``", section("Where things are"), re.M)
        folders = {path.parent.name for path in CHECKOUT.glob("txraft/*/__init__.py")}

        self.assertEqual(sorted(listed), sorted(folders))

    def test_shared_names(self) -> None:
        """Modules of one name are listed, likewise public classes, and no others."""
        text, likewise = section("One name in several places").split("\nLikewise ")
        modules = Counter(path.stem for path in modules_of("txraft"))
        classes = Counter(
            name
            for path in modules_of("txraft")
            for name in re.findall(r"^class ([A-Z]\w+)", path.read_text(), re.MULTILINE)
        )

        listed = re.findall(r"^``(\w+)`` ", text, re.MULTILINE)
        self.assertEqual(listed, sorted(several(modules)))
        listed = re.findall(r"``([A-Z]\w+)``", likewise)
        self.assertEqual(sorted(set(listed)), sorted(several(classes)))

    def test_first_lines_tell(self) -> None:
        """No module begins with an indirect question: "Who waits for what"."""
        asks = re.compile(
            r'"""(who|what|how|whether|which|where|why|when|whose|whom)\b',
            re.IGNORECASE,
        )
        asking = [
            str(path.relative_to(CHECKOUT))
            for folder in ("txraft", "tests", "benchmarks", "examples", "docs")
            for path in modules_of(folder)
            if asks.match(path.read_text())
        ]

        self.assertEqual(asking, [])


class Places(SynchronousTestCase):
    """The files that services read."""

    def test_manual_can_be_built(self) -> None:
        """Read the Docs gets a configuration and an extra that are there."""
        build = read_yaml(".readthedocs.yaml")
        (install,) = build["python"]["install"]

        self.assertTrue((CHECKOUT / build["sphinx"]["configuration"]).exists())
        setup = (CHECKOUT / "setup.py").read_text()
        for extra in install["extra_requirements"]:
            self.assertIn(f'"{extra}": ', setup)

    def test_forms(self) -> None:
        """Each form for an issue has a name and asks for something."""
        for path in (CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"):
            form = yaml.safe_load(path.read_text())
            self.assertLessEqual({"name", "description", "body"}, form.keys())
            kinds = {item["type"] for item in form["body"]}
            self.assertLessEqual(kinds, {"markdown", "textarea", "input"})
