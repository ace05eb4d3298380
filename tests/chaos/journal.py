"""The journal: each fault and each finding, with its time."""

from __future__ import annotations

import sys
import time


class Journal:
    """Lines with seconds since the start; on stderr too, if *loud*."""

    def __init__(self, loud: bool = False) -> None:
        self.lines: list[str] = []
        self.findings: list[str] = []
        self._loud = loud
        self._start = time.monotonic()

    def note(self, text: str) -> None:
        """Note what was done."""
        line = f"{time.monotonic() - self._start:8.2f} {text}"
        self.lines.append(line)
        if self._loud:
            sys.stderr.write(line + "\n")

    def find(self, problem: str) -> None:
        """Note what must not be."""
        self.findings.append(problem)
        self.note(f"FOUND {problem}")
