"""A node's name and health, and as much catalog as clients need to start."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.kv.test_state import snapshot_of
from tests.support.http_network import HTTPCase
from txraft.errors import NotLeader
from txraft.kv.commands import encode_advertise, encode_put
from txraft.node.metrics import PeerMetrics
from txraft.version import VERSION


class Agent(HTTPCase):
    """`/v1/agent/self`, `/v1/catalog/...` and `/v1/health/...`."""

    def get(self, path: str) -> object:
        reply = self.reply(self.n2, "GET", path)
        self.assertEqual(reply.status, 200)
        return json.loads(reply.body)

    def test_self(self) -> None:
        told = self.get("/v1/agent/self")

        assert isinstance(told, dict)
        self.assertEqual(told["Stats"]["consul"]["leader_addr"], "n1:8300")
        self.assertEqual(told["Stats"]["consul"]["leader"], "false")
        self.assertEqual(told["Member"]["Name"], "n2:8300")
        self.assertEqual(told["Config"]["TxraftVersion"], VERSION)
        self.assertEqual((told["Member"]["Addr"], told["Member"]["Port"]), ("n2", 8300))

    def test_catalog(self) -> None:
        nodes = self.get("/v1/catalog/nodes")

        self.assertEqual([node["Node"] for node in nodes], ["n2:8300"])  # type: ignore[attr-defined]
        self.assertEqual(self.get("/v1/catalog/datacenters"), ["dc1"])
        self.assertEqual(self.get("/v1/catalog/services"), {"consul": []})

    def test_health(self) -> None:
        for path, count in (
            ("node/n2:8300", 1),
            ("node/unknown", 0),
            ("state/any", 1),
            ("state/passing", 1),
            ("state/critical", 0),
            ("service/web", 0),
        ):
            self.assertEqual((path, len(self.get(f"/v1/health/{path}"))), (path, count))  # type: ignore[arg-type]
        self.assertEqual(self.reply(self.n1, "GET", "/v1/health/state/x").status, 400)

    def test_register(self) -> None:
        """A node is kept, and what else would need to be kept is refused."""
        for body, status in (
            ({"Node": "x", "Address": "y"}, 200),
            ({"node": "x", "address": "y"}, 200),
            ({"Node": "x"}, 400),
            ({"Node": "x", "Address": "y", "Service": {"Service": "web"}}, 400),
            ([], 400),
        ):
            reply = self.reply(
                self.n2, "PUT", "/v1/catalog/register", json.dumps(body).encode()
            )
            self.assertEqual((body, reply.status), (body, status))


class Services(HTTPCase):
    """Services are listed where they were registered, and their checks never pass."""

    def register(self, **fields: object) -> int:
        body = json.dumps(fields).encode()
        path = "/v1/agent/service/register"
        return self.reply(self.n2, "PUT", path, body).status

    def get(self, path: str) -> Any:
        reply = self.reply(self.n2, "GET", f"/v1/{path}")
        self.assertEqual(reply.status, 200)
        self.index = int(reply.header("X-Consul-Index") or 0)
        return json.loads(reply.body)

    def test_registered_as_patroni_does(self) -> None:
        """Its ids have a slash.  Source: Patroni's `register_service`."""
        self.register(
            Name="batman",
            ID="batman/pg1",
            Address="10.0.0.1",
            Port=5432,
            Tags=["primary", "master"],
            EnableTagOverride=True,
            Check={"HTTP": "http://10.0.0.1:8008/primary", "Interval": "5s"},
        )

        listed = self.get("agent/services")["batman/pg1"]
        self.assertEqual((listed["Service"], listed["Port"]), ("batman", 5432))
        (found,) = self.get("catalog/service/batman?tag=primary")
        self.assertEqual((found["Node"], found["ServicePort"]), ("n2:8300", 5432))
        self.assertEqual(self.get("catalog/service/batman?tag=replica"), [])
        self.assertEqual(self.get("catalog/services")["batman"], ["primary", "master"])
        node = self.get("catalog/node/n2:8300")
        self.assertEqual(list(node["Services"]), ["consul", "batman/pg1"])
        self.assertIsNone(self.get("catalog/node/unknown"))

        path = "/v1/agent/service/deregister/batman/pg1"
        statuses = [self.reply(self.n2, "PUT", path, b"").status for _ in range(2)]
        self.assertEqual(statuses, [200, 404])
        self.assertEqual(self.get("agent/services"), {})

    def test_checks_never_pass(self) -> None:
        self.register(Name="checked", Check={"TTL": "10s"})
        self.register(Name="free")

        (check,) = self.get("health/checks/checked")
        self.assertEqual(check["Status"], "critical")
        self.assertEqual(list(self.get("agent/checks")), ["service:checked"])
        self.assertEqual(len(self.get("health/service/checked")), 1)
        self.assertEqual(self.get("health/service/checked?passing"), [])
        self.assertEqual(len(self.get("health/service/free?passing=1")), 1)
        self.assertEqual(len(self.get("health/state/critical")), 1)
        self.assertEqual(len(self.get("health/state/passing")), 1)
        self.assertEqual(len(self.get("health/node/n2:8300")), 2)

    def test_malformed(self) -> None:
        for fields, status in (
            ({}, 400),
            ({"Name": "x", "Port": 65536}, 400),
            ({"Name": "x", "Tags": [1]}, 400),
            ({"Name": "x", "Meta": {"a": 1}}, 400),
            ({"Name": "x", "Checks": {}}, 200),
            ({"Name": "x", "Checks": 1}, 400),
            ({"Name": "x", "Notes": "n" * 16384}, 413),
        ):
            self.assertEqual((fields, self.register(**fields)), (fields, status))

    def test_bound(self) -> None:
        statuses = [self.register(Name=f"s{number}") for number in range(257)]

        self.assertEqual(statuses.count(200), 256)
        self.assertEqual(statuses[-1], 507)

    def test_index_grows_and_blocking_queries_wake(self) -> None:
        """The SDK's `WaitForLeader` waits until the index is at least 2."""
        self.get("catalog/nodes")
        first = self.index
        self.assertGreaterEqual(first, 2)
        waiting = self.ask(self.n2, "GET", f"/v1/catalog/services?index={first}")
        self.assertNoResult(waiting)

        self.register(Name="web")
        self.advance(0)

        told = json.loads(self.successResultOf(waiting).body)
        self.assertEqual(told, {"consul": [], "web": []})
        self.get("catalog/nodes")
        self.assertGreater(self.index, first)
        before = self.index
        self.n2.members |= {"n9:8300"}
        self.get("catalog/nodes")
        self.assertGreater(self.index, before)


