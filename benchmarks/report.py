"""Reports of the commands: tables for people, and everything as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, short
from benchmarks.machine import describe_machine
from benchmarks.systems import Described
from benchmarks.tables import Table

MUCH_FOREIGN = 0.3
"""Cores that others use, from which on figures are of another machine."""


class Report:
    """Tables and samples of *command*, run with *arguments* over *systems*."""

    def __init__(
        self, command: str, arguments: argparse.Namespace, systems: Sequence[Described]
    ) -> None:
        self._arguments = arguments
        self._tables: list[Table] = []
        self.data: dict[str, Any] = {
            "command": command,
            "machine": describe_machine(),
            "settings": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in vars(arguments).items()
            },
            "systems": {
                system.name: {
                    "version": system.version(),
                    "durable": system.durable,
                    "note": system.note,
                }
                for system in systems
            },
        }

    def add(self, table: Table) -> None:
        """Add a table."""
        self._tables.append(table)

    def finish(self) -> None:
        """Print the tables, and write the file that was asked for."""
        self.data["tables"] = [asdict(table) for table in self._tables]
        print(written(self.data, self._arguments.rst))
        if self._arguments.json is not None:
            self._arguments.json.write_text(json.dumps(self.data, indent=1) + "\n")


def written(data: Mapping[str, Any], rst: bool) -> str:
    """Write the tables of a report, with what was measured on before them."""
    tables = [Table(**table) for table in data["tables"]]
    if rst:
        return "\n".join(table.as_rst() for table in tables)
    lines = [f"{name}: {text}" for name, text in data["machine"].items()]
    for name, told in data["systems"].items():
        lines.append(
            f"{name}: {told['version']}; synced: {told['durable']}; {told['note']}"
        )
    return "\n".join(["", *lines, "", *(table.as_text() for table in tables)])


def conditions(samples: Sequence[Mapping[str, float]]) -> list[str]:
    """Say what the machine was like while *samples* were taken."""
    syncs = Spread.of(sample["syncs"] for sample in samples)
    foreign = Spread.of(sample["foreign_cores"] for sample in samples)
    notes = [
        f"Yardstick: {short(syncs.median)} syncs/s ({short(syncs.least)} to "
        f"{short(syncs.most)}), appends of 300 bytes with fdatasync before each run.",
        f"Others used {foreign.median:.2f} cores meanwhile ({foreign.least:.2f} to "
        f"{foreign.most:.2f}).",
    ]
    if foreign.median > MUCH_FOREIGN:
        notes.append("The machine was busy: compare ratios and CPU time only.")
    return notes
