"""etcd, with a client of ours over gRPC in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.children import Child, free_address
from benchmarks.systems.go import debian_version, go_program, missing_go
from benchmarks.systems.group import Group, System

LIBRARY = "go.etcd.io/etcd/clientv3"


class EtcdGroup(Group):
    """Servers with their defaults, and *options*."""

    def __init__(
        self, base: Path, size: int = 3, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(base, size)
        self._peers = [f"http://{free_address()}" for _ in range(size)]
        self.clients = [free_address() for _ in range(size)]
        self._options = options
        self._loader: Child | None = None

    def start_member(self, number: int) -> float | None:
        """Start one server, and the client with the first; nothing tells of opening."""
        if self._loader is None:
            command = [go_program("etcd.go"), f"-endpoints={','.join(self.clients)}"]
            self._loader = Child(command, self.base / "client.log")
            self._loader.read()
        log = self.base / f"{number}.log"
        self.members[number] = Child(self._command(number), log, talks=False)
        return None

    def _command(self, number: int) -> list[str]:
        peer, client = self._peers[number], f"http://{self.clients[number]}"
        members = [f"n{n}={url}" for n, url in enumerate(self._peers)]
        return [
            "etcd",
            f"--name=n{number}",
            f"--data-dir={self.base / str(number)}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--initial-cluster={','.join(members)}",
            "--log-level=error",
            *self._options,
        ]

    def ask(self, number: int, **command: Any) -> dict[str, Any]:
        """Give a command to the client, for one server."""
        assert self._loader is not None, "it is started with the first server"
        return self._loader.ask(member=number, **command)

    def first_commit(self, killed: int) -> Callable[[], object]:
        """Let the client write to whichever server leads."""
        assert self._loader is not None, "it is started with the first server"
        self._loader.ask(do="commit", members=list(self.members))
        return lambda: None

    def processes(self) -> list[Child]:
        """Return the servers and the client."""
        return [*super().processes(), *([self._loader] if self._loader else [])]

    def stop(self) -> None:
        """Stop the client and the servers."""
        if self._loader is not None:
            self._loader.stop()
            self._loader = None
        super().stop()


@cache
def etcd_version() -> str:
    """Return the version of the server."""
    found = subprocess.run(
        ["etcd", "--version"], capture_output=True, text=True, check=True
    )
    return f"etcd {found.stdout.split()[2]} ({debian_version('etcd-server')})"


def _missing() -> str | None:
    problem = missing_go(LIBRARY, "golang-etcd-server-dev")
    if shutil.which("etcd") is None:
        return "apt-get install etcd-server golang-go golang-etcd-server-dev"
    return problem


def _system(name: str, note: str, *options: str) -> System:
    return System(
        name,
        "fdatasync",
        partial(EtcdGroup, options=options),
        _missing,
        etcd_version,
        note=note,
    )


ETCD_SYSTEMS = [
    _system("etcd", "defaults, gRPC client in a process of its own"),
    _system("etcd-kept", "no snapshots", "--snapshot-count=100000000"),
]
