"""Services that programs register at this node: a list, without health checks.

They are kept in the memory of this node, as in Consul's agents, and forgotten when it
stops. Checks are not run and never pass: so a query for healthy instances never returns
one that nobody has checked.

Source: Consul's HTTP API, "Service - Agent" and "Check - Agent".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from txraft.http.answers import HTTPRefusal
from txraft.http.bodies import Fields, parse_json
from txraft.http.inflight import DATACENTER

MAX_SERVICES = 256
MAX_SERVICE_BYTES = 16 << 10
"""Bytes of one registration."""

NOT_RUN = "Checks are not run here."
_WEIGHTS = {"Passing": 1, "Warning": 1}


class Service(NamedTuple):
    """A registered service; *checks* holds the ids of its checks."""

    id: str
    name: str
    tags: list[str]
    address: str
    port: int
    meta: dict[str, str]
    override: bool
    checks: list[str]

    def as_json(self) -> dict[str, object]:
        """Return the service as the JSON object of Consul's agents."""
        return {
            "ID": self.id,
            "Service": self.name,
            "Tags": self.tags,
            "Meta": self.meta,
            "Address": self.address,
            "Port": self.port,
            "Weights": _WEIGHTS,
            "EnableTagOverride": self.override,
            "Datacenter": DATACENTER,
        }

    def as_catalog(self) -> dict[str, object]:
        """Return the fields of the service in Consul's catalog, without its node."""
        return {
            "ServiceID": self.id,
            "ServiceName": self.name,
            "ServiceTags": self.tags,
            "ServiceMeta": self.meta,
            "ServiceAddress": self.address,
            "ServicePort": self.port,
            "ServiceWeights": _WEIGHTS,
            "ServiceEnableTagOverride": self.override,
        }

    def checks_as_json(self, node: str) -> list[dict[str, object]]:
        """Return the checks of the service on *node* as Consul's JSON objects."""
        return [
            {
                "Node": node,
                "CheckID": id,
                "Name": f"Service {self.name!r} check",
                "Status": "critical",
                "Notes": "",
                "Output": NOT_RUN,
                "ServiceID": self.id,
                "ServiceName": self.name,
                "ServiceTags": self.tags,
            }
            for id in self.checks
        ]


class Services:
    """The services of this node by id; *changed* is called after each change."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._services: dict[str, Service] = {}

    def all(self) -> list[Service]:
        """List all services."""
        return list(self._services.values())

    def named(self, name: str, tag: str | None = None) -> list[Service]:
        """List the services with this *name*, and with this *tag* if one is given."""
        return [
            service
            for service in self._services.values()
            if service.name == name and (not tag or tag in service.tags)
        ]

    def register(self, body: bytes) -> None:
        """Keep the service in *body*; it replaces one with the same id.

        Raises: HTTPRefusal
        """
        if len(body) > MAX_SERVICE_BYTES:
            raise HTTPRefusal(413, f"A service has at most {MAX_SERVICE_BYTES} bytes.")
        service = _parse(body)
        if service.id not in self._services and len(self._services) >= MAX_SERVICES:
            raise HTTPRefusal(507, f"There are {MAX_SERVICES} services here already.")
        # An equal registration wakes nobody: programs repeat theirs at each start, and
        # each wake answers all blocking queries for the catalog.
        if self._services.get(service.id) != service:
            self._services[service.id] = service
            self._changed()

    def deregister(self, id: str) -> None:
        """Remove the service *id*. Raises: HTTPRefusal if there is none"""
        if self._services.pop(id, None) is None:
            raise HTTPRefusal(404, f"Unknown service ID {id!r}")
        self._changed()


def _parse(body: bytes) -> Service:
    fields = Fields(parse_json(body), "the service")
    name = fields.text("Name")
    if not name:
        raise HTTPRefusal(400, "Missing service name")
    id = fields.text("ID") or name
    port = fields.number("Port")
    if port > 65535:
        raise HTTPRefusal(400, "Port of the service is at most 65535.")
    meta = Fields(fields.get("Meta"), "Meta of the service")
    given = [fields.get("Check")] if fields.get("Check") else []
    more = fields.get("Checks") or []
    if not isinstance(more, list):
        raise HTTPRefusal(400, "Checks of the service is not a list.")
    return Service(
        id=id,
        name=name,
        tags=fields.texts("Tags"),
        address=fields.text("Address"),
        port=port,
        meta=meta.members(),
        override=fields.get("EnableTagOverride") is True,
        checks=_check_ids(id, len(given) + len(more)),
    )


def _check_ids(id: str, count: int) -> list[str]:
    if count < 2:
        return [f"service:{id}"] * count
    return [f"service:{id}:{number}" for number in range(1, count + 1)]
