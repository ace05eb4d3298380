"""The version of the installed txraft.

It is a module of its own because `txraft` itself imports everything.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("txraft")
    except PackageNotFoundError:
        return "unknown"


VERSION = _installed()
"""The installed version, "unknown" when txraft runs from a directory uninstalled."""
