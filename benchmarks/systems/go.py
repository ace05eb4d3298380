"""Go programs of ours, built against the libraries that Debian packages."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

GO_PATH = Path("/usr/share/gocode")
SOURCES = Path(__file__).parents[1] / "go"


def missing_go(library: str, packages: str) -> str | None:
    """Say what to install if Go or *library* is missing."""
    if shutil.which("go") and (GO_PATH / "src" / library).exists():
        return None
    return f"apt-get install golang-go {packages}"


@cache
def go_program(source: str) -> str:
    """Build `control.go` and *source*; return the path of the program."""
    directory = Path(mkdtemp(prefix="txraft-benchmarks-"))
    atexit.register(shutil.rmtree, directory)
    program = directory / Path(source).stem
    subprocess.run(
        ["go", "build", "-o", str(program), "control.go", source],
        cwd=SOURCES,
        env={**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH)},
        check=True,
    )
    return str(program)


def debian_version(package: str) -> str:
    """Return the version of an installed Debian package."""
    found = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout or "of unknown version"


@cache
def go_version() -> str:
    """Return the version of the compiler."""
    found = subprocess.run(
        ["go", "version"], capture_output=True, text=True, check=True
    )
    return found.stdout.split()[2]
