"""The description for tools says just what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from treq.client import HTTPClient
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import txraft.http
from tests.support.http_network import HTTPCase, Network, ScriptedNode, backup_of
from txraft.http.api import API
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_api
from txraft.node.worker import MemoryWorker

DESCRIPTION = Path(txraft.http.__file__).with_name("openapi.yaml")
METHODS = {"get", "put", "post", "delete"}
EVERYWHERE = {"dc", "pretty"}

SAMPLES: dict[str, bytes] = {
    "/v1/txn": b'[{"KV": {"Verb": "set", "Key": "k", "Value": ""}}]',
    "/v1/catalog/register": b'{"Node": "x", "Address": "10.0.0.1"}',
    "/v1/catalog/deregister": b'{"Node": "x"}',
    "/v1/agent/service/register": b'{"Name": "web"}',
}
"""Bodies of requests that need one."""

NAMED = {
    "state": "any",
    "node": "n1:8300",
    "address": "n2:8300",
    "url": "http://n2:8500",
    "service": "web",
}
"""What parameters stand for; others stand for a key or a session."""


def described() -> dict[str, Any]:
    """Read the description."""
    read: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())
    return read


def resolved(description: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Follow *value* if it is a reference."""
    while "$ref" in value:
        node: Any = description
        for step in value["$ref"].removeprefix("#/").split("/"):
            node = node[step]
        value = node
    return value


def references(value: object) -> list[str]:
    """Find all references in *value*."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for each in value.values() for ref in references(each)]
    if isinstance(value, list):
        return [ref for each in value for ref in references(each)]
    return []


class Description(SynchronousTestCase):
    """`openapi.yaml`, beside the table of what is served."""

    def api(self) -> API:
        node, clock = ScriptedNode("n1:8300"), Clock()
        client, worker = HTTPClient(Network()), MemoryWorker()
        api = make_api(
            node, node.fsm, client, clock, HTTPLimits(), node.address, worker
        )
        self.addCleanup(api.close)
        return api

    def served(self) -> dict[tuple[str, str], set[str]]:
        """Return the parameters of each method of each path that is served."""
        return {
            (method.decode().lower(), path.decode()): set(endpoint.parameters)
            for path, methods in self.api().routes.items()
            for method, endpoint in methods.items()
        }

    def test_each_path_is_served_and_each_that_is_served_is_told(self) -> None:
        """So are their methods and query parameters."""
        description = described()
        told = {}
        for path, item in description["paths"].items():
            for method in item.keys() & METHODS:
                parameters = [*item.get("parameters", ()), *item[method]["parameters"]]
                queries = {
                    each["name"]
                    for each in (resolved(description, p) for p in parameters)
                    if each["in"] == "query"
                }
                self.assertTrue(queries >= EVERYWHERE, path)
                told[method, path.partition("{")[0]] = queries - EVERYWHERE

        self.assertEqual(told, self.served())

    def test_every_reference_leads_somewhere(self) -> None:
        description = described()

        for reference in references(description):
            self.assertTrue(resolved(description, {"$ref": reference}), reference)

    def test_operations_have_names_of_their_own(self) -> None:
        names = [
            item[method]["operationId"]
            for item in described()["paths"].values()
            for method in item.keys() & METHODS
        ]

        self.assertEqual(len(names), len(set(names)))


class Headers(HTTPCase):
    """The headers of requests and of answers, as they are described and as they are."""

    def requests(self) -> list[tuple[dict[str, Any], str, str, bytes | None]]:
        """Return each operation with its method, its target and a body."""
        description, made = described(), []
        archive = backup_of(self.n1.fsm)
        for path, item in sorted(description["paths"].items()):
            for method in sorted(item.keys() & METHODS):
                operation = item[method]
                given = [*item.get("parameters", ()), *operation["parameters"]]
                told = [resolved(description, each) for each in given]
                query = "&".join(
                    f"{each['name']}={NAMED.get(each['name'], 'k')}"
                    for each in told
                    if each["in"] == "query" and each.get("required")
                )
                if (method, path) == ("delete", "/v1/operator/raft/peer"):
                    query = "id=n2:8300"
                target = path
                for each in told:
                    if each["in"] == "path":
                        name = each["name"]
                        value = NAMED.get(name, "k")
                        target = target.replace("{" + name + "}", value)
                body = SAMPLES.get(path, archive if path == "/v1/snapshot" else b"")
                data = None if method in ("get", "delete") else body
                described_headers = {
                    each["name"] for each in told if each["in"] == "header"
                }
                entry = {**operation, "headers": described_headers}
                made.append((entry, method.upper(), f"{target}?{query}", data))
        return made

    def test_whatever_waits_for_a_leader_takes_a_time_for_that(self) -> None:
        """And nothing else does."""
        self.n1.follow(None)
        self.n1.members.add("n2:8300")
        for entry, method, target, body in self.requests():
            asked = self.ask(self.n1, method, target, body)
            while self.worker.perform():
                self.network.flush()
            replies: list[object] = []
            asked.addBoth(replies.append)
            waits = not replies
            self.advance(6)

            self.assertTrue(replies, target)
            told = "X-Txraft-Wait" in entry["headers"]
            self.assertEqual((method, target, told), (method, target, waits))

    def test_answers(self) -> None:
        """Each header of ours that an answer has is described, and has been seen."""
        description = described()
        self.n1.members.add("n2:8300")
        for entry, method, target, body in self.requests():
            if "transfer" in target or "raft/peer" in target:
                continue
            asked = self.ask(self.n1, method, target, body)
            reply = self.work(asked)
            responses = entry["responses"]
            response = responses.get(str(reply.status), responses.get("default"))
            headers = resolved(description, response).get("headers", {})
            told = {name.lower() for name in headers}
            seen = {
                name.decode().lower()
                for name, _ in reply.headers.getAllRawHeaders()
                if name.startswith((b"X-Consul", b"X-Txraft"))
            }

            self.assertEqual((method, target, seen - told), (method, target, set()))
            if reply.status == 200:
                self.assertEqual((method, target, told - seen), (method, target, set()))
