"""The description for tools says just what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from treq.client import HTTPClient
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import txraft.http
from tests.http.network import Network, ScriptedNode
from txraft.http.api import API
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_api
from txraft.node.worker import MemoryWorker

DESCRIPTION = Path(txraft.http.__file__).with_name("openapi.yaml")
METHODS = {"get", "put", "post", "delete"}
EVERYWHERE = {"dc", "pretty"}


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
