"""Three real nodes with an HTTP API each, on one clock, seen by a client."""

from __future__ import annotations

import json

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.support.http_network import Body, Network, Reply, whole
from txraft.http.advertise import Advertiser
from txraft.http.forward import Forwarder
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_api
from txraft.kv.state import KeyValueFSM
from txraft.testing.cluster import STEP, Cluster, Node

LIMITS = HTTPLimits()


class ReplicatedCase(SynchronousTestCase):
    """A cluster `a`, `b`, `c` whose nodes serve HTTP at their name, port 8500."""

    def setUp(self) -> None:
        self.cluster = Cluster(3, make_fsm=KeyValueFSM)
        self.network = Network()
        for name in "abc":
            self.cluster.start_node(name, "abc")
        for node in self.cluster.nodes.values():
            self.serve(node)
        self.addCleanup(self.cluster.shutdown)
        self.cluster.wait_for_leader()
        self.cluster.advance(0.1)

    def serve(self, node: Node) -> None:
        fsm, clock, name = node.fsm, self.cluster.clock, node.address
        assert isinstance(fsm, KeyValueFSM)
        client = HTTPClient(self.network)
        api = make_api(
            node.raft, fsm, client, clock, LIMITS, name, node.workers.snapshot
        )
        self.network.agents[f"{name}:8500"] = RequestTraversalAgent(api)
        url, forwarder = f"http://{name}:8500", Forwarder(client, clock, LIMITS, name)
        Advertiser(node.raft, fsm, forwarder, clock, name, url).start()

    def crash(self, name: str) -> None:
        """End a node and refuse connections to it."""
        self.network.refusing.add(f"{name}:8500")
        self.cluster.crash(name)

    def ask(
        self,
        name: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers | None = None,
    ) -> Deferred[Reply]:
        agent = self.network.agents[f"{name}:8500"]
        url = f"http://{name}:8500{path}".encode()
        producer = None if body is None else Body(body)
        answer = agent.request(method.encode(), url, headers or Headers(), producer)
        return answer.addCallback(whole)

    def reply(
        self,
        name: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers | None = None,
    ) -> Reply:
        """Send a request and let time pass until it is answered."""
        replies: list[Reply] = []
        self.ask(name, method, path, body, headers).addCallback(replies.append)
        for _ in range(round(11 / STEP)):
            self.network.flush()
            if replies:
                return replies[0]
            self.cluster.advance(STEP)
        raise AssertionError(f"{method} {path} on {name} was not answered in 11 s")

    def assert_equal_states(self) -> None:
        self.cluster.wait_for_all()
        digests = {node.fsm.digest() for node in self.cluster.nodes.values()}
        self.assertEqual(len(digests), 1)


class AnyNode(ReplicatedCase):
    """Any node takes any request."""

    def test_write_anywhere_read_everywhere(self) -> None:
        """A read on any node sees what was acknowledged on any other before."""
        for writer in "abc":
            put = self.reply(writer, "PUT", "/v1/kv/k", writer.encode())
            self.assertEqual((put.status, put.body), (200, b"true"))
            for reader in "abc":
                got = self.reply(reader, "GET", "/v1/kv/k?raw")
                self.assertEqual(got.body, writer.encode())
        self.assert_equal_states()

    def test_status_agrees(self) -> None:
        leader = self.cluster.leader.address
        for name in "abc":
            told = self.reply(name, "GET", "/v1/status/leader")
            peers = self.reply(name, "GET", "/v1/status/peers")
            self.assertEqual(json.loads(told.body), leader)
            self.assertEqual(json.loads(peers.body), ["a", "b", "c"])

    def test_stale_read_tells_its_age(self) -> None:
        follower = self.cluster.followers[0].address
        self.reply(follower, "PUT", "/v1/kv/k", b"v")
        self.cluster.wait_for_all()

        reply = self.reply(follower, "GET", "/v1/kv/k?stale&raw")

        self.assertEqual(reply.body, b"v")
        self.assertEqual(reply.header("X-Consul-KnownLeader"), "true")
        self.assertLess(int(reply.header("X-Consul-LastContact") or "-1"), 200)


class Failover(ReplicatedCase):
    """Leaders come and go; a client sees a pause, or an honest failure."""

    def test_leader_crashes(self) -> None:
        """Survivors learn the new leader's address from the log."""
        self.reply("a", "PUT", "/v1/kv/k", b"before")
        self.crash(self.cluster.leader.address)

        for name in list(self.cluster.nodes):
            put = self.reply(name, "PUT", f"/v1/kv/{name}", b"after")
            self.assertEqual((put.status, put.body), (200, b"true"))
            got = self.reply(name, "GET", "/v1/kv/k?raw")
            self.assertEqual(got.body, b"before")
        self.assert_equal_states()

    def test_no_quorum_write_is_unknown_then_refused(self) -> None:
        """What the cut-off leader took may commit; what came after has not."""
        leader = self.cluster.leader.address
        for node in self.cluster.followers:
            self.crash(node.address)

        first = self.reply(leader, "PUT", "/v1/kv/k", b"v")
        second = self.reply(leader, "PUT", "/v1/kv/k", b"w")
        read = self.reply(leader, "GET", "/v1/kv/k")
        stale = self.reply(leader, "GET", "/v1/kv/k?stale")

        self.assertEqual((first.status, first.outcome), (500, "unknown"))
        self.assertEqual((second.status, second.outcome), (500, "not-applied"))
        self.assertEqual((read.status, read.outcome), (500, "not-applied"))
        self.assertEqual(stale.status, 404)

    def test_snapshot_carries_addresses(self) -> None:
        """A node that gets a snapshot instead of the log can forward too."""
        self.reply("a", "PUT", "/v1/kv/k", b"v")
        follower = self.cluster.followers[0]
        self.cluster.result(follower.raft.snapshot())
        fsm = KeyValueFSM()
        newest = follower.snapshots.list()[0]

        fsm.restore(follower.snapshots.open(newest.id)[1])

        leader = self.cluster.leader.address
        self.assertEqual(fsm.http_url(leader), f"http://{leader}:8500")


class Membership(ReplicatedCase):
    """A member comes and another goes, asked of any node."""

    def test_add_and_remove(self) -> None:
        path = "/v1/operator/raft/peer?address=d:8300"
        follower = self.cluster.followers[0].address
        self.cluster.start_node("d:8300")

        for _ in range(2):
            added = self.reply(follower, "PUT", path)
            self.assertEqual((added.status, added.body), (200, b"true"))
        members = json.loads(self.reply("a", "GET", "/v1/status/peers").body)
        self.reply(follower, "PUT", "/v1/kv/k", b"v")
        self.assert_equal_states()
        removed = [self.reply(follower, "DELETE", path).status for _ in range(2)]

        self.assertEqual(members, ["a", "b", "c", "d:8300"])
        self.assertEqual(removed, [200, 404])
