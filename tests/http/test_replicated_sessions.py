"""Locks, first results and every verb on three real nodes, through their faults."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from tests.http.test_replicated import ReplicatedCase
from tests.support.http_network import Body, Reply, whole
from txraft.http.advertise import PATH as ADVERTISE
from txraft.http.inflight import CLIENT, SEQUENCE
from txraft.kv.commands import encode_destroy_sessions
from txraft.kv.verbs import VERBS as KNOWN_VERBS

VERBS = list(KNOWN_VERBS)


class SessionsCase(ReplicatedCase):
    def create(self, name: str, **fields: object) -> str:
        body = json.dumps(fields).encode()
        reply = self.reply(name, "PUT", "/v1/session/create", body)
        id: str = json.loads(reply.body)["ID"]
        return id

    def acquire(self, name: str, id: str) -> bool:
        reply = self.reply(name, "PUT", f"/v1/kv/lock?acquire={id}", b"")
        answer: bool = json.loads(reply.body)
        return answer

    def advance_with_network(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.cluster.advance(0.25)
            self.network.flush()


class Locks(SessionsCase):
    """One holder at a time, whoever leads."""

    def test_holder_that_is_silent_loses_the_lock(self) -> None:
        """After its TTL, on all replicas, and the other gets it."""
        silent = self.create("a", TTL="10s", TTLMultiplier=1, LockDelay="0s")
        other = self.create("b", LockDelay="0s")
        self.assertTrue(self.acquire("a", silent))

        self.advance_with_network(9)
        self.assertFalse(self.acquire("b", other))
        self.advance_with_network(2)
        self.assertTrue(self.acquire("b", other))

        self.assert_equal_states()

    def test_deposed_leader_cannot_end_a_session(self) -> None:
        """It was cut off, its clock says that the TTL is over, and nobody asks it."""
        holder = self.create("a", TTL="10s", TTLMultiplier=1, LockDelay="0s")
        self.assertTrue(self.acquire("a", holder))
        old = self.cluster.leader.address
        rest = [name for name in "abc" if name != old]
        self.advance_with_network(9)
        self.cluster.isolate(old)
        self.cluster.wait_for_leader(among=rest)
        self.advance_with_network(0.5)
        renewed = self.reply(rest[0], "PUT", f"/v1/session/renew/{holder}", b"")
        self.assertEqual(renewed.status, 200)

        ended = self.cluster.nodes[old].raft.apply(encode_destroy_sessions([holder]))
        ended.addErrback(lambda _: None)
        self.advance_with_network(5)
        self.cluster.heal()
        self.advance_with_network(2)

        for node in self.cluster.nodes.values():
            self.assertIn(holder, node.fsm.sessions)
        self.assert_equal_states()

    def test_new_leader_ends_what_the_old_one_has_not(self) -> None:
        holder = self.create("a", TTL="10s", TTLMultiplier=1, LockDelay="0s")
        self.crash(self.cluster.leader.address)
        self.cluster.wait_for_leader()

        self.advance_with_network(13)

        for node in self.cluster.nodes.values():
            self.assertNotIn(holder, node.fsm.sessions)


class Once(SessionsCase):
    """A retry after an unknown outcome gets the first result."""

    def numbered(self, name: str, path: str, sequence: int) -> Reply:
        agent = self.network.agents[f"{name}:8500"]
        url = f"http://{name}:8500{path}".encode()
        headers = {CLIENT: [b"c"], SEQUENCE: [b"%d" % sequence]}
        replies: list[Reply] = []
        asked: Deferred[object] = agent.request(
            b"PUT", url, Headers(headers), Body(b"")
        )
        asked.addCallback(whole).addCallback(replies.append)
        for _ in range(2400):
            self.network.flush()
            if replies:
                return replies[0]
            self.cluster.advance(0.005)
        raise AssertionError("no answer")

    def test_retry_with_the_next_leader(self) -> None:
        """A check-and-set that was done says so again, though it cannot be done now."""
        first = self.numbered("a", "/v1/kv/k?cas=0", 1)
        self.cluster.wait_for_all()
        self.crash(self.cluster.leader.address)
        name = next(iter(self.cluster.nodes))

        retried = self.numbered(name, "/v1/kv/k?cas=0", 1)
        anew = self.numbered(name, "/v1/kv/k?cas=0", 2)

        bodies = [reply.body for reply in (first, retried, anew)]
        self.assertEqual(bodies, [b"true", b"true", b"false"])


class Replicas(SessionsCase):
    """State digests are equal on all replicas after any workload of every verb."""

    def test_random_workload(self) -> None:
        for seed in range(3):
            self.run_workload(Random(seed))
            self.assert_equal_states()

    def run_workload(self, random: Random) -> None:
        ids = [
            self.create("a", LockDelay="1s", TTL="10s", TTLMultiplier=1)
            for _ in range(3)
        ]
        ids.append(self.create("b", Behavior="delete", LockDelay="0s"))
        index = str(random.randrange(60))
        saved = self.reply("a", "GET", "/v1/snapshot").body
        for number in range(90):
            key, id = random.choice(["a", "a/b", "a/c", "d"]), random.choice(ids)
            operations = [
                {
                    "KV": {
                        "Verb": random.choice(VERBS),
                        "Key": key,
                        "Value": b64encode(random.randbytes(2)).decode(),
                        "Index": random.randrange(60),
                        "Session": id,
                    }
                }
                for _ in range(random.randrange(1, 3))
            ]
            method, path, body = random.choice(
                [
                    ("PUT", f"/v1/kv/{key}?flags=3", random.randbytes(3)),
                    ("PUT", f"/v1/kv/{key}?cas={index}", b""),
                    ("PUT", f"/v1/kv/{key}?acquire={id}", b"x"),
                    ("PUT", f"/v1/kv/{key}?release={id}", b"y"),
                    ("DELETE", f"/v1/kv/{key}", None),
                    ("DELETE", "/v1/kv/a?recurse", None),
                    ("DELETE", f"/v1/kv/{key}?cas={index}", None),
                    ("PUT", "/v1/txn", json.dumps(operations).encode()),
                    ("PUT", f"/v1/session/renew/{id}", b""),
                    ("PUT", f"/v1/session/destroy/{random.choice(ids)}", b""),
                    ("PUT", "/v1/session/create", b'{"LockDelay": "1s"}'),
                    ("PUT", f"{ADVERTISE}?address={key[0]}:1&url=http://u", b""),
                ]
            )
            headers = {CLIENT: [b"c"], SEQUENCE: [b"%d" % random.randrange(1, 9)]}
            once = headers if random.random() < 0.3 else {}
            reply = self.reply(random.choice("abc"), method, path, body, Headers(once))
            if reply.status == 500:  # of a session that is gone
                self.assertEqual(reply.outcome, "refused", (path, body, reply.body))
            else:
                statuses = (200, 400, 404, 409)
                self.assertIn(reply.status, statuses, (path, body, reply.body))
            if number == 60:
                restored = self.reply("c", "PUT", "/v1/snapshot", saved)
                self.assertEqual(restored.status, 200)
            if not number % 20:
                self.advance_with_network(2)  # in which lock delays end

    def test_replica_from_a_snapshot(self) -> None:
        """A node that gets a snapshot of everything is the others' equal."""
        self.run_workload(Random(7))
        leader = self.cluster.leader
        self.cluster.result(leader.raft.snapshot())
        follower = self.cluster.followers[0].address
        self.cluster.result(self.cluster.nodes[follower].raft.snapshot())

        self.serve(self.cluster.restart(follower))
        self.reply(leader.address, "PUT", "/v1/kv/last", b"")

        self.assert_equal_states()
