"""The forms that the pages made from the code have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import fill

WIDTH = 88


def section(title: str, sentence: str, rows: Iterable[str]) -> str:
    """Return a section with definitions; its *sentence* may be empty."""
    parts = [
        f"\n{title}\n{'-' * len(title)}\n",
        *([f"{sentence}\n"] if sentence else []),
    ]
    return "\n".join([*parts, *rows])


def definition(term: str, text: str) -> str:
    """Return an item of a definition list."""
    return f"{term}\n{filled(with_code(text), '    ')}\n"


def filled(text: str, indent: str = "", width: int = WIDTH) -> str:
    """Return a paragraph in lines."""
    return fill(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def with_code(text: str) -> str:
    """Turn the backticks of docstrings into those of reStructuredText."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)