class CatalogCase(HTTPCase):
    """The catalog of n2, which is called `db2`; n1 is a member, too."""

    def setUp(self) -> None:
        super().setUp()
        self.n2 = self.node("n2", called="db2")
        self.n2.members |= {"n1:8300"}
        self.n2.follow("n1:8300")
        self.n2.commit(encode_advertise("n1:8300", "http://n1:8500"))

    def get(self, path: str) -> Any:
        reply = self.reply(self.n2, "GET", f"/v1/{path}")
        self.assertEqual(reply.status, 200)
        self.index = int(reply.header("X-Consul-Index") or 0)
        return json.loads(reply.body)

    def name_n1(self, name: str) -> None:
        self.n2.commit(encode_advertise("n1:8300", "http://n1:8500", name))


class Names(CatalogCase):
    """Nodes have names, which clients see instead of their addresses."""

    def test_own_name(self) -> None:
        told = self.get("agent/self")

        self.assertEqual(told["Config"]["NodeName"], "db2")
        self.assertEqual(told["Member"]["Name"], "db2")
        self.assertEqual(told["Member"]["Tags"]["id"], "n2:8300")
        self.assertEqual(told["Config"]["NodeID"], "n2:8300")

    def test_names_everywhere(self) -> None:
        """A name that was told is shown, in place of the address."""
        paths = (
            ("agent/members", "Name"),
            ("catalog/nodes", "Node"),
            ("catalog/service/consul", "Node"),
            ("health/state/passing", "Node"),
        )
        for path, key in paths:
            names = {each[key] for each in self.get(path)}
            self.assertEqual((path, names), (path, {"n1:8300", "db2"}))

        self.n2.fsm.activate(1)
        self.name_n1("db1")

        for path, key in paths:
            names = {each[key] for each in self.get(path)}
            self.assertEqual((path, names), (path, {"db1", "db2"}))
        configuration = self.get("operator/raft/configuration")["Servers"]
        self.assertEqual([each["Node"] for each in configuration], ["db1", "db2"])
        self.assertEqual(configuration[0]["Address"], "n1:8300")

    def test_node_by_its_name(self) -> None:
        """In any letter case, as in Consul; its address is no name then."""
        node = self.get("catalog/node/DB2")

        self.assertEqual(node["Node"]["Node"], "db2")
        self.assertEqual(node["Node"]["Meta"]["address"], "n2:8300")
        self.assertEqual(len(self.get("health/node/Db2")), 1)
        self.assertIsNone(self.get("catalog/node/n2:8300"))

    def test_shared_name(self) -> None:
        """Whoever gives one name to two members is told so, once."""
        self.n2.fsm.activate(1)
        self.name_n1("DB2")

        with capturedLogs() as logs:
            self.get("catalog/nodes")
            self.n2.change_members("n1:8300", "n2:8300", "n3:8300")

        (warning,) = [each for each in logs if each["log_level"].name == "warn"]
        self.assertIn("db2", formatEvent(warning))

    def test_session(self) -> None:
        """A session is of the node that was asked, by its name."""
        path = "/v1/session/create"
        made = json.loads(self.reply(self.n2, "PUT", path, b"").body)["ID"]

        self.assertEqual(self.n1.fsm.sessions[made].node, "db2")


