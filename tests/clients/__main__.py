"""Run the scripts beside this file, each in an environment with its client.

    python -m tests.clients [DIRECTORY]

The clients install over each other, so each gets a virtual environment of its own, in
DIRECTORY if one is named, where the next run finds it again. Several run at once, each
with a cluster of its own: they wait more than they work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Timer

from tests.support.twistd import free_port

CHOOSING = Lock()
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 60
CLIENT_SECONDS = 300
AT_ONCE = 3
PATIENCE = "{heartbeat_timeout: 3s, election_timeout: 3s, leader_lease_timeout: 1500ms}"
"""The clients do not expect that a leader changes because the machine is busy."""

NEEDS = {
    "py_consul": ["py-consul", "aiohttp"],
    "python_consul": ["python-consul==1.1.0", "treq", "setuptools<80"],
    "tooz": ["tooz[consul]==8.1.0", "setuptools<80"],
    "schemathesis": ["schemathesis>=4,<5"],
}
SCRIPTS = {
    "py_consul.py": "py_consul",
    "paused_holder.py": "py_consul",
    "python_consul.py": "python_consul",
    "tooz_locks.py": "tooz",
    "described_api.py": "schemathesis",
}
"""Each script, and which environment it needs."""

LIMITS = {"described_api.py": "{default_wait: 100ms, max_wait: 100ms}"}
"""Limits of the nodes, where they are not the usual ones."""


def main() -> int:
    """Return 0 if all went well."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        place = Path(sys.argv[1] if sys.argv[1:] else scratch).absolute()
        made = {
            name: threads.submit(environment, place / name, packages)
            for name, packages in NEEDS.items()
        }
        running = {
            script: threads.submit(run, script, made[name].result(), Path(scratch))
            for script, name in SCRIPTS.items()
        }
        failed = [script for script, done in running.items() if not done.result()]
    told = "failed: " + ", ".join(failed) if failed else "all clients work"
    sys.stdout.write(f"{told}\n")
    return 1 if failed else 0


def run(script: str, python: Path, scratch: Path) -> bool:
    """Run *script* with *python* on a cluster of its own; tell whether it passed."""
    with cluster(scratch / script, LIMITS.get(script, "{}")) as ports:
        begun = time.monotonic()
        process = subprocess.Popen(
            [python, HERE / script, *map(str, ports)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        bound = Timer(CLIENT_SECONDS, process.terminate)
        bound.start()
        said, _ = process.communicate()
        bound.cancel()
    verdict = f"failed ({process.returncode})" if process.returncode else "ok"
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{script}: {verdict}, {seconds:.0f} s\n")
    sys.stdout.write(said.decode("utf-8", "replace"))
    sys.stdout.flush()
    return not process.returncode


def environment(directory: Path, packages: list[str]) -> Path:
    """Return the interpreter of an environment with *packages*, made if need be."""
    python = directory / "bin" / "python"
    if not (directory / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True)
        (directory / "complete").touch()
    return python


@contextmanager
def cluster(directory: Path, limits: str) -> Iterator[list[int]]:
    """Run three nodes with *limits* in *directory*; yields their HTTP ports."""
    directory.mkdir(parents=True)
    with CHOOSING:
        peers = [free_port() for _ in range(3)]
        ports = [free_port() for _ in range(3)]
    nodes = [start(directory, i, peers, port, limits) for i, port in enumerate(ports)]
    try:
        for port in ports:
            wait_until_ready(port)
        yield ports
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(30)


def start(
    directory: Path, number: int, peers: list[int], port: int, limits: str
) -> subprocess.Popen[bytes]:
    """Start one node."""
    listed = ", ".join(f"127.0.0.1:{peer}" for peer in peers)
    config = directory / f"n{number}.yaml"
    config.write_text(
        f"data_dir: n{number}\n"
        f"listen: tcp:{peers[number]}:interface=127.0.0.1\n"
        f"peers: [{listed}]\n"
        f"http: {{listen: 'tcp:{port}:interface=127.0.0.1'}}\n"
        f"limits: {limits}\n"
        f"raft: {PATIENCE}\n"
    )
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "-n", "--pidfile=", "raft", "--config", config]
    with open(directory / f"n{number}.log", "wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def wait_until_ready(port: int) -> None:
    """Wait until the node at *port* knows a leader."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"the node at {port} knows no leader")


if __name__ == "__main__":
    sys.exit(main())
