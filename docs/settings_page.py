"""The page of the manual that has every setting, made from the code.

    python docs/settings_page.py > docs/reference/settings.rst

A test compares the page in the checkout with what this makes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from layout import definition, filled, section, with_code

from txraft import config
from txraft.settings import credentials, settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_HEAD = """\
.. This page is made by ``python docs/settings_page.py``.

Settings
========

Every setting of ``node.yaml``, with its default. :doc:`configuration` says how they are
given and which belong together.
"""


def page() -> str:
    """Return the page as text."""
    limits = settings.NodeLimits()
    http_limits = _limits_of(limits.http)
    parts = [
        section("The node", "At the top of the file.", _rows(settings.Settings)),
        section("http", "The HTTP API.", _rows(settings.HTTPSettings)),
        section(
            "tls",
            "TLS among peers; see :doc:`/how-to/security`.",
            _rows(credentials.TLSSettings),
        ),
        section(
            "http.tls",
            "TLS of the HTTP API; see :doc:`/how-to/security`.",
            _rows(credentials.HTTPTLSSettings),
        ),
        section(
            "raft",
            "Consensus. All members should have the same.",
            _raft(),
        ),
        section("limits", "Bounds on clients and on the key-value store.", http_limits),
        _prose("limits, of connections with peers", limits.connections),
        _prose("limits, of messages from peers", limits.messages),
    ]
    return _HEAD + "".join(parts)


def _rows(kind: type) -> Iterator[str]:
    for name, default, doc in settings.field_documentation(kind):
        yield _row(name, default if " " in default else f"``{default}``", doc)


def _raft() -> Iterator[str]:
    settable = settings.raft_settings()
    for name, kind, _, doc in config.field_documentation():
        if name in settable:
            default = getattr(settings.RAFT_DEFAULTS, name)
            yield _row(name, _limit(name, default, kind), doc)


def _limits_of(limits: DataclassInstance) -> Iterator[str]:
    for f in fields(limits):
        default = _limit(f.name, f.default, str(f.type))
        yield _row(f.name, f.metadata.get("default", default), f.metadata["doc"])


def _row(name: str, default: str, doc: str) -> str:
    known = "Required." if default == "``required``" else f"Default: {default}."
    return definition(f"``{name}``", f"{doc} {known}")


def _prose(title: str, part: DataclassInstance) -> str:
    """Describe limits whose class does so in sentences."""
    paragraphs = inspect.cleandoc(type(part).__doc__ or "").split("\n\n")
    defaults = "".join(
        f"- ``{f.name}``: {_limit(f.name, f.default, str(f.type))}\n"
        for f in fields(part)
    )
    prose = "".join(f"\n{filled(with_code(text))}\n" for text in paragraphs)
    return f"\n{title}\n{'-' * len(title)}\n{prose}\n{defaults}"


def _limit(name: str, value: object, kind: str) -> str:
    text = f"``{_yaml(value, kind)}``"
    if isinstance(value, int) and name.endswith("_bytes"):
        for unit, size in (("TiB", 1 << 40), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{text} ({value // size} {unit})"
    return text


def _yaml(value: object, kind: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}s" if kind == "float" else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