class Membership(CatalogCase):
    """The catalog follows the membership."""

    def test_consul_service(self) -> None:
        """Each member has it, at its peer address.  Source: `handleAliveMember`."""
        found = self.get("catalog/service/consul")

        self.assertEqual(
            [(each["Node"], each["ServicePort"]) for each in found],
            [("n1:8300", 8300), ("db2", 8300)],
        )
        self.assertEqual(self.get("catalog/services"), {"consul": []})
        self.assertEqual(list(self.get("catalog/node/db2")["Services"]), ["consul"])
        (first, _) = self.get("health/service/consul?passing")
        self.assertEqual(first["Service"]["Service"], "consul")
        self.assertEqual(first["Checks"][0]["CheckID"], "serfHealth")
        self.assertEqual(self.get("agent/services"), {})

    def test_change_wakes(self) -> None:
        """Whatever of the catalog is waited for."""
        for number, path in enumerate(
            (
                "catalog/nodes",
                "catalog/services",
                "catalog/service/consul",
                "catalog/node/db2",
                "health/service/consul",
                "health/checks/consul",
                "health/node/db2",
                "health/state/any",
            )
        ):
            self.get(path)
            before = self.index
            waiting = self.ask(self.n2, "GET", f"/v1/{path}?index={before}")
            self.assertNoResult(waiting)

            self.n2.change_members("n1:8300", "n2:8300", f"x{number}:8300")
            self.advance(0)

            reply = self.successResultOf(waiting)
            self.assertGreater(int(reply.header("X-Consul-Index") or 0), before)

    def test_change_that_nobody_told_of(self) -> None:
        """One that is not committed is seen by whoever asks next."""
        self.get("catalog/nodes")
        before = self.index
        self.n2.members |= {"n9:8300"}

        told = self.get(f"catalog/nodes?index={before}")

        self.assertEqual(len(told), 3)

    def test_name_wakes(self) -> None:
        self.n2.fsm.activate(1)
        self.get("catalog/nodes")
        waiting = self.ask(self.n2, "GET", f"/v1/catalog/nodes?index={self.index}")

        self.name_n1("db1")
        self.advance(0)

        names = [
            each["Node"] for each in json.loads(self.successResultOf(waiting).body)
        ]
        self.assertEqual(names, ["db1", "db2"])

    def test_restored_snapshot_wakes(self) -> None:
        """It may bring names and URLs that those who wait do not know."""
        self.n2.fsm.activate(1)
        self.get("catalog/nodes")
        before = self.index
        waiting = self.ask(self.n2, "GET", f"/v1/catalog/nodes?index={before}")
        self.n1.fsm.activate(1)
        self.n1.commit(encode_advertise("n1:8300", "http://n1:8500", "db1"))

        self.n2.fsm.restore(BytesIO(snapshot_of(self.n1.fsm)))
        self.advance(0)

        reply = self.successResultOf(waiting)
        self.assertEqual(
            [each["Node"] for each in json.loads(reply.body)], ["db1", "db2"]
        )
        self.assertGreater(int(reply.header("X-Consul-Index") or 0), before)

    def test_what_is_no_change_wakes_nobody(self) -> None:
        self.get("catalog/nodes")
        waiting = self.ask(self.n2, "GET", f"/v1/catalog/nodes?index={self.index}")

        self.n2.change_members("n1:8300", "n2:8300")
        self.n2.commit(encode_put("k", b"v"))
        self.advance(1)

        self.assertNoResult(waiting)

    def test_registered_nodes(self) -> None:
        """They stand beside the members, and go when they are taken out."""

        def put(path: str, **fields: object) -> int:
            body = json.dumps(fields).encode()
            return self.reply(self.n2, "PUT", f"/v1/catalog/{path}", body).status

        self.get("catalog/nodes")
        waiting = self.ask(self.n2, "GET", f"/v1/catalog/nodes?index={self.index}")
        self.assertEqual(put("register", Node="ext", Address="10.0.0.9"), 200)
        self.assertEqual(put("register", Node="db2", Address="10.0.0.9"), 200)
        self.advance(0)

        (*_, found) = json.loads(self.successResultOf(waiting).body)
        self.assertEqual((found["Node"], found["Address"]), ("ext", "10.0.0.9"))
        self.assertEqual(len(self.get("catalog/nodes")), 3)
        self.assertEqual(self.get("health/node/ext"), [])
        self.assertEqual(put("deregister", Node="ext", ServiceID="x"), 200)
        self.assertIsNotNone(self.get("catalog/node/ext"))
        for node in ("EXT", "ext", "db2"):
            self.assertEqual(put("deregister", Node=node), 200)
        self.assertEqual(put("deregister"), 400)
        self.assertEqual(len(self.get("catalog/nodes")), 2)

    def test_registered_nodes_are_bounded(self) -> None:
        statuses = [
            self.reply(
                self.n2,
                "PUT",
                "/v1/catalog/register",
                json.dumps({"Node": f"x{number}", "Address": "10.0.0.9"}).encode(),
            ).status
            for number in range(257)
        ]

        self.assertEqual((statuses.count(200), statuses[-1]), (256, 507))


