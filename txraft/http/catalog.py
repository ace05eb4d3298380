"""The catalog: all nodes by name, and their services.

Nodes are the members of the cluster; each has the service `consul`, like Consul's
servers. Besides, there are the nodes and services that programs have registered here.
Those are kept in the memory of this node and forgotten when it stops.

Source: Consul's HTTP API, "Catalog".
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from txraft.core.configuration import Configuration, Server
from txraft.http.answers import HTTPRefusal, refused
from txraft.http.backend import RaftNode
from txraft.http.inflight import DATACENTER
from txraft.http.services import Service, Services
from txraft.kv.state import KeyValueFSM
from txraft.node.events import RaftState
from txraft.version import VERSION

MAX_REGISTERED = 256
"""The most nodes registered here that are no members."""

SERF_CHECK = "serfHealth"
CONSUL_VERSION = "1.22.0"
_CONSUL = "consul"


class Catalog:
    """The catalog of the node at the peer *address*, whose name is *name*.

    The state machine *fsm* keeps the index of the catalog. A change of the membership
    raises it when the change is committed, or seen before that.
    """

    log = Logger()

    def __init__(
        self, raft: RaftNode, fsm: KeyValueFSM, address: str, name: str
    ) -> None:
        self.address = address
        self.name = name
        self.services = Services(fsm.catalog_changed)
        self._raft = raft
        self._fsm = fsm
        self._registered: dict[str, tuple[str, str]] = {}
        self._seen: object = None
        self._shared: frozenset[str] = frozenset()
        self._end = raft.watch_members(self._committed)

    def close(self) -> None:
        """Stop watching the membership; idempotent."""
        self._end()

    def _committed(self, _members: Configuration) -> None:
        self.look()

    def look(self) -> int:
        """Compare the members with those seen last; return the index of the catalog."""
        seen = [(each, self.name_of(each.address)) for each in self.members]
        # Only on a change: each call below wakes every blocking query for the catalog.
        if seen != self._seen:
            self._seen = seen
            self._fsm.catalog_changed()
            self._warn_of_shared_names([name for _, name in seen])
        return self._fsm.catalog_index

    def _warn_of_shared_names(self, names: list[str]) -> None:
        lowered = [name.lower() for name in names]
        shared = frozenset(name for name in lowered if lowered.count(name) > 1)
        if shared - self._shared:
            self.log.warn(
                "Several members are called {names}: clients take them for one node. "
                "Give each its own node_name",
                names=", ".join(sorted(shared)),
            )
        self._shared = shared

    # Nodes

    @property
    def members(self) -> Sequence[Server]:
        """The members as this node knows them."""
        return self._raft.configuration.servers

    def name_of(self, address: str) -> str:
        """Return the name of the member at *address*."""
        return self.name if address == self.address else self._fsm.node_name(address)

    def find(self, name: str) -> Server | None:
        """Return the member with the name *name*, in any letter case."""
        wanted = name.lower()
        for server in self.members:
            if self.name_of(server.address).lower() == wanted:
                return server
        return None

    def is_node(self, name: str) -> bool:
        """Return whether a node has this *name*. This node counts, member or not."""
        wanted = name.lower()
        return (
            wanted == self.name.lower()
            or wanted in self._registered
            or self.find(name) is not None
        )

    def is_here(self, name: str) -> bool:
        """Return whether *name* is the name of this node."""
        return name.lower() == self.name.lower()

    def register(self, name: str, address: str) -> None:
        """Add a node that is no member. Raises: HTTPRefusal"""
        key = name.lower()
        # A member is what the membership says, whatever is registered; and an equal
        # registration wakes nobody.
        if self.find(name) is not None or self._registered.get(key) == (name, address):
            return
        if key not in self._registered and len(self._registered) >= MAX_REGISTERED:
            raise HTTPRefusal(507, f"There are {MAX_REGISTERED} nodes here already.")
        self._registered[key] = name, address
        self._fsm.catalog_changed()

    def deregister(self, name: str) -> None:
        """Remove a node that was registered here; do nothing without one."""
        if self._registered.pop(name.lower(), None) is not None:
            self._fsm.catalog_changed()

    def nodes(self) -> list[dict[str, object]]:
        """List all nodes, as JSON objects."""
        registered = [
            _node("", name, address, {})
            for name, address in self._registered.values()
            if self.find(name) is None
        ]
        return [*map(self.node_shape, self.members), *registered]

    def node(self, name: str) -> dict[str, object] | None:
        """Return the node with the name *name* as a JSON object, None without one."""
        for shape in self.nodes():
            if str(shape["Node"]).lower() == name.lower():
                return shape
        return self.own_node() if self.is_here(name) else None

    def own_node(self) -> dict[str, object]:
        """Return this node as a JSON object, also before it is a member."""
        server = self._raft.configuration.server(self.address)
        return self.node_shape(server or Server(self.address, self.address))

    def node_shape(self, server: Server) -> dict[str, object]:
        """Return a member as a JSON object; its Meta has the address and the URL."""
        url = self._fsm.http_url(server.address)
        meta = {"address": server.address} | ({} if url is None else {"http": url})
        host, _ = host_port(server.address)
        return _node(server.id, self.name_of(server.address), host, meta)

    # Services

    def consul(self, server: Server) -> Service:
        """Make the service `consul` of a member."""
        meta = {"raft_version": "3", "version": CONSUL_VERSION, "txraft": VERSION}
        _, port = host_port(server.address)
        return Service(
            id=_CONSUL,
            name=_CONSUL,
            tags=[],
            address="",
            port=port,
            meta=meta,
            override=False,
            checks=[],
        )

    def services_of(self, name: str) -> list[Service]:
        """List the services of the node with the name *name*."""
        server = self.find(name)
        own = self.services.all() if self.is_here(name) else []
        return own if server is None else [self.consul(server), *own]

    def instances(self, name: str, tag: str | None = None) -> list[Instance]:
        """List the instances of a service, each with its node."""
        own = [(self.own_node(), each) for each in self.services.named(name, tag)]
        if name != _CONSUL or tag:
            return own
        members = [(self.node_shape(each), self.consul(each)) for each in self.members]
        return [*members, *own]

    def service_names(self) -> dict[str, list[str]]:
        """Map the names of services to the tags of each."""
        names: dict[str, dict[str, None]] = {_CONSUL: {}} if self.members else {}
        for service in self.services.all():
            names.setdefault(service.name, {}).update(dict.fromkeys(service.tags))
        return {name: list(tags) for name, tags in names.items()}

    # Node and checks of a session

    def check_session(self, node: str, checks: Sequence[str]) -> None:
        """Check that a session may belong to *node* and depend on *checks*.

        Raises: HTTPRefusal, in Consul's words
        """
        if not self.is_node(node):
            raise refused("Missing node registration")
        known = {
            id
            for service in (self.services.all() if self.is_here(node) else ())
            for id in service.checks
        }
        is_member = self.is_here(node) or self.find(node) is not None
        for check in checks:
            if check.lower() == SERF_CHECK.lower() and is_member:
                continue
            if check in known:
                raise refused(f"Check '{check}' is in critical state")
            raise refused(f"Missing check '{check}' registration")

    # Members, as Serf lists them

    def member(self, address: str) -> dict[str, object]:
        """Return a member as Serf's JSON object.

        Tools find the leader by `Addr` and the tag `port`.
        """
        host, port = host_port(address)
        return {
            "Name": self.name_of(address),
            "Addr": host,
            "Port": port,
            "Tags": {
                "dc": DATACENTER,
                "role": _CONSUL,
                "port": str(port),
                "id": address,
            },
            "Status": 1,
        }

    @property
    def leads(self) -> bool:
        """Whether this node leads."""
        return self._raft.state is RaftState.LEADER


Instance = tuple[dict[str, object], Service]
"""The node of a service as a JSON object, and the service."""


def _node(id: str, name: str, address: str, meta: dict[str, str]) -> dict[str, object]:
    return {
        "ID": id,
        "Node": name,
        "Address": address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": {"lan": address, "wan": address},
        "Meta": meta,
    }


def host_port(address: str) -> tuple[str, int]:
    """Split a peer address; the port is 0 where there is none."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address, 0
    return host.strip("[]"), int(port)
