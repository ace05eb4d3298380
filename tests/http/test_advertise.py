"""A leader tells the cluster where it serves HTTP."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.http.network import ScriptedNode
from txraft.errors import ApplicationError, EnqueueTimeout, LeadershipLost
from txraft.http.advertise import RETRY_INTERVAL, Advertiser
from txraft.kv.commands import encode_advertise

COMMAND = encode_advertise("n1:8300", "http://n1:8500")


class Advertising(SynchronousTestCase):
    """Once for each leadership, if the state does not hold it already."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.node = ScriptedNode("n1:8300")
        self.advertiser = Advertiser(
            self.node, self.node.fsm, self.clock, "n1:8300", "http://n1:8500"
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

    def test_not_retried_by_a_follower(self) -> None:
        self.node.script = [LeadershipLost(None)]
        self.advertiser.start()
        self.node.lead()
        self.node.follow("n2:8300")

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