class Tools(HTTPCase):
    """What tools ask at their start."""

    def get(self, path: str) -> Any:
        reply = self.reply(self.n1, "GET", f"/v1/{path}")
        self.assertEqual(reply.status, 200)
        return json.loads(reply.body)

    def test_members(self) -> None:
        """By address and port Datadog finds out whether its agent leads."""
        (member,) = self.get("agent/members")

        where = f"{member['Addr']}:{member['Tags']['port']}"
        self.assertEqual(where, self.get("status/leader"))

    def test_autopilot(self) -> None:
        configuration = self.get("operator/autopilot/configuration")
        state = self.get("operator/autopilot/state")

        self.assertEqual(configuration["LastContactThreshold"], "2s")
        self.assertEqual((state["Healthy"], state["Leader"]), (True, "n1:8300"))
        self.assertEqual(state["Servers"]["n1:8300"]["Status"], "leader")
        reply = self.reply(self.n2, "GET", "/v1/operator/autopilot/state")
        self.assertEqual((reply.status, json.loads(reply.body)), (200, state))

    def test_metrics(self) -> None:
        """As Telegraf reads them."""
        told = self.get("agent/metrics")

        gauges = {each["Name"]: each["Value"] for each in told["Gauges"]}
        self.assertEqual(gauges["raft_isLeader"], 1)
        self.assertIn("Mean", told["Samples"][0])


