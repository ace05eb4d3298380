"""Write the output of commands: tables for people, JSON for machines, progress bars."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

GAP = "  "
_LAYOUT = "\n\t"
_DIRECTIONS = frozenset(
    map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)


class Output:
    """Standard output and error of one command; with *as_json* only JSON is written."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    def json(self, value: object) -> None:
        """Write *value* as one line of JSON, indented on a terminal."""
        indent = 2 if self.is_terminal else None
        self.document(value, indent)

    def document(self, value: object, indent: int | str | None = None) -> None:
        """Write *value* as JSON with *indent*."""
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        click.echo(printable(text) if self.is_terminal else text)

    def line(self, text: str = "") -> None:
        """Write a line for people; nothing with JSON."""
        if not self.as_json:
            click.echo(printable(text) if self.is_terminal else text)

    def key(self, key: str) -> None:
        """Write *key* as a line; a line break in it is escaped on a terminal."""
        self.line(printable(key, "") if self.is_terminal else key)

    def value(self, value: bytes) -> None:
        """Write bytes as they are; on a terminal as text that ends its line."""
        if self.is_terminal:
            text = value.decode("utf-8", "backslashreplace")
            click.echo(printable(text), nl=not text.endswith("\n"))
            return
        # Past the text layer, which would encode, and translate line ends.
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write *rows* in columns; nothing with JSON."""
        for line in table_lines(headings, rows):
            self.line(line)

    def problem(self, text: str) -> None:
        """Write to standard error, so that it does not mix with the result."""
        # Escaped even where this is no terminal: log files are looked at in one.
        click.echo(printable(text), err=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Any]:
        """Show a bar of *total* steps on a terminal; `update(n)` moves it."""
        with click.progressbar(
            length=total,
            label=label,
            file=sys.stderr,
            hidden=self.as_json or not sys.stderr.isatty(),
        ) as bar:
            yield bar


def printable(text: str, layout: str = _LAYOUT) -> str:
    """Escape the characters that a terminal would obey, as `\\u001b`.

    Keys, values and answers come from anybody who may write to the store. A terminal
    obeys some characters: they move its cursor, set its title or write from right to
    left. *layout* are control characters that are not escaped.
    """
    # For speed: nearly every text is, and needs no look at each character.
    if text.isprintable():
        return text
    return "".join(
        _escaped(c) if _is_obeyed(c) and c not in layout else c for c in text
    )


def _is_obeyed(character: str) -> bool:
    """Tell whether a terminal obeys *character*: controls, directions, line ends."""
    # "Cs" are lone surrogates, which could not be encoded; "Zl" and "Zp" break lines.
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS


def _escaped(character: str) -> str:
    # As JSON writes them, so that a document on a terminal can still be read back.
    return "".join(
        f"\\u{unit:04x}"
        for unit in memoryview(character.encode("utf-16-le", "surrogatepass")).cast("H")
    )


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> Iterator[str]:
    """Format *rows* as columns, with numbers aligned to the right."""
    cells = [list(headings), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    numeric = [
        bool(rows) and all(_is_number(row[i]) for row in rows)
        for i in range(len(headings))
    ]
    for row in cells:
        columns = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        yield GAP.join(columns).rstrip()


def size_text(count: float) -> str:
    """Format a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes every size")


def _is_number(cell: object) -> bool:
    # Python takes a bool for an int.
    if isinstance(cell, bool):
        return False
    return cell is None or isinstance(cell, int | float)


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return printable(str(cell), "")
