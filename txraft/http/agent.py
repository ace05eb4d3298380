"""Who this node is, and as much of a catalog as clients need to start.

There is one node for each member, named by its peer address, and no service. What is
registered is not kept: sessions may name any node.

Source: Consul's HTTP API, "Agent", "Catalog" and "Health".
"""

from __future__ import annotations

from collections.abc import Mapping

from txraft.http.answers import TRUE, Answer, Refusal, json_answer
from txraft.http.bodies import Fields, parse_json
from txraft.http.calls import DATACENTER, Call
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.http.reads import MODES, Reads
from txraft.kv.state import KeyValueFSM
from txraft.kv.watches import NOTHING, Topic
from txraft.node.state import RaftState
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
    ) -> None:
        self._meta = dict(meta or {})
        self._raft = raft
        self._fsm = fsm
        self._reads = reads
        self._limits = limits
        self._address = address

    def topic(self, call: Call) -> Topic:
        """Tell what a blocking query waits for: its end, as no change is told."""
        return NOTHING

    def self(self, call: Call) -> Answer:
        """Tell of this node."""
        host, port = _host_port(self._address)
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
                },
                "Member": {
                    "Name": self._address,
                    "Addr": host,
                    "Port": port,
                    "Tags": {"dc": DATACENTER, "role": "consul"},
                    "Status": 1,
                },
                "Meta": self._meta,
            }
        )

    def datacenters(self, call: Call) -> Answer:
        """List the only datacenter."""
        return json_answer([DATACENTER])

    def nodes(self, call: Call) -> Answer:
        """List the members as nodes."""
        shapes = [
            {
                "ID": server.id,
                "Node": server.address,
                "Address": _host_port(server.address)[0],
                "Datacenter": DATACENTER,
                "TaggedAddresses": {},
                "Meta": self._told(server.address),
            }
            for server in self._raft.configuration.servers
        ]
        return json_answer(shapes, *self._reads.meta(1))

    def _told(self, address: str) -> dict[str, str]:
        url = self._fsm.http_url(address)
        return {} if url is None else {"http": url}

    def services(self, call: Call) -> Answer:
        """List no services."""
        return json_answer({}, *self._reads.meta(1))

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
        if not call.key:
            raise Refusal(400, "Missing node name")
        known = [call.key] if call.key in self._raft.peers() else []
        return self._checks(known)

    def state_health(self, call: Call) -> Answer:
        """List the checks in a state: those of the members pass."""
        if call.key not in _STATES:
            raise Refusal(400, "A state is any, passing, warning or critical.")
        passing = call.key in ("any", "passing")
        return self._checks(self._raft.peers() if passing else [])

    def service_health(self, call: Call) -> Answer:
        """List the instances of a service: there are none."""
        return json_answer([], *self._reads.meta(1))

    def _checks(self, nodes: list[str]) -> Answer:
        shapes = [
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
        return json_answer(shapes, *self._reads.meta(1))


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address, 0
    return host.strip("[]"), int(port)
