"""Requests are served here or at the leader, and refused with the truth."""

from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.util import Redirect

from tests.support.http_network import HTTPCase, Network
from txraft.errors import (
    ApplicationError,
    EnqueueTimeout,
    EntryTooLarge,
    LeadershipLost,
    NodeFailed,
    NotLeader,
    QueueFull,
    RaftShutdown,
    ShutdownWhileCommitting,
    TransferInProgress,
)
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import encode_advertise, encode_put

PUT = ("PUT", "/v1/kv/k", b"v")


class Forwarding(HTTPCase):
    """A follower passes on what only the leader can serve."""

    def test_write_on_a_follower(self) -> None:
        reply = self.reply(self.n2, "PUT", "/v1/kv/k?flags=3", b"\x00v")

        self.assertEqual((reply.status, reply.body), (200, b"true"))
        self.assertEqual(self.n1.applied, [encode_put("k", b"\x00v", 3)])
        self.assertEqual(self.n2.applied, [])

    def test_every_method(self) -> None:
        self.reply(self.n2, "PUT", "/v1/kv/k", b"v")
        read = self.reply(self.n2, "GET", "/v1/kv/k?raw&consistent")
        self.reply(self.n2, "DELETE", "/v1/kv/k")
        gone = self.reply(self.n2, "GET", "/v1/kv/k")

        self.assertEqual((read.status, read.body), (200, b"v"))
        self.assertEqual((gone.status, gone.body), (404, b""))

    def test_answer_is_relayed_with_its_headers(self) -> None:
        self.reply(self.n1, *PUT)

        here = self.reply(self.n1, "GET", "/v1/kv/k?raw")
        there = self.reply(self.n2, "GET", "/v1/kv/k?raw")

        for name in (
            "X-Consul-Index",
            "X-Consul-KnownLeader",
            "X-Consul-LastContact",
            "Content-Type",
            "Content-Security-Policy",
            "X-Content-Type-Options",
        ):
            self.assertEqual(there.header(name), here.header(name), name)

    def test_leaders_refusal_is_relayed(self) -> None:
        self.n1.script = [ApplicationError("no such verb")]

        reply = self.reply(self.n2, *PUT)

        self.assertEqual((reply.status, reply.body), (400, b"no such verb\n"))

    def test_keys_arrive_as_they_were_sent(self) -> None:
        """Nothing between two nodes may read a key differently."""
        for path, key in (
            ("a%2Fb", "a/b"),
            ("a//b/", "a//b/"),
            ("/", "/"),
            ("../x/./y/..", "../x/./y/.."),
            ("%2e%2e/x", "../x"),
            ("a+b%20c%2B", "a+b c+"),
            ("a%00%25zz%3Fq%23f", "a\x00%zz?q#f"),
            ("%C3%A9;p=1&q:@!$'()*,~", "é;p=1&q:@!$'()*,~"),
            ("%7Bx%7D%5C%5E%60|", "{x}\\^`|"),
        ):
            reply = self.reply(self.n2, "PUT", f"/v1/kv/{path}", b"v")
            self.assertEqual((path, reply.status), (path, 200))
            self.assertEqual(list(self.n1.fsm), [key])
            self.reply(self.n2, "DELETE", f"/v1/kv/{path}")
            self.assertEqual(list(self.n1.fsm), [])

    @settings(max_examples=50, deadline=None)
    @given(st.text(min_size=1, max_size=20))
    def test_any_key_arrives_as_it_was_sent(self, key: str) -> None:
        path = f"/v1/kv/{quote(key, safe='/')}"
        self.assertEqual(self.reply(self.n2, "PUT", path, b"v").status, 200)
        self.assertEqual(list(self.n1.fsm), [key])
        self.assertEqual(self.reply(self.n2, "DELETE", path).status, 200)
        self.assertEqual(list(self.n1.fsm), [])

    def test_one_hop_only(self) -> None:
        """Two followers that take each other for the leader make no circle."""
        self.n1.follow("n2:8300")
        self.n2.commit(encode_advertise("n2:8300", "http://n2:8500"))
        self.n1.commit(encode_advertise("n2:8300", "http://n2:8500"))
        self.n2.leader = "n1:8300"

        reply = self.reply(self.n2, *PUT, headers={"X-Txraft-Forwarded": "n1:8300"})

        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertEqual(self.network.requests, [])

    def test_circle_ends(self) -> None:
        """Each goes on looking until its time is up, one hop at a time."""
        self.n1.follow("n2:8300")
        for node in (self.n1, self.n2):
            node.commit(encode_advertise("n2:8300", "http://n2:8500"))

        asked = self.ask(self.n1, *PUT)
        self.advance(*[0.25] * 20)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertLessEqual(len(self.network.requests), 21)
        self.assertEqual(
            {
                h.getRawHeaders("X-Txraft-Forwarded")[0]
                for _, _, h in self.network.requests
            },
            {"n1:8300"},
        )

    def test_too_long_an_answer_is_not_relayed(self) -> None:
        n3 = self.node("n3", HTTPLimits(max_relayed_bytes=100))
        n3.follow("n1:8300")
        n3.commit(encode_advertise("n1:8300", "http://n1:8500"))
        self.reply(self.n1, "PUT", "/v1/kv/k", bytes(101))

        asked = self.ask(n3, "GET", "/v1/kv/k?raw")
        self.advance(*[0.25] * 20)

        self.assertEqual(self.successResultOf(asked).status, 500)