class Operator(HTTPCase):
    """What an operator asks and does."""

    def test_configuration(self) -> None:
        self.n1.members |= {"n2:8300"}

        told = json.loads(
            self.reply(self.n1, "GET", "/v1/operator/raft/configuration").body
        )

        leaders = {s["Address"]: s["Leader"] for s in told["Servers"]}
        self.assertEqual(leaders, {"n1:8300": True, "n2:8300": False})

    def test_remove_by_id(self) -> None:
        self.n1.members |= {"n3:8300"}
        path = "/v1/operator/raft/peer?id=n3:8300"

        replies = [self.reply(self.n2, "DELETE", path).status for _ in range(2)]

        self.assertEqual(replies, [200, 404])

    def test_transfer(self) -> None:
        self.n1.members |= {"n2:8300"}

        unknown = self.reply(
            self.n1, "POST", "/v1/operator/raft/transfer-leader?id=n9:8300", b""
        )
        done = self.reply(
            self.n1, "POST", "/v1/operator/raft/transfer-leader?id=n2:8300", b""
        )

        self.assertEqual((unknown.status, done.status), (404, 200))
        self.assertEqual(done.body, b'{"Success":true}')
        self.assertEqual(self.n1.leader, "n2:8300")

    def test_autopilot_health(self) -> None:
        """A member is well if it was heard of and has nearly all of the log."""
        self.n1.members |= {"n2:8300", "n3:8300"}
        well = PeerMetrics(match=5, lag=0, in_flight=0, silence=0.25)
        for third, status, tolerance in (
            (well, 200, 1),
            (PeerMetrics(match=5, lag=0, in_flight=0, silence=2.5), 429, 0),
            (PeerMetrics(match=5, lag=251, in_flight=0, silence=0.1), 429, 0),
        ):
            self.n1.followers = {"n2:8300": well, "n3:8300": third}
            reply = self.reply(self.n2, "GET", "/v1/operator/autopilot/health")

            told = json.loads(reply.body)
            self.assertEqual((reply.status, told["Healthy"]), (status, status == 200))
            self.assertEqual(told["FailureTolerance"], tolerance)
            self.assertEqual(
                [server["Healthy"] for server in told["Servers"]],
                [True, True, status == 200],
            )
            self.assertEqual(told["Servers"][1]["LastContact"], "250ms")

    def test_autopilot_health_without_a_leader(self) -> None:
        self.n1.script = [NotLeader(None)] * 99
        self.n1.follow(None)

        asked = self.ask(self.n1, "GET", "/v1/operator/autopilot/health")
        self.advance(*[0.5] * 12)

        reply = self.successResultOf(asked)
        self.assertEqual(
            (reply.status, json.loads(reply.body)["Healthy"]), (429, False)
        )

    def test_probes(self) -> None:
        """Alive is who answers; ready is who knows where the leader is."""
        self.assertEqual(self.reply(self.n2, "GET", "/readyz").status, 200)
        self.n2.follow(None)
        self.assertEqual(self.reply(self.n2, "GET", "/readyz").status, 503)
        self.assertEqual(self.reply(self.n2, "GET", "/livez").status, 200)
