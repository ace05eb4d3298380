"""The page of the manual that has every command, made from the code.

    python docs/commands_page.py > docs/reference/commands.rst

A test compares the page in the checkout with what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from textwrap import indent

import click
from layout import WIDTH, filled, section, with_code

from txraft.cli.app import SECTIONS, main, status

_HEAD = """\
.. This page is made by ``python docs/commands_page.py``.

Commands
========

Every command with its options, as ``txraft COMMAND --help`` explains them. :doc:`cli`
says what they have in common, and what is worth knowing beforehand. Every command has
``--help``. These options are those of all commands that ask a cluster:
"""

_OF_A_CLUSTER = {option.name for option in status.params}
"""The options that `online` gives; the command `status` has no others."""


def page() -> str:
    """Return the page as text."""
    return f"{_HEAD}\n{_options(status.params)}" + "".join(
        section(title, "", (_described(*each) for top in tops for each in _leaves(top)))
        for title, tops in SECTIONS.items()
    )


def _leaves(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """List the commands that do something: those that have no subcommands."""
    path = (*path, str(command.name))
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _leaves(below, *path)
    else:
        yield " ".join(path), command


def _described(name: str, command: click.Command) -> str:
    # With its parent: click keeps the names of a command's help option from the first
    # context that it sees, and -h would be unknown from then on.
    top = click.Context(main, **main.context_settings)
    usage = command.collect_usage_pieces(click.Context(command, parent=top))
    arguments = [piece for piece in usage if piece != "[OPTIONS]"]
    asks = "addresses" in {option.name for option in command.params}
    own = [
        option
        for option in command.params
        if not (asks and option.name in _OF_A_CLUSTER)
    ]
    parts = [*_paragraphs(command.help or ""), _options(own)]
    body = "\n".join(part for part in parts if part)
    return f"``{' '.join(['txraft', name, *arguments])}``\n{indent(body, '    ')}"


def _paragraphs(help_text: str) -> Iterator[str]:
    for paragraph in cleandoc(help_text).split("\n\n"):
        # What click is not to wrap, which is an example.
        if paragraph.startswith("\b\n"):
            yield f"::\n\n{paragraph.removeprefix(chr(8) + chr(10))}\n"
        else:
            yield f"{filled(with_code(paragraph), width=WIDTH - 4)}\n"


def _options(parameters: Sequence[click.Parameter]) -> str:
    return "\n".join(
        f"``{_form(each)}``\n{filled(with_code(_sentences(each)), '    ', WIDTH - 4)}\n"
        for each in parameters
        if isinstance(each, click.Option)
    )


# Not as click words them for a terminal: that differs from release to release.


def _form(option: click.Option) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    value = option.metavar or option.human_readable_name.upper()
    return names if option.is_flag else f"{names} {value}"


def _sentences(option: click.Option) -> str:
    parts = [option.help or "", *_bounds(option.type)]
    if option.show_default:
        parts.append(f"Default: `{option.default}`.")
    if option.required:
        parts.append("Required.")
    return " ".join(parts)


def _bounds(kind: click.ParamType) -> Iterator[str]:
    if isinstance(kind, click.IntRange | click.FloatRange):
        if kind.max is not None:
            yield f"From {kind.min} to {kind.max}."
        elif kind.min:
            yield f"At least {kind.min}."


if __name__ == "__main__":
    sys.stdout.write(page())
