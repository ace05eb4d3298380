"""Blocking queries: woken by the change, ended by the clock, bounded in number."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import Any, cast
from weakref import ReferenceType, ref

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tests.http.test_api import _disconnect_clients
from tests.kv.test_state import snapshot_of
from tests.support.http_network import HTTPCase, Reply, ScriptedNode, backup_of
from txraft.http import waits
from txraft.http.inflight import HTTPCall
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import encode_put
from txraft.kv.watches import Scope, Topic


class Waits(HTTPCase):
    """`?index=`: wait until the topic has changed after that index."""

    def setUp(self) -> None:
        super().setUp()
        self.put("k", b"old")

    def put(self, key: str, value: bytes, node: ScriptedNode | None = None) -> None:
        (node or self.n1).commit(encode_put(key, value))

    def wait(self, path: str, node: ScriptedNode | None = None) -> Deferred[Reply]:
        return self.ask(node or self.n1, "GET", path)

    def test_change_wakes(self) -> None:
        for path, change in (
            ("kv/k", "k"),
            ("kv/none", "none"),
            ("kv/?recurse", "a"),
            ("kv/a/?keys", "a/b"),
        ):
            joint = "&" if "?" in path else "?"
            now = self.n1.fsm.index
            waiting = self.wait(f"/v1/{path}{joint}index={now}")
            if path != "kv/?recurse":
                self.put("other", b"%d" % now)
            self.advance(1)
            self.assertNoResult(waiting)

            self.put(change, b"new%d" % now)
            self.advance(0)

            reply = self.successResultOf(waiting)
            self.assertEqual((path, reply.status), (path, 200))
            self.assertEqual(reply.header("X-Consul-Index"), str(self.n1.fsm.index))

    def test_deletion_wakes(self) -> None:
        one = self.wait("/v1/kv/k?index=2")
        tree = self.wait("/v1/kv/?recurse&index=2")

        self.reply(self.n1, "DELETE", "/v1/kv/k")
        self.advance(0)

        for waiting in (one, tree):
            reply = self.successResultOf(waiting)
            self.assertEqual((reply.status, reply.header("X-Consul-Index")), (404, "3"))

    def test_session_wakes(self) -> None:
        waiting = self.wait("/v1/session/list?index=2")

        self.reply(self.n1, "PUT", "/v1/session/create", b"")
        self.advance(0)

        self.assertEqual(len(json.loads(self.successResultOf(waiting).body)), 1)

    def test_old_index_answers_at_once(self) -> None:
        for index in ("0", "1"):
            reply = self.reply(self.n1, "GET", f"/v1/kv/k?index={index}&wait=10s")
            self.assertEqual(reply.status, 200)

    def test_wait_ends(self) -> None:
        """With what there is, and the same index.  Source: Consul."""
        for wait, seconds in (("wait=2s", 2), ("wait=1500ms", 1.5), ("", 300)):
            waiting = self.wait(f"/v1/kv/k?index=2&{wait}".rstrip("&"))
            self.advance(seconds - 0.1)
            self.assertNoResult(waiting)
            self.advance(0.2)
            reply = self.successResultOf(waiting)
            self.assertEqual((reply.status, reply.header("X-Consul-Index")), (200, "2"))

    def test_wait_is_bounded(self) -> None:
        waiting = self.wait("/v1/kv/k?index=2&wait=24h")

        self.advance(600)

        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_malformed(self) -> None:
        for query in ("index=x", "index=-1", "index=2&wait=soon", "index=2&wait=1e9s"):
            self.assertEqual(
                self.reply(self.n1, "GET", f"/v1/kv/k?{query}").status, 400
            )

    def test_follower_serves_where_it_lands(self) -> None:
        waiting = self.wait("/v1/kv/k?index=2", self.n2)
        self.assertNoResult(waiting)

        self.put("k", b"old", self.n2)
        self.put("k", b"new", self.n2)
        self.advance(0)

        self.assertEqual(self.network.requests, [])
        shape = json.loads(self.successResultOf(waiting).body)[0]
        self.assertEqual(shape["ModifyIndex"], 3)

    def test_follower_that_lags_waits_on(self) -> None:
        """The change that the client has seen elsewhere is none that it waits for."""
        waiting = self.wait("/v1/kv/k?index=2", self.n2)

        self.put("k", b"old", self.n2)
        self.advance(0)
        self.assertNoResult(waiting)
        self.put("k", b"new", self.n2)
        self.advance(0)

        self.assertEqual(self.successResultOf(waiting).header("X-Consul-Index"), "3")

    def test_consistent_is_confirmed_after_the_wait(self) -> None:
        waiting = self.wait("/v1/kv/k?index=2&consistent")
        confirmed: Deferred[object] = Deferred()
        self.n1.script = [confirmed]

        self.put("k", b"new")
        self.advance(0)
        self.assertNoResult(waiting)
        self.put("k", b"newer")
        confirmed.callback(None)
        self.network.flush()

        self.assertEqual(self.successResultOf(waiting).header("X-Consul-Index"), "4")

    def test_index_of_a_prefix_never_goes_back(self) -> None:
        """A node that knows less exactly than the last one does not show it.

        What the client knows is true here, too, as far as this node has come.
        """
        for number in range(3):
            self.put("other", b"%d" % number)
        for known, told in ((3, "3"), (5, "5"), (9, "5")):
            waiting = self.wait(f"/v1/kv/k?keys&index={known}&wait=1s")
            self.advance(1)
            reply = self.successResultOf(waiting)
            self.assertEqual(reply.header("X-Consul-Index"), told)

    def test_restored_snapshot_wakes(self) -> None:
        self.put("k", b"new", self.n2)
        waiting = self.wait("/v1/kv/k?index=2", self.n2)
        self.put("k", b"newest")

        self.n2.fsm.restore(io.BytesIO(snapshot_of(self.n1.fsm)))
        self.advance(0)

        self.assertEqual(self.successResultOf(waiting).header("X-Consul-Index"), "3")

    def test_catalog_waits_to_the_end(self) -> None:
        """A client that watches it would otherwise ask again without a pause."""
        backup = backup_of(self.n2.fsm)
        self.work(self.ask(self.n1, "PUT", "/v1/snapshot", backup))

        index = self.reply(self.n1, "GET", "/v1/catalog/nodes").header("X-Consul-Index")
        waiting = self.wait(f"/v1/catalog/nodes?index={index}&wait=30s")
        self.advance(29)
        self.assertNoResult(waiting)
        self.advance(2)

        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_close_drops_every_wait(self) -> None:
        """An answer of failure could cost a client the lock that it watches."""
        node = self.node("n3")
        self.put("k", b"v", node)
        plain = self.wait("/v1/kv/k?index=9", node)
        consistent = self.wait("/v1/kv/k?index=9&consistent", node)

        self.network.agents["n3:8500"]._rootResource.close()
        self.network.flush()

        self.failureResultOf(plain)
        self.failureResultOf(consistent)


class Bounds(HTTPCase):
    """Those who wait hold no place of those who work, and are counted."""

    limits = HTTPLimits(max_requests_in_flight=2, max_waiting=3)

    def test_too_many(self) -> None:
        for _ in range(3):
            self.ask(self.n1, "GET", "/v1/kv/k?index=9")

        refused = self.reply(self.n1, "GET", "/v1/kv/k?index=9")
        served = self.reply(self.n1, "PUT", "/v1/kv/other", b"")

        self.assertEqual((refused.status, served.status), (503, 200))

    def test_client_that_went_away_waits_no_more(self) -> None:
        waiting = [self.ask(self.n1, "GET", "/v1/kv/k?index=9") for _ in range(3)]
        _disconnect_clients(self.network.agents["n1:8500"])
        for each in waiting:
            self.failureResultOf(each)

        self.assertEqual(self.clock.getDelayedCalls(), [])
        again = self.ask(self.n1, "GET", "/v1/kv/k?index=9&wait=1s")
        self.assertNoResult(again)


class Many(HTTPCase):
    """Waiting costs nothing but memory."""

    def test_nothing_runs_while_nothing_changes(self) -> None:
        """All timers lie in the future, and other changes wake nobody."""
        waiting = [self.ask(self.n1, "GET", f"/v1/kv/{i}?index=9") for i in range(50)]

        self.advance(200)
        for _ in range(20):
            self.n1.commit(encode_put("other", b""))

        due = [c for c in self.clock.getDelayedCalls() if c.getTime() < 300]
        self.assertEqual(due, [])
        for each in waiting:
            self.assertNoResult(each)
        self.advance(101)
        for each in waiting:
            self.assertEqual(self.successResultOf(each).status, 404)

    def test_wake_is_one_step_however_many_wait(self) -> None:
        """While commands are applied nothing is done for each of those who wait."""
        before = len(self.n1.fsm.watches)

        for _ in range(50):
            self.ask(self.n1, "GET", "/v1/kv/?keys&index=9")

        self.assertEqual(len(self.n1.fsm.watches), before + 1)

    def test_who_was_looked_at_is_let_go_of(self) -> None:
        """At once, and not with all the others: to free thousands takes long."""

        def put_in(group: waits._WaitGroup) -> ReferenceType[Any]:
            call, timer = cast(HTTPCall, object()), cast(IDelayedCall, object())
            resume = partial(int)
            wait = waits._WaitingCall(call, group.topic, 1, resume, timer)
            group.waits[call], wait.group = wait, group
            return ref(resume)

        group = waits._WaitGroup(Topic(Scope.KEY, "k"), lambda group: None)
        resumes = [put_in(group) for _ in range(3)]

        for left in ([1, 2], [2], []):
            group.take()
            there = [n for n, resume in enumerate(resumes) if resume() is not None]
            self.assertEqual(there, left)

    def test_woken_and_gone(self) -> None:
        """Whoever goes away between the change and its turn is passed over."""
        for _ in range(3):
            self.ask(self.n1, "GET", "/v1/kv/k?index=9").addErrback(lambda _: None)
        self.n1.index = 20
        self.n1.commit(encode_put("k", b"v"))

        _disconnect_clients(self.network.agents["n1:8500"])
        self.advance(0)

        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.n1.fsm.watches), 1)  # the sessions'

    def test_change_while_those_before_are_looked_at(self) -> None:
        """One that waits on, as it was not its change, is woken by the next."""
        late = self.ask(self.n1, "GET", "/v1/kv/?keys&index=21")
        self.n1.index = 20
        for _ in range(2):
            self.n1.commit(encode_put("k", b"%d" % self.n1.index))
            if self.n1.index == 21:
                self.advance(0)
                self.assertNoResult(late)
        self.advance(0)

        self.assertEqual(self.successResultOf(late).header("X-Consul-Index"), "22")

    def test_all_are_woken(self) -> None:
        """However many they are, in slices of a few at a time."""
        self.patch(waits, "RESUMED_TOGETHER", 7)
        waiting = [self.ask(self.n1, "GET", "/v1/kv/k?index=9") for _ in range(50)]
        self.n1.index = 20

        self.n1.commit(encode_put("k", b"v"))
        self.advance(0)

        for each in waiting:
            self.assertEqual(self.successResultOf(each).status, 200)
