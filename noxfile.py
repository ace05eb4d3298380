"""The steps of `.ci/run`, each as a session of nox with an environment that it keeps.

    nox                 what a change must pass before it is sent
    nox -s simulation   one step
    nox -l              all of them, and what each does

The steps are written down in `.ci/run` alone: it is asked for their names, and a
session runs `.ci/run --step NAME`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import nox

RUN = (Path(__file__).parent / ".ci" / "run").as_posix()

nox.options.sessions = ["lint", "types", "news", "docs", "readme"]
nox.options.reuse_venv = "yes"


def _add_session(name: str, purpose: str) -> None:
    """Make the step *name* known to nox, which shows *purpose* in its list."""

    def step(session: nox.Session) -> None:
        session.install("-q", ".[dev]")
        environment = {"PYTHON": "python", "VIRTUAL_ENV": session.virtualenv.location}
        session.run("bash", RUN, "--step", name, external=True, env=environment)

    step.__doc__ = purpose
    nox.session(step, name=name)


def _steps() -> dict[str, str]:
    """Ask `.ci/run` for the name and the purpose of each step."""
    command = ["bash", RUN, "--list"]
    listed = subprocess.run(  # noqa: S603 - our own program
        command, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(line.split(": ", 1) for line in listed.stdout.splitlines())


for _name, _purpose in _steps().items():
    _add_session(_name, _purpose)
