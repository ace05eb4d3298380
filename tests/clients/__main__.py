"""Run the scripts beside this file, each in an environment with its client.

    python -m tests.clients [DIRECTORY]

The clients install over each other, so each gets a virtual environment of its own, in
DIRECTORY if one is named, where the next run finds it again.
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
from contextlib import contextmanager
from pathlib import Path

from tests.process.twistd import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 60
CLIENTS = {
    "py_consul.py": ["py-consul", "aiohttp"],
    "python_consul.py": ["python-consul==1.1.0", "treq", "setuptools<80"],
    "tooz_locks.py": ["tooz[consul]==8.1.0", "setuptools<80"],
    "paused_holder.py": ["py-consul"],
}


def main() -> int:
    """Return 0 if all went well."""
    with tempfile.TemporaryDirectory() as scratch:
        environments = Path(sys.argv[1] if sys.argv[1:] else scratch).absolute()
        failed = []
        for script, packages in CLIENTS.items():
            python = environment(environments / Path(script).stem, packages)
            with cluster(Path(scratch) / script) as ports:
                sys.stdout.write(f"{script}\n")
                sys.stdout.flush()
                done = subprocess.run(
                    [python, HERE / script, *map(str, ports)],
                    timeout=300,
                    check=False,
                )
            if done.returncode:
                failed.append(script)
    told = "failed: " + ", ".join(failed) if failed else "all clients work"
    sys.stdout.write(f"{told}\n")
    return 1 if failed else 0


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
def cluster(directory: Path) -> Iterator[list[int]]:
    """Run three nodes in *directory*; yields their HTTP ports."""
    directory.mkdir(parents=True)
    peers = [free_port() for _ in range(3)]
    ports = [free_port() for _ in range(3)]
    nodes = [start(directory, i, peers, port) for i, port in enumerate(ports)]
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
    directory: Path, number: int, peers: list[int], port: int
) -> subprocess.Popen[bytes]:
    """Start one node."""
    listed = ", ".join(f"127.0.0.1:{peer}" for peer in peers)
    config = directory / f"n{number}.yaml"
    config.write_text(
        f"data_dir: n{number}\n"
        f"listen: tcp:{peers[number]}:interface=127.0.0.1\n"
        f"peers: [{listed}]\n"
        f"http: {{listen: 'tcp:{port}:interface=127.0.0.1'}}\n"
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
