"""Quotas on keys, bytes and sessions: refusals, and commands never refused."""

import json

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from tests.support.http_network import HTTPCase, Reply, backup_of
from tests.support.kv_commands import Machine, session
from txraft.errors import LeadershipLost
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import Operation, encode_put, encode_transact
from txraft.kv.state import KEY_BYTES
from txraft.kv.verbs import OperationKind

QUOTA = 3 * KEY_BYTES + 100


class Quotas(HTTPCase):
    """The leader counts what there is and what is under way."""

    limits = HTTPLimits(max_state_keys=3, max_state_bytes=QUOTA, max_sessions=2)

    def put(self, path: str, body: bytes = b"", node: object = None) -> Reply:
        return self.reply(node or self.n1, "PUT", path, body)

    def test_keys(self) -> None:
        for key in "abc":
            self.assertEqual(self.put(f"/v1/kv/{key}").status, 200)

        refused = self.put("/v1/kv/d")

        self.assertEqual((refused.status, refused.outcome), (507, "not-applied"))
        for word in (b"max_state_keys is 3", b"delete keys", b"never refused"):
            self.assertIn(word, refused.body)
        self.assertNotIn("d", self.n1.fsm)

    def test_bytes(self) -> None:
        self.put("/v1/kv/a", b"x" * 90)

        self.assertEqual(self.put("/v1/kv/b", b"x" * 400).status, 507)
        self.assertEqual(self.put("/v1/kv/a", b"x" * 900).status, 507)
        self.assertEqual(self.put("/v1/kv/b", b"x" * 200).status, 200)

    def test_sessions(self) -> None:
        self.n1.commit(session("s1"))
        self.n1.commit(session("s2"))
        limits = HTTPLimits(max_sessions=2)
        n3 = self.node("n3", limits)
        n3.lead()
        for id in ("s1", "s2"):
            n3.commit(session(id))

        refused = self.put("/v1/session/create", b"", n3)

        self.assertEqual(refused.status, 507)
        self.assertIn(b"destroy sessions", refused.body)
        self.assertEqual(self.put("/v1/session/destroy/s1", b"", n3).status, 200)
        self.assertEqual(self.put("/v1/session/create", b"", n3).status, 200)

    def test_transactions(self) -> None:
        """All that it writes counts together, and nothing that it deletes."""
        operations = [{"KV": {"Verb": "set", "Key": f"k{i}"}} for i in range(4)]
        gone = [{"KV": {"Verb": "delete-tree", "Key": ""}}]

        for body, status in (
            (operations, 507),
            (operations[:3], 200),
            ([*gone, *operations[:3]], 200),
            ([operations[3]], 507),
            (gone, 200),
            ([operations[3]], 200),
        ):
            reply = self.put("/v1/txn", json.dumps(body).encode())
            self.assertEqual((body, reply.status), (body, status))

    def test_what_shrinks_the_state_always_passes(self) -> None:
        """Even far above a quota: it was another leader's that let it grow so far."""
        self.n1.commit(session("s1"))
        lock = [Operation(OperationKind.LOCK, "a", b"x" * 500, session="s1")]
        self.n1.commit(encode_transact(lock))
        for key in "bcdefg":
            self.n1.commit(encode_put(key, b"x" * 200))

        for method, path, body in (
            ("PUT", "/v1/kv/a?release=s1", b"x" * 500),
            ("PUT", "/v1/kv/b", b"y" * 200),
            ("PUT", "/v1/kv/b?cas=0", b"y"),
            ("DELETE", "/v1/kv/b", None),
            ("DELETE", "/v1/kv/c?cas=1", None),
            ("DELETE", "/v1/kv/d?recurse", None),
            ("PUT", "/v1/session/destroy/s1", b""),
        ):
            reply = self.reply(self.n1, method, path, body)
            self.assertEqual((path, reply.status), (path, 200))

    def test_what_is_under_way_counts(self) -> None:
        """Or a burst would be let in whole, as nothing of it is applied yet."""
        slow: list[Deferred[object]] = [Deferred() for _ in range(3)]
        self.n1.script += slow
        asked = [self.ask(self.n1, "PUT", f"/v1/kv/{i}", b"") for i in range(3)]

        refused = self.put("/v1/kv/3")

        self.assertEqual(refused.status, 507)
        self.assertIn(b"3 under way", refused.body)
        for each in slow:
            each.callback(None)
        self.network.flush()
        for each in asked:
            self.assertEqual(self.successResultOf(each).status, 200)
        self.put("/v1/kv/3")
        self.reply(self.n1, "DELETE", "/v1/kv/0")
        self.assertEqual(self.put("/v1/kv/3").status, 200)

    def test_what_failed_is_not_under_way_any_more(self) -> None:
        for _ in range(9):
            self.n1.script.append(LeadershipLost())
            self.assertEqual(self.put("/v1/kv/a").status, 500)

        self.assertEqual(self.put("/v1/kv/a").status, 200)

    def test_follower_passes_the_refusal_on(self) -> None:
        """And it does not ask again until its patience ends: it is an answer."""
        for key in "abc":
            self.put(f"/v1/kv/{key}")

        refused = self.put("/v1/kv/d", b"", self.n2)

        self.assertEqual((refused.status, refused.outcome), (507, "not-applied"))
        self.assertEqual(len(self.network.requests), 1)

    def test_repetition_gets_its_answer(self) -> None:
        """What was done is told, however full the store is by now."""
        headers = {"X-Txraft-Client": "c", "X-Txraft-Sequence": "1"}
        self.reply(self.n1, "PUT", "/v1/kv/a", b"", headers)
        self.reply(self.n1, "DELETE", "/v1/kv/a")
        for key in "bcd":
            self.put(f"/v1/kv/{key}")

        again = self.reply(self.n1, "PUT", "/v1/kv/a", b"", headers)

        self.assertEqual((again.status, again.body), (200, b"true"))
        self.assertNotIn("a", self.n1.fsm)

    def test_committed_entries_are_applied_whatever_the_quota(self) -> None:
        """A replica that refused them would differ from its peers."""
        for key in "abcdef":
            self.n1.commit(encode_put(key, b"x" * 500))

        self.assertEqual(len(self.n1.fsm), 6)

    def test_backup(self) -> None:
        whole = Machine(*(encode_put(key, b"") for key in "abcd"))

        refused = self.work(
            self.ask(self.n1, "PUT", "/v1/snapshot", backup_of(whole.fsm))
        )

        self.assertEqual(refused.status, 507)
        self.assertEqual(list(self.n1.fsm), [])

    def test_backup_of_a_level_that_is_not_active(self) -> None:
        """Members of older releases would stop at it."""
        whole = Machine(encode_put("a", b""))
        whole.fsm.activate(1)
        body = backup_of(whole.fsm)

        refused = self.work(self.ask(self.n1, "PUT", "/v1/snapshot", body))
        self.n1.fsm.activate(1)
        done = self.work(self.ask(self.n1, "PUT", "/v1/snapshot", body))

        self.assertEqual((refused.status, done.status), (409, 200))
        self.assertIn(b"upgrade all nodes first", refused.body)

    def test_warning(self) -> None:
        """One at four fifths, and another only after there was room in between."""
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        n3 = self.node("n3", HTTPLimits(max_state_keys=10))
        n3.lead()

        def warnings() -> int:
            return sum(event.get("limit") == "max_state_keys" for event in events)

        counts = []
        for number in range(9):
            self.put(f"/v1/kv/{number}", b"", n3)
            counts.append(warnings())
        self.assertEqual(counts, [0] * 7 + [1, 1])
        self.reply(n3, "DELETE", "/v1/kv/?recurse")
        for number in range(9):
            self.put(f"/v1/kv/{number}", b"", n3)
        self.assertEqual(warnings(), 2)

    def test_metrics(self) -> None:
        for key in "abc":
            self.put(f"/v1/kv/{key}")

        told = self.reply(self.n1, "GET", "/v1/agent/metrics?format=prometheus").body

        for line in (
            b"kv_keys 3.0",
            b"kv_keys_max 3.0",
            b"kv_state_bytes %d.0" % self.n1.fsm.state_bytes,
            b"kv_state_bytes_max %d.0" % QUOTA,
            b"kv_sessions_max 2.0",
            b"kv_quota_warning 1.0",
        ):
            self.assertIn(line, told.splitlines())
