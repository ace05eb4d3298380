"""The version of txraft that runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("txraft")
    except PackageNotFoundError:
        return "unknown"


VERSION = _installed()
"""What was installed, "unknown" where it only lies in a directory."""
