"""The manual: pages by hand, and the tables of settings from the code itself."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from txraft import config, settings

project = "txraft"
author = "The txraft authors"
html_theme = "alabaster"
exclude_patterns = ["_build"]
nitpicky = True

_UNITS = {"float": "s"}


class SettingsTable(SphinxDirective):
    """Lists the fields of the settings class named by the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = _ROWS[self.arguments[0]]()
        text = "\n".join(
            f"``{name}``\n    {doc.replace('`', '``').replace('````', '``')}"
            f" Default: {default}.\n"
            for name, default, doc in rows
        )
        return self.parse_text_to_nodes(text)


def _fields(kind: type) -> list[tuple[str, str, str]]:
    return [
        (name, default if " " in default else f"``{default}``", doc)
        for name, default, doc in settings.field_documentation(kind)
    ]


def _raft() -> list[tuple[str, str, str]]:
    settable = settings.raft_settings()
    return [
        (name, f"``{_yaml(default)}{_UNITS.get(kind, '')}``", doc)
        for name, kind, default, doc in config.field_documentation()
        if name in settable
    ]


def _yaml(value: object) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


_ROWS = {
    "settings": lambda: _fields(settings.Settings),
    "http": lambda: _fields(settings.HTTPSettings),
    "raft": _raft,
}


def setup(app: Sphinx) -> None:
    """Make the tables known to Sphinx."""
    app.add_directive("settings-table", SettingsTable)
