"""The table of routes, and that each request is answered once and in time."""

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred

from tests.support.http_network import HTTPCase, ScriptedNode
from txraft.http.limits import HTTPLimits


class Routes(HTTPCase):
    """What is not served is said so in a sentence."""

    def test_unknown_path(self) -> None:
        for path in ("/", "/v1", "/v1/kv", "/v1/status", "/v1/status/leader/", "/ui/"):
            reply = self.reply(self.n1, "GET", path)
            self.assertEqual((path, reply.status), (path, 404))
            self.assertEqual(reply.body, b"There is nothing at this path.\n")
            self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")

    def test_wrong_method(self) -> None:
        for method, path, allowed in (
            ("POST", "/v1/kv/k", "GET, PUT, DELETE"),
            ("PATCH", "/v1/kv/k", "GET, PUT, DELETE"),
            ("PUT", "/v1/status/leader", "GET"),
            ("GET", "/v1/operator/raft/peer", "PUT, DELETE"),
        ):
            reply = self.reply(self.n1, method, path, b"")
            self.assertEqual((path, reply.status), (path, 405))
            self.assertEqual(reply.header("Allow"), allowed)
            self.assertIn(allowed.encode(), reply.body)

    def test_head_has_no_body(self) -> None:
        reply = self.reply(self.n1, "HEAD", "/v1/kv/k")
        self.assertEqual((reply.status, reply.body), (405, b""))


class InFlight(HTTPCase):
    """Work is bounded, and what is refused was certainly not done."""

    limits = HTTPLimits(max_requests_in_flight=2)

    def test_too_many(self) -> None:
        commits = [Deferred(), Deferred()]
        self.n1.script = list(commits)
        asked = [self.ask(self.n1, "PUT", f"/v1/kv/{i}", b"") for i in range(2)]

        refused = self.reply(self.n1, "PUT", "/v1/kv/x", b"")
        commits[0].callback(None)
        self.network.flush()
        served = self.reply(self.n1, "PUT", "/v1/kv/y", b"")

        self.assertEqual((refused.status, refused.outcome), (503, "not-applied"))
        self.assertEqual(refused.header("Retry-After"), "1")
        self.assertEqual(self.successResultOf(asked[0]).status, 200)
        self.assertEqual(served.status, 200)
        self.assertNoResult(asked[1])

    def test_answered_but_unfinished_work_counts(self) -> None:
        """A stuck node does not pile up work behind answers that were given."""
        commits = [Deferred(), Deferred()]
        self.n1.script = list(commits)
        asked = [self.ask(self.n1, "PUT", f"/v1/kv/{i}", b"") for i in range(2)]
        self.advance(10)
        self.assertEqual([self.successResultOf(a).status for a in asked], [500, 500])

        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/x?stale").status, 503)

        for commit in commits:
            commit.callback(None)
        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/x?stale").status, 404)

    def test_busy_leader_is_relayed_at_once(self) -> None:
        """A follower does not press a leader that has said it is busy."""
        self.n1.script = [Deferred(), Deferred()]
        for i in range(2):
            self.ask(self.n1, "PUT", f"/v1/kv/{i}", b"")

        reply = self.reply(self.n2, "PUT", "/v1/kv/x", b"")

        self.assertEqual((reply.status, reply.outcome), (503, "not-applied"))
        self.assertEqual(reply.header("Retry-After"), "1")


class Deadlines(HTTPCase):
    """Each request has its own deadline, although they share a timer."""

    def test_each_in_its_own_time(self) -> None:
        self.n1.script = [Deferred(), Deferred()]
        first = self.ask(self.n1, "PUT", "/v1/kv/1", b"")
        self.advance(4)
        second = self.ask(self.n1, "PUT", "/v1/kv/2", b"")

        self.advance(6)
        self.assertEqual(self.successResultOf(first).status, 500)
        self.assertNoResult(second)
        self.advance(4)
        self.assertEqual(self.successResultOf(second).status, 500)

    def test_timers_do_not_grow_with_requests(self) -> None:
        for _ in range(20):
            self.reply(self.n1, "GET", "/v1/kv/k?stale")

        self.assertLessEqual(len(self.clock.getDelayedCalls()), 2)
        self.advance(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Failures(HTTPCase):
    """A defect of ours is logged here and told to nobody."""

    def test_no_trace_reaches_the_client(self) -> None:
        self.patch(ScriptedNode, "peers", lambda _: 1 / 0)

        reply = self.reply(self.n1, "GET", "/v1/status/peers")

        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertNotIn(b"Traceback", reply.body)
        self.assertNotIn(b"ZeroDivision", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reply(self.n1, "GET", "/v1/status/leader").status, 200)

    def test_client_that_went_away(self) -> None:
        """Its write goes on, and neither success nor failure is an error here."""
        for finish in (lambda d: d.callback(None), lambda d: d.errback(OSError())):
            commit: Deferred[object] = Deferred()
            self.n1.script = [commit]
            asked = self.ask(self.n1, "PUT", "/v1/kv/k", b"v")

            _disconnect_clients(self.network.agents["n1:8500"])
            self.failureResultOf(asked)
            finish(commit)
            self.advance(20)

        self.assertEqual(len(self.n1.applied), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.reply(self.n1, "GET", "/v1/kv/k").status, 200)


def _disconnect_clients(agent: RequestTraversalAgent) -> None:
    for pump in agent._pumps:
        pump.clientIO.abortConnection()
        pump.flush()
    agent.flush()
