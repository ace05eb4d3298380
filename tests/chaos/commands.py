"""Programs of the system, run to their end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COMMAND_SECONDS = 60.0
PACKAGES = {"ip": "iproute2", "nft": "nftables", "strace": "strace"}


def command(*words: str, check: bool = True) -> str:
    """Run a command and return what it writes; tell what went wrong, if *check*."""
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def missing() -> list[str]:
    """List the Debian packages that must be installed before anything can run."""
    return [name for tool, name in PACKAGES.items() if shutil.which(tool) is None]


def python(*words: str) -> list[str]:
    """Return the words of a command that runs this Python."""
    return [sys.executable, *words]
