"""All planted bugs, and the page of the manual that lists them."""

from __future__ import annotations

from tests.mutants import (
    advice,
    application,
    certificates,
    clients,
    consensus,
    consul,
    decisions,
    embedding,
    forwarding,
    keyvalue,
    log,
    losses,
    objects,
    operators,
    outside,
    reads,
    roles,
    shell,
    stops,
    storage,
    transitions,
)
from tests.mutants.mutant import ROOT, Mutant
from tests.mutants.syntax import Package

MUTANTS: tuple[Mutant, ...] = (
    *consensus.MUTANTS,
    *roles.MUTANTS,
    *transitions.MUTANTS,
    *log.MUTANTS,
    *storage.MUTANTS,
    *shell.MUTANTS,
    *application.MUTANTS,
    *losses.MUTANTS,
    *advice.MUTANTS,
    *operators.MUTANTS,
    *outside.MUTANTS,
    *decisions.MUTANTS,
    *forwarding.MUTANTS,
    *keyvalue.MUTANTS,
    *reads.MUTANTS,
    *clients.MUTANTS,
    *consul.MUTANTS,
    *stops.MUTANTS,
    *certificates.MUTANTS,
    *objects.MUTANTS,
    *embedding.MUTANTS,
)

_HEAD = """\
Planted bugs
============

A test that has never failed proves nothing. Each row is a small defect that is planted
in a copy of the code, and the test that catches it. That test passes on the real code.
If a seed is named, it makes the :doc:`core simulation </explanation/testing>`, or that of
whole nodes, see the defect too. ``python -m tests.mutants`` plants all of them again.

.. This page is made by ``python -m tests.mutants --table``.

.. list-table::
   :header-rows: 1

   * - Planted bug
     - File
     - Caught by
"""

_EQUIVALENT = """

Equivalent
----------

These were planted too, and nothing can tell them from the real code.

"""


def table() -> str:
    """Return the page of the manual; a bug's file is the one that it is found in."""
    package = Package.read(ROOT / "txraft")
    rows = [_row(m, m.find(package).path) for m in MUTANTS if not m.equivalent]
    equivalent = [
        f"{m.name} (``{m.find(package).path}``)\n   {m.equivalent}\n"
        for m in MUTANTS
        if m.equivalent
    ]
    return _HEAD + "".join(rows) + _EQUIVALENT + "".join(equivalent)


def _row(mutant: Mutant, path: str) -> str:
    caught_by = f"``{mutant.caught_by.removeprefix('tests.')}``"
    if mutant.seed is not None:
        caught_by += f", seed {mutant.seed}"
        caught_by += "" if mutant.level == "core" else " of whole nodes"
    return f"   * - {mutant.name}\n     - ``{path}``\n     - {caught_by}\n"