class Redirects(HTTPCase):
    """A leader's address is what the cluster has committed, and nothing else."""

    def test_not_followed(self) -> None:
        elsewhere = Redirect(b"http://n1:8500/v1/kv/k")
        self.network.agents["n3:8500"] = RequestTraversalAgent(elsewhere)
        elsewhere.isLeaf = True
        self.n2.follow("n3:8300")
        self.n2.commit(encode_advertise("n3:8300", "http://n3:8500"))

        reply = self.reply(self.n2, "GET", "/v1/kv/k")

        self.assertEqual(reply.status, 302)
        self.assertEqual(len(self.network.requests), 1)


class WithoutLeader(HTTPCase):
    """A cluster between two leaders: wait, for a bounded time."""

    def setUp(self) -> None:
        super().setUp()
        self.n1.follow(None)
        self.n2.follow(None)

    def test_none_in_time(self) -> None:
        for method, body in (("PUT", b"v"), ("DELETE", None), ("GET", None)):
            asked = self.ask(self.n2, method, "/v1/kv/k", body)
            self.advance(*[0.1] * 49)
            self.assertNoResult(asked)

            self.advance(0.2)

            reply = self.successResultOf(asked)
            self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
            self.assertIn(b"no leader is known", reply.body)

    def test_client_with_less_time(self) -> None:
        """It is answered before it hangs up; nobody makes a node wait for longer."""
        waits = {"500ms": 0.5, "2s": 2.0, "90s": 5.0, "soon": 5.0}
        for told, seconds in waits.items():
            asked = self.ask(self.n2, *PUT, headers={"X-Txraft-Wait": told})
            self.advance(*[0.1] * round(seconds * 10 - 2))
            self.assertNoResult(asked)

            self.advance(0.1, 0.1, 0.1)

            self.assertEqual(self.successResultOf(asked).outcome, "not-applied")

    def test_elected_here_meanwhile(self) -> None:
        """The news ends the wait, not the next attempt."""
        asked = self.ask(self.n2, *PUT)
        self.assertNoResult(asked)

        self.n2.lead()
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 200)
        self.assertEqual(self.n2.applied, [encode_put("k", b"v")])

    def test_elected_elsewhere_meanwhile(self) -> None:
        asked = self.ask(self.n2, *PUT)

        self.n1.lead()
        self.n2.follow("n1:8300")
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 200)
        self.assertEqual(len(self.n1.applied), 1)

    def test_leader_tells_its_address_meanwhile(self) -> None:
        self.n2.follow("n3:8300")
        n3 = self.node("n3")
        n3.lead()
        asked = self.ask(self.n2, *PUT)
        self.assertNoResult(asked)

        self.n2.commit(encode_advertise("n3:8300", "http://n3:8500"))
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 200)
        self.assertEqual(len(n3.applied), 1)

    def test_leader_never_tells_its_address(self) -> None:
        self.n2.follow("n3:8300")

        asked = self.ask(self.n2, *PUT)
        self.advance(*[0.25] * 20)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertIn(b"n3:8300 has not told its HTTP address", reply.body)

    def test_shutdown_ends_the_wait(self) -> None:
        n3 = self.node("n3")
        asked = self.ask(n3, *PUT)

        self.network.agents["n3:8500"]._rootResource.close()
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 500)
        self.assertEqual(n3.observers, [])


