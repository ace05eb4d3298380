"""Tables as text for a terminal and as reStructuredText for the manual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Rows of cells below a heading; the first column names what a row is of."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add one row, with as many cells as the header has."""
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells for {len(self.header)} columns")
        self.rows.append(cells)

    def as_text(self) -> str:
        """Write the first column to the left, all others to the right."""
        lines = [list(self.header), *map(list, self.rows)]
        widths = [max(len(row[at]) for row in lines) for at in range(len(self.header))]
        written = [
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        ]
        written.insert(1, "-" * len(written[0]))
        return "\n".join([self.title, "", *written, "", *self.notes]).rstrip() + "\n"

    def as_rst(self) -> str:
        """Write a list-table."""
        lines = [self.title, "", ".. list-table::", "   :header-rows: 1", ""]
        for row in [self.header, *self.rows]:
            lines += [
                ("   * - " if at == 0 else "     - ") + cell
                for at, cell in enumerate(row)
            ]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"
