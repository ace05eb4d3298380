"""The package installs every module and the plugin, and nothing that harms Twisted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).parents[1]


def run(directory: Path, *arguments: str, path: Path | None = None) -> str:
    """Run Python in *directory*, with *path* to import from; return its output."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, *arguments]
    finished = subprocess.run(
        command,
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


class Build(SynchronousTestCase):
    """What `setup.py` builds, without the network and outside of the checkout."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        source = self.directory / "source"
        copytree(
            CHECKOUT / "txraft", source / "txraft", ignore=ignore_patterns("*.pyc")
        )
        copytree(CHECKOUT / "twisted", source / "twisted")
        for name in ("setup.py", "pyproject.toml", "README.rst", "LICENSE"):
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
        self.built = self.directory / "built"
        try:
            import setuptools  # noqa: F401
        except ImportError:
            self.skipTest("setuptools is not installed; .ci/run builds the wheel")
        run(source, "setup.py", "-q", "build", "--build-lib", str(self.built))

    def test_build(self) -> None:
        """Every module is built, and the plugin is a lone file beside Twisted's own.

        An `__init__.py` under `twisted/` would replace Twisted's.
        """
        built = {
            str(path.relative_to(self.built))
            for path in self.built.rglob("*")
            if path.is_file()
        }
        modules = {
            str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("txraft/**/*.py")
        }

        data = {"txraft/py.typed", "txraft/http/openapi.yaml"}
        self.assertEqual(built, modules | data | {"twisted/plugins/txraft_plugin.py"})

        listed = run(
            self.directory,
            "-c",
            "import sys; from twisted.scripts.twistd import run;"
            " sys.argv[1:] = ['--help']; run()",
            path=self.built,
        )
        self.assertIn(" raft ", listed)


class Plugin(SynchronousTestCase):
    """`twistd --help` loads every plugin, so ours loads nothing."""

    def test_plugin_imports_nothing(self) -> None:
        """The plugin imports no module of ours, and no reactor."""
        loaded = run(
            CHECKOUT,
            "-c",
            "import sys, twisted.plugins.txraft_plugin;"
            " print([m for m in sys.modules if m.split('.')[0] == 'txraft'"
            " or m == 'twisted.internet.reactor'])",
            path=CHECKOUT,
        )

        self.assertEqual(loaded.strip(), "[]")

    def test_no_module_installs_a_reactor(self) -> None:
        """Importing txraft leaves the choice of the reactor to the application."""
        names = sorted(
            ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
            for path in CHECKOUT.glob("txraft/**/*.py")
        )

        installed = run(
            CHECKOUT,
            "-c",
            "import sys, importlib;"
            " [importlib.import_module(name) for name in sys.argv[1:]];"
            " print('twisted.internet.reactor' in sys.modules)",
            *names,
            path=CHECKOUT,
        )

        self.assertEqual(installed.strip(), "False")
