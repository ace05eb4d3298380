"""`twistd raft` and a Go server, founded by `peers` of `node.yaml` with ids."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop.cluster import InteropTestCase
from tests.interop.processes import (
    CALL_TIMEOUT,
    CHECKOUT,
    HEARTBEAT,
    Member,
    free_address,
    wait_until,
)
from txraft.kv.commands import Put, decode

TWISTD = "from twisted.scripts.twistd import run; run()"
KEYS = 50


class TwistdNode:
    """One `twistd raft`, with its settings file."""

    def __init__(self, id: str, directory: Path) -> None:
        self.id = id
        self.address, self.http = free_address(), free_address()
        self.config = directory / f"{id}.yaml"
        self.data = directory / id
        self.log = directory / f"{id}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def write_settings(self, members: list[tuple[str, str]]) -> None:
        """Write a file that lists *members* by id and address."""
        host, port = self.address.split(":")
        web_host, web_port = self.http.split(":")
        listed = "".join(
            f"- {{id: {id}, address: '{address}'}}\n" for id, address in members
        )
        self.config.write_text(
            f"id: {self.id}\n"
            f"data_dir: {self.data}\n"
            f"listen: tcp:{port}:interface={host}\n"
            f"http: {{listen: 'tcp:{web_port}:interface={web_host}'}}\n"
            f"raft: {{protocol_version: 3, heartbeat_timeout: {HEARTBEAT},"
            f" election_timeout: {HEARTBEAT}, leader_lease_timeout: {HEARTBEAT / 2}}}\n"
            f"peers:\n{listed}"
        )

    def start(self) -> None:
        """Start the process."""
        arguments = ["-n", "--pidfile=", "raft", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TWISTD, *arguments],
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                cwd=self.config.parent,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        """Make one request; return what it answers, None when it is not a success."""
        connection = http.client.HTTPConnection(self.http, timeout=CALL_TIMEOUT)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return json.loads(answer) if response.status == 200 else None

    @property
    def leader(self) -> str:
        """The leader that it knows."""
        return self.ask("GET", "/v1/status/leader") or ""


class PeersWithIds(InteropTestCase):
    """Two nodes of ours and one of Go, whose ids are not their addresses."""

    def setUp(self) -> None:
        super().setUp()
        self.go = self.make("go", 3)
        self.nodes = [TwistdNode(id, self.directory) for id in ("n1", "n2")]
        self.listed = [(node.id, node.address) for node in self.nodes]
        self.listed.append((self.go.id, self.go.address))
        for node in self.nodes:
            node.write_settings(self.listed)
            self.addCleanup(node.kill)

    def test_founded_by_node_yaml(self) -> None:
        """All know each other by id, replicate, lead in turn and come back."""
        first, second = self.nodes
        self.go.start()
        for node in self.nodes:
            node.start()
        wait_until("a node leads", lambda: first.leader in self.addresses(self.nodes))

        self.put(first, "first")
        self.check_members()
        self.hand_over(first, self.go)
        self.go.ask("verify")
        self.go.ask("barrier")
        self.go.ask("transfer", id=second.id, address=second.address)
        self.wait_for_leader(second.address)
        first.kill()
        first.start()
        self.put(first, "second")
        self.check_members()

    def addresses(self, nodes: list[TwistdNode]) -> list[str]:
        """List where *nodes* are."""
        return [node.address for node in nodes]

    def put(self, node: TwistdNode, name: str) -> None:
        """Write keys through *node*, until the Go server has applied them all."""
        written = {f"{name}/{number}": str(number) for number in range(KEYS)}
        for key, value in written.items():
            wait_until(
                f"{key} is written",
                lambda key=key, value=value: node.ask("PUT", f"/v1/kv/{key}", value),
            )
        wait_until(
            f"the Go server has {name}",
            lambda: written.items() <= self.applied(self.go).items(),
        )

    def applied(self, member: Member) -> dict[str, str]:
        """Read what a server that keeps all commands was told to put."""
        found = {}
        for _, _, data in self.commands(member):
            command = decode(data)
            if isinstance(command, Put):
                found[command.key] = command.value.decode()
        return found

    def check_members(self) -> None:
        """Each server names all three by id and address."""
        expected = set(self.listed)
        told = {(s["id"], s["address"]) for s in self.go.ask("status")["servers"]}
        self.assertEqual(told, expected)
        for node in self.nodes:
            wait_until(f"{node.id} names all", lambda n=node: self.told(n) == expected)
            kept = json.loads((node.data / "peers.json").read_text())
            self.assertEqual({(s["id"], s["address"]) for s in kept}, expected)

    def told(self, node: TwistdNode) -> set[tuple[str, str]]:
        """Return the members that *node* names."""
        answer = node.ask("GET", "/v1/operator/raft/configuration?stale")
        return {(s["ID"], s["Address"]) for s in (answer or {"Servers": []})["Servers"]}

    def hand_over(self, node: TwistdNode, to: Member) -> None:
        """Have *to* lead, asking through *node* until it does."""
        path = f"/v1/operator/raft/transfer-leader?id={to.id}"
        wait_until(
            f"{to.id} leads",
            lambda: to.leads or (node.ask("PUT", path) and False),
        )
        self.wait_for_leader(to.address)

    def wait_for_leader(self, address: str) -> None:
        """Wait until all agree that the server at *address* leads."""
        wait_until(
            f"{address} leads",
            lambda: (
                {node.leader for node in self.nodes} == {address}
                and self.go.ask("status")["leader"] == address
            ),
        )
