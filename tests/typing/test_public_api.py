"""That the file which mypy checks uses the whole public API."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txraft
from tests.typing import public_api


class PublicAPI(SynchronousTestCase):
    def test_every_public_name_is_used(self) -> None:
        """A name that is added to txraft is to be used as an application would."""
        tree = ast.parse(Path(public_api.__file__).read_text())
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        used |= {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute)
            and isinstance(n.value, ast.Name)
            and n.value.id == "txraft"
        }

        self.assertEqual(sorted(set(txraft.__all__) - used), [])
