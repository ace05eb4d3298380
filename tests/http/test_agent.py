"""Who a node is, its health, and as much catalog as clients need to start."""

from __future__ import annotations

import json
from typing import Any

from tests.http.network import HTTPCase
from txraft.errors import NotLeader
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
        self.assertEqual(self.get("/v1/catalog/services"), {})

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
        """A node is accepted, and what would need to be kept is refused."""
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
        self.assertEqual(list(node["Services"]), ["batman/pg1"])
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

        self.assertEqual(json.loads(self.successResultOf(waiting).body), {"web": []})
        self.get("catalog/nodes")
        self.assertGreater(self.index, first)
        before = self.index
        self.n2.members |= {"n9:8300"}
        self.get("catalog/nodes")
        self.assertGreater(self.index, before)


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
