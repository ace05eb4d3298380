"""Status and membership over HTTP."""

from twisted.internet.defer import Deferred

from tests.support.http_network import HTTPCase
from txraft.errors import ConfigurationRefused, LeadershipLost, NotAdmitted
from txraft.node.admission import Admission

PEER = "/v1/operator/raft/peer"


class Status(HTTPCase):
    """`/v1/status/...`: what the node at hand knows, without asking anybody."""

    def test_leader(self) -> None:
        for node in (self.n1, self.n2):
            reply = self.reply(node, "GET", "/v1/status/leader")
            self.assertEqual((reply.status, reply.body), (200, b'"n1:8300"'))
            self.assertEqual(reply.header("Content-Type"), "application/json")

    def test_leader_unknown(self) -> None:
        self.n2.follow(None)
        self.assertEqual(self.reply(self.n2, "GET", "/v1/status/leader").body, b'""')

    def test_peers(self) -> None:
        self.n1.members = {"b:1", "a:1"}
        reply = self.reply(self.n1, "GET", "/v1/status/peers")
        self.assertEqual((reply.status, reply.body), (200, b'["a:1","b:1"]'))


class Membership(HTTPCase):
    """`/v1/operator/raft/peer`."""

    def test_add_and_remove(self) -> None:
        added = self.reply(self.n1, "PUT", f"{PEER}?address=10.0.0.4:8300")
        self.assertEqual((added.status, added.body), (200, b"true"))
        self.assertIn("10.0.0.4:8300", self.n1.members)

        removed = self.reply(self.n1, "DELETE", f"{PEER}?address=10.0.0.4:8300")

        self.assertEqual((removed.status, removed.body), (200, b"true"))
        self.assertEqual(self.n1.members, {"n1:8300"})

    def test_add_one_that_is_not_to_be_a_member(self) -> None:
        """The reason is told, and how to add it all the same."""
        self.n1.script = [NotAdmitted("nobody answers at n9:8300")]

        refused = self.reply(self.n1, "PUT", f"{PEER}?address=n9:8300")
        forced = self.reply(self.n1, "PUT", f"{PEER}?address=n9:8300&force")

        self.assertEqual(refused.status, 409)
        self.assertEqual(
            refused.body,
            b"nobody answers at n9:8300. With ?force it is added all the same.\n",
        )
        self.assertEqual((forced.status, forced.body), (200, b"true"))
        self.assertIn("n9:8300", self.n1.members)

    def test_add_waits_until_it_has_caught_up(self) -> None:
        """For a while; then it tells how far it is."""
        self.n1.admissions = [Admission(False, 900), Admission(False, 9)]
        self.n1.admissions.append(Admission(True))
        soon = self.ask(self.n1, "PUT", f"{PEER}?address=n3:8300")
        self.advance(0.1, 0.1)
        self.assertEqual(self.successResultOf(soon).body, b"true")

        self.n1.admissions = [Admission(False, 900)] * 100
        late = self.ask(self.n1, "PUT", f"{PEER}?address=n4:8300")
        self.advance(*[0.1] * 21)

        answer = self.successResultOf(late)
        self.assertEqual(answer.status, 202)
        self.assertEqual(answer.body, b'{"Voter":false,"Behind":900}')

    def test_on_a_follower(self) -> None:
        reply = self.reply(self.n2, "PUT", f"{PEER}?address=[::1]:8300")

        self.assertEqual(reply.status, 200)
        self.assertEqual(self.n1.members, {"n1:8300", "[::1]:8300"})

    def test_add_known_is_true(self) -> None:
        """Whoever got no answer the first time can just ask again."""
        reply = self.reply(self.n1, "PUT", f"{PEER}?address=n1:8300")
        self.assertEqual((reply.status, reply.body), (200, b"true"))

    def test_remove_unknown_is_not_found(self) -> None:
        for node in (self.n1, self.n2):
            reply = self.reply(node, "DELETE", f"{PEER}?address=n9:8300")
            self.assertEqual(reply.status, 404)
            self.assertIn(b"n9:8300", reply.body)

    def test_refused_change(self) -> None:
        self.n1.script = [ConfigurationRefused("another change is in flight")]

        reply = self.reply(self.n1, "PUT", f"{PEER}?address=n3:8300")

        self.assertEqual(reply.status, 409)
        self.assertEqual(reply.body, b"another change is in flight\n")

    def test_outcomes(self) -> None:
        for method in ("PUT", "DELETE"):
            self.n1.script = [LeadershipLost(None), Deferred()]

            lost = self.reply(self.n1, method, f"{PEER}?address=n3:8300")
            pending = self.ask(self.n1, method, f"{PEER}?address=n3:8300")
            self.advance(10)
            late = self.successResultOf(pending)

            self.assertEqual((lost.status, lost.outcome), (500, "unknown"))
            self.assertEqual((late.status, late.outcome), (500, "unknown"))
            self.n1.members.add("n3:8300")

    def test_address_is_checked(self) -> None:
        for address in (
            "",
            "n3",
            "n3:",
            ":8300",
            "n3:0",
            "n3:65536",
            "n3:-1",
            "n3:83x",
            "::1:8300",
            "n3%20x:8300",
            "n3%0A:8300",
            "a/b:8300",
            "n" * 600 + ":8300",
        ):
            reply = self.reply(self.n1, "PUT", f"{PEER}?address={address}")
            self.assertEqual((address, reply.status), (address, 400))
        self.assertEqual(self.reply(self.n1, "PUT", PEER).status, 400)
        self.assertEqual(self.n1.members, {"n1:8300"})
