"""Each node tells the cluster where it serves HTTP."""

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.http_network import HTTPCase, Network, ScriptedNode
from txraft.errors import ApplicationError, EnqueueTimeout, LeadershipLost
from txraft.http.advertise import MAX_RETRY_INTERVAL, RETRY_INTERVAL, Advertiser
from txraft.http.forward import Forwarder
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import encode_advertise

COMMAND = encode_advertise("n1:8300", "http://n1:8500")


def advertiser_of(
    node: ScriptedNode, network: Network, clock: Clock, url: str, name: str = ""
) -> Advertiser:
    forwarder = Forwarder(HTTPClient(network), clock, HTTPLimits(), node.address)
    return Advertiser(node, node.fsm, forwarder, clock, node.address, url, name)


class Leading(SynchronousTestCase):
    """Once for each leadership, if the state does not hold it already."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.node = ScriptedNode("n1:8300")
        self.advertiser = advertiser_of(
            self.node, Network(), self.clock, "http://n1:8500/"
        )
        self.addCleanup(self.advertiser.stop)

    def test_on_becoming_leader(self) -> None:
        self.advertiser.start()
        self.assertEqual(self.node.applied, [])

        self.node.lead()

        self.assertEqual(self.node.applied, [COMMAND])
        self.assertEqual(self.node.fsm.http_url("n1:8300"), "http://n1:8500")

    def test_started_on_a_leader(self) -> None:
        self.node.lead()

        self.advertiser.start()

        self.assertEqual(self.node.applied, [COMMAND])

    def test_not_again_when_the_state_holds_it(self) -> None:
        self.advertiser.start()
        self.node.lead()
        self.node.follow("n2:8300")

        self.node.lead()

        self.assertEqual(self.node.applied, [COMMAND])

    def test_again_when_the_url_has_changed(self) -> None:
        self.node.commit(encode_advertise("n1:8300", "http://old:8500"))
        self.advertiser.start()

        self.node.lead()

        self.assertEqual(self.node.applied, [COMMAND])

    def test_state_is_read_after_all_that_was_committed(self) -> None:
        """What an old entry says may be replaced by one that is not applied yet."""
        self.node.commit(COMMAND)
        barrier: Deferred[object] = Deferred()
        self.node.script = [barrier]
        self.advertiser.start()
        self.node.lead()

        self.node.commit(encode_advertise("n1:8300", "http://other:8500"))
        barrier.callback(None)

        self.assertEqual(self.node.applied, [COMMAND])

    def test_retried_while_leader(self) -> None:
        self.node.script = [EnqueueTimeout(), EnqueueTimeout()]
        self.advertiser.start()
        self.node.lead()
        self.assertEqual(self.node.applied, [])

        self.clock.pump([RETRY_INTERVAL] * 2)

        self.assertEqual(self.node.applied, [COMMAND])

    def test_not_retried_without_a_leader(self) -> None:
        self.node.script = [LeadershipLost(None)]
        self.advertiser.start()
        self.node.lead()
        self.node.follow(None)

        self.clock.pump([RETRY_INTERVAL] * 3)

        self.assertEqual(self.node.applied, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leader_anew_while_it_waits_to_retry(self) -> None:
        """The pause of the last leadership serves the next: one attempt at a time."""
        self.node.script = [LeadershipLost(None)]
        self.advertiser.start()
        self.node.lead()
        self.node.follow("n2:8300")
        self.node.lead()

        self.clock.pump([RETRY_INTERVAL] * 3)

        self.assertEqual(self.node.applied, [COMMAND])

    def test_one_attempt_at_a_time(self) -> None:
        self.node.script = [Deferred(), Deferred()]
        self.advertiser.start()
        self.node.lead()

        self.node.follow("n2:8300")
        self.node.lead()

        self.assertEqual(len(self.node.script), 1)

    def test_refused_is_logged_once(self) -> None:
        """No other attempt at it would end differently."""
        self.node.script = [ApplicationError("no room")]
        self.advertiser.start()

        self.node.lead()
        self.clock.pump([RETRY_INTERVAL] * 3)

        self.assertEqual(len(self.flushLoggedErrors(ApplicationError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        self.node.script = [EnqueueTimeout()]
        self.advertiser.start()
        self.node.lead()

        self.advertiser.stop()
        self.node.lead()

        self.assertEqual(self.node.applied, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Named(SynchronousTestCase):
    """A name is told from level 1 of the state machine on."""

    def test_leader(self) -> None:
        """When the level becomes active, in a turn of its own."""
        node, clock = ScriptedNode("n1:8300"), Clock()
        advertiser = advertiser_of(node, Network(), clock, "http://n1:8500", "db1")
        self.addCleanup(advertiser.stop)
        advertiser.start()
        node.lead()
        self.assertEqual(node.applied, [COMMAND])

        node.fsm.activate(1)
        self.assertEqual(node.applied, [COMMAND])
        clock.advance(0)

        named = encode_advertise("n1:8300", "http://n1:8500", "db1")
        self.assertEqual(node.applied, [COMMAND, named])
        node.follow("n2:8300")
        node.lead()
        self.assertEqual(len(node.applied), 2)

    def test_name_that_is_the_address(self) -> None:
        """It needs not be told; one that was told before is taken back."""
        node, clock = ScriptedNode("n1:8300"), Clock()
        node.fsm.activate(1)
        node.commit(encode_advertise("n1:8300", "http://n1:8500", "db1"))
        advertiser = advertiser_of(node, Network(), clock, "http://n1:8500", "n1:8300")
        self.addCleanup(advertiser.stop)

        advertiser.start()
        node.lead()

        self.assertEqual(node.applied, [COMMAND])
        self.assertEqual(node.fsm.node_name("n1:8300"), "n1:8300")


class Following(HTTPCase):
    """A follower asks the leader, until the state holds its address."""

    def setUp(self) -> None:
        super().setUp()
        self.n1.members.add("n2:8300")
        self.advertiser = advertiser_of(
            self.n2, self.network, self.clock, "http://n2:8500"
        )
        self.addCleanup(self.advertiser.stop)

    def replicate(self) -> None:
        """Let the follower apply what the leader has."""
        for command in self.n1.applied:
            self.n2.commit(command)

    def test_asks_the_leader(self) -> None:
        self.advertiser.start()
        self.network.flush()
        self.assertEqual(self.n1.fsm.http_url("n2:8300"), "http://n2:8500")
        self.replicate()

        self.advance(RETRY_INTERVAL, MAX_RETRY_INTERVAL)

        self.assertEqual(len(self.network.requests), 1)

    def test_asks_with_its_name(self) -> None:
        """A leader that is not at level 1 yet takes the address alone."""
        self.advertiser = advertiser_of(
            self.n2, self.network, self.clock, "http://n2:8500", "db2"
        )
        self.addCleanup(self.advertiser.stop)
        self.n2.fsm.activate(1)
        self.advertiser.start()
        self.network.flush()
        self.assertEqual(self.n1.fsm.node_name("n2:8300"), "n2:8300")
        self.replicate()
        self.n1.fsm.activate(1)

        self.advance(RETRY_INTERVAL)

        self.assertEqual(self.n1.fsm.node_name("n2:8300"), "db2")
        self.assertEqual(self.n1.fsm.http_url("n2:8300"), "http://n2:8500")

    def test_not_when_the_state_holds_it(self) -> None:
        self.n2.commit(encode_advertise("n2:8300", "http://n2:8500"))

        self.advertiser.start()

        self.assertEqual(self.network.requests, [])

    def test_waits_until_the_leader_is_reached(self) -> None:
        """Ever longer, but at once when there is another leader."""
        self.network.refusing.add("n1:8500")
        self.advertiser.start()
        for _ in range(40):
            self.advance(MAX_RETRY_INTERVAL / 10)
        self.assertLess(len(self.network.requests), 15)

        self.network.refusing.clear()
        before = len(self.network.requests)
        self.n2.follow(None)
        self.n2.follow("n1:8300")
        self.network.flush()

        self.assertEqual(len(self.network.requests), before + 1)
        self.assertEqual(self.n1.fsm.http_url("n2:8300"), "http://n2:8500")

    def test_leader_that_has_not_told_its_own(self) -> None:
        """It will soon, so that is looked for."""
        self.n2.follow("n3:8300")
        self.advertiser.start()
        self.n2.commit(encode_advertise("n3:8300", "http://n1:8500"))
        self.assertEqual(self.network.requests, [])

        self.advance(RETRY_INTERVAL)

        self.assertEqual(len(self.network.requests), 1)

    def test_stop_while_it_asks(self) -> None:
        """Nothing is left behind."""
        self.patch(Network, "request", lambda *_: Deferred())
        self.advertiser.start()

        self.advertiser.stop()

        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_only_of_members(self) -> None:
        """And only what is the URL of a node."""
        path = "/v1/operator/raft/advertise"
        for query, status in (
            ("address=n2:8300&url=http://n2:8500", 200),
            ("address=n9:8300&url=http://n9:8500", 404),
            ("address=n2:8300&url=ftp://n2:8500", 400),
            ("address=n2:8300&url=http://n2:8500/path", 400),
            ("address=n2:8300&url=http://%C3%A9", 400),
            ("address=n2:8300&url=http://" + "n" * 2100, 400),
            ("address=n2:8300&url=http://n2:8500&name=a%20b", 400),
            ("address=n2:8300", 400),
            ("url=http://n2:8500", 400),
        ):
            reply = self.reply(self.n2, "PUT", f"{path}?{query}")
            self.assertEqual((query, reply.status), (query, status))
        self.assertEqual(len(self.n1.applied), 1)

    def test_known_one_is_not_committed_again(self) -> None:
        target = "/v1/operator/raft/advertise?address=n2:8300&url=http://n2:8500"
        for _ in range(2):
            self.assertEqual(self.reply(self.n1, "PUT", target).body, b"true")

        self.assertEqual(len(self.n1.applied), 1)