class LongDecisions(HTTPCase):
    """A leader that takes its time to refuse, so that the deadline comes first."""

    def setUp(self) -> None:
        super().setUp()
        self.decision: Deferred[object] = Deferred()
        self.n1.script = [self.decision]
        self.asked = self.ask(self.n1, *PUT)
        self.advance(6)
        self.n1.follow(None)
        self.decision.errback(NotLeader(None))
        self.assertNoResult(self.asked)

    def test_refused_in_the_end_is_not_applied(self) -> None:
        self.advance(4)

        reply = self.successResultOf(self.asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

    def test_refused_also_by_the_next_is_not_applied(self) -> None:
        self.n1.commit(encode_advertise("n2:8300", "http://n2:8500"))
        self.network.refusing = {"n2:8500"}
        self.n1.follow("n2:8300")
        self.assertEqual(len(self.network.requests), 1)

        self.advance(4)

        reply = self.successResultOf(self.asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

    def test_not_applied_is_a_promise(self) -> None:
        """A leader that comes after the answer does not get the write any more."""
        self.advance(4)
        self.assertEqual(self.successResultOf(self.asked).outcome, "not-applied")

        self.n1.lead()
        self.advance(1)

        self.assertEqual(self.n1.applied, [])


class LostConnections(HTTPCase):
    """The connection to the leader fails: was the request sent or not?"""

    def test_refused_is_not_applied(self) -> None:
        self.network.refusing = {"n1:8500"}

        asked = self.ask(self.n2, *PUT)
        self.advance(*[0.25] * 20)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

    def test_refused_then_another_leads(self) -> None:
        """A leader that was killed costs its clients an election, not an error."""
        self.network.refusing = {"n1:8500"}
        asked = self.ask(self.n2, *PUT)

        self.n2.lead()
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 200)

    def test_answer_lost_is_unknown(self) -> None:
        """The write was applied, although nobody said so: no second attempt."""
        self.network.losing_answers = {"n1:8500"}

        reply = self.reply(self.n2, *PUT)

        self.assertEqual((reply.status, reply.outcome), (500, "unknown"))
        self.assertEqual(len(self.n1.applied), 1)

    def test_answer_to_a_read_lost_is_asked_again(self) -> None:
        self.reply(self.n1, *PUT)
        self.network.losing_answers = {"n1:8500"}
        asked = self.ask(self.n2, "GET", "/v1/kv/k?raw")
        self.assertNoResult(asked)

        self.network.losing_answers = set()
        self.advance(0.25)

        self.assertEqual(self.successResultOf(asked).body, b"v")

    def fail_with(self, error: Exception) -> None:
        def request(*_: object) -> Deferred[object]:
            failed: Deferred[object] = Deferred()
            failed.errback(Failure(error))
            return failed

        self.patch(Network, "request", request)

    def test_certain_failures(self) -> None:
        """No byte left this node."""
        for error in (
            ConnectError(),
            ConnectTimeout(),
            DNSLookupError(),
            RequestNotSent(),
        ):
            self.fail_with(error)
            asked = self.ask(self.n2, *PUT)
            self.advance(*[0.25] * 20)
            reply = self.successResultOf(asked)
            self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

    def test_uncertain_failures(self) -> None:
        """Some bytes may have arrived, and that is enough."""
        reasons = [Failure(ConnectionLost())]
        for error in (
            RequestTransmissionFailed(reasons),
            RequestGenerationFailed(reasons),
            ResponseFailed(reasons),
            ConnectionLost(),
        ):
            self.fail_with(error)
            reply = self.reply(self.n2, *PUT)
            self.assertEqual((reply.status, reply.outcome), (500, "unknown"))

    def test_unforeseen_failure_is_unknown(self) -> None:
        self.fail_with(ZeroDivisionError("secret"))

        reply = self.reply(self.n2, *PUT)

        self.assertEqual((reply.status, reply.outcome), (500, "unknown"))
        self.assertNotIn(b"secret", reply.body)

    def test_silent_leader_is_unknown_at_the_deadline(self) -> None:
        """A leader that was stopped has the request and says nothing."""
        self.patch(Network, "request", lambda *_: Deferred())

        asked = self.ask(self.n2, *PUT)
        self.advance(9.9)
        self.assertNoResult(asked)
        self.advance(0.2)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "unknown"))


