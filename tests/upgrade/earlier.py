"""The earlier version: a commit of this repository, laid out in a directory."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

COMMIT = "4855239d48b6152ffe3b231ae255127ac8ee6b26"
"""The last commit before the state machine had levels."""


ALIAS = """from txraft.service import Options, makeService

__all__ = ["Options", "makeService"]
"""
"""The service under today's name, by which the plugin that is installed asks for it."""


class CommitMissing(Exception):
    """The earlier commit is not in this repository, or there is none here."""


def check_commit() -> None:
    """Look for the earlier commit. Raises: CommitMissing"""
    _git("cat-file", "-e", f"{COMMIT}^{{commit}}")


def lay_out(directory: Path) -> None:
    """Write the package and its plugin, as they were, into *directory*.

    Raises: CommitMissing
    """
    archive = _git("archive", COMMIT, "txraft", "twisted")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    # Twisted finds its installed plugins first, so today's plugin starts both versions.
    daemon = directory / "txraft" / "daemon"
    daemon.mkdir()
    (daemon / "__init__.py").touch()
    (daemon / "service.py").write_text(ALIAS)


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=CHECKOUT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", b"").decode(errors="replace").strip()
        raise CommitMissing(
            f"the earlier version, commit {COMMIT[:7]}, is not to be had here, so no "
            f"upgrade from it can be tried: {output or error}. The checkout must have "
            "its history; a shallow clone gets it by `git fetch --unshallow`"
        ) from error
    return done.stdout
