"""A directory with a settings file, and its mistakes, for tests."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration, Server
from txraft.errors import ConfigError
from txraft.settings.settings import Settings, load_settings


def voters(*addresses: str) -> tuple[Server, ...]:
    """Make the servers that *addresses* alone list."""
    return Configuration.of_voters(addresses).servers


class SettingsTestCase(SynchronousTestCase):
    """Loads settings from a file in a directory of the test's own."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.path = self.directory / "node.yaml"

    def load(self, text: str, **flags: str) -> Settings:
        self.path.write_text(text)
        return load_settings(
            str(self.path), {name.replace("_", "-"): v for name, v in flags.items()}
        )

    def faults(self, text: str, **flags: str) -> list[str]:
        """Return the faults of *text* without the directory of the file."""
        error = self.assertRaises(ConfigError, self.load, text, **flags)
        assert error is not None
        return [problem.replace(f"{self.directory}/", "") for problem in error.problems]

    def assertFault(self, text: str, line: int, *words: str) -> None:
        """Assert that *text* has one fault, at *line*, with all of *words*."""
        faults = self.faults(text)
        self.assertEqual(len(faults), 1, faults)
        self.assertEqual(faults[0].split(" ")[0], f"node.yaml:{line}:")
        for word in words:
            self.assertIn(word, faults[0])
