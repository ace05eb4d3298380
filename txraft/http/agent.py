"""Who this node is, and as much of a catalog as clients need to start.

There is one node for each member, named by its peer address, and the services that were
registered here. A node that is registered is not kept: sessions may name any.

Source: Consul's HTTP API, "Agent", "Catalog" and "Health".
"""

from __future__ import annotations

from collections.abc import Mapping

from txraft.http.answers import TRUE, Answer, Header, Refusal, json_answer
from txraft.http.bodies import Fields, parse_json
from txraft.http.calls import DATACENTER, Call
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.http.reads import MODES, Reads
from txraft.http.services import Service, Services
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import CATALOG, Topic
from txraft.node.events import RaftState
from txraft.transport.validity import Validities, no_certificates
from txraft.version import VERSION

PARAMETERS = MODES | {"index", "wait", "near", "passing", "tag"}
_STATES = frozenset({"any", "passing", "warning", "critical"})
_VERSION = "1.22.0"


class Agent:
    """Tells of the node at the peer *address* and of its peers."""

    def __init__(
        self,
        raft: Node,
        fsm: KeyValueFSM,
        reads: Reads,
        limits: HTTPLimits,
        address: str,
        meta: Mapping[str, str] | None = None,
        validities: Validities = no_certificates,
    ) -> None:
        self._validities = validities
        self._meta = dict(meta or {})
        self._raft = raft
        self._fsm = fsm
        self._reads = reads
        self._limits = limits
        self._address = address
        self._services = Services(self._changed)
        self._seen: object = None

    def _changed(self) -> None:
        """Let the index of the catalog grow, and wake who waits for that.

        It is at least that of the last entry that changed a key, so that it hardly
        ever goes back when the node begins anew.
        """
        fsm = self._fsm
        fsm.catalog_index = max(2, fsm.index, fsm.catalog_index + 1)
        fsm.watches.catalog_changed()

    def _look(self) -> None:
        """See whether members have changed, or where they serve HTTP."""
        servers = self._raft.configuration.servers
        seen = [(each, self._fsm.http_url(each.address)) for each in servers]
        if seen != self._seen:
            self._seen = seen
            self._changed()

    def _meta_headers(self) -> tuple[Header, ...]:
        self._look()
        return self._reads.meta(self._fsm.catalog_index)

    def topic(self, call: Call) -> Topic:
        """Tell what a blocking query waits for."""
        self._look()
        return CATALOG

    def self(self, call: Call) -> Answer:
        """Tell of this node."""
        leads = self._raft.state is RaftState.LEADER
        return json_answer(
            {
                "Config": {
                    "Datacenter": DATACENTER,
                    "NodeName": self._address,
                    "NodeID": self._address,
                    "Server": True,
                    "Version": _VERSION,
                    "TxraftVersion": VERSION,
                    "SessionTTLMin": round(self._limits.session_ttl_min * 1e9),
                },
                "Stats": {
                    "consul": {
                        "leader": "true" if leads else "false",
                        "leader_addr": self._raft.leader or "",
                        "server": "true",
                    },
                    "raft": self._raft.stats(),
                    "certificates": {
                        validity.setting: f"{validity.end:%Y-%m-%dT%H:%M:%SZ}"
                        for validity in self._validities()
                    },
                },
                "Member": _member(self._address),
                "Meta": self._meta,
            }
        )

    def members(self, call: Call) -> Answer:
        """List the members as Serf would; who is well is asked of autopilot."""
        return json_answer([_member(address) for address in self._raft.peers()])

    def own_services(self, call: Call) -> Answer:
        """List the services that are registered here, by id."""
        return json_answer({s.id: s.as_json() for s in self._services.all()})

    def own_checks(self, call: Call) -> Answer:
        """List the checks of the services that are registered here, by id."""
        checks = self._service_checks(self._services.all())
        return json_answer({str(check["CheckID"]): check for check in checks})

    def register_service(self, call: Call) -> Answer:
        """Register a service here."""
        self._services.register(call.body)
        return Answer(200, b"")

    def deregister_service(self, call: Call) -> Answer:
        """Forget a service that is registered here."""
        self._services.deregister(call.key)
        return Answer(200, b"")

    def datacenters(self, call: Call) -> Answer:
        """List the only datacenter."""
        return json_answer([DATACENTER])

    def nodes(self, call: Call) -> Answer:
        """List the members as nodes."""
        return json_answer(self._nodes(), *self._meta_headers())

    def node(self, call: Call) -> Answer:
        """Tell of one node and its services, null if it is no member."""
        _check_named(call, "node name")
        own = self._services.all() if call.key == self._address else []
        services = {service.id: service.as_json() for service in own}
        for shape in self._nodes():
            if shape["Node"] == call.key:
                told = {"Node": shape, "Services": services}
                return json_answer(told, *self._meta_headers())
        return json_answer(None, *self._meta_headers())

    def service(self, call: Call) -> Answer:
        """List the instances of a service, each with its node."""
        _check_named(call, "service name")
        found = self._services.named(call.key, call.parameters.get("tag"))
        node = self._own_node()
        shapes = [{**node, **service.as_catalog()} for service in found]
        return json_answer(shapes, *self._meta_headers())

    def _nodes(self) -> list[dict[str, object]]:
        return [
            self._node(server.id, server.address)
            for server in self._raft.configuration.servers
        ]

    def _own_node(self) -> dict[str, object]:
        """Shape this node, also if it is no member yet."""
        for shape in self._nodes():
            if shape["Node"] == self._address:
                return shape
        return self._node(self._address, self._address)

    def _node(self, id: str, address: str) -> dict[str, object]:
        return {
            "ID": id,
            "Node": address,
            "Address": _host_port(address)[0],
            "Datacenter": DATACENTER,
            "TaggedAddresses": {},
            "Meta": self._told(address),
        }

    def _told(self, address: str) -> dict[str, str]:
        url = self._fsm.http_url(address)
        return {} if url is None else {"http": url}

    def services(self, call: Call) -> Answer:
        """List the names of services, with the tags of each."""
        names: dict[str, dict[str, None]] = {}
        for service in self._services.all():
            names.setdefault(service.name, {}).update(dict.fromkeys(service.tags))
        told = {name: list(tags) for name, tags in names.items()}
        return json_answer(told, *self._meta_headers())

    def register(self, call: Call) -> Answer:
        """Accept a node without services or checks; nothing is kept of it."""
        fields = Fields(parse_json(call.body), "the registration")
        for name in ("Node", "Address"):
            if not fields.text(name):
                raise Refusal(400, "Must provide node and address")
        for name in ("Service", "Check", "Checks"):
            if fields.get(name):
                raise Refusal(400, f"{name}: there are neither services nor checks.")
        return TRUE

    def node_health(self, call: Call) -> Answer:
        """List the checks of a node: a member of the cluster has one."""
        _check_named(call, "node name")
        known = [call.key] if call.key in self._raft.peers() else []
        own = self._services.all() if call.key == self._address else []
        return self._checks(known, own)

    def state_health(self, call: Call) -> Answer:
        """List the checks in a state: those of the members pass."""
        if call.key not in _STATES:
            raise Refusal(400, "A state is any, passing, warning or critical.")
        passing = call.key in ("any", "passing")
        critical = call.key in ("any", "critical")
        return self._checks(
            self._raft.peers() if passing else [],
            self._services.all() if critical else [],
        )

    def service_checks(self, call: Call) -> Answer:
        """List the checks of a service."""
        _check_named(call, "service name")
        return self._checks([], self._services.named(call.key))

    def service_health(self, call: Call) -> Answer:
        """List the instances of a service; one that has a check does not pass."""
        _check_named(call, "service name")
        found = self._services.named(call.key, call.parameters.get("tag"))
        if call.flag("passing"):
            found = [service for service in found if not service.checks]
        shapes = [
            {
                "Node": self._own_node(),
                "Service": service.as_json(),
                "Checks": [
                    *_serf_checks([self._address]),
                    *self._service_checks([service]),
                ],
            }
            for service in found
        ]
        return json_answer(shapes, *self._meta_headers())

    def _service_checks(self, services: list[Service]) -> list[dict[str, object]]:
        return [
            check
            for service in services
            for check in service.checks_as_json(self._address)
        ]

    def _checks(self, nodes: list[str], services: list[Service]) -> Answer:
        checks = [*_serf_checks(nodes), *self._service_checks(services)]
        return json_answer(checks, *self._meta_headers())


def _serf_checks(nodes: list[str]) -> list[dict[str, object]]:
    return [
        {
            "Node": node,
            "CheckID": "serfHealth",
            "Name": "Serf Health Status",
            "Status": "passing",
            "Notes": "",
            "Output": "",
            "ServiceID": "",
            "ServiceName": "",
        }
        for node in nodes
    ]


def _check_named(call: Call, what: str) -> None:
    if not call.key:
        raise Refusal(400, f"Missing {what}")


def _member(address: str) -> dict[str, object]:
    """Shape a member; by its address and the tag `port` tools find the leader."""
    host, port = _host_port(address)
    return {
        "Name": address,
        "Addr": host,
        "Port": port,
        "Tags": {"dc": DATACENTER, "role": "consul", "port": str(port), "id": address},
        "Status": 1,
    }


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address, 0
    return host.strip("[]"), int(port)
