"""The table of subcommands: complete, and explained in one line each."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

import txraft.cli
from txraft.cli.app import SECTIONS, main

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.rst"
COLUMNS = 80
WIDTH = COLUMNS - 2
"""The columns that click fills on a terminal of `COLUMNS`."""


def below(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """List the subcommands of *command* and all of theirs, by their whole names."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield " ".join([*path, name]), each
            yield from below(each, *path, name)


def sentences(group: click.Group) -> list[str]:
    """Return the sentences beside the subcommands of *group*, as its help has them."""
    limit = WIDTH - 6 - max(map(len, group.commands))
    return [each.get_short_help_str(limit) for each in group.commands.values()]


class TheTable(SynchronousTestCase):
    def test_complete(self) -> None:
        """Whatever is made a command in a module of the room can be called."""
        made = {
            f"{module.name}.{name}": value
            for module in pkgutil.iter_modules(txraft.cli.__path__, "txraft.cli.")
            for name, value in vars(import_module(module.name)).items()
            if isinstance(value, click.Command) and value is not main
        }

        called = [command for _, command in below(main)]

        self.assertGreater(len(made), 20)
        self.assertEqual([name for name, c in made.items() if c not in called], [])

    def test_name(self) -> None:
        """A command is called as its decorator says."""
        other = [name for name, c in below(main) if name.split()[-1] != c.name]

        self.assertEqual(other, [])

    def test_sentence(self) -> None:
        """The first sentence of each command stands whole on one line of the help."""
        groups = [("", main), *below(main)]
        cut = [
            sentence
            for _, group in groups
            if isinstance(group, click.Group)
            for sentence in sentences(group)
            if not sentence.endswith(".") or sentence.endswith("...")
        ]

        self.assertEqual(cut, [])

    def test_options(self) -> None:
        """Every option of every command is explained."""
        mute = [
            f"{name} {option.name}"
            for name, command in below(main)
            for option in command.params
            if isinstance(option, click.Option) and not option.help
        ]

        self.assertEqual(mute, [])

    def test_manual(self) -> None:
        """The page on the command line names every command."""
        text = PAGE.read_text()
        named = set(re.findall(r"(?:txraft |``)((?:[a-z]+ ?)+)", text))
        words = {" ".join(each.split()[:n]) for each in named for n in (1, 2)}

        self.assertEqual([name for name, _ in below(main) if name not in words], [])


class TheHelp(SynchronousTestCase):
    def test_by_subject(self) -> None:
        """The help has each subject with its commands, in the order of the table."""
        shown = CliRunner().invoke(main, ["--help"], terminal_width=COLUMNS).stdout
        subjects = re.findall(r"^(\S.*):\n((?:  \S.*\n)+)", shown, re.MULTILINE)

        listed = {
            title: [line.split()[0] for line in lines.splitlines()]
            for title, lines in subjects
            if title != "Options"
        }

        self.assertEqual(
            listed,
            {title: [c.name for c in row] for title, row in SECTIONS.items()},
        )
        self.assertEqual(list(listed), list(SECTIONS))
