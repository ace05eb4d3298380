"""Runs a server of either kind as a process on loopback, and gives it orders.

All of it blocks: what is given to a server is a command over HTTP, and its answer.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import SkipTest

CHECKOUT = Path(__file__).parents[2]
GO_PATH = Path("/usr/share/gocode")
PACKAGES = (
    "golang-go golang-github-hashicorp-raft-dev golang-github-hashicorp-raft-boltdb-dev"
)
HEARTBEAT = 1.0
PATIENCE = 60.0
CALL_TIMEOUT = 60.0

_ports = iter(random.sample(range(10100, 15000), 3000))


class Refused(Exception):
    """A server answered a command with an error."""


def free_address(host: str = "127.0.0.1") -> str:
    """Return a free address on loopback, its port below the ephemeral ones."""
    for port in _ports:
        with socket.socket() as candidate:
            try:
                candidate.bind((host, port))
            except OSError:
                continue
            return f"{host}:{port}"
    raise AssertionError("no free port is left")


@cache
def go_program() -> Path:
    """Build the Go server; GONODE names one that was built elsewhere.

    Raises: SkipTest, saying what to install; AssertionError instead where CI is set.
    """
    if "GONODE" in os.environ:
        return Path(os.environ["GONODE"])
    library = GO_PATH / "src/github.com/hashicorp/raft"
    if shutil.which("go") is None or not library.exists():
        problem = f"Go or its raft library is missing: apt-get install {PACKAGES}"
        if os.environ.get("CI"):
            raise AssertionError(problem)
        raise SkipTest(problem)
    directory = Path(mkdtemp(prefix="txraft-gonode-"))
    atexit.register(shutil.rmtree, directory)
    program = directory / "gonode"
    subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=Path(__file__).parent / "gonode",
        env={**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH)},
        check=True,
    )
    return program


@dataclass(frozen=True)
class Certificate:
    """What a member shows its peers, and whom it trusts."""

    stem: Path
    authority: Path

    @property
    def files(self) -> dict[str, str]:
        """What each file is called."""
        return {
            "certificate": f"{self.stem}.pem",
            "private_key": f"{self.stem}.key",
            "ca": str(self.authority),
        }


@dataclass
class Member:
    """One server: its kind, where it is, and its process while it runs.

    *config* holds fields of txraft's Config; the Go server knows some of them. With a
    *certificate* it speaks TLS.
    """

    kind: str
    id: str
    address: str
    directory: Path
    protocol: int
    config: dict[str, Any] = field(default_factory=dict)
    certificate: Certificate | None = None
    control: str = field(default_factory=free_address)
    process: subprocess.Popen[bytes] | None = None

    @property
    def names(self) -> dict[str, str]:
        """What others need to know of it."""
        return {"id": self.id, "address": self.address}

    def start(
        self,
        *,
        bootstrap: bool = False,
        recover: bool = False,
        imported: Path | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """Start the process and wait until it answers.

        *bootstrap* founds a cluster of those in `peers.json`, *recover* makes them
        the membership of the data that are there, *imported* is a data directory
        whose snapshot they begin with; for Go it is one of its own, recovered.
        A Go server campaigns when it has missed its leader for *heartbeat* seconds.
        """
        self.directory.mkdir(exist_ok=True)
        if self.kind == "go":
            if imported is not None:
                shutil.copytree(imported / "snapshots", self.directory / "snapshots")
            command = self._go(bootstrap, recover or imported is not None, heartbeat)
        else:
            command = self._python(bootstrap, recover, imported)
        with self.directory.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stderr=log)
        wait_until(f"{self.id} answers", self._answers)

    def _go(self, bootstrap: bool, recover: bool, heartbeat: float) -> list[str]:
        peers = str(self.directory / "peers.json")
        return [
            str(go_program()),
            f"-directory={self.directory}",
            f"-address={self.address}",
            f"-id={self.id}",
            f"-control={self.control}",
            f"-protocol={self.protocol}",
            f"-heartbeat={round(heartbeat * 1000)}",
            f"-trailing={self.config.get('trailing_logs', 10240)}",
            *self._go_tls(),
            *([f"-bootstrap={peers}"] if bootstrap else []),
            *([f"-recover={peers}"] if recover else []),
        ]

    def _go_tls(self) -> list[str]:
        found = self.certificate
        if found is None:
            return []
        return [f"-tls={found.stem}", f"-ca={found.authority}"]

    def _python(
        self, bootstrap: bool, recover: bool, imported: Path | None
    ) -> list[str]:
        options = {
            "directory": str(self.directory),
            "address": self.address,
            "id": self.id,
            "control": self.control,
            "bootstrap": bootstrap,
            "recover": recover,
            "imported": None if imported is None else str(imported),
            "tls": None if self.certificate is None else self.certificate.files,
            "config": {
                "protocol_version": self.protocol,
                "heartbeat_timeout": HEARTBEAT,
                "election_timeout": HEARTBEAT,
                "leader_lease_timeout": HEARTBEAT / 2,
                "shutdown_on_remove": False,
                **self.config,
            },
        }
        return [sys.executable, "-m", "tests.interop.member", json.dumps(options)]

    def _answers(self) -> bool:
        assert self.process is not None, "it was started"
        if self.process.poll() is not None:
            raise AssertionError(f"{self.id} ended:\n{self.told[-3000:]}")
        try:
            self.ask("status")
        except (OSError, http.client.HTTPException, Refused):
            return False
        return True

    def ask(self, command: str, **told: Any) -> dict[str, Any]:
        """Give one command. Raises: Refused; OSError when there is no answer."""
        connection = http.client.HTTPConnection(self.control, timeout=CALL_TIMEOUT)
        try:
            connection.request("POST", f"/{command}", json.dumps(told))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise Refused(f"{self.id} {command}: {answer['error']}")
        return answer

    @property
    def log(self) -> str:
        """What the process has logged, in all its lives."""
        return self.directory.with_suffix(".log").read_text(errors="replace")

    @property
    def told(self) -> str:
        """What it has logged, without the commands that it was given."""
        lines = self.log.splitlines()
        return "\n".join(line for line in lines if '"POST /' not in line)

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        return str(self.ask("status")["state"]) == "Leader"

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, which runs."""
        assert self.process is not None, "it was started"
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def write_peers(self, members: list[Member]) -> None:
        """Write `peers.json` in the form of this member's protocol version."""
        self.directory.mkdir(exist_ok=True)
        listed: list[Any] = [member.address for member in members]
        if self.protocol == 3:
            listed = [member.names for member in members]
        (self.directory / "peers.json").write_text(json.dumps(listed))


def wait_until(
    what: str, holds: Callable[[], bool], patience: float = PATIENCE
) -> None:
    """Wait until *holds*; fail, naming *what*, when it does not within *patience*."""
    until = time.monotonic() + patience
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)
