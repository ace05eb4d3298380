"""Endpoints of agent, catalog and health: this node, its peers and their services.

The data are in `txraft.http.catalog`; this module puts them into Consul's answers.

Source: Consul's HTTP API, "Agent", "Catalog" and "Health".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from txraft.core.configuration import Server
from txraft.http.answers import TRUE, Answer, Header, HTTPRefusal, json_answer
from txraft.http.backend import RaftNode
from txraft.http.bodies import Fields, parse_json
from txraft.http.catalog import CONSUL_VERSION, SERF_CHECK, Catalog
from txraft.http.inflight import DATACENTER, HTTPCall
from txraft.http.limits import HTTPLimits
from txraft.http.reads import MODES, Reads
from txraft.http.services import Service
from txraft.kv.watches import CATALOG, Topic
from txraft.transport.validity import Validities, no_certificates
from txraft.version import VERSION

PARAMETERS = MODES | {"index", "wait", "near", "passing", "tag"}
_STATES = frozenset({"any", "passing", "warning", "critical"})


class Agent:
    """Answers requests about this node, and about nodes and services in *catalog*."""

    def __init__(
        self,
        raft: RaftNode,
        catalog: Catalog,
        reads: Reads,
        limits: HTTPLimits,
        meta: Mapping[str, str] | None = None,
        validities: Validities = no_certificates,
    ) -> None:
        self._validities = validities
        self._meta = dict(meta or {})
        self._raft = raft
        self._catalog = catalog
        self._reads = reads
        self._limits = limits

    def _index(self) -> tuple[Header, ...]:
        return self._reads.meta(self._catalog.look())

    def topic(self, call: HTTPCall) -> Topic:
        """Return the topic that a blocking query waits for."""
        # The index must be of now: the query would wait for a change that is there.
        self._catalog.look()
        return CATALOG

    def self(self, call: HTTPCall) -> Answer:
        """Describe this node."""
        catalog = self._catalog
        return json_answer(
            {
                "Config": {
                    "Datacenter": DATACENTER,
                    "NodeName": catalog.name,
                    "NodeID": catalog.address,
                    "Server": True,
                    "Version": CONSUL_VERSION,
                    "TxraftVersion": VERSION,
                    "SessionTTLMin": round(self._limits.session_ttl_min * 1e9),
                },
                "Stats": {
                    "consul": {
                        "leader": "true" if catalog.leads else "false",
                        "leader_addr": self._raft.leader or "",
                        "server": "true",
                    },
                    "raft": self._raft.stats(),
                    "certificates": {
                        validity.setting: f"{validity.end:%Y-%m-%dT%H:%M:%SZ}"
                        for validity in self._validities()
                    },
                },
                "Member": catalog.member(catalog.address),
                "Meta": self._meta,
            }
        )

    def members(self, call: HTTPCall) -> Answer:
        """List the members as Serf would, all of them as alive.

        Only the leader knows which members are healthy: see `autopilot_state`.
        """
        return json_answer([self._catalog.member(each) for each in self._raft.peers()])

    def own_services(self, call: HTTPCall) -> Answer:
        """List the services that are registered here, by id."""
        services = self._catalog.services.all()
        return json_answer({service.id: service.as_json() for service in services})

    def own_checks(self, call: HTTPCall) -> Answer:
        """List the checks of the services that are registered here, by id."""
        checks = self._service_checks(self._catalog.services.all())
        return json_answer({str(check["CheckID"]): check for check in checks})

    def register_service(self, call: HTTPCall) -> Answer:
        """Register a service here."""
        self._catalog.services.register(call.body)
        return Answer(200, b"")

    def deregister_service(self, call: HTTPCall) -> Answer:
        """Forget a service that is registered here."""
        self._catalog.services.deregister(call.key)
        return Answer(200, b"")

    def datacenters(self, call: HTTPCall) -> Answer:
        """List the only datacenter."""
        return json_answer([DATACENTER])

    def nodes(self, call: HTTPCall) -> Answer:
        """List all nodes."""
        return json_answer(self._catalog.nodes(), *self._index())

    def node(self, call: HTTPCall) -> Answer:
        """Describe one node and its services; null if no node has this name."""
        _check_named(call, "node name")
        node = self._catalog.node(call.key)
        services = self._catalog.services_of(call.key)
        told = {
            "Node": node,
            "Services": {each.id: each.as_json() for each in services},
        }
        return json_answer(None if node is None else told, *self._index())

    def service(self, call: HTTPCall) -> Answer:
        """List the instances of a service, each with its node."""
        _check_named(call, "service name")
        found = self._catalog.instances(call.key, call.parameters.get("tag"))
        shapes = [{**node, **service.as_catalog()} for node, service in found]
        return json_answer(shapes, *self._index())

    def services(self, call: HTTPCall) -> Answer:
        """List the names of services, with the tags of each."""
        return json_answer(self._catalog.service_names(), *self._index())

    def register(self, call: HTTPCall) -> Answer:
        """Register a node without services or checks, here."""
        fields = Fields(parse_json(call.body), "the registration")
        for name in ("Node", "Address"):
            if not fields.text(name):
                raise HTTPRefusal(400, "Must provide node and address")
        for name in ("Service", "Check", "Checks"):
            if fields.get(name):
                raise HTTPRefusal(
                    400, f"{name}: only nodes are registered in this way."
                )
        self._catalog.register(fields.text("Node"), fields.text("Address"))
        return TRUE

    def deregister(self, call: HTTPCall) -> Answer:
        """Forget a node that is registered here; members of the cluster stay."""
        fields = Fields(parse_json(call.body), "the registration")
        if not fields.text("Node"):
            raise HTTPRefusal(400, "Must provide node")
        if not fields.text("ServiceID") and not fields.text("CheckID"):
            self._catalog.deregister(fields.text("Node"))
        return TRUE

    def node_health(self, call: HTTPCall) -> Answer:
        """List the checks of a node: a member of the cluster has a check of its own."""
        _check_named(call, "node name")
        server = self._catalog.find(call.key)
        here = self._catalog.is_here(call.key)
        return self._checks(
            [] if server is None else [server],
            self._catalog.services.all() if here else [],
        )

    def state_health(self, call: HTTPCall) -> Answer:
        """List the checks in a state: members pass, services never do."""
        if call.key not in _STATES:
            raise HTTPRefusal(400, "A state is any, passing, warning or critical.")
        passing = call.key in ("any", "passing")
        critical = call.key in ("any", "critical")
        return self._checks(
            self._catalog.members if passing else [],
            self._catalog.services.all() if critical else [],
        )

    def service_checks(self, call: HTTPCall) -> Answer:
        """List the checks of a service."""
        _check_named(call, "service name")
        return self._checks([], self._catalog.services.named(call.key))

    def service_health(self, call: HTTPCall) -> Answer:
        """List the instances of a service; those with checks do not pass."""
        _check_named(call, "service name")
        found = self._catalog.instances(call.key, call.parameters.get("tag"))
        if call.flag("passing"):
            found = [each for each in found if not each[1].checks]
        shapes = [
            {
                "Node": node,
                "Service": service.as_json(),
                "Checks": [
                    _serf_check(str(node["Node"])),
                    *self._service_checks([service]),
                ],
            }
            for node, service in found
        ]
        return json_answer(shapes, *self._index())

    def _service_checks(self, services: list[Service]) -> list[dict[str, object]]:
        name = self._catalog.name
        return [check for each in services for check in each.checks_as_json(name)]

    def _checks(self, members: Sequence[Server], services: list[Service]) -> Answer:
        names = [self._catalog.name_of(server.address) for server in members]
        checks = [*map(_serf_check, names), *self._service_checks(services)]
        return json_answer(checks, *self._index())


def _serf_check(node: str) -> dict[str, object]:
    return {
        "Node": node,
        "CheckID": SERF_CHECK,
        "Name": "Serf Health Status",
        "Status": "passing",
        "Notes": "",
        "Output": "Agent alive and reachable",
        "ServiceID": "",
        "ServiceName": "",
        "ServiceTags": [],
    }


def _check_named(call: HTTPCall, what: str) -> None:
    if not call.key:
        raise HTTPRefusal(400, f"Missing {what}")
