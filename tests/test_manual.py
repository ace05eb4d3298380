"""The manual: pages made from the code, names that it must have, and its words."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txraft.client
import txraft.testing
import txraft.testing.contracts

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PARTS = ["tutorials", "how-to", "explanation", "reference"]


def made(name: str) -> str:
    """Make a page as `python docs/`*name*`.py` does."""
    sys.path.insert(0, str(DOCS))  # where `python docs/...` looks for `layout`
    try:
        return str(import_module(name).page())
    finally:
        sys.path.remove(str(DOCS))
        for module in (name, "layout"):
            sys.modules.pop(module, None)


def documented(page: str) -> set[str]:
    """List the names that a page takes from the code."""
    text = (DOCS / "reference" / page).read_text()
    return set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.MULTILINE))


class Pages(SynchronousTestCase):
    def test_settings(self) -> None:
        """Every setting is in the checkout as the code has it.

        `python docs/settings_page.py > docs/reference/settings.rst` makes the page.
        """
        page = (DOCS / "reference" / "settings.rst").read_text()

        self.assertEqual(page, made("settings_page"))

    def test_commands(self) -> None:
        """Every command is in the checkout as the code has it.

        `python docs/commands_page.py > docs/reference/commands.rst` makes the page.
        """
        page = (DOCS / "reference" / "commands.rst").read_text()

        self.assertEqual(page, made("commands_page"))

    def test_metrics(self) -> None:
        """Every metric is in the checkout as the code has it.

        `python docs/metrics_page.py > docs/reference/metrics.rst` makes the page.
        """
        page = (DOCS / "reference" / "metrics.rst").read_text()

        self.assertEqual(page, made("metrics_page"))

    def test_client(self) -> None:
        """The page of the client has every name that it exports."""
        missing = set(txraft.client.__all__) - documented("client.rst")

        self.assertEqual(missing, set())

    def test_testing(self) -> None:
        """The page of the means for tests has every name that they export."""
        listed = documented("testing.rst")

        self.assertEqual(set(txraft.testing.__all__) - listed, set())
        self.assertIn("txraft.testing.contracts", listed)

    def test_four_parts(self) -> None:
        """The front page lists each page in the part in whose folder it lies."""
        index = (DOCS / "index.rst").read_text()
        listed = re.findall(r"^   ([\w-]+)/([\w-]+)$", index, re.MULTILINE)
        there = [
            (path.parent.name, path.stem)
            for path in sorted(DOCS.rglob("*.rst"))
            if path != DOCS / "index.rst" and "_build" not in path.parts
        ]

        self.assertEqual(sorted(listed), sorted(there))
        self.assertEqual(list(dict.fromkeys(part for part, _ in listed)), PARTS)
        self.assertEqual(
            [page for _, page in listed][-3:],
            ["hashicorp-raft-api", "performance", "planted-bugs"],
        )


HOUSE_WORDS = re.compile(
    r"\b(founding|founders?|founds|handovers?|hands? over|lobby|guests?|meters"
    r"|the original)\b",
    re.IGNORECASE,
)
"""What the manual has other words for; CONTRIBUTING.rst names them."""


class Words(SynchronousTestCase):
    def test_words_of_the_field(self) -> None:
        """The manual says bootstrap, leadership transfer and hashicorp/raft."""
        names = ("README.rst", "CHANGELOG.rst", "SECURITY.md")
        pages = [*sorted(DOCS.rglob("*.rst")), *(CHECKOUT / name for name in names)]

        found = [
            f"{page.name}: {line.strip()}"
            for page in pages
            for line in page.read_text().splitlines()
            if HOUSE_WORDS.search(line)
        ]

        self.assertEqual(found, [])

    def test_links_of_the_readme(self) -> None:
        """Every file that the README links to is there."""
        links = re.findall(
            r"<([\w/.-]+\.\w+)>`_", (CHECKOUT / "README.rst").read_text()
        )

        self.assertGreater(len(links), 8)
        self.assertEqual([link for link in links if not (CHECKOUT / link).exists()], [])
