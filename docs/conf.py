"""The manual: pages by hand, and the tables of settings from the code itself."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from txraft import config, credentials, settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

project = "txraft"
author = "The txraft authors"
html_theme = "alabaster"
exclude_patterns = ["_build"]
extensions = ["sphinx.ext.autodoc"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # annotations name what has no page here
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

_SECTION = re.compile(r"(Returns|Raises|Thread|Durable|Source): (.*)")
_CODE = re.compile(r"(?<!`)`([^`\s][^`]*)`(?!`)")


class SettingsTable(SphinxDirective):
    """Lists the fields of the settings that the argument names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(_TEXTS[self.arguments[0]]())


def _fields(kind: type) -> str:
    return "".join(
        _row(name, default if " " in default else f"``{default}``", doc)
        for name, default, doc in settings.field_documentation(kind)
    )


def _raft() -> str:
    settable = settings.raft_settings()
    return "".join(
        _row(name, f"``{_yaml(getattr(settings.RAFT_DEFAULTS, name), kind)}``", doc)
        for name, kind, _, doc in config.field_documentation()
        if name in settable
    )


def _limits() -> str:
    limits = settings.Limits()
    http = "".join(
        _row(
            f.name,
            f.metadata.get("default", f"``{_yaml(f.default, str(f.type))}``"),
            f.metadata["doc"],
        )
        for f in fields(limits.http)
    )
    return http + _prose(limits.connections) + _prose(limits.messages)


def _row(name: str, default: str, doc: str) -> str:
    doc = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", doc)
    return f"``{name}``\n    {doc} Default: {default}.\n\n"


def _prose(part: DataclassInstance) -> str:
    """Describe limits whose class does so in sentences."""
    defaults = ", ".join(
        f"``{f.name}`` {_yaml(f.default, str(f.type))}" for f in fields(part)
    )
    return f"{inspect.getdoc(type(part))}\n\nDefaults: {defaults}.\n\n"


def _yaml(value: object, kind: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}s" if kind == "float" else str(value)


_TEXTS = {
    "settings": lambda: _fields(settings.Settings),
    "http": lambda: _fields(settings.HTTPSettings),
    "tls": lambda: _fields(credentials.TLSSettings),
    "http-tls": lambda: _fields(credentials.HTTPTLSSettings),
    "raft": _raft,
    "limits": _limits,
}


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
    """Make the tables and the form of the docstrings known to Sphinx."""
    app.add_directive("settings-table", SettingsTable)
    app.connect("autodoc-process-docstring", docstring)
