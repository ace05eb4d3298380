"""Every name of hashicorp/raft is in the manual, and its counterpart is here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import reduce
from importlib import import_module
from inspect import get_annotations
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txraft

HERE = Path(__file__).parent
MANUAL = HERE.parents[1] / "docs" / "reference"
ROW = re.compile(r"^   \* - ``(\S+)``\n     - ``(\S+)``$", re.MULTILINE)
DOCUMENTED = re.compile(r"^\.\. auto\w+:: ([\w.]+)$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    """Read the pairs of names in the manual."""
    return ROW.findall((MANUAL / "hashicorp-raft-api.rst").read_text())


def exists(name: str) -> bool:
    """Tell whether *name*, of txraft or with its full path, is there."""
    if name.startswith("twisted."):
        module, rest = re.split(r"\.(?=[A-Z]|global)", name, maxsplit=1)
        return _has(import_module(module), rest.split("."))
    return _has(txraft, name.split("."))


def _has(holder: object, path: list[str]) -> bool:
    *above, last = path
    try:
        owner = reduce(getattr, above, holder)
    except AttributeError:
        return False
    return last in _declared(owner) or hasattr(owner, last)


def _declared(owner: object) -> Iterator[str]:
    """Name what instances have and the class only declares or sets."""
    if is_dataclass(owner):
        yield from (field.name for field in fields(owner))
    if isinstance(owner, type):
        for base in owner.__mro__:
            yield from get_annotations(base)
        if owner is txraft.Observer:
            yield from vars(txraft.Observer(None))


class Names(SynchronousTestCase):
    def test_every_name_is_in_the_manual(self) -> None:
        """The table has all of hashicorp/raft's names, each once, and no other."""
        listed = sorted(there for there, _ in rows())

        self.assertEqual(listed, (HERE / "names.txt").read_text().split())

    def test_every_counterpart_is_there(self) -> None:
        """What the table names can be imported."""
        self.assertEqual([here for _, here in rows() if not exists(here)], [])

    def test_a_counterpart_that_is_not_there_is_found(self) -> None:
        """The check itself can fail."""
        for name in ("Rafts", "Raft.applies", "twisted.internet.defer.Deferrer"):
            self.assertFalse(exists(name))

    def test_every_public_name_is_in_the_reference(self) -> None:
        """What txraft exports is documented, and has a docstring."""
        documented = set(DOCUMENTED.findall((MANUAL / "api.rst").read_text()))

        self.assertEqual(sorted(set(txraft.__all__) - documented), [])
        for name in txraft.__all__:
            if name not in ("DEFAULT_TIMEOUT_SCALE", "FilterFn"):
                self.assertTrue(getattr(txraft, name).__doc__, name)
