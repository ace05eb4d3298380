"""The table of routes: which endpoint serves each path and method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred

from txraft.http.advertise import PATH as ADVERTISE
from txraft.http.agent import PARAMETERS, Agent
from txraft.http.answers import Answer
from txraft.http.backups import Backups
from txraft.http.cluster import ClusterAPI
from txraft.http.inflight import HTTPCall
from txraft.http.keys import (
    DELETE_PARAMETERS,
    GET_PARAMETERS,
    PUT_PARAMETERS,
    Keys,
)
from txraft.http.reads import BLOCKING, MODES
from txraft.http.sessions import Sessions
from txraft.http.transactions import Transactions
from txraft.kv.watches import Topic

KEYS = b"/v1/kv/"
DEREGISTER = b"/v1/agent/service/deregister/"
REPLACE = frozenset({"replace-existing-checks"})
BACKUP = b"/v1/snapshot"
_NONE: frozenset[str] = frozenset()


class Route(NamedTuple):
    """The function that serves one method of one path, and its query parameters.

    With a *topic* it serves blocking queries, which wait for a change of that topic. If
    it *is_long*, it may take `HTTPLimits.backup_timeout`.
    """

    serve: Callable[[HTTPCall], Answer | Deferred[Answer]]
    parameters: frozenset[str] = _NONE
    topic: Callable[[HTTPCall], Topic] | None = None
    is_long: bool = False


Methods = dict[bytes, Route]
Routes = dict[bytes, Methods]


def routes(
    keys: Keys,
    transactions: Transactions,
    sessions: Sessions,
    cluster: ClusterAPI,
    agent: Agent,
    backups: Backups,
) -> Routes:
    """Make the table; a path that ends in `/` is followed by one more segment.

    `KEYS` is followed by a key, which may hold any number of `/`.
    """
    return {
        KEYS: {
            b"GET": Route(keys.get, GET_PARAMETERS, keys.topic),
            b"PUT": Route(keys.put, PUT_PARAMETERS),
            b"DELETE": Route(keys.delete, DELETE_PARAMETERS),
        },
        b"/v1/txn": {b"PUT": Route(transactions.put, MODES)},
        BACKUP: {
            b"GET": Route(backups.get, MODES, is_long=True),
            b"PUT": Route(backups.put, is_long=True),
        },
        b"/livez": {b"GET": Route(cluster.live)},
        b"/readyz": {b"GET": Route(cluster.ready)},
        **_session_routes(sessions),
        **_cluster_routes(cluster),
        **_agent_routes(agent),
    }


def _session_routes(sessions: Sessions) -> Routes:
    def read(serve: Callable[[HTTPCall], Answer | Deferred[Answer]]) -> Methods:
        return {b"GET": Route(serve, BLOCKING, sessions.topic)}

    return {
        b"/v1/session/create": {b"PUT": Route(sessions.create)},
        b"/v1/session/destroy/": {b"PUT": Route(sessions.destroy)},
        b"/v1/session/renew/": {b"PUT": Route(sessions.renew)},
        b"/v1/session/info/": {
            b"GET": Route(sessions.info, BLOCKING, sessions.topic_of_one)
        },
        b"/v1/session/node/": read(sessions.node),
        b"/v1/session/list": read(sessions.list),
    }


def _cluster_routes(cluster: ClusterAPI) -> Routes:
    # POST is Consul's; PUT is what all other changes take.
    transfer = Route(cluster.transfer, frozenset({"id"}))
    return {
        b"/v1/status/leader": {b"GET": Route(cluster.leader)},
        b"/v1/status/peers": {b"GET": Route(cluster.peers)},
        b"/v1/operator/raft/configuration": {
            b"GET": Route(cluster.configuration, MODES)
        },
        b"/v1/operator/raft/peer": {
            b"PUT": Route(cluster.add, frozenset({"address", "force"})),
            b"DELETE": Route(cluster.remove, frozenset({"address", "id"})),
        },
        ADVERTISE.encode("ascii"): {
            b"PUT": Route(cluster.advertise, frozenset({"address", "url", "name"}))
        },
        b"/v1/operator/raft/transfer-leader": {b"POST": transfer, b"PUT": transfer},
        b"/v1/operator/autopilot/configuration": {
            b"GET": Route(cluster.autopilot, MODES)
        },
        b"/v1/operator/autopilot/state": {b"GET": Route(cluster.autopilot_state)},
        b"/v1/operator/autopilot/health": {b"GET": Route(cluster.health)},
    }


def _agent_routes(agent: Agent) -> Routes:
    def read(serve: Callable[[HTTPCall], Answer]) -> Methods:
        return {b"GET": Route(serve, PARAMETERS, agent.topic)}

    return {
        b"/v1/agent/self": {b"GET": Route(agent.self)},
        b"/v1/agent/members": {b"GET": Route(agent.members)},
        b"/v1/agent/services": {b"GET": Route(agent.own_services)},
        b"/v1/agent/checks": {b"GET": Route(agent.own_checks)},
        b"/v1/agent/service/register": {b"PUT": Route(agent.register_service, REPLACE)},
        DEREGISTER: {b"PUT": Route(agent.deregister_service)},
        b"/v1/catalog/node/": read(agent.node),
        b"/v1/catalog/service/": read(agent.service),
        b"/v1/health/checks/": read(agent.service_checks),
        b"/v1/catalog/register": {b"PUT": Route(agent.register)},
        b"/v1/catalog/deregister": {b"PUT": Route(agent.deregister)},
        b"/v1/catalog/datacenters": read(agent.datacenters),
        b"/v1/catalog/nodes": read(agent.nodes),
        b"/v1/catalog/services": read(agent.services),
        b"/v1/health/node/": read(agent.node_health),
        b"/v1/health/state/": read(agent.state_health),
        b"/v1/health/service/": read(agent.service_health),
    }
