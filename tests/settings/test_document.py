"""A settings file as YAML: broken documents are refused with their line."""

from __future__ import annotations

from tests.support.settings import SettingsTestCase
from txraft.errors import ConfigError
from txraft.settings.settings import load_settings


class Documents(SettingsTestCase):
    """What cannot be read is refused with its line, and nothing is constructed."""

    def test_duplicate_key(self) -> None:
        self.assertFault(
            "store: file\n\nstore: file\n", 3, 'duplicate key "store"', "line 1"
        )

    def test_not_yaml(self) -> None:
        self.assertFault("store: file\npeers: [a\nx: y\n", 3, "not valid YAML")
        self.assertFault("store: file\n\tjoin: true\n", 2, "not valid YAML")
        self.assertFault("store: file\n---\nstore: file\n", 2, "not valid YAML")
        self.assertFault("store: \x01\n", 1, "not valid YAML")

    def test_not_a_mapping(self) -> None:
        self.assertFault("just words\n", 1, "not a mapping")

    def test_alias_and_merge(self) -> None:
        """No construct of YAML makes a small file into large settings."""
        self.assertFault("raft: &r {}\nhttp: *r\n", 2, "an alias")
        self.assertFault("<<: {store: file}\n", 1, "<< is not a setting")
        self.assertFault("? [a]\n: b\n", 1, "not a plain word")

    def test_nested_too_deeply(self) -> None:
        problem = self.faults("[" * 5000)[0]

        self.assertIn("nested too deeply", problem)

    def test_not_text(self) -> None:
        self.path.write_bytes(b"store: file\nlog_level: \xff\n")

        error = self.assertRaises(ConfigError, load_settings, str(self.path))

        self.assertIn(f"{self.path}:2: not UTF-8", str(error))

    def test_too_long(self) -> None:
        self.assertIn("longer than", self.faults("#" * (1 << 20) + "\n")[0])

    def test_unreadable(self) -> None:
        error = self.assertRaises(ConfigError, load_settings, str(self.path))

        self.assertIn(f"{self.path}: cannot read it: No such file", str(error))
