"""What a command found: tables for people, and everything as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
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
        if self._arguments.rst:
            print("\n".join(table.as_rst() for table in self._tables))
        else:
            print("\n".join([self._heading(), *(t.as_text() for t in self._tables)]))
        if self._arguments.json is not None:
            self._arguments.json.write_text(json.dumps(self.data, indent=1) + "\n")

    def _heading(self) -> str:
        lines = [f"{name}: {text}" for name, text in self.data["machine"].items()]
        for name, told in self.data["systems"].items():
            lines.append(
                f"{name}: {told['version']}; synced: {told['durable']}; {told['note']}"
            )
        return "\n" + "\n".join(lines) + "\n"


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
