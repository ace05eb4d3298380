"""Configures Sphinx, and turns the sections of docstrings into fields."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

project = "txraft"
author = "The txraft authors"
html_theme = "furo"
html_title = "txraft"
html_theme_options = {"navigation_with_keys": True}
exclude_patterns = ["_build"]
extensions = ["sphinx.ext.autodoc"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # annotations name what has no page here
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

_SECTION = re.compile(r"(Returns|Raises|Thread|Durable|Source): (.*)")
_CODE = re.compile(r"(?<!`)`([^`\s][^`]*)`(?!`)")


def docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn the sections of a docstring into fields, and its backticks into code."""
    found: list[str] = []
    in_fields = False
    for line in lines:
        line = _CODE.sub(r"``\1``", line)
        section = _SECTION.match(line)
        if section:
            if found and found[-1] and not in_fields:
                found.append("")
            line = f":{section[1]}: {section[2]}"
            in_fields = True
        elif line and not line.startswith(" "):
            if in_fields and found[-1]:
                found.append("")
            in_fields = False
        found.append(line)
    lines[:] = found


def setup(app: Sphinx) -> None:
    """Make the form of the docstrings known to Sphinx."""
    app.connect("autodoc-process-docstring", docstring)
