"""Write the lowest versions that setup.py allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
from pathlib import Path

BOUND = re.compile(r'"([a-z][a-z-]*)>=([0-9.]+)')


def main() -> None:
    """Write a line for each requirement with a lower bound."""
    text = Path(__file__).parents[1].joinpath("setup.py").read_text()
    bounds = dict(BOUND.findall(text))
    assert "twisted" in bounds, "the bounds of setup.py were not found"
    sys.stdout.writelines(f"{name}=={lowest}\n" for name, lowest in bounds.items())


if __name__ == "__main__":
    main()