class Outcomes(HTTPCase):
    """What the leader's own errors mean to a client."""

    def test_certainly_not_applied(self) -> None:
        for error in (
            EnqueueTimeout(),
            QueueFull("full"),
            RaftShutdown(),
            NodeFailed("the disk failed"),
        ):
            self.n1.script = [error]
            reply = self.reply(self.n1, *PUT)
            self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
            self.assertIn(str(error).encode(), reply.body)
        self.assertEqual(self.n1.applied, [])

    def test_unknown(self) -> None:
        for error in (LeadershipLost("n2:8300"), ShutdownWhileCommitting()):
            self.n1.script = [error]
            reply = self.reply(self.n1, *PUT)
            self.assertEqual((reply.status, reply.outcome), (500, "unknown"))

    def test_unknown_through_a_follower(self) -> None:
        """The hop changes nothing, and nobody tries a second time."""
        self.n1.script = [LeadershipLost(None)]

        reply = self.reply(self.n2, *PUT)

        self.assertEqual((reply.status, reply.outcome), (500, "unknown"))
        self.assertEqual(len(self.network.requests), 1)

    def test_known_and_refused(self) -> None:
        self.n1.script = [EntryTooLarge("2 bytes; at most 1 may be")]
        self.assertEqual(self.reply(self.n1, *PUT).status, 413)
        self.n1.script = [ApplicationError("refused")]
        self.assertEqual(self.reply(self.n1, *PUT).status, 400)

    def test_not_accepted_is_tried_again(self) -> None:
        """While leadership is handed over nothing is appended: wait for the heir."""
        self.n1.script = [TransferInProgress(), TransferInProgress()]
        asked = self.ask(self.n1, *PUT)
        self.assertNoResult(asked)

        self.n1.follow("n2:8300")
        self.n2.lead()
        self.n1.commit(encode_advertise("n2:8300", "http://n2:8500"))
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 200)
        self.assertEqual(len(self.n2.applied), 1)

    def test_read_survives_lost_leadership(self) -> None:
        """A read can be asked again, whatever happened to the first attempt."""
        self.n1.script = [LeadershipLost(None)]

        reply = self.reply(self.n1, "GET", "/v1/kv/k")

        self.assertEqual(reply.status, 404)

    def test_deadline_while_committing_is_unknown(self) -> None:
        committing: Deferred[object] = Deferred()
        self.n1.script = [committing]
        asked = self.ask(self.n1, *PUT)

        self.advance(9.9)
        self.assertNoResult(asked)
        self.advance(0.2)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "unknown"))
        committing.callback(None)
        self.assertEqual(len(self.n1.applied), 1)

    def test_deadline_of_a_read(self) -> None:
        self.n1.script = [Deferred()]
        asked = self.ask(self.n1, "GET", "/v1/kv/k")

        self.advance(10)

        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

    def test_late_failure_after_the_deadline_is_silent(self) -> None:
        committing: Deferred[object] = Deferred()
        self.n1.script = [committing]
        asked = self.ask(self.n1, *PUT)
        self.advance(10)
        self.successResultOf(asked)

        committing.errback(LeadershipLost(None))

        self.assertEqual(self.flushLoggedErrors(), [])
